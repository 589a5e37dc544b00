import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ballotOf, NO_INCARNATION } from "../../common/ballot.ts";
import { systemClock } from "../../common/clock.ts";
import { codeOf, RingsteadError } from "../../common/errors.ts";
import { hybridClock, type HybridTimestamp, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import { silentLog } from "../../common/log.ts";
import { RpcClient } from "../../common/rpc/client.ts";
import { RpcServer } from "../../common/rpc/server.ts";
import { DeviceClient } from "../../storage-node/client.ts";
import {
  METHOD_ACCEPT,
  METHOD_PREPARE,
  METHOD_READ,
  METHOD_READ_BODY,
  METHOD_STAGE_OPEN,
  packRegister,
  type Register,
} from "../../storage-node/wire.ts";
import { Ballots } from "./ballots.ts";
import { givenUploadOf, receiveBody, type UploadedBody } from "./body-upload.ts";
import { RegisterIo } from "./register-io.ts";
import { Partition, type ReplicaSet } from "./partition.ts";
import { NodeReplicas, Replica } from "./replicas.ts";

const KEY = Buffer.alloc(32, 7);
const NAME = { space: "object", hash32: 1, path: "/a/c/o" } as const;
const WRITE = {
  kind: "plain",
  record: { isTombstone: false, bodyLength: 0, metadata: new Uint8Array(), body: "none", bodyVersion: undefined },
} as const;

/** A storage node with one device that holds nothing; it may be full, or stopped, which leaves messages without an answer. */
class FakeNode implements AsyncDisposable {
  readonly replica: Replica;
  readonly #rpc: RpcClient;
  readonly #server: RpcServer;
  state: "well" | "full" | "failed" | "stopped" = "well";
  asked = 0;
  /** What its READs answer. */
  register: Register | undefined;
  /** So many ACCEPTs are answered with `nodata`. */
  lacksBody = 0;
  /** What came with ACCEPTs. */
  readonly accepted: string[] = [];

  constructor(socket: string) {
    this.#server = new RpcServer(
      KEY,
      ([method, , , , , , own], body, reply) => {
        this.asked += 1;
        if (this.state === "stopped") return;
        if (this.state === "failed") throw new RingsteadError("device-failed", "the device has failed");
        const isWriting = method === METHOD_ACCEPT || method === METHOD_STAGE_OPEN;
        if (isWriting && this.state === "full") throw new RingsteadError("device-full", "the device is full");
        if (method === METHOD_PREPARE) reply.ok([0, null, Array.isArray(own) ? own.map(() => 0) : [], null]);
        else if (method === METHOD_READ) reply.ok([packRegister(this.register)]);
        else if (method === METHOD_READ_BODY) reply.ok([], Buffer.from("theirs"));
        else if (method === METHOD_ACCEPT) {
          this.accepted.push(body.toString());
          reply.ok([this.lacksBody > 0 ? 2 : 0]);
          this.lacksBody -= 1;
        } else reply.ok([0]);
      },
      silentLog,
    );
    void this.#server.listen(socket);
    this.#rpc = new RpcClient(socket, KEY);
    this.replica = new Replica(new DeviceClient(this.#rpc, "d1"), new NodeReplicas());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#rpc[Symbol.dispose]();
    await this.#server[Symbol.asyncDispose]();
  }
}

let folder: string;
let nodes: FakeNode[];
let set: ReplicaSet;
let io: RegisterIo;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-io-"));
  nodes = ["a", "b", "c"].map((name) => new FakeNode(join(folder, name)));
  const ids = ["a", "b", "c"];
  const old = ids.map((id) => ({ id, since: 0 }));
  const first = { epoch: 0, old, next: undefined, floor: TIMESTAMP_ZERO };
  const replicaOf = (id: string): Replica => nodes[ids.indexOf(id)]!.replica;
  set = {
    name: NAME,
    partition: new Partition({ space: "object", partition: 0, partitionPower: 4 }, first, replicaOf),
  };
  io = new RegisterIo(new Ballots(hybridClock(systemClock), systemClock));
  await expect.poll(() => io.read(set, 0).catch(() => undefined), { timeout: 5000 }).toBeDefined();
});

