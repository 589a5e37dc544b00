import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { request as httpRequest } from "node:http";
import { createServer } from "node:net";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { isRunning, type ProcessIdentity, waitUntilEnded } from "../../common/process-identity.ts";
import type { ReadyFile } from "../ready-file.ts";
import { METRICS_PORT, PUBLIC_PORTS } from "../../common/config.ts";
import { CHECKOUT } from "../up-options.ts";
import { freePortOffset } from "../../common/free-ports.ts";
import type { CommandRun } from "./run-command.ts";

const offset = await freePortOffset();
const folder = mkdtempSync(join(tmpdir(), "ringstead-start-"));
const data = join(folder, "data");

const run = (script: "start" | "ringstead", ...args: string[]): CommandRun => {
  const result = spawnSync(join(CHECKOUT, "scripts", script), args, { encoding: "utf8" });
  const output = `${result.stdout}${result.stderr}`;
  return { code: result.status, output, lastLine: output.trimEnd().split("\n").at(-1) ?? "" };
};

const start = (...options: string[]): CommandRun => run("start", "--data", data, "--detach", ...options);
const ringstead = (command: string, ...options: string[]): CommandRun =>
  run("ringstead", command, "--data", data, ...options);
const ready = (): ReadyFile => JSON.parse(readFileSync(join(data, "ready.json"), "utf8")) as ReadyFile;
const isRightNow = (one: ProcessIdentity): boolean => isRunning({ pid: one.pid, startTime: one.startTime });

const waitFor = async (what: string, condition: () => boolean, limitMs = 20_000): Promise<void> => {
  const deadline = Date.now() + limitMs;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`${what} did not happen within ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};

/** Where QEMU's storage daemon is not installed there are no volumes, and all the rest. */
const HAS_VOLUMES = existsSync("/usr/bin/qemu-storage-daemon");

/** Connections that a killed proxy left in the pool are not what is tested. */
const CLOSE = { connection: "close" };

const session = async (): Promise<{ url: string; token: string }> => {
  const { swiftAuthV1 } = ready();
  const response = await fetch(swiftAuthV1.url, {
    headers: { "x-auth-user": swiftAuthV1.user, "x-auth-key": swiftAuthV1.key, ...CLOSE },
  });
  return { url: response.headers.get("x-storage-url") ?? "", token: response.headers.get("x-auth-token") ?? "" };
};

const request = async (method: string, path: string, body?: string): Promise<{ status: number; text: string }> => {
  const { url, token } = await session();
  const response = await fetch(`${url}${path}`, {
    method,
    headers: { "x-auth-token": token, ...CLOSE },
    ...(body === undefined ? {} : { body }),
  });
  return { status: response.status, text: await response.text() };
};

afterAll(() => {
  ringstead("down");
  rmSync(folder, { recursive: true, force: true });
});

it("starts, says all in ready.json, and files with the password are private", async () => {
  expect(start("--port-offset", String(offset))).toMatchObject({ code: 0 });
  const file = ready();
  expect(file.endpoints).toEqual({
    identity: `http://127.0.0.1:${PUBLIC_PORTS.identity + offset}/v3`,
    object: `http://127.0.0.1:${PUBLIC_PORTS.object + offset}/v1`,
    ...(HAS_VOLUMES ? { block: `http://127.0.0.1:${PUBLIC_PORTS.block + offset}/v3` } : {}),
  });
  const control = HAS_VOLUMES ? ["identity,block-api", "block-host"] : ["identity"];
  expect(file.processes.map(({ role }) => role)).toEqual(["supervisor", ...control, "storage-node", "proxy"]);
  expect(file.processes.every(isRightNow)).toBe(true);
  expect(file.unavailable.map(({ service }) => service)).toEqual([
    "image",
    ...(HAS_VOLUMES ? [] : ["block"]),
    "compute",
    "network",
    "s3",
  ]);
  for (const name of ["ready.json", "openrc", "clouds.yaml", "cluster.key", "identity/admin-password"]) {
    expect(statSync(join(data, name)).mode & 0o777, name).toBe(0o600);
  }
  expect((await request("PUT", "/kept")).status).toBe(201);
  expect((await request("PUT", "/kept/name", "first bytes")).status).toBe(201);
});

