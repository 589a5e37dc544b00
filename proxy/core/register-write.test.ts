import { expect, test } from "vitest";
import { type Ballot, ballotOf, type Incarnation } from "../../common/ballot.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import type { AcceptReply, Fate, Register } from "../../storage-node/wire.ts";
import { Quorum } from "./quorum.ts";
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

const start = (mode: WriteMode, isCautious = false): { machine: RegisterWrite; first: WriteEffect } => {
  let time = 10;
  const machine = new RegisterWrite(Quorum.stable(3), mode, () => ballot(time++), isCautious);
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
  expect(machine.onAccept(1, undefined, 1)).toMatchObject({ kind: "wait" });
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

test("where two have refused a version and the third accepts it, its fate is asked for: a write always ends [W2]", () => {
  for (const order of [
    [0, 1, 2],
    [0, 2, 1],
    [2, 0, 1],
  ]) {
    const { machine } = start({ kind: "plain", record: GIVEN });
    const effects = order.map((replica) =>
      machine.onAccept(1, replica === 2 ? ACCEPTED : refused(ballot(12)), replica),
    );
    expect(effects.map((effect) => effect?.kind)).toEqual([undefined, undefined, "prepare"]);
  }
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

const NO_SPACE = { kind: "no-space" } as const;
const promisedNothing = (fate: Fate) =>
  ({ kind: "promised", register: undefined, fates: [fate], liveRow: undefined }) as const;

const UNSENT = { kind: "unsent" } as const;

test("a version that was sent to nobody is forgotten, and another one is proposed after a wait: those that restart could not tell its fate", () => {
  const { machine } = start({ kind: "plain", record: GIVEN });
  for (const replica of [0, 1]) expect(machine.onAccept(1, UNSENT, replica)).toBeUndefined();
  const wait = machine.onAccept(1, UNSENT, 2);
  expect(wait).toMatchObject({ kind: "wait" });
  const prepare = machine.onTimer(wait?.kind === "wait" ? wait.round : 0);
  expect(prepare).toMatchObject({ kind: "prepare", own: [] });
  const { round } = prepare?.kind === "prepare" ? prepare : { round: 0 };
  for (const _ of [0, 1]) void machine.onPrepare(round, { ...promisedNothing("never"), fates: [] });
  expect(machine.onPrepare(round, UNSENT)).toBeUndefined();
});

test("a version that one replica may have been sent is asked for, whoever else was not [W2]", () => {
  for (const first of [undefined, refused(ballot(20), "unknown"), ACCEPTED]) {
    const { machine } = start({ kind: "plain", record: GIVEN });
    machine.onAccept(1, first, 0);
    const effects = [machine.onAccept(1, UNSENT, 1), machine.onAccept(1, UNSENT, 2)];
    const wait = effects.find((effect) => effect?.kind === "wait");
    const prepare = machine.onTimer(wait?.kind === "wait" ? wait.round : 0);
    expect(prepare).toMatchObject({ kind: "prepare", own: [ballot(10)] });
  }
});

test("a version that was accepted somewhere is not forgotten where its next ACCEPT is sent to nobody [W2]", () => {
  const { machine } = start({ kind: "plain", record: GIVEN });
  machine.onAccept(1, ACCEPTED, 0);
  machine.onAccept(1, undefined, 1);
  const wait = machine.onAccept(1, undefined, 2);
  const prepare = machine.onTimer(wait?.kind === "wait" ? wait.round : 0);
  const { round } = prepare?.kind === "prepare" ? prepare : { round: 0 };
  machine.onPrepare(round, {
    kind: "promised",
    register: register(ballot(10), "accepted"),
    fates: ["accepted"],
    liveRow: undefined,
  });
  const again = machine.onPrepare(round, promisedNothing("never"));
  expect(again).toMatchObject({ kind: "accept", version: ballot(10) });
  const next = again?.kind === "accept" ? again.round : 0;
  machine.onAccept(next, UNSENT, 0);
  machine.onAccept(next, UNSENT, 1);
  const later = machine.onAccept(next, UNSENT, 2) ?? { kind: "none" };
  const asked = machine.onTimer(later.kind === "wait" ? later.round : next + 1);
  expect(asked).toMatchObject({ kind: "prepare", own: [ballot(10)] });
});

test("a write that lacks space at a quorum ends as no-space once it is sure that nothing of it can take effect [W3]", () => {
  const { machine } = start({ kind: "plain", record: GIVEN });
  machine.onAccept(1, NO_SPACE, 0);
  expect(machine.onAccept(1, NO_SPACE, 1)).toMatchObject({ kind: "wait", round: 2 });
  expect(machine.onTimer(2)).toMatchObject({ kind: "prepare", round: 3 });
  expect(machine.onPrepare(3, promisedNothing("never"))).toBeUndefined();
  expect(machine.onPrepare(3, promisedNothing("never"))).toBeUndefined();
  expect(machine.onPrepare(3, promisedNothing("never"))).toEqual({ kind: "done", outcome: { kind: "no-space" } });
});

test("writers that duel wait, longer each time: they do not go on in step until they are too many versions for a message [C4]", () => {
  const { machine } = start({ kind: "conditional", decide: () => KEEP });
  let effect: WriteEffect | undefined = machine.onPrepare(1, promisedNothing("never"));
  effect = machine.onPrepare(1, promisedNothing("never")) ?? effect;
  const waits: number[] = [];
  let proposals = 0;
  while (effect?.kind !== "done") {
    if (effect?.kind === "accept") {
      proposals += 1;
      machine.onAccept(effect.round, refused(ballot(1000 + proposals)), 0);
      effect = machine.onAccept(effect.round, refused(ballot(1000 + proposals)), 1);
    } else if (effect?.kind === "prepare") {
      const fates = effect.own.map(() => "never" as const);
      machine.onPrepare(effect.round, { ...promisedNothing("never"), fates });
      effect = machine.onPrepare(effect.round, { ...promisedNothing("never"), fates });
    } else if (effect?.kind === "wait") {
      waits.push(effect.atMostMs);
      effect = machine.onTimer(effect.round);
    } else throw new Error("the write stands still");
  }
  expect(effect.outcome).toEqual({ kind: "unknown" });
  expect(proposals).toBeLessThan(16);
  expect(waits.every((wait, index) => index === 0 || wait > (waits[index - 1] ?? 0))).toBe(true);
});

test("a cautious write ends as no-space before any replica has accepted it", () => {
  const { machine, first } = start({ kind: "plain", record: GIVEN }, true);
  expect(first).toMatchObject({ kind: "prepare", round: 1, own: [] });
  expect(machine.onPrepare(1, NO_SPACE)).toBeUndefined();
  expect(machine.onPrepare(1, NO_SPACE)).toEqual({ kind: "done", outcome: { kind: "no-space" } });
});

test("a cautious write goes on where enough replicas have space", () => {
  const { machine } = start({ kind: "plain", record: GIVEN }, true);
  machine.onPrepare(1, NO_SPACE);
  machine.onPrepare(1, { kind: "promised", register: undefined, fates: [], liveRow: undefined });
  const accept = machine.onPrepare(1, { kind: "promised", register: undefined, fates: [], liveRow: undefined });
  expect(accept).toMatchObject({ kind: "accept", record: GIVEN });
  const round = accept?.kind === "accept" ? accept.round : 0;
  machine.onAccept(round, ACCEPTED, 0);
  expect(machine.onAccept(round, ACCEPTED, 1)).toMatchObject({ kind: "done", outcome: { kind: "established" } });
});

test("two promises are not enough to say that there was no space: the third replica may hold the version, and another proxy finish it [W3]", () => {
  const { machine } = start({ kind: "plain", record: GIVEN });
  machine.onAccept(1, NO_SPACE, 0);
  machine.onAccept(1, NO_SPACE, 1);
  machine.onTimer(2);
  machine.onPrepare(3, promisedNothing("never"));
  expect(machine.onPrepare(3, promisedNothing("never"))).toBeUndefined();
  expect(machine.onPrepare(3, undefined)).toMatchObject({ kind: "wait" });
});

test("a write that lacks space but was accepted somewhere never ends as no-space [W3]", () => {
  const { machine } = start({ kind: "plain", record: GIVEN });
  machine.onAccept(1, ACCEPTED, 0);
  machine.onAccept(1, NO_SPACE, 1);
  let effect: WriteEffect | undefined = machine.onAccept(1, NO_SPACE, 2);
  for (let turn = 0; effect?.kind !== "done"; turn++) {
    expect(turn).toBeLessThan(100);
    if (effect?.kind === "wait") effect = machine.onTimer(effect.round);
    else if (effect?.kind === "prepare") {
      const held = { ...promisedNothing("accepted"), register: register(ballot(10), "accepted") };
      machine.onPrepare(effect.round, promisedNothing("never"));
      effect = machine.onPrepare(effect.round, held);
    } else if (effect?.kind === "accept") {
      machine.onAccept(effect.round, ACCEPTED, 0);
      machine.onAccept(effect.round, NO_SPACE, 1);
      effect = machine.onAccept(effect.round, NO_SPACE, 2);
    }
  }
  expect(effect.outcome).toEqual({ kind: "unknown" });
});

test("a write whose accepts fail again and again while all promise gives up, and does not go round for ever", () => {
  const { machine, first } = start({ kind: "plain", record: GIVEN });
  let effect: WriteEffect | undefined = first;
  let proposals = 0;
  while (effect?.kind !== "done") {
    expect(proposals).toBeLessThan(64);
    if (effect?.kind === "wait") effect = machine.onTimer(effect.round);
    else if (effect?.kind === "prepare") {
      const { round, own } = effect;
      const promise = { ...promisedNothing("never"), fates: own.map(() => "never" as const) };
      machine.onPrepare(round, promise);
      effect = machine.onPrepare(round, promise);
    } else if (effect?.kind === "accept") {
      proposals += 1;
      machine.onAccept(effect.round, undefined, 0);
      effect = machine.onAccept(effect.round, undefined, 1);
    }
  }
  expect(effect.outcome).toEqual({ kind: "unknown" });
});

test("a condition that is false answers so even where there is no space", () => {
  const { machine } = start({ kind: "conditional", decide: () => "stop" });
  machine.onPrepare(1, { ...promisedNothing("never"), fates: [] });
  expect(machine.onPrepare(1, { ...promisedNothing("never"), fates: [] })).toMatchObject({
    kind: "done",
    outcome: { kind: "stopped" },
  });
});

test("a conditional write that ends as unfinished hands on what it proposed, and the one that begins anew asks for it [W2, C1]", () => {
  const CREATE: WriteMode = { kind: "conditional", decide: (base) => (base === undefined ? GIVEN : "stop") };
  const { machine } = start(CREATE);
  const nothing = { kind: "promised", register: undefined, fates: [], liveRow: undefined } as const;
  machine.onPrepare(1, nothing);
  expect(machine.onPrepare(1, nothing)).toMatchObject({ kind: "accept", version: ballot(10) });
  machine.onAccept(2, undefined, 0);
  expect(machine.onAccept(2, undefined, 1)).toMatchObject({ kind: "wait", round: 3 });
  machine.onTimer(3);
  const other = { ...promisedNothing("never"), register: register(ballot(9), "accepted") };
  machine.onPrepare(4, other);
  const end = machine.onPrepare(4, promisedNothing("never"));
  expect(end).toMatchObject({ kind: "done", outcome: { kind: "unfinished", base: { version: ballot(9) } } });
  if (end?.kind !== "done" || end.outcome.kind !== "unfinished") throw new Error("not unfinished");
  expect([...end.outcome.own.keys()]).toEqual([ballot(10)]);
  // Meanwhile somebody found the version at the third replica, and finished it: it is this write's success, and no base to judge.
  const next = start({ ...CREATE, earlier: end.outcome.own });
  expect(next.first).toMatchObject({ kind: "prepare", own: [ballot(10)] });
  const held = { ...promisedNothing("confirmed"), register: register(ballot(10), "confirmed") };
  next.machine.onPrepare(1, held);
  expect(next.machine.onPrepare(1, held)).toMatchObject({
    kind: "done",
    outcome: { kind: "established", version: ballot(10) },
  });
});
