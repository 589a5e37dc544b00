import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Ready, TestInstallation } from "./installation.ts";
import { KeepAliveClients } from "./keep-alive-clients.ts";
import { ObjectClient } from "./object-client.ts";

let installation: TestInstallation;
let ready: Ready;
let client: ObjectClient;

const BODY = randomBytes(4096);
const LARGE = randomBytes(2 * 1024 * 1024);

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const pidOf = (role: string): number => {
  const found = installation.ready().processes.find((one) => one.role === role);
  if (found === undefined) throw new Error(`no process has the role ${role}`);
  return found.pid;
};

/** 32 clients of objects, of which some pause between requests; with `control`, six more of identity. */
const load = (isWithIdentity: boolean): KeepAliveClients => {
  const clients = new KeepAliveClients();
  const headers = { "x-auth-token": client.token };
  const object = (name: string): string => `${client.url}/kept/${name}`;
  for (let index = 0; index < 12; index++) clients.add(() => ({ method: "GET", url: object("read"), headers }));
  for (let index = 0; index < 2; index++) clients.add(() => ({ method: "GET", url: object("large"), headers }));
  for (let index = 0; index < 10; index++)
    clients.add((turn) => ({ method: "PUT", url: object(`${index}-${turn % 5}`), headers, body: BODY }));
  for (let index = 0; index < 2; index++)
    clients.add(() => ({ method: "PUT", url: object(`large-${index}`), headers, body: LARGE }));
  for (const pauseMs of [100, 300, 700, 1500, 2500, 4000])
    clients.add(() => ({ method: "GET", url: object("read"), headers }), pauseMs);
  if (!isWithIdentity) return clients;
  const tokenHeaders = { ...headers, "x-subject-token": client.token };
  const identity = `${installation.ready().endpoints["identity"]}/auth/tokens`;
  for (const pauseMs of [0, 0, 200])
    clients.add(() => ({ method: "GET", url: identity, headers: tokenHeaders }), pauseMs);
  const { url, user, key } = ready.swiftAuthV1;
  const login = { "x-auth-user": user, "x-auth-key": key };
  for (const pauseMs of [300, 500, 900]) clients.add(() => ({ method: "GET", url, headers: login }), pauseMs);
  return clients;
};

/** What broke when its proxy was killed was under way, once for each client; nobody who came later was refused or got an error. */
const expectOnlyCutRequests = ({ failures }: KeepAliveClients): void => {
  expect(failures.filter(({ why }) => !/ECONNRESET|socket hang up|aborted|EPIPE/.test(why))).toEqual([]);
  const clients = failures.map(({ client: number }) => number);
  expect(new Set(clients).size).toBe(clients.length);
};