it("a second start on the same folder is refused with exit code 3 and the pid", () => {
  const second = start();
  expect(second.code).toBe(3);
  expect(second.lastLine).toBe(`Ringstead already runs on ${data} with pid ${ready().pid}`);
});

it("status is 0, and warns that replicas share one disk", () => {
  const status = ringstead("status", "--json");
  expect(status.code).toBe(0);
  const found = JSON.parse(status.output) as { state: string; devices: { state: string }[]; warnings: string[] };
  expect(found.state).toBe("ok");
  expect(found.devices.map(({ state }) => state)).toEqual(["served", "served", "served", "served"]);
  expect(found.warnings.join()).toContain("replicas share one disk");
});

it.each(["identity", "storage-node", "proxy"])(
  "a killed %s is restarted, and ready.json names its new pid",
  async (role) => {
    const before = ready().processes.find((one) => one.role.split(",").includes(role))!;
    process.kill(before.pid, "SIGKILL");
    await waitFor("the restart", () => {
      const now = ready().processes.find((one) => one.role.split(",").includes(role));
      return now !== undefined && now.pid !== before.pid && ringstead("status").code === 0;
    });
    // The proxy comes back to a storage node that was away within some seconds.
    const read = expect.poll(() => request("GET", "/kept/name"), { timeout: 15_000 });
    await read.toEqual({ status: 200, text: "first bytes" });
    expect(ringstead("status").output).toMatch(new RegExp(`process +${role} .*restarts 1, last killed by SIGKILL`));
  },
);

it("one page has the metrics of every process", async () => {
  const page = await (await fetch(`http://127.0.0.1:${METRICS_PORT + offset}/metrics`)).text();
  for (const role of ["supervisor", "control", "storage-node", "proxy"]) expect(page).toContain(`role="${role}"`);
});

it("a backup is taken while running", () => {
  expect(ringstead("backup", join(folder, "backup"))).toMatchObject({ code: 0 });
  expect(ringstead("backup", join(folder, "backup"))).toMatchObject({
    code: 1,
    lastLine: expect.stringContaining("is not empty"),
  });
});

it("SIGKILL of everything loses nothing, and two more devices are added on the way", async () => {
  const { processes } = ready();
  for (const { pid } of processes) process.kill(pid, "SIGKILL");
  await waitUntilEnded(processes, 5_000);
  expect(ringstead("status").code).toBe(2);
  const again = start("--devices", "6");
  expect(again.output).toContain("2 devices were added to the rings.");
  expect(again.code).toBe(0);
  expect(await request("GET", "/kept/name")).toEqual({ status: 200, text: "first bytes" });
});

it("children of a killed supervisor end by themselves, and the next start does not wait for the operator", async () => {
  const { processes } = ready();
  process.kill(processes[0]!.pid, "SIGKILL");
  expect(start()).toMatchObject({ code: 0 });
  expect(processes.some(isRightNow)).toBe(false);
  expect((await request("GET", "/kept/name")).text).toBe("first bytes");
});

it("down stops every process, removes ready.json, and is content when nothing runs", () => {
  const { processes } = ready();
  expect(ringstead("down")).toMatchObject({ code: 0, lastLine: `Ringstead on ${data} is stopped.` });
  expect(processes.some(isRightNow)).toBe(false);
  expect(existsSync(join(data, "ready.json"))).toBe(false);
  expect(ringstead("down")).toMatchObject({ code: 0, lastLine: `Nothing was running on ${data}.` });
});

it.each([
  [["--devices", "5"], 1, "has 6 devices, 5 are asked for"],
  [["--replicas", "2"], 1, "keeps 3 replicas, 2 are asked for"],
  [
    [
      "--device",
      "/etc/hostname",
      "--device",
      "/tmp",
      "--device",
      "/var",
      "--device",
      "/usr",
      "--device",
      "/",
      "--device",
      "/srv",
    ],
    1,
    "/etc/hostname is not a folder",
  ],
  [["--nonsense"], 2, "Unknown option '--nonsense'"],
  [["--tls-cert", "/c.pem"], 2, "tls_cert and tls_key belong together"],
])("refuses %j and changes nothing", (options, code, words) => {
  const before = readFileSync(join(data, "cluster.toml"), "utf8");
  const refused = start(...options);
  expect(refused.code).toBe(code);
  expect(refused.lastLine).toContain(words);
  expect(readFileSync(join(data, "cluster.toml"), "utf8")).toBe(before);
});

