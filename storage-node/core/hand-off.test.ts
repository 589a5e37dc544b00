import { expect, test } from "vitest";
import { type Ballot, ballotOf, ballotOver, type Incarnation } from "../../common/ballot.ts";
import { type HybridTimestamp, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import type { Register } from "../wire.ts";
import { ballotOfTake, decideTake } from "./hand-off.ts";
import { decideAccept } from "./register.ts";
import { decideInstall } from "./repair.ts";

const LIFE = "1".repeat(24) as Incarnation;
/** The n-th ballot, and one of another process with the same timestamp behind it. */
const ballot = (time: number, process = 1): Ballot =>
  ballotOf(LIFE, time.toString(16).padStart(16, "0") as HybridTimestamp, process.toString(16).padStart(8, "0"));

const registerOf = (version: Ballot, under: Ballot, state: Register["state"] = "accepted"): Register => ({
  version,
  ballot: under,
  state,
  bodyVersion: version,
  isTombstone: false,
  bodyLength: 0,
  metadata: new Uint8Array(),
});

test("a copy is taken under its own ballot, and over the one of an earlier version that was finished since", () => {
  const copy = registerOf(ballot(2), ballot(2));
  expect(ballotOfTake(copy, undefined)).toBe(ballot(2));
  expect(ballotOfTake(copy, ballot(1))).toBe(ballot(2));
  const over = ballotOfTake(copy, ballot(5));
  expect([over > ballot(5), over < ballot(5, 2), over < ballot(6)]).toEqual([true, true, true]);
  const later = ballotOfTake(registerOf(ballot(3), ballot(3)), over);
  expect([later > over, later < ballot(5, 2)]).toEqual([true, true]);
  expect(later).toBe(ballotOver(ballot(5), ballot(3)));
});

/** What the members hold, and which version somebody proposes under each ballot of his own, once that is settled. */
type State = { readonly held: readonly (Register | undefined)[]; readonly proposed: readonly (Ballot | undefined)[] };

const MEMBERS = 3;
/** Those of a dead writer, which one member may hold; of whoever finishes something; and the versions that hand-offs keep, of one timestamp. */
const FIRST = ballot(1);
const FINISHERS = [ballot(4), ballot(5)];
const KEPT = [1, 2, 3].map((process) => registerOf(ballot(2, process), ballot(2, process)));
const NONE = "none" as const;

const replaced = <T>(list: readonly T[], at: number, value: T): readonly T[] =>
  list.map((one, index) => (index === at ? value : one));

const accepted = (held: Register | undefined, version: Ballot, under: Ballot): Register | undefined => {
  const record = { bodyVersion: version, isTombstone: false, bodyLength: 0, metadata: new Uint8Array(), body: NONE };
  const decision = decideAccept(held, undefined, TIMESTAMP_ZERO, version, under, record);
  return decision.kind === "store" ? decision.register : undefined;
};

/** Everything that can happen next: each member takes each copy, is sent what another holds, as an ACCEPT and as what was pulled, and what each finisher proposes. */
const after = function* ({ held, proposed }: State): Generator<State> {
  for (let member = 0; member < MEMBERS; member++) {
    const own = held[member];
    const become = (register: Register | undefined, settled = proposed): State => ({
      held: replaced(held, member, register),
      proposed: settled,
    });
    for (const copy of KEPT)
      if (decideTake(own, TIMESTAMP_ZERO, copy) === "take")
        yield become({ ...copy, ballot: ballotOfTake(copy, own?.ballot) });
    if (own === undefined) yield become(registerOf(FIRST, FIRST));
    for (const other of held) {
      if (other === undefined || other === own) continue;
      const sent = accepted(own, other.version, other.ballot);
      if (sent !== undefined) yield become(sent);
      if (decideInstall(own, undefined, TIMESTAMP_ZERO, other, true) === "install") yield become(other);
    }
    for (const [index, under] of FINISHERS.entries()) {
      // One version for each ballot: whatever a promise told of, be it of any member.
      const versions = new Set(proposed[index] === undefined ? held.map((one) => one?.version) : [proposed[index]]);
      for (const version of versions) {
        const sent = version === undefined ? undefined : accepted(own, version, under);
        if (sent !== undefined) yield become(sent, replaced(proposed, index, version));
      }
    }
  }
};

const keyOf = ({ held, proposed }: State): string =>
  [...held.map((one) => (one === undefined ? "-" : `${one.version} ${one.ballot}`)), ...proposed].join("|");

test("two versions are never accepted under one ballot, whatever copies members take over what, and in whichever order", () => {
  const start: State = {
    held: Array.from({ length: MEMBERS }, () => undefined),
    proposed: FINISHERS.map(() => undefined),
  };
  const seen = new Set([keyOf(start)]);
  const versionUnder = new Map<Ballot, Ballot>();
  const waiting = [start];
  const problems: string[] = [];
  let stored = 0;
  for (let state = waiting.pop(); state !== undefined; state = waiting.pop()) {
    for (const next of after(state)) {
      for (const [member, register] of next.held.entries()) {
        const earlier = state.held[member];
        if (register === undefined || register === earlier) continue;
        stored += 1;
        // What a member holds only ever goes up.
        if (earlier !== undefined && earlier.ballot >= register.ballot) problems.push(`${earlier.ballot} came down`);
        // In all runs together, but for what finishers propose: that differs from run to run, and each state says which it was.
        if (FINISHERS.includes(register.ballot)) continue;
        const known = versionUnder.get(register.ballot) ?? register.version;
        if (known !== register.version) problems.push(`${known} and ${register.version} under ${register.ballot}`);
        versionUnder.set(register.ballot, register.version);
      }
      const key = keyOf(next);
      if (seen.has(key)) continue;
      seen.add(key);
      waiting.push(next);
    }
  }
  expect(problems.slice(0, 3)).toEqual([]);
  expect(stored).toBeGreaterThan(10_000);
  // Every copy was taken over the dead writer's ballot, over each finisher's, and under its own.
  for (const copy of KEPT)
    for (const under of [FIRST, ...FINISHERS])
      expect(versionUnder.get(under < copy.ballot ? copy.ballot : ballotOver(under, copy.version))).toBe(copy.version);
});