afterEach(async () => {
  for (const node of nodes) await node[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const write = () => io.write(set, WRITE, { kind: "none" }, NO_INCARNATION);

test("a write that a quorum has no space for says so, and succeeds when one of them has space again", async () => {
  nodes[0]!.state = "full";
  expect(await write()).toMatchObject({ kind: "established" });
  nodes[1]!.state = "full";
  expect(await write()).toEqual({ kind: "no-space" });
  nodes[1]!.state = "well";
  expect(await write()).toMatchObject({ kind: "established" });
});

test("a large body that a quorum has no space for is refused as device-full, one full device is left out", async () => {
  const body = async function* () {
    for (let block = 0; block < 4; block++) yield Buffer.alloc(128 * 1024);
  };
  nodes[0]!.state = "full";
  nodes[1]!.state = "full";
  expect(codeOf(await receiveBody(set, body()).catch((error: unknown) => error))).toBe("device-full");
});

const acceptedRegister = (time: string): Register => {
  const version = ballotOf(NO_INCARNATION, time.padStart(16, "0") as HybridTimestamp, "00000001");
  const metadata = Buffer.from("m");
  return {
    version,
    ballot: version,
    state: "accepted",
    bodyVersion: version,
    isTombstone: false,
    bodyLength: 6,
    metadata,
  };
};

test("a version that an operation finishes for somebody else never gets the operation's own body [A4]", async () => {
  const { version, metadata } = acceptedRegister("5");
  const record = { isTombstone: false, bodyLength: 6, metadata, body: "keep", bodyVersion: version } as const;
  nodes[2]!.lacksBody = 1;
  const mine = { kind: "bytes", bytes: Buffer.from("mine!!") } as const;
  const outcome = await io.write(set, { kind: "finish", version, ballot: version, record }, mine, NO_INCARNATION);
  expect(outcome).toMatchObject({ kind: "established", version });
  await expect.poll(() => nodes[2]!.accepted).toEqual(["", "theirs"]);
  expect([...nodes[0]!.accepted, ...nodes[1]!.accepted]).toEqual(["", ""]);
});

test("a read that two replicas leave open ends when the third one fails [R1]", async () => {
  nodes[0]!.register = acceptedRegister("5");
  nodes[1]!.register = acceptedRegister("4");
  nodes[2]!.state = "failed";
  for (let turn = 0; turn < 3; turn++) {
    expect(await io.read(set, 0)).toMatchObject({
      register: { version: nodes[0]!.register.version },
      isSettled: false,
    });
  }
});

test("a stopped replica costs one time-out, is asked no more than now and then, and serves at once when it goes on", async () => {
  const [stopped] = nodes;
  stopped!.state = "stopped";
  await io.read(set, 0);
  await expect.poll(async () => (await io.read(set, 0)) && stopped!.replica.isSuspect, { timeout: 5000 }).toBe(true);
  stopped!.asked = 0;
  const startMs = performance.now();
  for (let count = 0; count < 200; count++) await io.read(set, 0);
  expect(performance.now() - startMs).toBeLessThan(2000);
  expect(stopped!.asked).toBeLessThan(20);
  stopped!.state = "well";
  await expect.poll(async () => (await io.read(set, 0)) && stopped!.replica.isSuspect, { timeout: 5000 }).toBe(false);
});

test("a read asks the replica that is left as soon as one of the first is late, not when its time is over", async () => {
  nodes[0]!.state = "stopped";
  // Each replica is the first to be asked in turn.
  for (let turn = 0; turn < 3; turn++) {
    const startMs = performance.now();
    expect((await io.read(set, 0)).register).toBeUndefined();
    expect(performance.now() - startMs).toBeLessThan(1500);
  }
});

test("the memory of a body is given back when its replicas have it, and kept while one has not answered", async () => {
  const upload = (): UploadedBody => givenUploadOf(Buffer.alloc(256 * 1024), "", () => {});
  const put = async ({ body }: UploadedBody): Promise<number> => {
    const record = { ...WRITE.record, bodyLength: 256 * 1024, body: "given" } as const;
    await io.write(set, { kind: "plain", record }, body, NO_INCARNATION);
    return body.kind === "bytes" ? body.bytes.length : -1;
  };
  const first = upload();
  expect(await put(first)).toBe(256 * 1024);
  first.release();
  await expect.poll(() => first.body).toMatchObject({ bytes: { length: 0 } });
  nodes[0]!.state = "stopped";
  const second = upload();
  await put(second);
  second.release();
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(second.body).toMatchObject({ bytes: { length: 256 * 1024 } });
});

test("suspects are asked where no quorum is possible without them", async () => {
  for (const node of nodes) node.state = "stopped";
  expect(codeOf(await io.read(set, 0).catch((error: unknown) => error))).toBe("quorum-unavailable");
  await expect.poll(() => nodes.every(({ replica }) => replica.isSuspect), { timeout: 5000 }).toBe(true);
  for (const node of nodes) node.state = "well";
  expect(await write()).toMatchObject({ kind: "established" });
  expect((await io.read(set, 0)).register).toBeUndefined();
});

test("what waits for a replica that does not read is bounded, and the others go on", async () => {
  const [stopped] = nodes;
  stopped!.state = "stopped";
  stopped!.replica.heard(new RingsteadError("rpc-timeout", "no answer"));
  stopped!.asked = 0;
  const bytes = Buffer.alloc(1024 * 1024);
  const record = { ...WRITE.record, bodyLength: bytes.length, body: "given" } as const;
  for (let count = 0; count < 24; count++) {
    const outcome = await io.write(set, { kind: "plain", record }, { kind: "bytes", bytes }, NO_INCARNATION);
    expect(outcome).toMatchObject({ kind: "established" });
  }
  // 16 MiB of bodies, and the probes.
  expect(stopped!.asked).toBeLessThan(20);
});
