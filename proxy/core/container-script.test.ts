import { expect, test } from "vitest";
import { type Ballot, ballotOf, type Incarnation, NO_INCARNATION } from "../../common/ballot.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import { decodeContainerRecord, encodeContainerRecord, type Register, type Row } from "../../storage-node/wire.ts";
import type { ContainerPlace } from "./container-place.ts";
import { deleteContainer, readContainer } from "./container-script.ts";
import type { Promised, WriteMode, WriteOutcome, WriteRecord } from "./register-write.ts";
import type { ListAnswer } from "./script.ts";
import { ShardMemory } from "./shard-memory.ts";

const LIFE = "1".repeat(24) as Incarnation;
const place: ContainerPlace<string> = {
  container: "container",
  account: "account",
  name: "c",
  shardOf: (_, id) => `shard ${id}`,
  memory: new ShardMemory(),
};
const ballot = (time: number, life = NO_INCARNATION): Ballot =>
  ballotOf(life, time.toString(16).padStart(16, "0") as HybridTimestamp, "00000001");

const OPEN: Register = {
  version: ballot(1),
  ballot: ballot(1),
  state: "confirmed",
  bodyVersion: ballot(1),
  isTombstone: false,
  bodyLength: 0,
  metadata: encodeContainerRecord({ status: "open", incarnation: LIFE, headers: {} }),
};
const ROW: Row = {
  name: "o",
  version: ballot(2, LIFE),
  isDeleted: false,
  objects: 1,
  bytes: 1,
  payload: new Uint8Array(),
};
const DELETED: Row = { ...ROW, version: ballot(3, LIFE), isDeleted: true };

const promise = (liveRow?: Row): Promised => ({ register: OPEN, fates: [], liveRow });
const established = (version: Ballot, liveRows: readonly Row[] = []): WriteOutcome => ({
  kind: "established",
  version,
  ballot: version,
  base: OPEN,
  isConfirmed: false,
  liveRows,
});

/** R answers to a LIST: each replica's rows; hashes differ where the rows do. */
const listed = (...pages: readonly (readonly Row[])[]): ListAnswer => ({
  kind: "rows",
  pages: pages.map((rows, replica) => {
    const live = rows.filter((row) => !row.isDeleted);
    const setHash = live.map((row) => row.version).join();
    return { replica, rows, summary: { rows: live.length, objects: live.length, bytes: 0, setHash } };
  }),
});

const decided = (mode: WriteMode, base: Register, promises: readonly Promised[]): WriteRecord | "stop" => {
  if (mode.kind !== "conditional") throw new Error(`${mode.kind} decides nothing`);
  return mode.decide(base, ballot(9), promises);
};

const statusOf = (record: WriteRecord | "stop"): string =>
  record === "stop" ? "stop" : record.isTombstone ? "tombstone" : decodeContainerRecord(record.metadata).status;

test("what a read finishes is what it gives: a replica that stays behind may answer the next read as well", () => {
  const gone: Register = {
    ...OPEN,
    version: ballot(9),
    ballot: ballot(9),
    state: "accepted",
    isTombstone: true,
    metadata: encodeContainerRecord({ status: "closing", incarnation: LIFE, headers: {} }),
  };
  const script = readContainer(place);
  expect(script.next().value).toMatchObject({ kind: "read" });
  expect(script.next({ register: gone, isSettled: false }).value).toMatchObject({ kind: "write" });
  expect(script.next(established(ballot(9))).value).toMatchObject({ kind: "row", set: "account" });
  expect(script.next("stored").value).toMatchObject({ kind: "confirm", version: ballot(9) });
  expect(script.next()).toEqual({ done: true, value: "absent" });
});

test("an empty container closes, is looked at once more, and only then becomes a tombstone [B3]", () => {
  const script = deleteContainer(place);
  const first = script.next().value;
  if (typeof first !== "object" || first.kind !== "write") throw new Error("a write comes first");
  expect(statusOf(decided(first.mode, OPEN, [promise(), promise()]))).toBe("closing");
  expect(script.next(established(ballot(9))).value).toMatchObject({ kind: "confirm", version: ballot(9) });
  const end = script.next().value;
  if (typeof end !== "object" || end.kind !== "write") throw new Error("the end is a write");
  expect(statusOf(decided(end.mode, { ...OPEN, version: ballot(9) }, []))).toBe("tombstone");
  // Another closing of the same life may stand after a reopening that took rows in: what was seen says nothing of it.
  expect(statusOf(decided(end.mode, { ...OPEN, version: ballot(10) }, []))).toBe("stop");
  expect(script.next(established(ballot(11))).value).toMatchObject({ kind: "row", set: "account" });
  expect(script.next("stored").value).toMatchObject({ kind: "confirm", version: ballot(11) });
  expect(script.next()).toEqual({ done: true, value: "deleted" });
});

