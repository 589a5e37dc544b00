import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { ringCommand } from "../../ring/command.ts";
import { RING_NAMES } from "../rings.ts";
import type { ReadyFile } from "../ready-file.ts";
import { CHECKOUT } from "../up-options.ts";
import { runCommand } from "./run-command.ts";
import { freePortOffset, freePorts } from "./installation.ts";

const STORAGE_NODES = ["s1", "s2", "s3"] as const;
const ROLES: Readonly<Record<string, string>> = {
  s1: "storage-node",
  s2: "storage-node",
  s3: "storage-node",
  door: "proxy",
  keystone: "identity",
};
const NODES = Object.keys(ROLES);

const folder = mkdtempSync(join(tmpdir(), "ringstead-cluster-"));
const running = new Map<string, ChildProcess>();
const dataOf = (node: string): string => join(folder, node);
const readyOf = (node: string): ReadyFile =>
  JSON.parse(readFileSync(join(dataOf(node), "ready.json"), "utf8")) as ReadyFile;

const serveArguments = (node: string, ...options: string[]): string[] => [
  "serve",
  ROLES[node]!,
  "--node",
  node,
  "--config",
  join(folder, "cluster.toml"),
  "--data",
  dataOf(node),
  ...options,
];

/** Runs `ringstead serve` for a node and waits until it is ready. */
const serve = async (node: string): Promise<void> => {
  const words = serveArguments(node, "--key-file", join(folder, "cluster.key"));
  const child = spawn(join(CHECKOUT, "scripts/ringstead"), words, { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  running.set(node, child);
  await expect
    .poll(() => (child.exitCode === null ? existsSync(join(dataOf(node), "ready.json")) : `${node} ended: ${said}`), {
      timeout: 60_000,
    })
    .toBe(true);
};

const makeRings = async (): Promise<void> => {
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
};

const login = async (): Promise<{ url: string; token: string }> => {
  const { swiftAuthV1 } = readyOf("door");
  const { password } = readyOf("keystone").admin;
  const response = await fetch(swiftAuthV1.url, { headers: { "x-auth-user": "admin:admin", "x-auth-key": password } });
  expect(response.status).toBe(200);
  return { url: response.headers.get("x-storage-url")!, token: response.headers.get("x-auth-token")! };
};

let session = { url: "", token: "" };
const request = async (method: string, path: string, body?: Buffer): Promise<{ status: number; bytes: Buffer }> => {
  const response = await fetch(`${session.url}${path}`, {
    method,
    headers: { "x-auth-token": session.token },
    ...(body === undefined ? {} : { body: new Uint8Array(body) }),
  });
  return { status: response.status, bytes: Buffer.from(await response.arrayBuffer()) };
};

beforeAll(async () => {
  const offset = await freePortOffset();
  const ports = await freePorts(2 * NODES.length);
  const tables = NODES.map((node, index) =>
    [
      `[node.${node}]`,
      'address = "127.0.0.1"',
      // Identity listens one port above its rpc_port: two free ports in a row are not promised, so it is the one below a free one.
      `rpc_port = ${node === "keystone" ? ports[index]! - 1 : ports[index]}`,
      `metrics_bind = "127.0.0.1:${ports[NODES.length + index]}"`,
      "devices = 1",
    ].join("\n"),
  );
  writeFileSync(
    join(folder, "cluster.toml"),
    `port_offset = ${offset}\npartition_power = 6\nidentity_node = "keystone"\n${tables.join("\n")}\n`,
  );
  writeFileSync(join(folder, "cluster.key"), `${randomBytes(32).toString("hex")}\n`, { mode: 0o600 });
});

afterAll(async () => {
  for (const child of running.values()) child.kill("SIGTERM");
  for (const node of NODES) await runCommand(join(CHECKOUT, "scripts/ringstead"), ["down", "--data", dataOf(node)]);
  rmSync(folder, { recursive: true, force: true });
});

it("a node of several is refused without the cluster key, without rings, and under a name that cluster.toml lacks", async () => {
  const ringstead = (words: string[]) => runCommand(join(CHECKOUT, "scripts/ringstead"), words);
  const keyless = await ringstead(serveArguments("s1"));
  expect(keyless.code).toBe(1);
  expect(keyless.lastLine).toContain("node s1 is one of several and has no cluster key: give --key-file F");
  const ringless = await ringstead(serveArguments("s1", "--key-file", join(folder, "cluster.key")));
  expect(ringless.code).toBe(1);
  expect(ringless.lastLine).toContain("an installation of several nodes has the same rings on each");
  const foreign = await ringstead([
    "serve",
    "proxy",
    "--node",
    "s9",
    "--config",
    join(folder, "cluster.toml"),
    "--data",
    dataOf("s9"),
  ]);
  expect(foreign.code).toBe(2);
  expect(foreign.lastLine).toContain("has no table [node.s9]: its nodes are s1, s2, s3, door, keystone");
});

it("storage nodes, a proxy and an identity of their own make one object store", async () => {
  await makeRings();
  await Promise.all(NODES.map(serve));
  expect(readyOf("s1").endpoints).toEqual({});
  expect(Object.keys(readyOf("door").endpoints)).toEqual(["object"]);
  expect(readyOf("door").unavailable.find(({ service }) => service === "identity")).toMatchObject({
    reason: "node door has the roles proxy",
    remedy: "ask a node with the role identity",
  });
  // The proxy learns the keys of the identity process within a second of both being there.
  session = await login();
  await expect.poll(async () => (await request("PUT", "/kept")).status, { timeout: 20_000 }).toBeLessThan(300);
  for (let index = 0; index < 20; index++)
    expect((await request("PUT", `/kept/${index}`, Buffer.from(`object ${index}`))).status).toBe(201);
  const large = randomBytes(3_000_000);
  expect((await request("PUT", "/kept/large", large)).status).toBe(201);
  expect((await request("GET", "/kept/large")).bytes.equals(large)).toBe(true);
});

it("one storage node is killed, and reads and writes go on", async () => {
  for (const { pid } of readyOf("s2").processes) process.kill(pid, "SIGKILL");
  for (let index = 0; index < 20; index++) {
    const read = await request("GET", `/kept/${index}`);
    expect([read.status, read.bytes.toString()]).toEqual([200, `object ${index}`]);
    expect((await request("PUT", `/kept/${index}`, Buffer.from(`changed ${index}`))).status).toBe(201);
  }
  const names = (await request("GET", "/kept")).bytes.toString();
  expect(names.trimEnd().split("\n")).toHaveLength(21);
});

it("identity is killed too, and requests with a valid token go on, in a new proxy as well", async () => {
  for (const { pid } of readyOf("keystone").processes) process.kill(pid, "SIGKILL");
  expect((await request("GET", "/kept/3")).bytes.toString()).toBe("changed 3");
  expect((await runCommand(join(CHECKOUT, "scripts/ringstead"), ["down", "--data", dataOf("door")])).code).toBe(0);
  await serve("door");
  expect((await request("GET", "/kept/3")).bytes.toString()).toBe("changed 3");
});

it("the killed node comes back, and then another may go", async () => {
  await serve("s2");
  expect((await request("PUT", "/kept/after", Buffer.from("after"))).status).toBe(201);
  for (const { pid } of readyOf("s3").processes) process.kill(pid, "SIGKILL");
  // A proxy probes a suspect a few times a second.
  const soon = { timeout: 20_000 };
  await expect.poll(async () => (await request("GET", "/kept/after")).bytes.toString(), soon).toBe("after");
  await expect.poll(async () => (await request("PUT", "/kept/later", Buffer.from("later"))).status, soon).toBe(201);
  expect((await request("GET", "/kept/later")).bytes.toString()).toBe("later");
  // Written while s2 was down, so that s1 alone has it among the two that are left.
  expect((await request("GET", "/kept/7")).bytes.toString()).toBe("changed 7");
});
