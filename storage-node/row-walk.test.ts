import { expect, test } from "vitest";
import { type Ballot, ballotOf, type Incarnation, NO_INCARNATION } from "../common/ballot.ts";
import { systemClock } from "../common/clock.ts";
import { timestampAt } from "../common/hybrid-clock.ts";
import { DeviceReplica } from "./device-replica.ts";
import { MemoryDevice } from "./engine/memory-device.ts";
import { RowWalk, WALK_START, walkPage, type WalkPosition } from "./row-walk.ts";
import { entryDigests } from "./store/entry-digest.ts";
import { type ContainerRecord, encodeContainerRecord, type Name, type Row } from "./wire.ts";

const DIGESTS = entryDigests(Buffer.alloc(32, 7));
const FIRST_LIFE = "1".repeat(24) as Incarnation;
const SECOND_LIFE = "2".repeat(24) as Incarnation;
const CONTAINER: Name = { space: "container", hash32: 0x10000000, path: "/a/c" };
/** In the same bucket, behind the first one. */
const OTHER: Name = { space: "container", hash32: 0x10000001, path: "/a/d" };
const FAR: Name = { space: "container", hash32: 0xffffffff, path: "/a/e" };

let clock = systemClock.nowMs();
const ballot = (life: Incarnation = NO_INCARNATION): Ballot => ballotOf(life, timestampAt(++clock), "00000001");
const spaceOf = (owner: Name, life: Incarnation): Name => ({ ...owner, path: `${owner.path}\0${life}` });

const rowsOf = (count: number, life = FIRST_LIFE, isDeleted = false): Row[] =>
  Array.from({ length: count }, (_, at) => ({
    name: `${isDeleted ? "deleted" : "live"}-${at}`,
    version: ballot(life),
    isDeleted,
    objects: isDeleted ? 0 : 1,
    bytes: 0,
    payload: new Uint8Array(),
  }));

const newDevice = (): MemoryDevice => new MemoryDevice((done) => queueMicrotask(done), undefined, DIGESTS);
const replicaOn = (device: MemoryDevice): DeviceReplica => new DeviceReplica(device, systemClock, [1n, 2n]);

type Standing = { readonly isTombstone?: boolean; readonly isConfirmed?: boolean };

const stand = async (
  replica: DeviceReplica,
  owner: Name,
  incarnation: Incarnation,
  { isConfirmed = true, isTombstone = false }: Standing = {},
): Promise<void> => {
  const record: ContainerRecord = { status: "open", incarnation, headers: {} };
  const version = ballot();
  const metadata = encodeContainerRecord(record);
  const proposal = { bodyVersion: version, isTombstone, bodyLength: 0, metadata, body: "none" } as const;
  expect((await replica.accept(owner, version, version, proposal, { kind: "none" }, [version])).kind).toBe("accepted");
  if (!isConfirmed) return;
  replica.confirm(owner, version, false);
  replica.flushConfirmations();
  await replica.engine.sync();
};

/** All that a walk finds, with the number of its pages. */
const walk = async (
  replica: DeviceReplica,
): Promise<{ readonly found: readonly unknown[]; readonly pages: number }> => {
  const found: unknown[] = [];
  let pages = 0;
  for (let at: WalkPosition | undefined = WALK_START; at !== undefined; pages++) {
    const page = await walkPage(replica, at);
    found.push(...page.listings.map(({ owner, rows }) => [owner.path.split("\0")[0], rows]));
    at = page.next;
  }
  return { found, pages };
};

test("a walk finds the listing of each container once, and passes over its rows and over empty buckets", async () => {
  const replica = replicaOn(newDevice());
  for (const [owner, count] of [
    [CONTAINER, 3000],
    [OTHER, 2],
    [FAR, 1],
  ] as const) {
    await stand(replica, owner, FIRST_LIFE);
    await replica.installRows(spaceOf(owner, FIRST_LIFE), rowsOf(count));
  }
  await replica.row({ space: "account", hash32: 5, path: "/a" }, NO_INCARNATION, rowsOf(1)[0]!);
  const { found, pages } = await walk(replica);
  expect(found).toEqual([
    ["/a/c", 3000],
    ["/a/d", 2],
    ["/a/e", 1],
  ]);
  // Two of the first bucket, one of the last one, and the end.
  expect(pages).toBeLessThanOrEqual(4);
});

