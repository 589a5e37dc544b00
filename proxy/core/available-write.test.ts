import { describe, expect, test } from "vitest";
import { type Ballot, ballotOf, type Incarnation, timestampIn } from "../../common/ballot.ts";
import { type HybridTimestamp, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import type { AcceptReply, Register, RowReply } from "../../storage-node/wire.ts";
import { judgeAvailable } from "./available-read.ts";
import { AvailableRow } from "./available-row.ts";
import { type AvailableEffect, AvailableWrite } from "./available-write.ts";
import { mayBeKept } from "./hand-off-keep.ts";
import { Quorum } from "./quorum.ts";
import type { WriteRecord } from "./register-write.ts";

const LIFE = "1".repeat(24) as Incarnation;
const ballot = (time: number): Ballot =>
  ballotOf(LIFE, time.toString(16).padStart(16, "0") as HybridTimestamp, "00000001");
const RECORD: WriteRecord = {
  isTombstone: false,
  bodyLength: 3,
  metadata: Buffer.from("m"),
  body: "given",
  bodyVersion: undefined,
};
const ACCEPTED: AcceptReply = { kind: "accepted", liveRow: undefined };
const REFUSED: AcceptReply = { kind: "refused", seen: ballot(9), floor: TIMESTAMP_ZERO, fates: ["never"] };
const UNSENT = { kind: "unsent" } as const;
const STORED: RowReply = { kind: "stored" };

const writeOf = (members: number, handOffs: number): AvailableWrite => {
  let time = 0;
  return new AvailableWrite(Quorum.stable(members), RECORD, () => ballot(++time), handOffs);
};
const kinds = (effects: readonly AvailableEffect[]): readonly unknown[] =>
  effects.map((effect) =>
    effect.kind === "keep"
      ? `keep ${effect.index}`
      : effect.kind === "done"
        ? effect.outcome.kind === "established"
          ? `established${effect.outcome.isKept === true ? ", kept" : ""}`
          : effect.outcome.kind
        : effect.kind,
  );

describe("a plain write under available", () => {
  test("asks no hand-off while W members can accept", () => {
    const write = writeOf(3, 3);
    expect(kinds(write.start())).toEqual(["accept"]);
    expect(kinds(write.onAccept(1, UNSENT, 0))).toEqual([]);
    expect(kinds(write.onAccept(1, ACCEPTED, 1))).toEqual([]);
    expect(kinds(write.onAccept(1, ACCEPTED, 2))).toEqual(["established"]);
  });

  test("is outdated where a member tells of a later life of the container, which no ballot of its own is above", () => {
    const write = writeOf(3, 3);
    write.start();
    const later = ballotOf("2".repeat(24) as Incarnation, timestampIn(ballot(1)), "00000001");
    const refused: AcceptReply = { kind: "refused", seen: later, floor: TIMESTAMP_ZERO, fates: ["never"] };
    expect(kinds(write.onAccept(1, UNSENT, 0))).toEqual([]);
    expect(write.onAccept(1, refused, 1)).toEqual([
      { kind: "done", outcome: { kind: "outdated", seen: later, own: [ballot(1)] } },
    ]);
    expect(kinds(write.onAccept(1, ACCEPTED, 2))).toEqual([]);
  });

  test("begins anew for a refusal of its version in an epoch before, too, instead of asking hand-offs [H2]", () => {
    const write = writeOf(3, 3);
    write.start();
    expect(kinds(write.onEpoch(Quorum.stable(3)))).toEqual(["accept"]);
    expect(kinds(write.onAccept(2, UNSENT, 0))).toEqual([]);
    expect(kinds(write.onAccept(1, REFUSED, 2))).toEqual([]);
    expect(kinds(write.onAccept(2, UNSENT, 1))).toEqual(["accept"]);
    // That one was of an earlier version, and tells of nothing above this one.
    const low: AcceptReply = { ...REFUSED, seen: ballot(1) };
    expect(kinds(write.onAccept(2, low, 2))).toEqual([]);
    expect(kinds(write.onAccept(3, UNSENT, 0))).toEqual([]);
    expect(kinds(write.onAccept(3, UNSENT, 1))).toEqual(["keep 0"]);
    expect(kinds(write.onEpoch(Quorum.stable(3)))).toEqual(["accept"]);
    expect(kinds(write.onAccept(4, UNSENT, 0))).toEqual([]);
    expect(kinds(write.onAccept(4, UNSENT, 1))).toEqual(["keep 0"]);
    // A hand-off that was asked in the epoch before keeps a higher ballot.
    expect(kinds(write.onKept(3, "refused"))).toEqual(["accept"]);
  });

  test("begins anew for a late refusal of an earlier version that tells of a ballot above this one [H2]", () => {
    const write = writeOf(3, 3);
    write.start();
    write.onAccept(1, UNSENT, 0);
    expect(kinds(write.onAccept(1, REFUSED, 1))).toEqual(["accept"]);
    write.onAccept(2, UNSENT, 0);
    expect(kinds(write.onAccept(2, UNSENT, 1))).toEqual(["keep 0"]);
    expect(kinds(write.onAccept(1, REFUSED, 2))).toEqual(["accept"]);
    const kept = writeOf(3, 3);
    kept.start();
    kept.onAccept(1, UNSENT, 0);
    expect(kinds(kept.onAccept(1, UNSENT, 1))).toEqual(["keep 0"]);
    expect(kinds(kept.onAccept(1, REFUSED, 2))).toEqual(["accept"]);
    kept.onAccept(2, UNSENT, 0);
    expect(kinds(kept.onAccept(2, UNSENT, 1))).toEqual(["keep 0"]);
    expect(kinds(kept.onKept(1, "refused", ballot(2)))).toEqual([]);
    expect(kinds(kept.onKept(1, "refused", ballot(9)))).toEqual(["accept"]);
  });

  test("asks as many as lack while the members that are left may accept, and more where they do not [H2]", () => {
    const write = writeOf(3, 3);
    write.start();
    expect(kinds(write.onAccept(1, UNSENT, 0))).toEqual([]);
    expect(kinds(write.onAccept(1, UNSENT, 1))).toEqual(["keep 0"]);
    expect(kinds(write.onAccept(1, undefined, 2))).toEqual(["keep 1"]);
    expect(kinds(write.onKept(1, "kept"))).toEqual([]);
    expect(kinds(write.onKept(1, "failed"))).toEqual(["keep 2"]);
    expect(kinds(write.onKept(1, "kept"))).toEqual(["established, kept"]);
  });

  test("counts nobody twice, and whoever was given up when it answers after all", () => {
    const write = writeOf(3, 1);
    write.start();
    write.onAccept(1, undefined, 0);
    expect(kinds(write.onAccept(1, undefined, 0))).toEqual([]);
    expect(kinds(write.onAccept(1, undefined, 1))).toEqual(["keep 0"]);
    expect(kinds(write.onAccept(1, ACCEPTED, 2))).toEqual([]);
    expect(kinds(write.onAccept(1, ACCEPTED, 2))).toEqual([]);
    expect(kinds(write.onAccept(1, ACCEPTED, 0))).toEqual(["established"]);
  });

  test("takes a new ballot where a member refused, and keeps what was staged under the first [H2]", () => {
    const write = writeOf(3, 3);
    write.start();
    write.onAccept(1, UNSENT, 0);
    const [again] = write.onAccept(1, REFUSED, 1);
    expect(again).toMatchObject({ kind: "accept", round: 2, version: ballot(2), record: { bodyVersion: ballot(1) } });
    expect(kinds(write.onAccept(1, ACCEPTED, 2))).toEqual([]);
  });

  test("takes a new ballot also where a member refuses after hand-offs were asked, whatever those have by then [H2]", () => {
    const write = writeOf(3, 3);
    write.start();
    write.onAccept(1, UNSENT, 0);
    expect(kinds(write.onAccept(1, UNSENT, 1))).toEqual(["keep 0"]);
    const [again] = write.onAccept(1, REFUSED, 2);
    expect(again).toMatchObject({ kind: "accept", round: 2, version: ballot(2), record: { bodyVersion: ballot(1) } });
    expect(kinds(write.onKept(1, "kept"))).toEqual([]);
  });

  test("takes a new ballot where a hand-off keeps a higher one [H2]", () => {
    const write = writeOf(3, 3);
    write.start();
    write.onAccept(1, UNSENT, 0);
    write.onAccept(1, UNSENT, 1);
    expect(kinds(write.onKept(1, "refused"))).toEqual(["accept"]);
    const late = writeOf(3, 3);
    late.start();
    late.onAccept(1, UNSENT, 0);
    expect(kinds(late.onAccept(1, UNSENT, 1))).toEqual(["keep 0"]);
    // Who was given up answers after all: W members decide, and no hand-off does any more.
    expect(kinds(late.onAccept(1, ACCEPTED, 0))).toEqual([]);
    expect(kinds(late.onKept(1, "refused"))).toEqual([]);
    expect(kinds(late.onAccept(1, ACCEPTED, 2))).toEqual(["established"]);
  });

  test("ends as unknown where too few hand-offs are left, and in a partition whose members change", () => {
    const write = writeOf(3, 1);
    write.start();
    for (const member of [0, 1]) write.onAccept(1, UNSENT, member);
    expect(kinds(write.onAccept(1, UNSENT, 2))).toEqual(["unknown"]);
    const joint = new AvailableWrite(Quorum.joint(3, [true, true, false, true]), RECORD, () => ballot(1), 3);
    joint.start();
    joint.onAccept(1, UNSENT, 0);
    expect(kinds(joint.onAccept(1, UNSENT, 1))).toEqual(["unknown"]);
  });

  test("begins anew with the members of a later epoch", () => {
    const write = writeOf(3, 3);
    write.start();
    write.onAccept(1, UNSENT, 0);
    write.onAccept(1, UNSENT, 1);
    expect(write.onEpoch(Quorum.stable(3))).toMatchObject([{ kind: "accept", round: 2, version: ballot(1) }]);
    expect(kinds(write.onKept(1, "kept"))).toEqual([]);
  });
});

test("a row goes to hand-offs where no member says that it belongs elsewhere", () => {
  const row = new AvailableRow(Quorum.stable(3), 3);
  row.start();
  row.onReply(1, { kind: "behind" }, 0);
  expect(row.onReply(1, UNSENT, 1)).toEqual([{ kind: "keep", round: 1, index: 0 }]);
  expect(row.onReply(1, STORED, 2)).toEqual([]);
  expect(row.onKept(1, true)).toEqual([{ kind: "done", outcome: "kept" }]);
  const closing = new AvailableRow(Quorum.stable(3), 3);
  closing.start();
  closing.onReply(1, { kind: "closing" }, 0);
  expect(closing.onReply(1, UNSENT, 1)).toEqual([{ kind: "done", outcome: "closing" }]);
});

test("nothing is kept under strong, and nothing with a condition [H3, H8]", () => {
  expect(
    [true, false].map((isAvailable) => [mayBeKept(isAvailable, "plain"), mayBeKept(isAvailable, "conditional")]),
  ).toEqual([
    [true, false],
    [false, false],
  ]);
});

test("that nothing is there R members say, never hand-offs [H5]", () => {
  const nothing = (device: string) => ({ device, register: undefined });
  const version = ballot(2);
  const register: Register = {
    version,
    ballot: version,
    bodyVersion: version,
    state: "accepted",
    isTombstone: false,
    bodyLength: 0,
    metadata: new Uint8Array(),
  };
  const kept = [nothing("x"), { device: "y", register }];
  expect(judgeAvailable([nothing("a"), nothing("b")], [], 2)).toEqual({ register: undefined, holders: [] });
  expect(judgeAvailable([nothing("a")], [nothing("x"), nothing("y")], 2)).toBeUndefined();
  expect(judgeAvailable([], [nothing("x"), nothing("y")], 2)).toBeUndefined();
  expect(judgeAvailable([], kept, 2)).toEqual({ register, holders: ["y"] });
  expect(judgeAvailable([], kept.slice(1), 2)).toBeUndefined();
});
