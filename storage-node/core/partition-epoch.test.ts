import fc from "fast-check";
import { expect, test } from "vitest";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import type { Configuration } from "../wire.ts";
import {
  admit,
  type EpochEvent,
  type EpochState,
  firstConfiguration,
  firstState,
  hasCaughtUp,
  isMember,
  membersOf,
  step,
} from "./partition-epoch.ts";

const FLOOR = "000000000000000a" as HybridTimestamp;
const FIRST = firstConfiguration(["n/a", "n/b", "n/c"]);
const [a, b, c] = FIRST.old;
if (a === undefined || b === undefined || c === undefined) throw new Error("three members were given");
const d = { id: "n/d", since: 1 };
const JOINT: Configuration = { ...FIRST, epoch: 1, next: [d, b, c] };
const MOVED: Configuration = { epoch: 2, old: [d, b, c], next: undefined, floor: FLOOR };

const after = (self: string, ...events: readonly EpochEvent[]): EpochState =>
  events.reduce((state, event) => step(state, self, event), firstState(self, FIRST));
const configure = (configuration: Configuration): EpochEvent => ({ kind: "configure", configuration });

test("a device takes every configuration that is newer than its own, and none that is older", () => {
  expect(after("n/a", configure(MOVED), configure(JOINT)).configuration).toBe(MOVED);
  expect(after("n/a", configure(JOINT), configure(MOVED)).configuration).toBe(MOVED);
  const state = after("n/a", configure(JOINT));
  expect(step(state, "n/a", configure({ ...JOINT, next: undefined }))).toBe(state);
});

test("the members of a joint phase are the old ones, then the one that is to come", () => {
  expect(membersOf(JOINT).map(({ id }) => id)).toEqual(["n/a", "n/b", "n/c", "n/d"]);
  expect(membersOf(MOVED).map(({ id }) => id)).toEqual(["n/d", "n/b", "n/c"]);
});

test("a message of another epoch is told so, whoever is asked", () => {
  for (const self of ["n/a", "n/b", "n/d", "n/e"]) {
    const state = after(self, configure(JOINT));
    expect(admit(state, self, 0, "vote", false)).toBe("behind");
    expect(admit(state, self, 2, "store", false)).toBe("ahead");
  }
});

test("who is to come keeps what it is given, and has no say [M4]", () => {
  const state = after("n/d", configure(JOINT));
  expect(admit(state, "n/d", 1, "store", false)).toBe("serve");
  expect(admit(state, "n/d", 1, "vote", false)).toBe("stranger");
  expect(admit(after("n/e", configure(JOINT)), "n/e", 1, "store", false)).toBe("stranger");
});

test("a newcomer is a member once the move is done and it has caught up, for the membership that it caught up for [M2, M4]", () => {
  const early = after("n/d", configure(JOINT), configure(MOVED));
  expect(admit(early, "n/d", 2, "vote", false)).toBe("joining");
  const whole = after("n/d", configure(JOINT), { kind: "catch-up", epoch: 1 }, configure(MOVED));
  expect(admit(whole, "n/d", 2, "vote", false)).toBe("serve");
  expect(isMember(whole, "n/d")).toBe(true);
  // It left, and comes back: what it has is of an earlier membership.
  const again = { ...MOVED, epoch: 6, old: [{ ...d, since: 5 }, b, c] };
  expect(admit(step(whole, "n/d", configure(again)), "n/d", 6, "vote", false)).toBe("joining");
  expect(step(early, "n/d", { kind: "catch-up", epoch: 1 })).toBe(early);
});

test("a sealed replica makes room for the next configuration alone, and serves in the next epoch [M3]", () => {
  const sealed = after("n/b", configure(JOINT), { kind: "seal", epoch: 1 });
  expect(admit(sealed, "n/b", 1, "vote", false)).toBe("sealed");
  expect(admit(sealed, "n/b", 1, "store", false)).toBe("sealed");
  expect(admit(sealed, "n/b", 1, "vote", true)).toBe("serve");
  expect(admit(step(sealed, "n/b", configure(MOVED)), "n/b", 2, "vote", false)).toBe("serve");
  expect(after("n/b", { kind: "seal", epoch: 1 }).isSealed).toBe(false);
});

test("only who was no member before cannot deny what is at or below the floor [A3]", () => {
  expect(after("n/b", configure(JOINT), configure(MOVED)).fateFloor < FLOOR).toBe(true);
  expect(after("n/d", configure(JOINT), configure(MOVED)).fateFloor).toBe(FLOOR);
  expect(after("n/d", configure(MOVED)).fateFloor).toBe(FLOOR);
});

test("a newcomer has everything once it pulled from R old members, W of which had heard of the epoch [M2]", () => {
  const witness = (id: string, epoch: number, isPulled = true, isVoting = true) => ({ id, epoch, isPulled, isVoting });
  const caughtUp = (...witnesses: readonly ReturnType<typeof witness>[]): boolean =>
    hasCaughtUp(JOINT, "n/d", witnesses);
  expect(caughtUp(witness("n/a", 1), witness("n/b", 1))).toBe(true);
  expect(caughtUp(witness("n/a", 1), witness("n/b", 0))).toBe(false);
  expect(caughtUp(witness("n/a", 1), witness("n/b", 1, false), witness("n/c", 0))).toBe(false);
  expect(caughtUp(witness("n/a", 1), witness("n/b", 1, true, false))).toBe(false);
  expect(caughtUp(witness("n/a", 1), witness("n/e", 1))).toBe(false);
  // More than all of them have exists nowhere.
  expect(caughtUp(...["n/a", "n/b", "n/c"].map((id) => witness(id, 1, true, false)))).toBe(true);
  // Of four members R are two, and W three.
  const four = { ...JOINT, old: [...JOINT.old, { id: "n/x", since: 0 }] };
  expect(hasCaughtUp(four, "n/d", [witness("n/a", 1), witness("n/b", 1)])).toBe(false);
  expect(hasCaughtUp(four, "n/d", [witness("n/a", 1), witness("n/b", 1), witness("n/c", 1, false)])).toBe(true);
});

test("whatever comes in whatever order, epochs only rise and a device that is no member never serves", () => {
  const event = fc.oneof(
    fc.constantFrom(configure(JOINT), configure(MOVED), configure({ ...MOVED, epoch: 4, old: [a, b, c] })),
    fc.record({ kind: fc.constantFrom("seal" as const, "catch-up" as const), epoch: fc.nat(4) }),
  );
  fc.assert(
    fc.property(fc.array(event), fc.constantFrom("n/a", "n/b", "n/d", "n/e"), (events, self) => {
      let state = firstState(self, FIRST);
      for (const next of events) {
        const { epoch } = state.configuration;
        state = step(state, self, next);
        expect(state.configuration.epoch).toBeGreaterThanOrEqual(epoch);
        const isOld = state.configuration.old.some(({ id }) => id === self);
        if (!isOld) expect(admit(state, self, state.configuration.epoch, "vote", true)).toBe("stranger");
      }
    }),
  );
});