test("a live row is shown at a quorum before a deletion is refused for it [B3]", () => {
  const script = deleteContainer(place);
  const first = script.next().value;
  if (typeof first !== "object" || first.kind !== "write") throw new Error("a write comes first");
  expect(decided(first.mode, OPEN, [promise(ROW), promise()])).toBe("stop");
  expect(script.next({ kind: "stopped", base: OPEN }).value).toMatchObject({ kind: "list" });
  expect(script.next(listed([ROW], [ROW])).value).toMatchObject({ kind: "row", row: ROW });
  expect(script.next("stored")).toEqual({ done: true, value: "not-empty" });
});

test("a row whose deletion one replica missed keeps no container, and that replica is told [B2, B3]", () => {
  const script = deleteContainer(place);
  const first = script.next().value;
  if (typeof first !== "object" || first.kind !== "write") throw new Error("a write comes first");
  expect(decided(first.mode, OPEN, [promise(ROW), promise()])).toBe("stop");
  expect(script.next({ kind: "stopped", base: OPEN }).value).toMatchObject({ kind: "list", fromAll: false });
  expect(script.next(listed([ROW], [])).value).toMatchObject({ kind: "list", fromAll: true });
  expect(script.next(listed([ROW], [DELETED])).value).toMatchObject({ kind: "repair", replica: 0, row: DELETED });
  const again = script.next().value;
  if (typeof again !== "object" || again.kind !== "write") throw new Error("the deletion begins again");
  expect(statusOf(decided(again.mode, OPEN, [promise(ROW), promise()]))).toBe("closing");
});

test("once closing was proposed a retry decides on the base alone: what was proposed can still take effect [B4]", () => {
  const script = deleteContainer(place);
  const first = script.next().value;
  if (typeof first !== "object" || first.kind !== "write") throw new Error("a write comes first");
  expect(statusOf(decided(first.mode, OPEN, [promise(), promise()]))).toBe("closing");
  expect(statusOf(decided(first.mode, OPEN, [promise(ROW), promise(ROW)]))).toBe("closing");
});

const ended = (closedBy: Ballot | undefined, incarnation = LIFE): Register => ({
  ...OPEN,
  version: ballot(20),
  ballot: ballot(20),
  isTombstone: true,
  metadata: encodeContainerRecord({
    status: "closing",
    incarnation,
    headers: closedBy === undefined ? {} : { ".closed-by": closedBy },
  }),
});

test.each([
  ["its own closing was ended by somebody else", ended(ballot(9)), "deleted"],
  ["its closing was reopened, and another deletion came after it", ended(ballot(12)), "not-empty"],
  [
    "it was ended by a proxy of a version before, which does not say whose closing that was",
    ended(undefined),
    "unknown",
  ],
  ["a later life was deleted meanwhile", ended(ballot(12), "2".repeat(24) as Incarnation), "unknown"],
  ["the deletion was forgotten meanwhile", undefined, "unknown"],
] as const)("a deletion says what became of its own closing [B3]: %s", (_title, found, answer) => {
  const script = deleteContainer(place);
  const first = script.next().value;
  if (typeof first !== "object" || first.kind !== "write") throw new Error("a write comes first");
  decided(first.mode, OPEN, [promise(), promise()]);
  expect(script.next(established(ballot(9))).value).toMatchObject({ kind: "confirm" });
  const end = script.next().value;
  if (typeof end !== "object" || end.kind !== "write") throw new Error("the end is a write");
  const tombstone = decided(end.mode, { ...OPEN, version: ballot(9) }, []);
  if (tombstone === "stop") throw new Error("the closing stands");
  expect(decodeContainerRecord(tombstone.metadata).headers).toEqual({ ".closed-by": ballot(9) });
  expect(script.next({ kind: "stopped", base: found }).value).toMatchObject({ kind: "read" });
  expect(script.next({ register: found, isSettled: true })).toEqual({ done: true, value: answer });
});
