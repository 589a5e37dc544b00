import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { silentLog } from "../log.ts";
import { RpcClient } from "./client.ts";
import { type RpcHandler, RpcServer } from "./server.ts";

const KEY = Buffer.alloc(32, 7);
const MIB = 1024 * 1024;
const LONG_MS = 60_000;

/** A process that answers each request with the length of its body. */
class PeerProcess implements AsyncDisposable {
  readonly #folder = mkdtempSync(join(tmpdir(), "ringstead-rpc-"));
  readonly socket = join(this.#folder, "peer");
  #child: ChildProcess | undefined;

  async start(): Promise<void> {
    const script = `
      const { RpcServer } = await import(${JSON.stringify(join(import.meta.dirname, "server.ts"))});
      const log = { debug() {}, info() {}, warn() {}, error() {} };
      const key = Buffer.alloc(32, 7);
      const server = new RpcServer(key, (header, body, reply) => reply.ok([body.length]), log);
      await server.listen(${JSON.stringify(this.socket)});
      process.stdout.write("listens\\n");`;
    this.#child = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(this.#child.stdout!, "data");
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child !== undefined) {
      const ended = once(this.#child, "exit");
      // Also ends one that is stopped.
      this.#child.kill("SIGKILL");
      await ended;
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** The code of the error, or the number answered. */
const ask = (client: RpcClient, body: Uint8Array, timeoutMs = LONG_MS): Promise<unknown> =>
  new Promise((resolve) => {
    client.call([], body, timeoutMs, (error, header) => resolve(error?.code ?? header[0]));
  });

const askFor = (client: RpcClient, method: string): Promise<unknown> =>
  new Promise((resolve) => {
    client.call([method], undefined, LONG_MS, (error, header) => resolve(error?.code ?? header[0]));
  });

test("a stopped peer costs a bounded amount of memory, and what waited for it arrives when it goes on", async () => {
  await using peer = new PeerProcess();
  await peer.start();
  using client = new RpcClient(peer.socket, KEY);
  expect(await ask(client, Buffer.alloc(5))).toBe(5);
  peer.signal("SIGSTOP");
  const body = Buffer.alloc(MIB);
  const answers: unknown[] = [];
  const asked: Promise<unknown>[] = [];
  for (let round = 0; round < 20; round++) {
    for (let index = 0; index < 10; index++) {
      const answer = ask(client, body);
      asked.push(answer);
      void answer.then((value) => answers.push(value));
    }
    await new Promise(setImmediate);
    expect(client.unsentBytes).toBeLessThan(98 * MIB);
  }
  expect(client.unsentBytes).toBeGreaterThan(88 * MIB);
  // Of 200 MiB some 96 wait; the rest was refused at once, while the peer still stands.
  expect(new Set(answers)).toEqual(new Set(["rpc-overloaded"]));
  expect(answers.length).toBeGreaterThan(90);
  peer.signal("SIGCONT");
  const all = await Promise.all(asked);
  expect(all.filter((answer) => answer === MIB)).toHaveLength(all.length - answers.filter((one) => one !== MIB).length);
  expect(all.filter((answer) => answer === MIB).length).toBeGreaterThan(88);
  await expect.poll(() => client.unsentBytes, { timeout: 20_000 }).toBe(0);
  expect(await ask(client, body)).toBe(MIB);
});

test("requests to a stopped peer that ran out of time still count until the peer took their bytes", async () => {
  await using peer = new PeerProcess();
  await peer.start();
  using client = new RpcClient(peer.socket, KEY);
  expect(await ask(client, Buffer.alloc(5))).toBe(5);
  peer.signal("SIGSTOP");
  const body = Buffer.alloc(4 * MIB);
  const first = Array.from({ length: 24 }, () => ask(client, body, 1));
  expect(await Promise.all(first)).toEqual(first.map(() => "rpc-timeout"));
  const second = Array.from({ length: 24 }, () => ask(client, body, 1));
  expect(await Promise.all(second)).toContain("rpc-overloaded");
  expect(client.unsentBytes).toBeLessThan(101 * MIB);
  peer.signal("SIGCONT");
  await expect.poll(() => client.unsentBytes, { timeout: 20_000 }).toBe(0);
  expect(await ask(client, body)).toBe(4 * MIB);
});

test("a peer that never says hello holds no more either", async () => {
  await using peer = new PeerProcess();
  await peer.start();
  peer.signal("SIGSTOP");
  using client = new RpcClient(peer.socket, KEY);
  const body = Buffer.alloc(4 * MIB);
  const asked = Array.from({ length: 30 }, () => ask(client, body));
  expect(client.unsentBytes).toBeLessThan(101 * MIB);
  peer.signal("SIGCONT");
  const answers = await Promise.all(asked);
  expect(answers.filter((answer) => answer === 4 * MIB)).toHaveLength(24);
  expect(answers.filter((answer) => answer === "rpc-overloaded")).toHaveLength(6);
});

test("a server that ends answers what it has begun, and says of the rest that nothing was done", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-rpc-"));
  const begun: (() => void)[] = [];
  const server = new RpcServer(KEY, (_header, _body, reply) => void begun.push(() => reply.ok(["done"])), silentLog);
  await server.listen(join(folder, "peer"));
  using client = new RpcClient(join(folder, "peer"), KEY);
  const first = ask(client, Buffer.alloc(5));
  await expect.poll(() => begun.length).toBe(1);
  const ended = server[Symbol.asyncDispose]();
  expect(await ask(client, Buffer.alloc(5))).toBe("rpc-unsent");
  expect(begun).toHaveLength(1);
  begun[0]?.();
  expect(await first).toBe("done");
  await ended;
  rmSync(folder, { recursive: true, force: true });
});

test("a server that ends finishes what takes several requests, and tells what came too late that nothing was done", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-rpc-"));
  const taken: unknown[] = [];
  let isUnderWay = true;
  const begunWork = {
    isUnderWay: () => isUnderWay,
    admits: ([method]: readonly unknown[]) => method === "part",
  };
  const handler: RpcHandler = ([method], _body, reply) => {
    taken.push(method);
    reply.ok(["done"]);
  };
  const server = new RpcServer(KEY, handler, silentLog, { begunWork });
  await server.listen(join(folder, "peer"));
  using client = new RpcClient(join(folder, "peer"), KEY);
  expect(await askFor(client, "first")).toBe("done");
  const ended = server[Symbol.asyncDispose]();
  expect(await askFor(client, "other")).toBe("rpc-unsent");
  expect(await askFor(client, "part")).toBe("done");
  isUnderWay = false;
  // Sent in one go, until the connection is closed: each is either done or was not begun.
  const answers: unknown[] = [];
  while (!answers.includes("rpc-unsent"))
    answers.push(...(await Promise.all(Array.from({ length: 20 }, () => askFor(client, "part")))));
  await ended;
  expect(answers.filter((one) => one !== "done" && one !== "rpc-unsent")).toEqual([]);
  expect(taken.filter((method) => method === "part")).toHaveLength(1 + answers.filter((one) => one === "done").length);
  rmSync(folder, { recursive: true, force: true });
});
