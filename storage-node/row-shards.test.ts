import { expect, test } from "vitest";
import { type Ballot, ballotOf, type Incarnation, NO_INCARNATION } from "../common/ballot.ts";
import { systemClock } from "../common/clock.ts";
import { type HybridTimestamp, timestampAt, TIMESTAMP_ZERO } from "../common/hybrid-clock.ts";
import { DeviceReplica } from "./device-replica.ts";
import { MemoryDevice } from "./engine/memory-device.ts";
import {
  type ContainerRecord,
  encodeContainerRecord,
  type ListQuery,
  type Name,
  ROW_SKIP_LIMIT,
  type Row,
  type RowsState,
  unpackRows,
} from "./wire.ts";

const LIFE = "1".repeat(24) as Incarnation;
const SHARD: Name = { space: "container", hash32: 0x10000000, path: "/.shards_a/x" };
const PLACE = { space: "container", partition: 1, partitionPower: 4 } as const;
const ALL: ListQuery = { marker: "", endMarker: "", prefix: "", isReverse: false, limit: 100, withDeleted: true };

let clock = systemClock.nowMs();
const now = (): HybridTimestamp => timestampAt(++clock);
const ballot = (at = now(), life = LIFE): Ballot => ballotOf(life, at, "00000001");

const rowOf = (name: string, version = ballot(), isDeleted = false): Row => ({
  name,
  version,
  isDeleted,
  objects: isDeleted ? 0 : 1,
  bytes: 0,
  payload: new Uint8Array(),
});

const replicaIn = async (...states: readonly RowsState[]): Promise<DeviceReplica> => {
  const replica = new DeviceReplica(new MemoryDevice((done) => queueMicrotask(done)), systemClock, [1n, 2n]);
  for (const rows of states) await turn(replica, rows);
  return replica;
};

const turn = async (replica: DeviceReplica, rows: RowsState, isTombstone = false): Promise<void> => {
  const record: ContainerRecord = {
    status: "open",
    incarnation: LIFE,
    headers: {},
    shards: { rows, index: undefined, change: undefined },
  };
  const version = ballot(now(), NO_INCARNATION);
  const metadata = encodeContainerRecord(record);
  const proposal = { bodyVersion: version, isTombstone, bodyLength: 0, metadata, body: "none" } as const;
  expect((await replica.accept(SHARD, version, version, proposal, { kind: "none" }, [version])).kind).toBe("accepted");
  replica.confirm(SHARD, version, false);
};

const namesIn = async (replica: DeviceReplica, query = ALL): Promise<string[] | string> => {
  const { reply, runs } = await replica.list(SHARD, LIFE, query);
  return reply?.kind ?? unpackRows(Buffer.concat(runs)).map(({ name }) => name);
};

const copies = (rows: readonly Row[], mark = TIMESTAMP_ZERO) => ({ rows, mark, place: PLACE });

test("rows are taken and listed as a shard's state says", async () => {
  const told: Record<string, unknown> = {};
  for (const state of ["filling", "here", "leaving", "gone", "dropped"] as const) {
    const replica = await replicaIn(state);
    told[state] = [
      (await replica.row(SHARD, LIFE, rowOf("plain"))).kind,
      (await replica.row(SHARD, LIFE, rowOf("placed"), 0, true)).kind,
      (await replica.shards.take(SHARD, LIFE, copies([rowOf("copied")]), 0)).kind,
      await namesIn(replica),
      await namesIn(replica, { ...ALL, isCopy: true }),
    ];
  }
  expect(told).toEqual({
    filling: ["stored", "stored", "stored", ["copied", "placed", "plain"], "behind"],
    here: ["stored", "stored", "split", ["placed", "plain"], "behind"],
    leaving: ["split", "stored", "split", ["placed"], ["placed"]],
    gone: ["split", "split", "split", "split", "split"],
    dropped: ["split", "split", "split", "split", "split"],
  });
});

