import { beforeEach, expect, test } from "vitest";
import { type Ballot, ballotOf, NO_INCARNATION } from "../../common/ballot.ts";
import { TIMESTAMP_ZERO, timestampAt } from "../../common/hybrid-clock.ts";
import { silentLog } from "../../common/log.ts";
import type { RingDevice } from "../../ring/device.ts";
import { Reclaimer } from "../daemons/reclaimer.ts";
import type { SpaceRings } from "../daemons/own-partitions.ts";
import { Replicator } from "../daemons/replicator.ts";
import { DeviceReplica } from "../device-replica.ts";
import { MemoryDevice } from "../engine/memory-device.ts";
import { PartitionEpochs } from "../partition-epochs.ts";
import { ReclaimMarks } from "../reclaim-marks.ts";
import { entryDigests } from "../store/entry-digest.ts";
import { NEWCOMER_KEY } from "../store/keys.ts";
import { encodeNewcomer, type Life, Votes } from "../votes.ts";
import type { Name, Register, Row } from "../wire.ts";
import { LocalSource } from "./local-source.ts";
import { UNPACED } from "./partition-repair.ts";

const POWER = 4;
const NODES = ["a", "b", "c"];
const OBJECT: Name = { space: "object", hash32: 0x3000_0001, path: "/a/c/o" };
const OTHER: Name = { ...OBJECT, path: "/a/c/other" };
const ACCOUNT: Name = { space: "account", hash32: 0x3000_0001, path: "/a" };
const PLACE = { space: "object", partition: 3, partitionPower: POWER } as const;
const LIFE = "00000000000000aa" as Life;
const START_MS = 1_700_000_000_000;
const LATER_MS = 1_000_000;

const time = { nowMs: START_MS };
const clock = { nowMs: () => time.nowMs };
const signal = new AbortController().signal;
const devices = NODES.map((node) => ({ node, device: "d1" }) as RingDevice);
const ring = { partitionPower: POWER, partitionCount: 2 ** POWER, primaries: () => devices };
const rings: SpaceRings = { account: ring, container: ring, object: ring };
const of = { partitionPower: POWER, idsOf: () => NODES.map((node) => `${node}/d1`) };

type Node = { readonly engine: MemoryDevice; readonly replica: DeviceReplica; readonly replicator: Replicator };
let nodes: Map<string, Node>;

const ballot = (aheadMs: number): Ballot => ballotOf(NO_INCARNATION, timestampAt(START_MS + aheadMs), "00000001");
const replicaOf = (node: string): DeviceReplica => nodes.get(node)!.replica;

const start = async (node: string, engine: MemoryDevice): Promise<void> => {
  const epochs = await PartitionEpochs.opened(engine, `${node}/d1`, { account: of, container: of, object: of });
  const votes = await Votes.opened(engine, clock, true);
  const marks = await ReclaimMarks.opened(engine);
  const replica = new DeviceReplica(engine, clock, [1n, 2n], votes, epochs, marks);
  const replicator = new Replicator({
    node,
    device: "d1",
    replica,
    rings,
    circle: () => ({ required: NODES.map((one) => `${one}/d1`), others: [] }),
    peerOf: (place) => new LocalSource(replicaOf(place.node)),
    pace: UNPACED,
    clock,
    log: silentLog,
  });
  nodes.set(node, { engine, replica, replicator });
};

const emptyDevice = (): MemoryDevice =>
  new MemoryDevice((done) => void setImmediate(done), undefined, entryDigests(Buffer.alloc(32)));

beforeEach(async () => {
  time.nowMs = START_MS;
  nodes = new Map();
  for (const node of NODES) await start(node, emptyDevice());
  time.nowMs += 1000;
});

const write = async (node: string, name: Name, at: Ballot, isTombstone = false): Promise<void> => {
  const proposal = {
    bodyVersion: at,
    isTombstone,
    bodyLength: 0,
    metadata: new Uint8Array(),
    body: "none",
  } as const;
  expect((await replicaOf(node).accept(name, at, at, proposal, { kind: "none" }, [])).kind).toBe("accepted");
  replicaOf(node).confirm(name, at, false);
  replicaOf(node).flushConfirmations();
};

