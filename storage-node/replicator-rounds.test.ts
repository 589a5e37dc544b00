import { expect, test } from "vitest";
import { type Ballot, ballotOf, NO_INCARNATION } from "../common/ballot.ts";
import { codeOf } from "../common/errors.ts";
import { timestampAt } from "../common/hybrid-clock.ts";
import { silentLog } from "../common/log.ts";
import type { RingDevice } from "../ring/device.ts";
import type { SpaceRings } from "./daemons/own-partitions.ts";
import { Replicator } from "./daemons/replicator.ts";
import { DeviceReplica } from "./device-replica.ts";
import { MemoryDevice } from "./engine/memory-device.ts";
import { PartitionEpochs } from "./partition-epochs.ts";
import { LocalSource } from "./repair/local-source.ts";
import { UNPACED } from "./repair/partition-repair.ts";
import { entryDigests } from "./store/entry-digest.ts";
import { Votes } from "./votes.ts";
import type { Configuration, Name } from "./wire.ts";

const POWER = 4;
const NAME: Name = { space: "object", hash32: 0x3000_0001, path: "/a/c/o" };
const time = { nowMs: 1_700_000_000_000 };
const clock = { nowMs: () => time.nowMs };
const signal = new AbortController().signal;

/** A ring in which these devices keep every partition. */
const ringsOf = (...names: readonly string[]): SpaceRings => {
  const devices = names.map((node) => ({ node, device: "d1" }) as RingDevice);
  const ring = { partitionPower: POWER, partitionCount: 2 ** POWER, primaries: () => devices };
  return { account: ring, container: ring, object: ring };
};

type Node = { readonly replica: DeviceReplica; readonly replicator: Replicator; readonly failures: string[] };

const nodeOf = async (node: string, rings: SpaceRings, isNew: boolean, nodes: Map<string, Node>): Promise<void> => {
  const engine = new MemoryDevice((done) => void setImmediate(done), undefined, entryDigests(Buffer.alloc(32)));
  const idsOf = (): string[] => rings.object.primaries(0).map((one) => `${one.node}/${one.device}`);
  const of = { partitionPower: POWER, idsOf };
  const epochs = await PartitionEpochs.opened(engine, `${node}/d1`, { account: of, container: of, object: of });
  const replica = new DeviceReplica(engine, clock, [1n, 2n], await Votes.opened(engine, clock, !isNew), epochs);
  const failures: string[] = [];
  const replicator = new Replicator({
    node,
    device: "d1",
    replica,
    rings,
    circle: () => ({ required: [...nodes.keys()].map((name) => `${name}/d1`), others: [] }),
    peerOf: (place) => new LocalSource(nodes.get(place.node)!.replica),
    pace: UNPACED,
    clock,
    log: silentLog,
    onFailure: (reason) => void failures.push(reason),
  });
  nodes.set(node, { replica, replicator, failures });
};

const write = (replica: DeviceReplica, version: Ballot, epoch: number, name = NAME, bytes = Buffer.alloc(0)) =>
  replica.accept(
    name,
    version,
    version,
    {
      bodyVersion: version,
      isTombstone: false,
      bodyLength: bytes.length,
      metadata: new Uint8Array(),
      body: bytes.length === 0 ? "none" : "inline",
    },
    bytes.length === 0 ? { kind: "none" } : { kind: "bytes", bytes },
    [version],
    epoch,
  );

test("a new device that takes itself for a member where those who are do not never votes there, and does once it is moved to", async () => {
  const nodes = new Map<string, Node>();
  for (const node of ["a", "b", "c"]) await nodeOf(node, ringsOf("a", "b", "c"), false, nodes);
  await nodeOf("d", ringsOf("d", "b", "c"), true, nodes);
  time.nowMs += 1;
  const version = ballotOf(NO_INCARNATION, timestampAt(time.nowMs), "00000001");
  for (const node of ["a", "b"]) expect((await write(nodes.get(node)!.replica, version, 0)).kind).toBe("accepted");
  const { replica, replicator, failures } = nodes.get("d")!;
  for (let round = 0; round < 5; round++) {
    time.nowMs += 20_000;
    await replicator.work(signal);
  }
  expect(replica.votes.isNewcomer).toBe(true);
  expect(failures.at(-1)).toContain("copy DIR/rings/*.base from its node");
  const later = ballotOf(NO_INCARNATION, timestampAt(time.nowMs), "00000001");
  expect(codeOf(await write(replica, later, 0).catch((error: unknown) => error))).toBe("device-joining");

  const old = ["a/d1", "b/d1", "c/d1"].map((id) => ({ id, since: 0 }));
  const next = [{ id: "d/d1", since: 1 }, ...old.slice(1)];
  const joint: Configuration = { epoch: 1, old, next, floor: "0".repeat(16) as never };
  const place = { space: "object", partition: 3, partitionPower: POWER } as const;
  for (const one of nodes.values()) await one.replica.configure(place, joint);
  await replicator.work(signal);
  expect(replica.epochs.hasCaughtUp(place)).toBe(true);
  expect((await replica.held(NAME))?.register.version).toBe(version);
});

test("a device of the ring that its peers have too votes as soon as it has caught up", async () => {
  const nodes = new Map<string, Node>();
  for (const node of ["a", "b"]) await nodeOf(node, ringsOf("a", "b", "c"), false, nodes);
  await nodeOf("c", ringsOf("a", "b", "c"), true, nodes);
  const { replica, replicator } = nodes.get("c")!;
  time.nowMs += 60_000;
  await replicator.work(signal);
  expect(replica.votes.isNewcomer).toBe(false);
});

