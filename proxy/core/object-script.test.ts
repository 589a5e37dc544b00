import { expect, test } from "vitest";
import { type Ballot, ballotOf, type Incarnation } from "../../common/ballot.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import { encodeContainerRecord, type Register, type Row } from "../../storage-node/wire.ts";
import { finishObject, type ObjectPlace, writeObject } from "./object-script.ts";
import type { Verdict, WriteOutcome, WriteRecord } from "./register-write.ts";
import { type Answer, type Effect, isFinal, type Script } from "./script.ts";
import { ShardMemory } from "./shard-memory.ts";

const LIFE = "1".repeat(24) as Incarnation;
const NEXT_LIFE = "2".repeat(24) as Incarnation;
const ballot = (time: number, life = LIFE): Ballot =>
  ballotOf(life, time.toString(16).padStart(16, "0") as HybridTimestamp, "00000001");
const VERSION = ballot(5);

const PUT: WriteRecord = {
  isTombstone: false,
  bodyLength: 3,
  metadata: Buffer.from("m"),
  body: "given",
  bodyVersion: undefined,
};
const TOMBSTONE: WriteRecord = { ...PUT, isTombstone: true, bodyLength: 0, body: "none" };

const place: ObjectPlace<string> = {
  object: "object",
  container: {
    container: "container",
    account: "account",
    name: "c",
    shardOf: (_, id) => `shard ${id}`,
    memory: new ShardMemory(),
  },
  rowOf: (shown): Row => ({
    name: "o",
    version: shown.version,
    isDeleted: shown.isTombstone,
    objects: 1,
    bytes: shown.bodyLength,
    payload: shown.metadata,
  }),
  dueRowOf: () => undefined,
};

const established = (version: Ballot): WriteOutcome => ({
  kind: "established",
  version,
  ballot: version,
  base: undefined,
  isConfirmed: false,
  liveRows: [],
});
const inspected = (highest: Register | undefined, verdict: Verdict = "never"): WriteOutcome => ({
  kind: "inspected",
  highest,
  ballot: ballot(50),
  verdict,
});
const openContainer = (life: Incarnation): Register => ({
  version: ballot(1),
  ballot: ballot(1),
  state: "confirmed",
  bodyVersion: ballot(1),
  isTombstone: false,
  bodyLength: 0,
  metadata: encodeContainerRecord({ status: "open", incarnation: life, headers: {} }),
});

/** Drives a script with answers in their order; gives what it asked for, and its result. */
const drive = <T>(
  script: Script<string, T>,
  answers: readonly Answer[],
): { asked: string[]; effects: Effect<string>[]; result: T } => {
  const effects: Effect<string>[] = [];
  const left = [...answers];
  let step = script.next();
  while (step.done !== true) {
    effects.push(step.value);
    step = script.next(step.value.kind === "confirm" ? undefined : left.shift());
  }
  expect(left).toEqual([]);
  const asked = effects.map((effect) => {
    if (effect.kind === "confirm") return effect.isVoid ? "void" : "confirm";
    return effect.kind === "write" ? `${effect.mode.kind} ${effect.set}` : `${effect.kind} ${effect.set}`;
  });
  return { asked, effects, result: step.value };
};

test("an object is accepted, then listed, then confirmed, then answered", () => {
  const { asked, result } = drive(writeObject(place, LIFE, { kind: "plain", record: PUT }, false), [
    established(VERSION),
    "stored",
  ]);
  expect(asked).toEqual(["plain object", "row container", "confirm"]);
  expect(result).toMatchObject({ kind: "done", version: VERSION });
});

test.each([
  ["the version", [{ ...established(VERSION), isKept: true }, "stored"]],
  ["its row", [established(VERSION), "kept"]],
] as const)(
  "where a hand-off counted for %s a write is answered, and left for somebody to finish [H4]",
  (_, answers) => {
    const { asked, result } = drive(writeObject(place, LIFE, { kind: "plain", record: PUT }, false), answers);
    expect(asked).toEqual(["plain object", "row container"]);
    expect(result).toMatchObject({ kind: "done", version: VERSION });
  },
);

test("a version whose container is gone is void only after a PREPARE found it the highest and unconfirmed [B5]", () => {
  const { asked, result } = drive(writeObject(place, LIFE, { kind: "plain", record: PUT }, false), [
    established(VERSION),
    "moved",
    inspected(undefined),
    inspected(undefined, "never"),
  ]);
  expect(asked).toEqual(["plain object", "row container", "inspect container", "inspect object", "void"]);
  expect(result).toEqual({ kind: "no-container" });
});

