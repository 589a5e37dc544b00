import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { NO_INCARNATION } from "../../common/ballot.ts";
import { systemClock } from "../../common/clock.ts";
import { codeOf, RingsteadError } from "../../common/errors.ts";
import { hybridClock, type HybridTimestamp, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import { silentLog } from "../../common/log.ts";
import { RpcClient } from "../../common/rpc/client.ts";
import { RpcServer } from "../../common/rpc/server.ts";
import { DeviceClient } from "../../storage-node/client.ts";
import {
  type Configuration,
  HeaderReader,
  METHOD_ACCEPT,
  METHOD_CONFIGURE,
  METHOD_CONFIRM,
  METHOD_LIST,
  METHOD_PREPARE,
  METHOD_READ,
  METHOD_ROW,
  METHOD_STAGE_OPEN,
  METHOD_STAGE_SEAL,
  METHOD_STAGE_WRITE,
  packConfiguration,
  unpackConfiguration,
} from "../../storage-node/wire.ts";
import { Ballots } from "./ballots.ts";
import { receiveBody } from "./body-upload.ts";
import { Partition, type ReplicaSet } from "./partition.ts";
import { RegisterIo } from "./register-io.ts";
import { NodeReplicas, Replica } from "./replicas.ts";
import { RowReader } from "./row-reader.ts";

const KEY = Buffer.alloc(32, 7);
const NAME = { space: "object", hash32: 1, path: "/a/c/o" } as const;
const RECORD = {
  isTombstone: false,
  bodyLength: 0,
  metadata: new Uint8Array(),
  body: "none",
  bodyVersion: undefined,
} as const;
const ROW = {
  name: "o",
  version: "0".repeat(48) as never,
  isDeleted: false,
  objects: 1,
  bytes: 0,
  payload: new Uint8Array(),
};
const QUERY = { marker: "", endMarker: "", prefix: "", isReverse: false, limit: 10, withDeleted: false };
const members = (...ids: readonly string[]) => ids.map((id) => ({ id, since: id === "d" ? 1 : 0 }));
const FIRST: Configuration = { epoch: 0, old: members("a", "b", "c"), next: undefined, floor: TIMESTAMP_ZERO };
const JOINT: Configuration = { ...FIRST, epoch: 1, next: members("d", "b", "c") };
const MOVED: Configuration = { epoch: 2, old: members("d", "b", "c"), next: undefined, floor: TIMESTAMP_ZERO };

/** Where a message has its epoch, which is left out where it is 0. */
const EPOCH_AT: Readonly<Record<number, number>> = {
  [METHOD_ACCEPT]: 14,
  [METHOD_PREPARE]: 8,
  [METHOD_READ]: 6,
  [METHOD_ROW]: 12,
  [METHOD_LIST]: 12,
};

/** A storage node with one device that holds nothing and admits messages of its epoch alone. */
class FakeMember implements AsyncDisposable {
  readonly replica: Replica;
  readonly #id: string;
  readonly #rpc: RpcClient;
  readonly #server: RpcServer;
  configuration = FIRST;
  isSealed = false;
  isAway = false;
  /** Method and epoch of what was let in. */
  readonly admitted: [number, number][] = [];
  readonly bodies: number[] = [];
  told = 0;

  constructor(folder: string, id: string) {
    this.#id = id;
    this.#server = new RpcServer(
      KEY,
      (header, _body, reply) => {
        if (this.isAway) throw new RingsteadError("device-failed", "the device has failed");
        const method = Number(header[0]);
        if (method === METHOD_CONFIGURE) {
          this.told += 1;
          const known = unpackConfiguration(new HeaderReader(header.slice(5)));
          if (known.epoch > this.configuration.epoch) this.configuration = known;
          return reply.ok([...packConfiguration(this.configuration)]);
        }
        const at = EPOCH_AT[method];
        if (at !== undefined) this.#admit(method, Number(header[at] ?? 0));
        switch (method) {
          case METHOD_ACCEPT:
            this.bodies.push(Number(header[11]));
            return reply.ok([0]);
          case METHOD_PREPARE:
            return reply.ok([0, null, (header[6] as unknown[]).map(() => 0), null]);
          case METHOD_READ:
            return reply.ok([null]);
          case METHOD_ROW:
            return reply.ok(["stored"]);
          case METHOD_LIST:
            return reply.ok(["rows", 0, 0, 0, "0", []]);
          case METHOD_STAGE_OPEN:
            return reply.ok([7]);
          case METHOD_STAGE_SEAL:
            return reply.ok([512 * 1024]);
          case METHOD_STAGE_WRITE:
          case METHOD_CONFIRM:
            return reply.ok([]);
          default:
            throw new RingsteadError("bad-message", "unknown method");
        }
      },
      silentLog,
    );
    void this.#server.listen(join(folder, id));
    this.#rpc = new RpcClient(join(folder, id), KEY);
    this.replica = new Replica(new DeviceClient(this.#rpc, "d1"), new NodeReplicas());
  }

  #admit(method: number, epoch: number): void {
    const { configuration } = this;
    if (epoch < configuration.epoch)
      throw new RingsteadError("epoch-behind", "others", { configuration: packConfiguration(configuration) });
    if (epoch > configuration.epoch) throw new RingsteadError("epoch-ahead", "not heard of");
    if (this.isSealed) throw new RingsteadError("epoch-sealed", "in a moment");
    const isOld = configuration.old.some(({ id }) => id === this.#id);
    if (!isOld && configuration.next?.some(({ id }) => id === this.#id) !== true)
      throw new RingsteadError("not-a-member", "elsewhere");
    this.admitted.push([method, epoch]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#rpc[Symbol.dispose]();
    await this.#server[Symbol.asyncDispose]();
  }
}

let folder: string;
let nodes: Readonly<Record<string, FakeMember>>;
let set: ReplicaSet;
let io: RegisterIo;
let floors: HybridTimestamp[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-moving-"));
  nodes = Object.fromEntries(["a", "b", "c", "d"].map((id) => [id, new FakeMember(folder, id)]));
  const replicaOf = (id: string): Replica => {
    const node = nodes[id];
    if (node === undefined) throw new RingsteadError("ring-names-unknown-node", "there is no such node");
    return node.replica;
  };
  floors = [];
  const place = { space: "object", partition: 0, partitionPower: 4 } as const;
  set = { name: NAME, partition: new Partition(place, FIRST, replicaOf, ({ floor }) => floors.push(floor)) };
  io = new RegisterIo(new Ballots(hybridClock(systemClock), systemClock));
  await expect.poll(() => io.read(set, 0).catch(() => undefined), { timeout: 5000 }).toBeDefined();
  for (const node of Object.values(nodes)) node.admitted.length = 0;
});

afterEach(async () => {
  for (const node of Object.values(nodes)) await node[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const enter = (configuration: Configuration, ...ids: readonly string[]): void => {
  for (const id of ids) nodes[id]!.configuration = configuration;
};
const write = () => io.write(set, { kind: "plain", record: RECORD }, { kind: "none" }, NO_INCARNATION);
const list = () => new RowReader(io).ask(set, NO_INCARNATION, QUERY, false);
const epochsOf = (id: string, method: number): number[] =>
  nodes[id]!.admitted.filter(([one]) => one === method).map(([, epoch]) => epoch);

test("a write that meets a later epoch begins its phase anew, and counts no answer of the one before [M1]", async () => {
  enter(JOINT, "b");
  expect(await write()).toMatchObject({ kind: "established" });
  expect(set.partition.members.epoch).toBe(1);
  // a and c answered in epoch 0 too; who had not heard of the later one was told.
  await expect.poll(() => ["a", "b", "c", "d"].map((id) => epochsOf(id, METHOD_ACCEPT).at(-1))).toEqual([1, 1, 1, 1]);
  expect([nodes["a"]!.told, nodes["b"]!.told, nodes["c"]!.told, nodes["d"]!.told]).toEqual([1, 0, 1, 1]);
});

test("in a joint phase the newcomer is written to, and neither promises nor is read [M1]", async () => {
  enter(JOINT, "a", "b", "c", "d");
  await write();
  const conditional = { kind: "conditional", decide: () => RECORD } as const;
  expect(await io.write(set, conditional, { kind: "none" }, NO_INCARNATION)).toMatchObject({ kind: "established" });
  expect(await io.row(set, NO_INCARNATION, ROW)).toBe("stored");
  for (let turn = 0; turn < 4; turn++) expect((await io.read(set, 0)).register).toBeUndefined();
  expect((await list()).kind).toBe("rows");
  await expect
    .poll(() => nodes["d"]!.admitted.map(([method]) => method))
    .toEqual([METHOD_ACCEPT, METHOD_ACCEPT, METHOD_ROW]);
});

test("a write is not done in a joint phase without a quorum of the new members too [M1]", async () => {
  enter(JOINT, "a", "b", "c", "d");
  for (const id of ["c", "d"]) nodes[id]!.isAway = true;
  let isOver = false;
  const writing = write().then((outcome) => {
    isOver = true;
    return outcome;
  });
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(isOver).toBe(false);
  nodes["d"]!.isAway = false;
  expect(await writing).toMatchObject({ kind: "established" });
});

test("reads, listings, rows and writes wait while a partition is sealed, and go on with its new members [M3]", async () => {
  for (const id of ["a", "b", "c"]) nodes[id]!.isSealed = true;
  const under = Promise.all([io.read(set, 0), list(), io.row(set, NO_INCARNATION, ROW), write()]);
  await new Promise((resolve) => setTimeout(resolve, 150));
  enter(MOVED, "a", "b", "c", "d");
  for (const id of ["a", "b", "c"]) nodes[id]!.isSealed = false;
  const [read, listed, row, written] = await under;
  expect([read.register, listed.kind, row, written.kind]).toEqual([undefined, "rows", "stored", "established"]);
  expect(nodes["a"]!.admitted).toEqual([]);
  expect(epochsOf("d", METHOD_ACCEPT)).toEqual([2]);
});

test("what is staged goes to those who are members when it is accepted, and who took it in an earlier epoch keeps it", async () => {
  const source = async function* () {
    yield Buffer.alloc(512 * 1024);
  };
  const uploaded = await receiveBody(set, source());
  enter(JOINT, "a", "c", "d");
  const record = { ...RECORD, bodyLength: uploaded.length, body: "given" } as const;
  const outcome = await io.write(set, { kind: "plain", record }, uploaded.body, NO_INCARNATION);
  expect(outcome).toMatchObject({ kind: "established" });
  // Staged, and for b, if its answer in epoch 0 was heard, what it has already.
  expect(nodes["d"]!.bodies).toEqual([]);
  expect(nodes["a"]!.bodies).toEqual([2]);
  expect(nodes["c"]!.bodies).toEqual([2]);
});

test("a partition that names a node nobody knows is not served, and nothing breaks", async () => {
  const strange: Configuration = { ...MOVED, old: members("x", "y", "z") };
  enter(strange, "a", "b", "c");
  expect(codeOf(await io.read(set, 0).catch((error: unknown) => error))).toBe("quorum-unavailable");
  expect(set.partition.members.epoch).toBe(0);
});

test("whoever hears of a later epoch follows its floor [M5]", async () => {
  const floor = "0000000000000abc" as HybridTimestamp;
  enter({ ...MOVED, floor }, "a", "b", "c", "d");
  await io.read(set, 0);
  expect(floors).toEqual([floor]);
});
