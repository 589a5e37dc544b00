import { expect, test } from "vitest";
import { type Ballot, ballotOf, type Incarnation } from "../../common/ballot.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import type { AcceptReply, Fate, Register } from "../../storage-node/wire.ts";
import { RegisterWrite, type WriteEffect, type WriteMode, type WriteRecord } from "./register-write.ts";

const LIFE = "1".repeat(24) as Incarnation;
const LATER_LIFE = "2".repeat(24) as Incarnation;
const FLOOR = "0".repeat(16) as HybridTimestamp;
const ballot = (time: number, life = LIFE): Ballot =>
  ballotOf(life, time.toString(16).padStart(16, "0") as HybridTimestamp, "00000001");

const KEEP: WriteRecord = {
  isTombstone: false,
  bodyLength: 9,
  metadata: Buffer.from("m"),
  body: "keep",
  bodyVersion: ballot(1),
};
const GIVEN: WriteRecord = { ...KEEP, body: "given", bodyVersion: undefined };
const ACCEPTED: AcceptReply = { kind: "accepted", liveRow: undefined };
const NODATA: AcceptReply = { kind: "nodata" };

const start = (mode: WriteMode): { machine: RegisterWrite; first: WriteEffect } => {
  let time = 10;
  const machine = new RegisterWrite(3, mode, () => ballot(time++));
  return { machine, first: machine.start() };
};

const register = (version: Ballot, state: Register["state"], at = version): Register => ({
  version,
  ballot: at,
  state,
  bodyVersion: version,
  isTombstone: false,
  bodyLength: 9,
  metadata: Buffer.from("m"),
});

const refused = (seen: Ballot, fate: Fate = "never"): AcceptReply => ({
  kind: "refused",
  seen,
  floor: FLOOR,
  fates: [fate],
});

test("a replica that lacks the body is sent the record with it, and counts when it answers that [A4]", () => {
  const { machine } = start({ kind: "finish", version: ballot(5), ballot: ballot(5), record: KEEP });
  const supply = machine.onAccept(1, NODATA, 2);
  expect(supply).toMatchObject({ kind: "supply", replica: 2, round: 1, version: ballot(5), ballot: ballot(5) });
  expect(supply?.kind === "supply" && supply.record).toMatchObject({ body: "given", bodyVersion: ballot(1) });
  expect(machine.onAccept(1, undefined, 0)).toBeUndefined();
  expect(machine.onAccept(1, ACCEPTED, 1)).toBeUndefined();
  expect(machine.onAccept(1, ACCEPTED, 2)).toMatchObject({ kind: "done", outcome: { kind: "established" } });
});

test("a replica that cannot be given the body counts as failed, and is not asked for ever [A4]", () => {
  const { machine } = start({ kind: "finish", version: ballot(5), ballot: ballot(5), record: KEEP });
  expect(machine.onAccept(1, NODATA, 2)?.kind).toBe("supply");
  expect(machine.onAccept(1, NODATA, 2)).toBeUndefined();
  expect(machine.onAccept(1, undefined, 1)).toMatchObject({ kind: "prepare" });
});

test("a replica that asks for the body after W have accepted is given it too [A4]", () => {
  const { machine } = start({ kind: "finish", version: ballot(5), ballot: ballot(5), record: KEEP });
  machine.onAccept(1, ACCEPTED, 0);
  expect(machine.onAccept(1, ACCEPTED, 1)?.kind).toBe("done");
  expect(machine.onAccept(1, NODATA, 2)).toMatchObject({ kind: "supply", replica: 2 });
});

test("a version accepted somewhere is accepted again without its body, which the others ask for [W2, A4]", () => {
  const { machine, first } = start({ kind: "plain", record: GIVEN });
  expect(first).toMatchObject({ kind: "accept", record: { body: "given" } });
  machine.onAccept(1, ACCEPTED, 0);
  machine.onAccept(1, refused(ballot(12)), 1);
  expect(machine.onAccept(1, refused(ballot(12)), 2)?.kind).toBe("prepare");
  const promised = (held: Register | undefined, fate: Fate) =>
    machine.onPrepare(2, { kind: "promised", register: held, fates: [fate], liveRow: undefined });
  expect(promised(undefined, "never")).toBeUndefined();
  const again = promised(register(ballot(10), "accepted"), "accepted");
  expect(again).toMatchObject({ kind: "accept", version: ballot(10) });
  expect(again?.kind === "accept" && again.record).toMatchObject({ body: "keep", bodyVersion: ballot(10) });
});

test("a write of an earlier life never covers one of a later: it ends as outdated [B6]", () => {
  const { machine } = start({ kind: "plain", record: GIVEN });
  const later = ballot(1, LATER_LIFE);
  expect(later > ballot(99)).toBe(true);
  machine.onAccept(1, refused(later), 0);
  machine.onAccept(1, refused(later), 1);
  expect(machine.onAccept(1, refused(later), 2)).toEqual({
    kind: "done",
    outcome: { kind: "outdated", seen: later, own: [] },
  });
});

test("an outdated write that some replica accepted names its versions, whose fate is open [B5, B6]", () => {
  const { machine } = start({ kind: "plain", record: GIVEN });
  const later = ballot(1, LATER_LIFE);
  machine.onAccept(1, ACCEPTED, 0);
  machine.onAccept(1, refused(later), 1);
  machine.onAccept(1, refused(later), 2);
  machine.onPrepare(2, { kind: "refused", seen: later, floor: FLOOR, fates: ["never"] });
  expect(machine.onPrepare(2, { kind: "refused", seen: later, floor: FLOOR, fates: ["never"] })).toEqual({
    kind: "done",
    outcome: { kind: "outdated", seen: later, own: [ballot(10)] },
  });
});

test.each([
  ["confirmed", register(ballot(9), "confirmed"), "confirmed", "confirmed"],
  ["void", register(ballot(9), "confirmed"), "void", "never"],
  ["still the highest, unconfirmed", register(ballot(5), "accepted"), "accepted", "never"],
  ["overwritten while its outcome was open", register(ballot(9), "confirmed"), "accepted", "unclear"],
  ["forgotten by a restart", register(ballot(9), "confirmed"), "unknown", "unclear"],
] as const)("what became of a version that is %s is told by W promises [B5]", (_case, held, fate, verdict) => {
  const { machine } = start({ kind: "inspect", version: ballot(5) });
  const answer = { kind: "promised", register: held, fates: [fate], liveRow: undefined } as const;
  let done = machine.onPrepare(1, answer);
  for (let more = 0; done === undefined && more < 2; more++) done = machine.onPrepare(1, answer);
  expect(done).toMatchObject({ kind: "done", outcome: { kind: "inspected", verdict } });
});
