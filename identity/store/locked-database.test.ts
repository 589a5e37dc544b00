import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { startTestAdministrator, type TestAdministrator } from "../test-administrator.ts";
import { at } from "../test-client.ts";
import { identityPaths } from "./paths.ts";

/** Nobody waits for more than a turn of the process: a machine that is busy takes its time. */
const AT_ONCE_MS = 1_000;

let service: TestAdministrator;
let holder: ChildProcess | undefined;

beforeAll(async () => {
  service = await startTestAdministrator();
});
afterAll(() => service[Symbol.asyncDispose]());
afterEach(() => release());

/** Another process takes a lock and keeps it. */
const hold = async (statements: string): Promise<void> => {
  const { database } = identityPaths(service.installation.paths.identityDir);
  const program = `
    const { DatabaseSync } = require("node:sqlite");
    const database = new DatabaseSync(${JSON.stringify(database)}, { timeout: 10_000 });
    database.exec(${JSON.stringify(statements)});
    process.stdout.write("held");
    setInterval(() => {}, 1_000);`;
  holder = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "inherit"] });
  await once(holder.stdout!, "data");
};

const release = async (): Promise<void> => {
  if (holder === undefined) return;
  const ended = once(holder, "exit");
  holder.kill("SIGKILL");
  holder = undefined;
  await ended;
};

const timed = async (method: string, path: string, body?: unknown) => {
  const startedMs = performance.now();
  const answer = await service.asAdmin(method, path, body);
  return { answer, status: answer.status, tookMs: performance.now() - startedMs };
};
const addRegion = (id: string) => timed("POST", "/regions", { region: { id } });

test("while another process holds the lock for writing, reads are answered at once and writes when it is free", async () => {
  await hold("BEGIN IMMEDIATE");
  const writes = ["w1", "w2", "w3"].map(addRegion);
  for (let round = 0; round < 5; round += 1) {
    const { status, tookMs } = await timed("GET", "/users");
    expect([status, tookMs < AT_ONCE_MS]).toEqual([200, true]);
  }
  await release();
  expect((await Promise.all(writes)).map(({ status }) => status)).toEqual([201, 201, 201]);
});

test("writes that wait too long for another process are answered with 503, all together, and are not done later", async () => {
  await hold("BEGIN IMMEDIATE");
  const writes = await Promise.all(["x1", "x2", "x3"].map(addRegion));
  for (const { answer, status, tookMs } of writes) {
    expect([status, at(answer, "error.title")]).toEqual([503, "Service Unavailable"]);
    expect(tookMs).toBeLessThan(8_000);
  }
  // Who comes while nothing has changed need not wait as long again.
  expect(await addRegion("x4")).toMatchObject({ status: 503 });
  await release();
  for (const id of ["x1", "x2", "x3", "x4"]) expect((await service.asAdmin("GET", `/regions/${id}`)).status).toBe(404);
  expect((await addRegion("x5")).status).toBe(201);
});