/** Also those that retire, which ready.json does not name. */
const childrenOfSupervisor = (): number[] => {
  const supervisor = String(pidOf("supervisor"));
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const [, parent] = readFileSync(`/proc/${name}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
      return parent === supervisor ? [Number(name)] : [];
    } catch {
      // It ended meanwhile.
      return [];
    }
  });
};

/** Begins a restart, and gives the pid of the new process as soon as it is there. */
const beginRestart = async (): Promise<{
  readonly next: number;
  readonly done: Promise<{ readonly code: number }>;
}> => {
  const known = new Set(childrenOfSupervisor());
  const done = installation.command("restart", "--role", "proxy");
  for (let attempt = 0; attempt < 2000; attempt++) {
    const next = childrenOfSupervisor().find((pid) => !known.has(pid));
    if (next !== undefined) return { next, done };
    await pause(5);
  }
  throw new Error("no process came");
};

beforeAll(async () => {
  installation = new TestInstallation(["--only", "object"]);
  ready = await installation.up();
  client = await ObjectClient.login(ready.swiftAuthV1);
  expect((await client.request("PUT", "/kept")).status).toBe(201);
  expect((await client.request("PUT", "/kept/read", { body: BODY })).status).toBe(201);
  expect((await client.request("PUT", "/kept/large", { body: LARGE })).status).toBe(201);
});

afterAll(async () => {
  await installation[Symbol.asyncDispose]();
});

it("proxy and control are restarted under 32 clients of objects and six of identity, and not one request fails", async () => {
  const before = { proxy: pidOf("proxy"), identity: pidOf("identity"), node: pidOf("storage-node") };
  const clients = load(true);
  await pause(1000);
  const first = await installation.command("restart", "--role", "proxy,identity");
  expect(first.output).toMatch(
    /^identity is new .*\nproxy is new .*pid \d+ still serves its connections\nrestarted\n$/s,
  );
  expect(first.code).toBe(0);
  await pause(1500);
  expect((await installation.command("restart", "--role", "proxy")).code).toBe(0);
  // Longer than every idle client waits.
  await pause(4500);
  await clients[Symbol.asyncDispose]();
  expect(clients.failures).toEqual([]);
  expect(clients.answered).toBeGreaterThan(1000);
  // Each went over to the new processes.
  expect(clients.connections).toBeGreaterThanOrEqual(2 * 32 + 3);
  expect(pidOf("proxy")).not.toBe(before.proxy);
  expect(pidOf("identity")).not.toBe(before.identity);
  expect(pidOf("storage-node")).toBe(before.node);
  const { processes, state } = JSON.parse((await installation.command("status", "--json")).output);
  expect(state).toBe("ok");
  expect(processes.find(({ role }: { role: string }) => role === "proxy")).toMatchObject({
    pid: pidOf("proxy"),
    state: "ready",
    restarts: 0,
  });
});

it("an upload that is under way when the proxy is restarted comes to its end", async () => {
  const slow = new ReadableStream({
    async start(controller) {
      for (let index = 0; index < 40; index++) {
        controller.enqueue(BODY);
        await pause(100);
      }
      controller.close();
    },
  });
  const upload = fetch(`${client.url}/kept/slow`, {
    method: "PUT",
    headers: { "x-auth-token": client.token },
    body: slow,
    duplex: "half",
  });
  await pause(500);
  expect((await installation.command("restart", "--role", "proxy")).code).toBe(0);
  expect((await upload).status).toBe(201);
  expect((await client.request("GET", "/kept/slow")).bytes).toHaveLength(40 * BODY.length);
});

it("when the new proxy is killed before it serves, the old one serves on and the command says so", async () => {
  const before = pidOf("proxy");
  const clients = load(false);
  await pause(300);
  const { next, done } = await beginRestart();
  process.kill(next, "SIGKILL");
  expect((await done).code).toBe(1);
  await clients[Symbol.asyncDispose]();
  expect(clients.failures).toEqual([]);
  expect(pidOf("proxy")).toBe(before);
  expect((await installation.command("status")).code).toBe(0);
});

it("when the old proxy is killed before the new one serves, only what was under way fails", async () => {
  const before = pidOf("proxy");
  const clients = load(false);
  await pause(500);
  const { next, done } = await beginRestart();
  process.kill(before, "SIGKILL");
  expect((await done).code).toBe(0);
  await clients[Symbol.asyncDispose]();
  expect(pidOf("proxy")).toBe(next);
  expectOnlyCutRequests(clients);
});

it("a proxy is killed, and only what was under way fails: who comes meanwhile waits for the next one", async () => {
  const before = pidOf("proxy");
  const clients = load(false);
  await pause(500);
  const underWay = clients.underWay;
  process.kill(before, "SIGKILL");
  await expect.poll(() => pidOf("proxy"), { timeout: 20_000 }).not.toBe(before);
  await pause(1500);
  await clients[Symbol.asyncDispose]();
  expect(underWay).toBeGreaterThan(20);
  expectOnlyCutRequests(clients);
});

it("the one storage node is restarted, and not one request fails: uploads that it has begun come to their end, all others wait", async () => {
  const before = pidOf("storage-node");
  const clients = load(false);
  await pause(1000);
  expect((await installation.command("restart", "--role", "storage-node")).code).toBe(0);
  expect(pidOf("storage-node")).not.toBe(before);
  await pause(1500);
  await clients[Symbol.asyncDispose]();
  expect(clients.failures).toEqual([]);
  expect(clients.answered).toBeGreaterThan(300);
});

it("the one storage node is killed, and only writes that it was taking in may fail: all others wait for the next one", async () => {
  const before = pidOf("storage-node");
  const clients = load(false);
  await pause(1000);
  process.kill(before, "SIGKILL");
  await expect.poll(() => pidOf("storage-node"), { timeout: 20_000 }).not.toBe(before);
  const { answered } = clients;
  await expect.poll(() => clients.answered, { timeout: 20_000 }).toBeGreaterThan(answered + 300);
  await clients[Symbol.asyncDispose]();
  // Whether those took effect nobody can tell any more, and 503 says no more than that.
  expect(clients.failures.filter(({ what, why }) => !what.startsWith("PUT ") || why !== "answered 503")).toEqual([]);
  const failed = clients.failures.map(({ client: number }) => number);
  expect(new Set(failed).size).toBe(failed.length);
});

it("a role that nobody has is refused with words, and so is a restart of what does not run", async () => {
  expect((await installation.command("restart", "--role", "proxies")).code).toBe(1);
  const absent = new TestInstallation();
  expect((await absent.command("restart")).code).toBe(1);
});

it("down also ends a process that retires and still has a connection of a client", async () => {
  const retired = pidOf("proxy");
  // The client keeps this connection, and sends nothing more on it.
  expect((await client.request("GET", "/kept/read")).status).toBe(200);
  expect((await installation.command("restart", "--role", "proxy")).code).toBe(0);
  const isThere = (): boolean => {
    try {
      process.kill(retired, 0);
      return true;
    } catch {
      return false;
    }
  };
  await pause(1000);
  expect(isThere()).toBe(true);
  expect((await installation.command("status")).output).toContain(`pid ${retired} before it still ends`);
  expect((await installation.command("down")).code).toBe(0);
  expect(isThere()).toBe(false);
});
