import { beforeEach, expect, test } from "vitest";
import { createLoginLimiter, type LoginAttempt, type LoginKey, type LoginLimiter } from "./login-limiter.ts";

const LIMIT = 10;
let nowMs: number;
let limiter: LoginLimiter;

beforeEach(() => {
  nowMs = 1_800_000_000_000;
  limiter = createLoginLimiter(LIMIT, { nowMs: () => nowMs });
});

/** So many attempts at the same moment; what each is judged after a turn: let in and then `verdict`, or the code of its refusal. */
const burst = (count: number, keys: readonly LoginKey[], verdict: (index: number) => "right" | "wrong") =>
  Promise.all(
    Array.from({ length: count }, async (_, index) => {
      try {
        using attempt = await limiter.begin(keys);
        await new Promise((resolve) => setImmediate(resolve));
        const judged = verdict(index);
        if (judged === "wrong") attempt.failed();
        return judged;
      } catch (thrown) {
        return (thrown as { code: string }).code;
      }
    }),
  );

const counted = (outcomes: readonly string[]): Record<string, number> => {
  const counts: Record<string, number> = {};
  for (const outcome of outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1;
  return counts;
};

test("eighty wrong guesses at the same moment get no more verdicts than eighty in a row", async () => {
  expect(counted(await burst(74, ["user", "address"], () => "wrong"))).toEqual({ wrong: 10, "too-many-logins": 64 });
  nowMs += 60_000;
  expect(counted(await burst(80, ["user", "address"], () => "wrong"))).toEqual({
    wrong: 10,
    "too-many-logins": 64,
    "too-busy": 6,
  });
});

test("guesses that weigh more are fewer, at the same moment too", async () => {
  expect(counted(await burst(50, ["address", ["code", 6]], () => "wrong"))).toEqual({
    wrong: 2,
    "too-many-logins": 48,
  });
  // What was charged to the address is what was judged.
  expect(counted(await burst(20, ["address"], () => "wrong"))).toEqual({ wrong: 8, "too-many-logins": 12 });
});

test("a weight beyond the limit lets one in at a time, and no second after a failure", async () => {
  expect(counted(await burst(5, [["code", 100]], () => "right"))).toEqual({ right: 5 });
  expect(counted(await burst(5, [["code", 100]], () => "wrong"))).toEqual({ wrong: 1, "too-many-logins": 4 });
});

test("who knows the password is let in however many come at once", async () => {
  expect(counted(await burst(70, ["user", "address"], () => "right"))).toEqual({ right: 70 });
  expect(counted(await burst(70, ["user", "address"], (index) => (index % 10 === 0 ? "wrong" : "right")))).toEqual({
    right: 63,
    wrong: 7,
  });
});

test("an attempt that ends without a verdict is given back, one that failed is counted once", async () => {
  for (let count = 0; count < 3 * LIMIT; count += 1) (await limiter.begin(["user"]))[Symbol.dispose]();
  for (let count = 0; count < LIMIT; count += 1) {
    using attempt = await limiter.begin(["user"]);
    attempt.failed();
    attempt.failed();
  }
  await expect(limiter.begin(["user"])).rejects.toMatchObject({ code: "too-many-logins" });
  expect(() => limiter.assertAllowed(["other", "user"])).toThrow("Too many failed logins");
});

test("a minute after the first failure there are as many again; attempts that began before count when they end", async () => {
  const slow: LoginAttempt[] = [];
  for (let count = 0; count < 5; count += 1) slow.push(await limiter.begin(["user"]));
  await burst(5, ["user"], () => "wrong");
  nowMs += 60_000;
  for (const attempt of slow) attempt.failed();
  expect(counted(await burst(8, ["user"], () => "wrong"))).toEqual({ wrong: 5, "too-many-logins": 3 });
  nowMs += 60_000;
  expect(() => limiter.assertAllowed(["user"])).not.toThrow();
});

test("who waits for one user does not hold up another from the same address", async () => {
  const held: LoginAttempt[] = [];
  for (let count = 0; count < LIMIT; count += 1) held.push(await limiter.begin(["user"]));
  let isIn = false;
  const waiting = limiter.begin(["user", "address"]).then(() => {
    isIn = true;
  });
  expect(counted(await burst(5, ["other", "address"], () => "right"))).toEqual({ right: 5 });
  expect(isIn).toBe(false);
  held[0]?.[Symbol.dispose]();
  await waiting;
});