const rowOf = (name: string, at: Ballot, isDeleted: boolean): Row => {
  const size = isDeleted ? 0 : 1;
  return { name, version: at, isDeleted, objects: size, bytes: size, payload: new Uint8Array() };
};

/** An object and a row that were written, deleted, and are forgotten by everybody. */
const forgotten = async (): Promise<void> => {
  for (const node of NODES) {
    await write(node, OBJECT, ballot(400));
    await write(node, OBJECT, ballot(500), true);
    await replicaOf(node).row(ACCOUNT, NO_INCARNATION, rowOf("c", ballot(400), false));
    await replicaOf(node).row(ACCOUNT, NO_INCARNATION, rowOf("c", ballot(500), true));
  }
  time.nowMs += LATER_MS;
  for (const node of NODES) await reclaim(node);
  for (const node of NODES) expect(await replicaOf(node).held(OBJECT)).toBeUndefined();
};

const reclaim = async (node: string): Promise<number> => {
  const reclaimer = new Reclaimer({
    device: "d1",
    replica: replicaOf(node),
    powers: { account: POWER, container: POWER, object: POWER },
    reclaimDays: 7,
    peerOf: (id) => new LocalSource(replicaOf(id.slice(0, 1))),
    pace: UNPACED,
    clock,
  });
  await reclaimer.round(time.nowMs - 1000, signal);
  return reclaimer.figures.reclaimedEntries;
};

const confirmedAt = (at: Ballot): Register => ({
  version: at,
  ballot: at,
  bodyVersion: at,
  state: "confirmed",
  isTombstone: false,
  bodyLength: 0,
  metadata: new Uint8Array(),
});

/** The device is what a hole in its log leaves of it: what it had before the deletions, and no votes. */
const loseDeletions = async (node: string): Promise<void> => {
  await start(node, emptyDevice());
  const { engine, replica } = nodes.get(node)!;
  await replica.install([{ name: OBJECT, register: confirmedAt(ballot(400)), body: { kind: "none" } }]);
  await replica.installRows(ACCOUNT, [rowOf("c", ballot(400), false)]);
  const value = encodeNewcomer({ sinceMs: time.nowMs, life: LIFE });
  await engine.apply([{ kind: "put", key: NEWCOMER_KEY, value, body: { kind: "none" } }]);
  await start(node, engine.afterCrash());
  expect(replicaOf(node).votes.isNewcomer).toBe(true);
};

const repair = async (node: string): Promise<void> => {
  time.nowMs += 60_000;
  await nodes.get(node)!.replicator.work(signal);
};

const rowsOf = (node: string): number => replicaOf(node).summary(ACCOUNT, NO_INCARNATION).rows;

test("what a device without votes kept from before a deletion that all others have forgotten is taken by nobody [E6]", async () => {
  await forgotten();
  await loseDeletions("c");
  for (const node of ["a", "b"]) await repair(node);
  for (const node of ["a", "b"]) {
    expect(await replicaOf(node).held(OBJECT)).toBeUndefined();
    expect(rowsOf(node)).toBe(0);
  }
});

test("it goes before the device votes again, which takes over the marks of the others, for ever [E6]", async () => {
  await forgotten();
  await loseDeletions("c");
  await repair("c");
  const { replica } = nodes.get("c")!;
  expect(replica.votes.isNewcomer).toBe(false);
  expect(await replica.held(OBJECT)).toBeUndefined();
  expect(replica.summary(ACCOUNT, NO_INCARNATION)).toEqual(replicaOf("a").summary(ACCOUNT, NO_INCARNATION));
  expect(replica.deletions.marksOf(PLACE)).toEqual(replicaOf("a").deletions.marksOf(PLACE));
  await start("c", nodes.get("c")!.engine.afterCrash());
  expect(replicaOf("c").deletions.marksOf(PLACE)).toEqual(replicaOf("a").deletions.marksOf(PLACE));
  expect(await replicaOf("c").row(ACCOUNT, NO_INCARNATION, rowOf("c", ballot(400), false))).toEqual({ kind: "old" });
});