test("a version that somebody confirmed before its container went is a success [B5]", () => {
  const { asked, result } = drive(writeObject(place, LIFE, { kind: "plain", record: PUT }, false), [
    established(VERSION),
    "moved",
    inspected(undefined),
    inspected(undefined, "confirmed"),
  ]);
  expect(asked.at(-1)).toBe("confirm");
  expect(result).toMatchObject({ kind: "done", version: VERSION });
});

test("a version whose fate nobody can tell is answered as unknown, and neither void nor confirmed [B5]", () => {
  const { asked, result } = drive(writeObject(place, LIFE, { kind: "plain", record: PUT }, false), [
    established(VERSION),
    "moved",
    inspected(undefined),
    inspected(undefined, "unclear"),
  ]);
  expect(asked.at(-1)).toBe("inspect object");
  expect(result).toEqual({ kind: "unknown" });
});

test("a write with an outdated memory of its container goes on in the one that is there now [B5]", () => {
  const again = ballot(7, NEXT_LIFE);
  const { effects, result } = drive(writeObject(place, LIFE, { kind: "plain", record: PUT }, true), [
    established(VERSION),
    "moved",
    inspected(openContainer(NEXT_LIFE)),
    established(ballot(1)),
    inspected(undefined, "never"),
    established(again),
    "stored",
  ]);
  expect(result).toMatchObject({ kind: "done", version: again });
  const second = effects.filter((effect) => effect.kind === "write" && effect.mode.kind === "plain")[1];
  // What was staged went with the first version: the replicas keep its body.
  expect(second).toMatchObject({
    incarnation: NEXT_LIFE,
    mode: { record: { body: "keep", bodyVersion: VERSION } },
  });
});

test("a deletion needs no row where its container is gone [B5]", () => {
  const { asked, result } = drive(writeObject(place, LIFE, { kind: "plain", record: TOMBSTONE }, false), [
    established(VERSION),
    "moved",
    inspected(undefined),
  ]);
  expect(asked).toEqual(["plain object", "row container", "inspect container", "confirm"]);
  expect(result).toMatchObject({ kind: "done" });
});

test("what W replicas hold unconfirmed is not served before its row is written: its container may be going", () => {
  const found: Register = {
    ...openContainer(LIFE),
    version: VERSION,
    ballot: VERSION,
    state: "accepted",
    bodyLength: 3,
  };
  expect(isFinal({ register: found, isSettled: true })).toBe(false);
  expect(isFinal({ register: { ...found, state: "confirmed" }, isSettled: true })).toBe(true);
  const { asked } = drive(finishObject(place, found, true), ["moved", inspected(undefined), inspected(found, "never")]);
  expect(asked).toEqual(["row container", "inspect container", "inspect object", "void"]);
});

test("a version is finished without its body being sent to those that hold it [R2, A4]", () => {
  const found: Register = {
    ...openContainer(LIFE),
    version: VERSION,
    ballot: VERSION,
    state: "accepted",
    bodyLength: 3,
  };
  const { effects } = drive(finishObject(place, found, false), [established(VERSION), "stored"]);
  expect(effects[0]).toMatchObject({
    mode: { kind: "finish", record: { body: "keep", bodyVersion: found.bodyVersion } },
  });
});

test("a version with a due time is in the index of due times before it is confirmed", () => {
  const due: ObjectPlace<string> = { ...place, dueRowOf: (shown) => ({ set: "due", row: place.rowOf(shown) }) };
  const { asked } = drive(writeObject(due, LIFE, { kind: "plain", record: PUT }, false), [
    established(VERSION),
    "stored",
    "stored",
  ]);
  expect(asked).toEqual(["plain object", "row container", "row due", "confirm"]);
});

test("a version whose row is too old to be told from a deleted one is written once more, the same, and shown under the new version [E5]", () => {
  const left: Register = {
    ...openContainer(LIFE),
    version: VERSION,
    ballot: VERSION,
    state: "accepted",
    bodyLength: 3,
  };
  const script = finishObject(place, left, true);
  expect(script.next().value).toMatchObject({ kind: "row", row: { version: VERSION } });
  const renewal = script.next("old").value;
  if (typeof renewal !== "object" || renewal.kind !== "write") throw new Error("it is not written once more");
  const { mode } = renewal;
  if (mode.kind !== "conditional") throw new Error("it is written under no condition");
  expect(mode.over).toBe(VERSION);
  expect(mode.decide({ ...left, version: ballot(6) }, ballot(60), [])).toBe("stop");
  expect(mode.decide(left, ballot(60), [])).toMatchObject({
    body: "keep",
    bodyVersion: left.bodyVersion,
    bodyLength: 3,
  });
  expect(script.next(established(ballot(60))).value).toMatchObject({ kind: "row", row: { version: ballot(60) } });
  expect(script.next("stored").value).toMatchObject({ kind: "confirm", version: ballot(60), isVoid: false });
  expect(script.next()).toEqual({ done: true, value: "shown" });
});
