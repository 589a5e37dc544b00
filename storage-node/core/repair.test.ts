import { expect, test } from "vitest";
import { type Ballot, ballotOf, NO_INCARNATION } from "../../common/ballot.ts";
import { type HybridTimestamp, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import { decideInstall, judgeJoin, laterThere, settledThere } from "./repair.ts";
import type { StoredRegister, VolatileRegister } from "./register.ts";

const at = (number: number): Ballot =>
  ballotOf(NO_INCARNATION, number.toString(16).padStart(16, "0") as HybridTimestamp, "00000001");

const register = (version: number, state: StoredRegister["state"], ballot = version): StoredRegister => ({
  version: at(version),
  ballot: at(ballot),
  state,
  bodyVersion: at(version),
  isTombstone: false,
  bodyLength: 0,
  metadata: Buffer.alloc(0),
});

const promised = (number: number): VolatileRegister => ({
  promise: at(number),
  overwritten: [],
  floor: TIMESTAMP_ZERO,
});

test("what is settled elsewhere under a higher ballot is installed, whatever was promised here [E1]", () => {
  const pulled = register(5, "confirmed");
  expect(decideInstall(register(3, "confirmed"), promised(9), TIMESTAMP_ZERO, pulled, true)).toBe("install");
  expect(decideInstall(undefined, promised(9), TIMESTAMP_ZERO, pulled, true)).toBe("install");
  expect(decideInstall(register(3, "accepted"), undefined, TIMESTAMP_ZERO, register(5, "void"), true)).toBe("install");
  expect(decideInstall(register(6, "accepted"), undefined, TIMESTAMP_ZERO, pulled, true)).toBe("skip");
});

test("what is of open outcome elsewhere spreads only as a write would, unless this replica has no vote [E1]", () => {
  const pulled = register(5, "accepted");
  expect(decideInstall(register(3, "confirmed"), undefined, TIMESTAMP_ZERO, pulled, true)).toBe("install");
  expect(decideInstall(register(3, "confirmed"), promised(9), TIMESTAMP_ZERO, pulled, true)).toBe("skip");
  const floor = "0000000000000007" as HybridTimestamp;
  expect(decideInstall(undefined, undefined, floor, pulled, true)).toBe("skip");
  expect(decideInstall(undefined, promised(9), floor, pulled, false)).toBe("install");
});

test("a version that is here already is confirmed by word of another, and otherwise left alone", () => {
  const here = register(5, "accepted");
  expect(decideInstall(here, undefined, TIMESTAMP_ZERO, register(5, "confirmed"), true)).toBe("confirm");
  expect(decideInstall(here, undefined, TIMESTAMP_ZERO, register(5, "accepted"), true)).toBe("skip");
  expect(decideInstall(register(5, "confirmed"), undefined, TIMESTAMP_ZERO, here, true)).toBe("skip");
  // The same version, accepted once more there.
  expect(decideInstall(here, undefined, TIMESTAMP_ZERO, register(5, "confirmed", 8), true)).toBe("install");
});

test("of two lists of a range what is later in the other one is wanted", () => {
  const here = [
    { key: "a", stamp: at(5), isSettled: true },
    { key: "c", stamp: at(5), isSettled: false },
    { key: "d", stamp: at(5), isSettled: false },
    { key: "e", stamp: at(9), isSettled: true },
    { key: "z", stamp: at(1), isSettled: true },
  ];
  const there = [
    { key: "a", stamp: at(5), isSettled: false },
    { key: "b", stamp: at(1), isSettled: false },
    { key: "c", stamp: at(5), isSettled: true },
    { key: "d", stamp: at(6), isSettled: false },
    { key: "e", stamp: at(8), isSettled: true },
    { key: "f", stamp: at(1), isSettled: true },
  ];
  expect(laterThere(here, there)).toEqual(["b", "c", "d", "f"]);
  expect(laterThere([], there)).toEqual(["a", "b", "c", "d", "e", "f"]);
  expect(laterThere(here, [])).toEqual([]);
  expect([...settledThere(["b", "c", "d", "f"], here, there)]).toEqual(["c"]);
});

const voting = { isVoting: true, entries: 7, hasPromised: true, isFounder: false };
const other = { ...voting, isVoting: false };
const fresh = { isVoting: false, entries: 0, hasPromised: false, isFounder: false };

test.each([
  ["one voter of three is not enough", 3, 7, [voting], true, "pulling"],
  ["two voters of three are", 3, 7, [voting, voting], true, "joined"],
  ["but not before forgotten promises are too old", 3, 7, [voting, voting], false, "waiting"],
  ["all others will do where some of them lost their votes as well", 3, 7, [voting, other], true, "joined"],
  ["of five three voters are needed", 5, 7, [voting, voting, other], true, "pulling"],
  ["and three are enough", 5, 7, [voting, voting, voting], true, "joined"],
  ["of four two", 4, 7, [voting, voting], true, "joined"],
  ["a replica alone has nobody to ask", 1, 7, [], true, "joined"],
  ["and waits like all", 1, 7, [], false, "waiting"],
  ["where nobody ever held or promised anything all begin at once", 3, 0, [fresh, fresh], false, "joined"],
  ["also beside one that has begun", 3, 0, [{ ...fresh, isVoting: true }, fresh], false, "joined"],
  ["but not where one may have promised something", 3, 0, [{ ...fresh, hasPromised: true }, fresh], false, "waiting"],
  ["unless it knows this replica from the beginning", 3, 7, [{ ...voting, isFounder: true }, voting], false, "joined"],
  ["nor where one is away", 3, 0, [fresh], false, "pulling"],
  ["nor where this replica holds something", 3, 1, [fresh, fresh], false, "waiting"],
] as const)("a replica gets its vote back: %s [M4]", (_title, count, entries, members, isSafe, verdict) => {
  expect(judgeJoin(count, entries, members, isSafe, true).kind).toBe(verdict);
});

test.each([
  ["two voters of three know that it is theirs", 3, 7, [voting, voting], "joined"],
  ["of three one that votes may have been left out of what the others forgot", 3, 7, [voting, other], "unheard"],
  ["all three may have been emptied", 3, 0, [fresh, fresh], "unheard"],
  ["one that kept it alone too", 1, 0, [], "unheard"],
] as const)(
  "who has not asked everybody relies on a quorum of votes: %s [M4]",
  (_title, count, entries, members, verdict) => {
    expect(judgeJoin(count, entries, members, true, false).kind).toBe(verdict);
  },
);