test("live rows of a container that was split and deleted while this replica was away are dropped, and nobody takes them from it", async () => {
  const replica = replicaOn(newDevice());
  await stand(replica, CONTAINER, FIRST_LIFE);
  const life = spaceOf(CONTAINER, FIRST_LIFE);
  const rows = [...rowsOf(600), ...rowsOf(3, FIRST_LIFE, true)];
  await replica.installRows(life, rows);
  expect(await replica.shards.dropOver(life)).toBe(0);
  // It may yet be reopened with them.
  await stand(replica, CONTAINER, FIRST_LIFE, { isTombstone: true, isConfirmed: false });
  expect(await replica.shards.dropOver(life)).toBe(0);
  expect(replica.summary(CONTAINER, FIRST_LIFE).rows).toBe(600);
  await stand(replica, CONTAINER, FIRST_LIFE, { isTombstone: true });
  const removed: number[] = [];
  do removed.push(await replica.shards.dropOver(life));
  while (removed.at(-1) !== 0);
  expect(removed).toEqual([...Array<number>(6).fill(100), 0]);
  expect(replica.summary(CONTAINER, FIRST_LIFE)).toMatchObject({ rows: 0, objects: 0, setHash: "0" });
  const other = replicaOn(newDevice());
  await stand(other, CONTAINER, FIRST_LIFE, { isTombstone: true });
  await other.installRows(life, rows);
  expect(other.summary(CONTAINER, FIRST_LIFE).rows).toBe(0);
  const left = await other.engine.scan({ gte: Buffer.of(0), lt: Buffer.alloc(6, 0xff), limit: 1000 });
  expect(left.filter(({ key }) => Buffer.from(key).includes("deleted-"))).toHaveLength(3);
});

test("rows of an earlier life are dropped, those of the present one stay", async () => {
  const replica = replicaOn(newDevice());
  await stand(replica, CONTAINER, FIRST_LIFE);
  await replica.installRows(spaceOf(CONTAINER, FIRST_LIFE), rowsOf(2));
  await stand(replica, CONTAINER, SECOND_LIFE);
  await replica.installRows(spaceOf(CONTAINER, SECOND_LIFE), rowsOf(3, SECOND_LIFE));
  await replica.installRows(spaceOf(CONTAINER, FIRST_LIFE), rowsOf(5));
  const dropped = [
    await replica.shards.dropOver(spaceOf(CONTAINER, FIRST_LIFE)),
    await replica.shards.dropOver(spaceOf(CONTAINER, SECOND_LIFE)),
  ];
  expect(dropped).toEqual([2, 0]);
  expect(replica.summary(CONTAINER, SECOND_LIFE).rows).toBe(3);
});

test("a container's tombstone is not forgotten while live rows are left that only it tells to be over [E2]", async () => {
  const replica = replicaOn(newDevice());
  await stand(replica, CONTAINER, FIRST_LIFE);
  await replica.installRows(spaceOf(CONTAINER, FIRST_LIFE), rowsOf(2));
  await stand(replica, CONTAINER, FIRST_LIFE, { isTombstone: true });
  const place = { space: "container", partition: 0x1000, partitionPower: 16 } as const;
  const later = clock + 60_000;
  expect((await replica.deletions.page(place, undefined, later)).doomed).toEqual([]);
  await replica.shards.dropOver(spaceOf(CONTAINER, FIRST_LIFE));
  const { doomed } = await replica.deletions.page(place, undefined, later);
  expect(doomed).toHaveLength(1);
  expect(await replica.deletions.confirm(place, 0, doomed)).toEqual(["held"]);
  await replica.installRows(spaceOf(CONTAINER, FIRST_LIFE), rowsOf(1));
  expect(await replica.deletions.confirm(place, 0, doomed)).toEqual(["held"]);
});

test("listings that nobody has asked for since a start are counted after a walk, which begins when sizes are asked for", async () => {
  const device = newDevice();
  const before = replicaOn(device);
  for (const [owner, count] of [
    [CONTAINER, 9],
    [OTHER, 2],
    [FAR, 7],
  ] as const) {
    await stand(before, owner, FIRST_LIFE);
    await before.installRows(spaceOf(owner, FIRST_LIFE), rowsOf(count));
  }
  const replica = replicaOn(device);
  const counted = (): unknown[] => replica.shards.counts(7, 2, "/a/d").map(({ owner, rows }) => [owner.path, rows]);
  const timer = { nowMs: () => 1_000_000 };
  const worker = new RowWalk("d1", replica, timer);
  const signal = new AbortController().signal;
  expect(await worker.work(signal)).toBe("idle");
  expect(counted()).toEqual([]);
  while ((await worker.work(signal)) === "busy");
  expect(counted()).toEqual([
    ["/a/c", 9],
    ["/a/e", 7],
    ["/a/d", 2],
  ]);
  expect(worker.status()).toMatchObject({ walks: 1 });
  // The same sizes are no reason to walk again.
  expect(await worker.work(signal)).toBe("idle");
  expect(worker.status()).toMatchObject({ walks: 1 });
  await replica.installRows(spaceOf(OTHER, FIRST_LIFE), rowsOf(5));
  expect(counted()).toEqual([
    ["/a/c", 9],
    ["/a/e", 7],
  ]);
});
