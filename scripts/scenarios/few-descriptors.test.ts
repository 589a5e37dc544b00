import { randomBytes } from "node:crypto";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TestInstallation } from "./installation.ts";
import { ObjectClient } from "./object-client.ts";

const LARGE = randomBytes(3_000_000);
/** More than are left to the process. */
const STRANGERS = 60;
const SOON = { timeout: 20_000 };

const installation = new TestInstallation(["--only", "object"]);
let client: ObjectClient;
const held: Socket[] = [];

beforeAll(async () => {
  client = await ObjectClient.login((await installation.up()).swiftAuthV1);
  expect((await client.request("PUT", "/kept")).status).toBe(201);
  expect((await client.request("PUT", "/kept/large", { body: LARGE })).status).toBe(201);
});

afterAll(async () => {
  for (const socket of held) socket.destroy();
  await installation[Symbol.asyncDispose]();
});

const pidOf = (role: string): number => installation.ready().processes.find((one) => one.role === role)!.pid;

/**
 * A process gets so many more, or where it is less than none has to close some before it gets one. The soft limit alone: the hard one stays as
 * it was. Gives what takes the limit away again.
 */
const leaveDescriptors = (role: string, left: number): (() => void) => {
  const pid = pidOf(role);
  const open = readdirSync(`/proc/${pid}/fd`).length;
  const before = readFileSync(`/proc/${pid}/limits`, "utf8").match(/^Max open files\s+(\d+)/m)?.[1] ?? "";
  const set = (limit: string): void => void execFileSync("prlimit", [`--pid=${pid}`, `--nofile=${limit}:`]);
  set(String(open + left));
  return () => set(before);
};

const logOf = (role: string): string => readFileSync(join(installation.folder, "logs", `${role}.log`), "utf8");

const expectTold = async (role: string): Promise<void> => {
  await expect
    .poll(() => logOf(role), SOON)
    .toMatch(/"few descriptors are left: .*"remedy":"raise the limit of open files/);
};

const expectAllKept = async (names: readonly string[]): Promise<void> => {
  expect((await client.request("GET", "/kept/large")).bytes.equals(LARGE)).toBe(true);
  for (const name of names) expect((await client.request("GET", `/kept/${name}`)).text).toBe(name);
  const listed = await client.request("GET", "/kept?prefix=of-");
  expect(listed.text.split("\n").filter(Boolean)).toEqual(
    expect.arrayContaining(names.filter((name) => name.startsWith("of-"))),
  );
};

test("a proxy without descriptors closes who comes, goes on with who is there, says why, and takes all again", async () => {
  const names: string[] = [];
  const { port, hostname } = new URL(client.url);
  const giveBack = leaveDescriptors("proxy", 8);
  try {
    for (let index = 0; index < STRANGERS; index++) {
      const socket = connect(Number(port), hostname);
      socket.on("error", () => {});
      held.push(socket);
    }
    await expectTold("proxy");
    // The connection that the client kept is served.
    for (let index = 0; index < 20; index++) {
      const name = `of-proxy-${index}`;
      const status = await client.request("PUT", `/kept/${name}`, { body: name }).then(
        (answer) => answer.status,
        () => undefined,
      );
      if (status === 201) names.push(name);
      else expect([undefined, 503]).toContain(status);
    }
  } finally {
    for (const socket of held.splice(0)) socket.destroy();
    giveBack();
  }
  await expect
    .poll(() => client.request("PUT", "/kept/after", { body: "after" }).then(({ status }) => status), SOON)
    .toBe(201);
  await expect.poll(() => logOf("proxy"), SOON).toContain("there are enough descriptors again");
  await expectAllKept([...names, "after"]);
});

test("a storage node without descriptors refuses what needs a file, serves the rest, says why, and takes all again", async () => {
  const names: string[] = [];
  const giveBack = leaveDescriptors("storage-node", -20);
  try {
    await expectTold("storage-node");
    for (let index = 0; index < 10; index++) {
      const name = `of-node-${index}`;
      expect((await client.request("PUT", `/kept/${name}`, { body: name })).status).toBe(201);
      names.push(name);
      const refused = await client.request("PUT", "/kept/refused", { body: LARGE });
      expect([refused.status, refused.text]).toEqual([503, expect.stringContaining("too few replicas take the body")]);
    }
    expect((await client.request("GET", "/kept/refused")).status).toBe(404);
  } finally {
    giveBack();
  }
  const large = (): Promise<number> =>
    client.request("PUT", "/kept/large", { body: LARGE }).then(({ status }) => status);
  await expect.poll(large, SOON).toBe(201);
  await expectAllKept(names);
  expect((await installation.command("status")).code).toBe(0);
});