test("what comes late for a name whose deletion was forgotten where the rows came from is old here, too [E5]", async () => {
  const replica = await replicaIn("filling");
  const late = rowOf("late");
  const forgotten = now();
  expect((await replica.shards.take(SHARD, LIFE, copies([rowOf("copied", late.version)], forgotten), 0)).kind).toBe(
    "stored",
  );
  expect((await replica.row(SHARD, LIFE, late)).kind).toBe("old");
  // Of a copy that is still to come it may be the deletion.
  expect((await replica.row(SHARD, LIFE, rowOf("gone", late.version, true))).kind).toBe("stored");
  await replica.shards.take(SHARD, LIFE, copies([rowOf("gone", late.version)]), 0);
  await turn(replica, "here");
  expect(await namesIn(replica, { ...ALL, withDeleted: false })).toEqual(["copied"]);
});

test("rows that are elsewhere are dropped in parts, are not pulled again, and nobody else's are", async () => {
  const replica = await replicaIn("here");
  const rows = Array.from({ length: 1500 }, (_, at) => rowOf(`r${at}`));
  await replica.installRows({ ...SHARD, path: `${SHARD.path}\0${LIFE}` }, rows);
  await replica.row({ ...SHARD, space: "account", path: "/a" }, NO_INCARNATION, rowOf("kept"));
  await expect(replica.shards.drop(SHARD, LIFE, 0)).rejects.toMatchObject({ code: "rows-not-over" });
  await turn(replica, "leaving");
  await expect(replica.shards.drop(SHARD, LIFE, 0)).rejects.toMatchObject({ code: "rows-not-over" });
  await turn(replica, "gone");
  const removed: number[] = [];
  do removed.push(await replica.shards.drop(SHARD, LIFE, 0));
  while (removed.at(-1) !== 0);
  expect(removed).toEqual([...Array<number>(15).fill(100), 0]);
  expect(replica.summary(SHARD, LIFE)).toMatchObject({ rows: 0, setHash: "0" });
  await replica.installRows({ ...SHARD, path: `${SHARD.path}\0${LIFE}` }, rows);
  expect(await replica.shards.drop(SHARD, LIFE, 0)).toBe(0);
  expect(replica.summary({ ...SHARD, space: "account", path: "/a" }, NO_INCARNATION)).toMatchObject({ rows: 1 });
});

test("a device tells which listings are large and which shards small, and the name in the middle of one", async () => {
  const replica = await replicaIn("here");
  for (let at = 0; at < 9; at++) await replica.row(SHARD, LIFE, rowOf(`r${at}`));
  expect(replica.shards.counts(9, 0, "/.shards_")).toEqual([{ owner: SHARD, incarnation: LIFE, rows: 9 }]);
  expect(replica.shards.counts(10, 9, "/.shards_")).toHaveLength(1);
  expect(replica.shards.counts(10, 9, "/other")).toEqual([]);
  expect(await replica.shards.nameAt(SHARD, LIFE, "", 4, 0)).toBe("r4");
  expect(await replica.shards.nameAt(SHARD, LIFE, "r4", 3, 0)).toBe("r8");
  expect(await replica.shards.nameAt(SHARD, LIFE, "r4", 4, 0)).toBeUndefined();
  const many = Array.from({ length: ROW_SKIP_LIMIT + 1 }, (_, at) => rowOf(`s${String(at).padStart(5, "0")}`));
  await replica.installRows({ ...SHARD, path: `${SHARD.path}\0${LIFE}` }, many);
  expect(await replica.shards.nameAt(SHARD, LIFE, "r8", ROW_SKIP_LIMIT, 0)).toBe(many.at(-1)?.name);
  await turn(replica, "gone");
  expect(replica.shards.counts(1, 9, "/.shards_")).toEqual([]);
});

test("a shard on its way is reported as left behind, and one in place, or buried, is not [B7]", async () => {
  const told: Record<string, number> = {};
  for (const state of ["filling", "here", "leaving", "gone", "dropped"] as const) {
    const replica = await replicaIn(state);
    told[state] = replica.lately(clock + 60_000).registers.length;
    await turn(replica, state, true);
    expect(replica.lately(clock + 60_000).registers).toEqual([]);
  }
  expect(told).toEqual({ filling: 1, here: 0, leaving: 1, gone: 1, dropped: 0 });
});