test("a replica whose confirmations wait to be written pulls no body again for them", async () => {
  const nodes = new Map<string, Node>();
  for (const node of ["a", "b"]) await nodeOf(node, ringsOf("a", "b"), false, nodes);
  const [first, second] = [nodes.get("a")!, nodes.get("b")!];
  time.nowMs += 1;
  const version = ballotOf(NO_INCARNATION, timestampAt(time.nowMs), "00000001");
  for (const { replica } of [first, second]) {
    expect((await write(replica, version, 0, NAME, Buffer.alloc(5000))).kind).toBe("accepted");
    replica.confirm(NAME, version, false);
  }
  first.replica.flushConfirmations();
  await first.replica.engine.sync();
  // Else nothing would be compared.
  const missed = { ...NAME, path: "/a/c/missed" };
  expect((await write(first.replica, version, 0, missed)).kind).toBe("accepted");
  time.nowMs += 60_000;
  await second.replicator.work(signal);
  expect((await second.replica.held(missed))?.register.version).toBe(version);
  expect(second.replicator.figures.repairedEntries).toBe(1);
  expect(second.replicator.figures.repairedBytes).toBeLessThan(500);
});

test("a replica that was killed before it wrote what was confirmed hears of it again, and no body comes with that", async () => {
  const nodes = new Map<string, Node>();
  for (const node of ["a", "b"]) await nodeOf(node, ringsOf("a", "b"), false, nodes);
  const [first, second] = [nodes.get("a")!, nodes.get("b")!];
  time.nowMs += 1;
  const version = ballotOf(NO_INCARNATION, timestampAt(time.nowMs), "00000001");
  for (const { replica } of [first, second])
    expect((await write(replica, version, 0, NAME, Buffer.alloc(5000))).kind).toBe("accepted");
  first.replica.confirm(NAME, version, false);
  first.replica.flushConfirmations();
  await first.replica.engine.sync();
  // Else nothing would be compared.
  const missed = { ...NAME, path: "/a/c/missed" };
  expect((await write(first.replica, version, 0, missed)).kind).toBe("accepted");
  time.nowMs += 60_000;
  await second.replicator.work(signal);
  const held = await second.replica.held(NAME);
  expect(held?.register).toMatchObject({ state: "confirmed", bodyLength: 5000 });
  expect(second.replicator.figures.repairedEntries).toBe(1);
  expect(second.replicator.figures.repairedBytes).toBeLessThan(500);
});

const confirmedAt = async (replica: DeviceReplica, version: Ballot): Promise<void> => {
  replica.confirm(NAME, version, false);
  replica.flushConfirmations();
  await replica.engine.sync();
};

test("what was accepted once more under a later ballot, or got other metadata, comes without the body that is here", async () => {
  const nodes = new Map<string, Node>();
  for (const node of ["a", "b"]) await nodeOf(node, ringsOf("a", "b"), false, nodes);
  const [first, second] = [nodes.get("a")!, nodes.get("b")!];
  const at = (aheadMs: number): Ballot => ballotOf(NO_INCARNATION, timestampAt(time.nowMs + aheadMs), "00000001");
  const [version, again, changed] = [at(1), at(2), at(3)];
  const body = Buffer.alloc(5000, 7);
  for (const { replica } of [first, second]) await write(replica, version, 0, NAME, body);
  // As the finishing of what a dead proxy left behind has it, while the other one is away.
  const kept = { isTombstone: false, bodyLength: body.length, metadata: new Uint8Array(), body: "keep" } as const;
  const none = { kind: "none" } as const;
  const accepted = await first.replica.accept(NAME, version, again, { ...kept, bodyVersion: version }, none, []);
  expect(accepted.kind).toBe("accepted");
  await confirmedAt(first.replica, version);
  time.nowMs += 60_000;
  await second.replicator.work(signal);
  expect((await second.replica.held(NAME))?.register).toMatchObject({ state: "confirmed", version, ballot: again });
  const posted = { ...kept, bodyVersion: version, metadata: Buffer.from("new") };
  expect((await first.replica.accept(NAME, changed, changed, posted, none, [])).kind).toBe("accepted");
  await confirmedAt(first.replica, changed);
  time.nowMs += 60_000;
  await second.replicator.work(signal);
  const held = (await second.replica.held(NAME))!;
  expect(held.register).toMatchObject({ state: "confirmed", version: changed, bodyVersion: version });
  expect(Buffer.from(await second.replica.engine.readBody(held.body, 0, body.length))).toEqual(body);
  expect(second.replicator.figures.repairedEntries).toBe(2);
  expect(second.replicator.figures.repairedBytes).toBeLessThan(500);
});

test("a body that is not here comes, where a later version replaced what is", async () => {
  const nodes = new Map<string, Node>();
  for (const node of ["a", "b"]) await nodeOf(node, ringsOf("a", "b"), false, nodes);
  const [first, second] = [nodes.get("a")!, nodes.get("b")!];
  const [before, after] = [1, 2].map((ms) => ballotOf(NO_INCARNATION, timestampAt(time.nowMs + ms), "00000001"));
  for (const { replica } of [first, second]) await write(replica, before!, 0, NAME, Buffer.alloc(5000, 1));
  await write(first.replica, after!, 0, NAME, Buffer.alloc(4000, 2));
  await confirmedAt(first.replica, after!);
  time.nowMs += 60_000;
  await second.replicator.work(signal);
  const held = (await second.replica.held(NAME))!;
  expect(held.register.version).toBe(after);
  expect(Buffer.from(await second.replica.engine.readBody(held.body, 0, 4000))).toEqual(Buffer.alloc(4000, 2));
});
