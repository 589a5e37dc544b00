import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { ringCommand } from "../../ring/command.ts";
import type { ReadyFile } from "../ready-file.ts";
import { RING_NAMES } from "../rings.ts";
import { CHECKOUT } from "../up-options.ts";
import { freePortOffset, freePorts, TestInstallation } from "./installation.ts";
import { runCommand } from "./run-command.ts";

const STORAGE_NODES = ["s1", "s2", "s3"] as const;
const NODES = [...STORAGE_NODES, "door"] as const;
/** A request that took longer was held up by the outage; nothing here takes half as long otherwise. */
const SLOW_MS = 1000;

const folder = mkdtempSync(join(tmpdir(), "ringstead-outage-"));
const running = new Map<string, ChildProcess>();
const stopped = new Set<number>();
const dataOf = (node: string): string => join(folder, node);
const readyOf = (node: string): ReadyFile =>
  JSON.parse(readFileSync(join(dataOf(node), "ready.json"), "utf8")) as ReadyFile;

const serve = async (node: string): Promise<void> => {
  rmSync(join(dataOf(node), "ready.json"), { force: true });
  const roles = node === "door" ? "proxy,identity" : "storage-node";
  const files = ["--config", join(folder, "cluster.toml"), "--key-file", join(folder, "cluster.key")];
  const words = ["serve", roles, "--node", node, "--data", dataOf(node), ...files];
  const child = spawn(join(CHECKOUT, "scripts/ringstead"), words, { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  running.set(node, child);
  const state = (): boolean | string =>
    child.exitCode === null ? existsSync(join(dataOf(node), "ready.json")) : `${node} ended: ${said}`;
  await expect.poll(state, { timeout: 60_000 }).toBe(true);
};

/** A signal to all processes of a node, its supervisor first, so that nothing is started again. */
const signal = (node: string, name: "SIGSTOP" | "SIGCONT" | "SIGKILL"): void => {
  const { processes } = readyOf(node);
  for (const { pid } of processes.toSorted(
    (a, b) => Number(b.role === "supervisor") - Number(a.role === "supervisor"),
  )) {
    process.kill(pid, name);
    if (name === "SIGSTOP") stopped.add(pid);
    else stopped.delete(pid);
  }
};

type Session = { readonly url: string; readonly token: string };
type Answer = { readonly status: number; readonly bytes: Buffer; readonly ms: number };

const login = async (url: string, key: string): Promise<Session> => {
  const response = await fetch(url, { headers: { "x-auth-user": "admin:admin", "x-auth-key": key } });
  expect(response.status).toBe(200);
  return { url: response.headers.get("x-storage-url")!, token: response.headers.get("x-auth-token")! };
};

const requestIn = async (session: Session, method: string, path: string, body?: Buffer): Promise<Answer> => {
  const startMs = performance.now();
  const response = await fetch(`${session.url}${path}`, {
    method,
    headers: { "x-auth-token": session.token },
    ...(body === undefined ? {} : { body: new Uint8Array(body) }),
  });
  const bytes = Buffer.from(await response.arrayBuffer());
  return { status: response.status, bytes, ms: performance.now() - startMs };
};

let session: Session = { url: "", token: "" };
const request = (method: string, path: string, body?: Buffer): Promise<Answer> =>
  requestIn(session, method, path, body);

const LARGE = randomBytes(3_000_000);
/** Objects of one round: each is put, read, looked at, listed and deleted. */
const ROUND = 25;

/** One of every operation, many times over and checked; gives how many requests were slow. */
const work = async (prefix: string): Promise<number> => {
  let slow = 0;
  const ask = async (wanted: number, method: string, path: string, body?: Buffer): Promise<Answer> => {
    const answer = await request(method, path, body);
    expect([method, path, answer.status, answer.status >= 400 ? answer.bytes.toString() : ""]).toEqual([
      method,
      path,
      wanted,
      "",
    ]);
    if (answer.ms > SLOW_MS) slow += 1;
    return answer;
  };
  for (let index = 0; index < ROUND; index++) {
    const path = `/kept/${prefix}-${index}`;
    const body = index % 8 === 7 ? LARGE : Buffer.from(`${prefix} ${index}`);
    await ask(201, "PUT", path, body);
    expect((await ask(200, "GET", path)).bytes.equals(body)).toBe(true);
    await ask(200, "HEAD", path);
    await ask(202, "POST", path);
    const listed = await ask(200, "GET", `/kept?prefix=${prefix}-`);
    expect(listed.bytes.toString()).toBe(`${prefix}-${index}\n`);
    await ask(204, "DELETE", path);
  }
  return slow;
};

/** How long until `attempt` succeeds. */
const untilItWorks = async (attempt: () => Promise<boolean>): Promise<number> => {
  const startMs = performance.now();
  await expect.poll(attempt, { timeout: 30_000, interval: 50 }).toBe(true);
  return performance.now() - startMs;
};

beforeAll(async () => {
  const offset = await freePortOffset();
  const ports = await freePorts(2 * NODES.length);
  const tables = NODES.map((node, index) =>
    [
      `[node.${node}]`,
      'address = "127.0.0.1"',
      `rpc_port = ${node === "door" ? ports[index]! - 1 : ports[index]}`,
      `metrics_bind = "127.0.0.1:${ports[NODES.length + index]}"`,
      "devices = 1",
    ].join("\n"),
  );
  const head = `port_offset = ${offset}\npartition_power = 6\nidentity_node = "door"\n`;
  writeFileSync(join(folder, "cluster.toml"), `${head}${tables.join("\n")}\n`);
  writeFileSync(join(folder, "cluster.key"), `${randomBytes(32).toString("hex")}\n`, { mode: 0o600 });
  const quiet = { out: () => {}, error: (text: string) => expect.fail(text) };
  const ring = async (...words: string[]): Promise<void> => expect(await ringCommand(words, quiet)).toBe(0);
  for (const name of RING_NAMES) {
    const builder = join(folder, `${name}.builder`);
    await ring("create", builder, "--partition-power", "6", "--replicas", "3", "--hash-seed", "5eed");
    for (const node of STORAGE_NODES) await ring("add", builder, "--node", node, "--device", "d1", "--weight", "100");
    await ring("rebalance", builder);
    for (const node of NODES) {
      mkdirSync(join(dataOf(node), "rings"), { recursive: true });
      copyFileSync(join(folder, `${name}.ring`), join(dataOf(node), "rings", `${name}.ring`));
    }
  }
});

afterAll(async () => {
  for (const pid of stopped) process.kill(pid, "SIGCONT");
  for (const child of running.values()) child.kill("SIGTERM");
  for (const node of NODES) await runCommand(join(CHECKOUT, "scripts/ringstead"), ["down", "--data", dataOf(node)]);
  rmSync(folder, { recursive: true, force: true });
});

it("with a storage node stopped every operation goes on, and it costs a handful of requests a wait, not each of them", async () => {
  await Promise.all(NODES.map(serve));
  const { swiftAuthV1, admin } = readyOf("door");
  session = await login(swiftAuthV1.url, admin.password);
  await untilItWorks(async () => (await request("PUT", "/kept")).status < 300);
  expect(await work("before")).toBe(0);
  signal("s1", "SIGSTOP");
  expect(await work("stopped")).toBeLessThanOrEqual(5);
  // Long after the first time-out nobody pays for it again.
  await new Promise((resolve) => setTimeout(resolve, 6000));
  expect(await work("still-stopped")).toBeLessThanOrEqual(1);
});

it("requests that were under way when the node stopped end well too", async () => {
  signal("s1", "SIGCONT");
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const bodies = Array.from({ length: 8 }, (_, index) => ({
    path: `/kept/under-way-${index}`,
    body: randomBytes(8_000_000),
  }));
  const puts = bodies.map(({ path, body }) => request("PUT", path, body));
  await new Promise((resolve) => setTimeout(resolve, 50));
  signal("s2", "SIGSTOP");
  expect((await Promise.all(puts)).map(({ status }) => status)).toEqual(bodies.map(() => 201));
  for (const { path, body } of bodies) expect((await request("GET", path)).bytes.equals(body)).toBe(true);
});

it("a node that goes on after a stop is needed and used within seconds, when another one goes", async () => {
  signal("s2", "SIGCONT");
  await untilItWorks(async () => (await request("PUT", "/kept/again", Buffer.from("again"))).status === 201);
  await work("all-back");
  signal("s3", "SIGKILL");
  await untilItWorks(async () => (await request("PUT", "/kept/later", Buffer.from("later"))).status === 201);
  expect(await work("killed")).toBeLessThanOrEqual(1);
});

it("the killed node serves again within seconds of its return, also as one of the two that a quorum needs", async () => {
  await serve("s3");
  signal("s1", "SIGKILL");
  const waited = await untilItWorks(async () => {
    const put = await request("PUT", "/kept/returned", Buffer.from("returned"));
    expect([201, 503]).toContain(put.status);
    const large = await request("PUT", "/kept/large-returned", LARGE);
    expect([201, 503]).toContain(large.status);
    return put.status === 201 && large.status === 201;
  });
  expect(waited).toBeLessThan(5000);
  expect((await request("GET", "/kept/large-returned")).bytes.equals(LARGE)).toBe(true);
  expect(await work("returned")).toBeLessThanOrEqual(1);
});

it("the only storage node of one machine restarts, and requests succeed again within seconds and are never answered 500", async () => {
  await using installation = new TestInstallation(["--only", "object"]);
  const { swiftAuthV1, processes } = await installation.up();
  const own = await login(swiftAuthV1.url, swiftAuthV1.key);
  expect((await requestIn(own, "PUT", "/kept")).status).toBe(201);
  expect((await requestIn(own, "PUT", "/kept/large", LARGE)).status).toBe(201);
  const seen = new Set<number>();
  let isOver = false;
  const clients = ["small", "large", "read", "list"].map(async (kind) => {
    while (!isOver) {
      const answer =
        kind === "read"
          ? await requestIn(own, "GET", "/kept/large").catch(() => undefined)
          : kind === "list"
            ? await requestIn(own, "GET", "/kept")
            : await requestIn(own, "PUT", `/kept/${kind}`, kind === "large" ? LARGE : Buffer.from("small"));
      if (answer !== undefined) seen.add(answer.status);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  process.kill(processes.find(({ role }) => role === "storage-node")!.pid, "SIGKILL");
  await new Promise((resolve) => setTimeout(resolve, 500));
  const waited = await untilItWorks(async () => {
    const answers = await Promise.all([
      requestIn(own, "PUT", "/kept/after", Buffer.from("after")),
      requestIn(own, "PUT", "/kept/after-large", LARGE),
      requestIn(own, "GET", "/kept"),
    ]);
    for (const { status } of answers) seen.add(status);
    return answers.every(({ status }) => status === 200 || status === 201);
  });
  isOver = true;
  await Promise.all(clients);
  expect(waited).toBeLessThan(10_000);
  expect([...seen].filter((status) => status !== 200 && status !== 201 && status !== 503)).toEqual([]);
  expect((await requestIn(own, "GET", "/kept/large")).bytes.equals(LARGE)).toBe(true);
});