test("an emptied device takes over the marks too: a row that was sent before its deletion is old to it [E5, E6]", async () => {
  await forgotten();
  await start("c", emptyDevice());
  const { engine } = nodes.get("c")!;
  const value = encodeNewcomer({ sinceMs: time.nowMs, life: LIFE });
  await engine.apply([{ kind: "put", key: NEWCOMER_KEY, value, body: { kind: "none" } }]);
  await start("c", engine.afterCrash());
  await repair("c");
  expect(await replicaOf("c").row(ACCOUNT, NO_INCARNATION, rowOf("c", ballot(400), false))).toEqual({ kind: "old" });
});

test("what one of the others holds stays, however old it is, and comes to who lacks it [E6]", async () => {
  await write("a", OTHER, ballot(300));
  await replicaOf("a").row(ACCOUNT, NO_INCARNATION, rowOf("other", ballot(300), false));
  await forgotten();
  await loseDeletions("c");
  await repair("c");
  expect((await replicaOf("c").held(OTHER))?.register.version).toBe(ballot(300));
  await repair("b");
  expect((await replicaOf("b").held(OTHER))?.register.version).toBe(ballot(300));
  for (const node of NODES) expect(rowsOf(node)).toBe(1);
});

test("where too few of the others vote nothing goes: they may have lost what was acknowledged [E6]", async () => {
  await forgotten();
  await loseDeletions("c");
  await loseDeletions("b");
  // In between it asks everybody whether the partition was moved.
  for (let round = 0; round < 2; round++) await repair("c");
  expect(replicaOf("c").votes.isNewcomer).toBe(false);
  expect((await replicaOf("c").held(OBJECT))?.register.version).toBe(ballot(400));
});

test("a deletion that one of the members has forgotten without having had it is asked about twice, and stays where something older came meanwhile [E2]", async () => {
  await forgotten();
  // Later deletions were forgotten already when all this was written.
  await write("b", OTHER, ballot(600), true);
  await write("a", OTHER, ballot(600), true);
  await replicaOf("c").deletions.adopt(PLACE, { registers: timestampAt(START_MS + 700), rows: TIMESTAMP_ZERO });
  time.nowMs += LATER_MS;
  const asked: string[] = [];
  const reclaimer = new Reclaimer({
    device: "d1",
    replica: replicaOf("a"),
    powers: { account: POWER, container: POWER, object: POWER },
    reclaimDays: 7,
    peerOf: (id) => ({
      async confirmReclaims(place, epoch, doomed) {
        asked.push(id);
        const said = await new LocalSource(replicaOf(id.slice(0, 1))).confirmReclaims(place, epoch, doomed);
        // It had asked one for this who hears of the deletion before it is asked itself.
        if (asked.length === 2)
          await replicaOf("c").install([{ name: OTHER, register: confirmedAt(ballot(450)), body: { kind: "none" } }]);
        return said;
      },
    }),
    pace: UNPACED,
    clock,
  });
  await reclaimer.look(PLACE, time.nowMs - 1000, signal);
  expect(asked.toSorted()).toEqual(["b/d1", "c/d1", "c/d1"]);
  expect((await replicaOf("a").held(OTHER))?.register.isTombstone).toBe(true);
  await repair("c");
  await repair("b");
  expect(await reclaim("a")).toBe(1);
});

test("who confirms by its mark that it has forgotten something throws away what it had asked for before [E3]", async () => {
  await forgotten();
  const { deletions } = replicaOf("c");
  const before = deletions.removalsIn(PLACE);
  const key = Buffer.from([0x30, 0, 0, 1, 0x6f, 0x78]);
  expect(await deletions.confirm(PLACE, 0, [{ key, ballot: ballot(600) }])).toEqual(["kept"]);
  expect(deletions.removalsIn(PLACE)).toBe(before);
  expect(await deletions.confirm(PLACE, 0, [{ key, ballot: ballot(450) }])).toEqual(["forgotten"]);
  expect(deletions.removalsIn(PLACE)).toBeGreaterThan(before);
});
