import { expect, test } from "vitest";
import { type Ballot, ballotOf, type Incarnation, NO_INCARNATION } from "../common/ballot.ts";
import type { HybridTimestamp } from "../common/hybrid-clock.ts";
import { DeviceReplica } from "./device-replica.ts";
import { MemoryDevice } from "./engine/memory-device.ts";
import { encodeContainerRecord, type Name, type Proposal, type Row, unpackRows } from "./wire.ts";

const CONTAINER: Name = { space: "container", hash32: 3, path: "/a/c" };
const OBJECT: Name = { space: "object", hash32: 4, path: "/a/c/o" };
const FIRST = "1".repeat(24) as Incarnation;
const SECOND = "2".repeat(24) as Incarnation;
const QUERY = { marker: "", endMarker: "", prefix: "", isReverse: false, limit: 10, withDeleted: true };
const NOW_MS = 0x10_000;

const ballot = (time: number, life: Incarnation = NO_INCARNATION): Ballot =>
  ballotOf(life, (time.toString(16).padStart(12, "0") + "0000") as HybridTimestamp, "00000001");

const record = (
  incarnation: Incarnation,
  status: "open" | "closing",
  version: Ballot,
  isTombstone = false,
): Proposal => ({
  bodyVersion: version,
  isTombstone,
  bodyLength: 0,
  metadata: encodeContainerRecord({ status, incarnation, headers: {} }),
  body: "none",
});

const row = (name: string, version: Ballot): Row => ({
  name,
  version,
  isDeleted: false,
  objects: 1,
  bytes: 5,
  payload: new Uint8Array(),
});

const openReplica = (syncAfter: (done: () => void) => void = (done) => setTimeout(done, 1)) =>
  new DeviceReplica(new MemoryDevice(syncAfter), { nowMs: () => NOW_MS }, [1n, 2n]);

const write = (
  replica: DeviceReplica,
  time: number,
  incarnation: Incarnation,
  status: "open" | "closing",
  isGone = false,
) =>
  replica.accept(
    CONTAINER,
    ballot(time),
    ballot(time),
    record(incarnation, status, ballot(time), isGone),
    { kind: "none" },
    [],
  );

test("rows of an earlier life of a container are in no listing, figure or look of the next", async () => {
  const replica = openReplica();
  await write(replica, 1, FIRST, "open");
  expect(await replica.row(CONTAINER, FIRST, row("left-behind", ballot(2, FIRST)))).toEqual({ kind: "stored" });
  await write(replica, 3, FIRST, "open", true);
  const reopened = await write(replica, 4, SECOND, "open");
  expect(reopened).toEqual({ kind: "accepted", liveRow: undefined });
  expect(replica.summary(CONTAINER, SECOND)).toMatchObject({ rows: 0, bytes: 0 });
  expect(unpackRows(Buffer.concat((await replica.list(CONTAINER, SECOND, QUERY)).runs))).toEqual([]);
  expect(await replica.row(CONTAINER, FIRST, row("late", ballot(5, FIRST)))).toEqual({ kind: "moved" });
});

test("a row that was let in is seen by the look at closing, however the syncs fall [B1, B3]", async () => {
  const syncs: (() => void)[] = [];
  const replica = openReplica((done) => syncs.push(done));
  const opened = write(replica, 1, FIRST, "open");
  const put = replica.row(CONTAINER, FIRST, row("o", ballot(2, FIRST)));
  const closed = write(replica, 3, FIRST, "closing");
  const late = replica.row(CONTAINER, FIRST, row("late", ballot(4, FIRST)));
  for (const sync of syncs.splice(0)) sync();
  await opened;
  expect(await put).toEqual({ kind: "stored" });
  expect(await closed).toMatchObject({ kind: "accepted", liveRow: { name: "o" } });
  expect(await late).toEqual({ kind: "closing" });
});

test("what was accepted and not confirmed is reported until it is, by memory and by the scan [B7]", async () => {
  const replica = openReplica();
  const version = ballot(7, FIRST);
  const proposal: Proposal = {
    bodyVersion: version,
    isTombstone: false,
    bodyLength: 0,
    metadata: new Uint8Array(),
    body: "none",
  };
  await replica.accept(OBJECT, version, version, proposal, { kind: "none" }, []);
  const expected = { name: OBJECT, register: expect.objectContaining({ version, state: "accepted" }) };
  expect(replica.lately(8).registers).toEqual([expected]);
  expect((await replica.unsettled(new Uint8Array(0), 8)).registers).toEqual([expected]);
  // Younger than asked for: somebody may still be at work on it.
  expect(replica.lately(7).registers).toEqual([]);
  replica.confirm(OBJECT, version, false);
  expect(replica.lately(8).registers).toEqual([]);
  expect(await replica.unsettled(new Uint8Array(0), 8)).toEqual({ registers: [], next: undefined });
});

test("a container left closing is reported although its closing is confirmed [B7]", async () => {
  const replica = openReplica();
  await write(replica, 1, FIRST, "closing");
  replica.confirm(CONTAINER, ballot(1), false);
  expect(replica.lately(9).registers).toHaveLength(1);
  expect((await replica.unsettled(new Uint8Array(0), 9)).registers).toHaveLength(1);
});

test("a long scan is answered in pages that meet [B7]", async () => {
  const replica = openReplica();
  const proposal = { isTombstone: false, bodyLength: 0, metadata: new Uint8Array(), body: "none" } as const;
  const names = Array.from({ length: 700 }, (_, index) => `/a/c/o${String(index).padStart(4, "0")}`);
  await Promise.all(
    names.map((path, index) => {
      const version = ballot(index + 1, FIRST);
      const name = { ...OBJECT, path };
      return replica.accept(name, version, version, { ...proposal, bodyVersion: version }, { kind: "none" }, []);
    }),
  );
  const found: string[] = [];
  for (let from: Uint8Array | undefined = new Uint8Array(0); from !== undefined; ) {
    const page: Awaited<ReturnType<DeviceReplica["unsettled"]>> = await replica.unsettled(from, NOW_MS);
    found.push(...page.registers.map(({ name }) => name.path));
    from = page.next;
  }
  expect(found).toEqual(names);
});