it("a port in use is named, and so is what would help", async () => {
  const port = PUBLIC_PORTS.object + offset;
  const server = createServer().listen(port, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const refused = start();
  server.close();
  expect(refused.code).toBe(1);
  expect(refused.lastLine).toBe(
    `port ${port} (object) on 127.0.0.1 is in use by another program: stop it, or choose others with --port-offset N`,
  );
});

it("a folder of a newer version, an altered ring and an unknown key are refused in words", () => {
  const altered: readonly (readonly [file: string, contents: string | Buffer, words: string])[] = [
    ["layout-version", "2\n", "written by a newer version of Ringstead"],
    ["rings/object-0.ring", readFileSync(join(data, "rings/object-0.ring")).subarray(0, 500), "--rewrite"],
    ["cluster.toml", "port_ofset = 5\n", "unknown key port_ofset"],
  ];
  for (const [name, contents, words] of altered) {
    const path = join(data, name);
    const before = readFileSync(path);
    writeFileSync(path, contents);
    const refused = start();
    writeFileSync(path, before);
    expect(refused.code, name).not.toBe(0);
    expect(refused.lastLine, name).toContain(words);
  }
});

it("a backup restores control database, rings and keys", async () => {
  const password = readFileSync(join(data, "identity/admin-password"), "utf8");
  rmSync(join(data, "identity"), { recursive: true });
  rmSync(join(data, "cluster.key"));
  expect(ringstead("restore", join(folder, "backup"))).toMatchObject({ code: 0 });
  expect(readFileSync(join(data, "identity/admin-password"), "utf8")).toBe(password);
});

/** `./scripts/start` in a terminal, once it says that Ctrl-C stops it. */
const inFront = async (...options: string[]): Promise<{ front: ChildProcess; ended: Promise<number | null> }> => {
  const front = spawn(join(CHECKOUT, "scripts/start"), ["--data", data, ...options], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  front.stdout.on("data", (chunk: Buffer) => {
    output += chunk.toString();
  });
  const ended = new Promise<number | null>((resolve) => front.once("exit", resolve));
  await waitFor("the start", () => output.includes("Ctrl-C stops it."));
  return { front, ended };
};

it("in front, Ctrl-C stops everything and the exit code is 0", async () => {
  const { front, ended } = await inFront("--only", "identity");
  const { processes, endpoints, unavailable } = ready();
  expect(Object.keys(endpoints)).toEqual(["identity"]);
  expect(unavailable.find(({ service }) => service === "object")?.remedy).toBe(
    "./scripts/start --only identity,object",
  );
  front.kill("SIGINT");
  expect(await ended).toBe(0);
  expect(processes.some(isRightNow)).toBe(false);
});

it("Ctrl-C waits for an upload under way, a second one does not, and what was acknowledged is there", async () => {
  const { front, ended } = await inFront();
  const { processes } = ready();
  expect((await request("PUT", "/kept/before", "acknowledged")).status).toBe(201);
  const { url, token } = await session();
  const upload = httpRequest(`${url}/kept/never`, {
    method: "PUT",
    headers: { "x-auth-token": token, "content-length": 1000 },
  });
  const cut = new Promise<unknown>((resolve) => upload.once("error", resolve).once("response", resolve));
  upload.write("the rest does not come");
  await new Promise((resolve) => setTimeout(resolve, 500));
  front.kill("SIGINT");
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  expect(front.exitCode).toBeNull();
  front.kill("SIGINT");
  expect(await ended).toBe(0);
  expect(await cut).toBeInstanceOf(Error);
  expect(processes.some(isRightNow)).toBe(false);
  expect(start()).toMatchObject({ code: 0 });
  expect((await request("GET", "/kept/before")).text).toBe("acknowledged");
  expect((await request("GET", "/kept/never")).status).toBe(404);
});
