import fc from "fast-check";
import { expect, test } from "vitest";
import { Quorum } from "./quorum.ts";

test("of N members W write and promise, and R meet every W", () => {
  for (let count = 1; count <= 9; count++) {
    const quorum = Quorum.stable(count);
    expect(quorum.promiseCount + quorum.readCount).toBe(count + 1);
    expect([quorum.memberCount, quorum.voterCount, quorum.isJoint]).toEqual([count, count, false]);
    for (let answered = 0; answered <= count; answered++) {
      expect(quorum.suffices(answered)).toBe(answered >= quorum.promiseCount);
      expect(quorum.survives(answered)).toBe(count - answered >= quorum.promiseCount);
    }
  }
});

test("in a joint phase W of the old members and W of the new ones write, and the old ones alone promise and are read [M1]", () => {
  // 0, 1, 2 are on the way to 3, 1, 2.
  const quorum = Quorum.joint(3, [false, true, true, true]);
  const suffice = (...members: readonly number[]): boolean =>
    quorum.suffices(members.reduce((tally, member) => tally + quorum.weightOf(member), 0));
  expect([quorum.memberCount, quorum.voterCount, quorum.promiseCount, quorum.readCount]).toEqual([4, 3, 2, 2]);
  expect(suffice(1, 2)).toBe(true);
  expect(suffice(0, 1)).toBe(false);
  expect(suffice(1, 3)).toBe(false);
  expect(suffice(0, 1, 3)).toBe(true);
  expect(suffice(0, 3)).toBe(false);
});

test("a joint quorum is what counting both sets says, for any sets and answers", () => {
  const sets = fc.record({
    old: fc.integer({ min: 1, max: 7 }),
    next: fc.array(fc.boolean(), { minLength: 9, maxLength: 9 }),
  });
  fc.assert(
    fc.property(sets, fc.array(fc.boolean(), { minLength: 9, maxLength: 9 }), ({ old, next }, answers) => {
      fc.pre(next.some(Boolean));
      const quorum = Quorum.joint(old, next);
      let [tally, inOld, inNext] = [0, 0, 0];
      for (const [member, isThere] of answers.entries()) {
        if (!isThere) continue;
        tally += quorum.weightOf(member);
        if (member < old) inOld += 1;
        if (next[member] === true) inNext += 1;
      }
      const nextCount = next.filter(Boolean).length;
      const isEnough = (count: number, of: number): boolean => count >= Math.floor(of / 2) + 1;
      expect(quorum.suffices(tally)).toBe(isEnough(inOld, old) && isEnough(inNext, nextCount));
      expect(quorum.survives(tally)).toBe(isEnough(old - inOld, old) && isEnough(nextCount - inNext, nextCount));
    }),
  );
});
