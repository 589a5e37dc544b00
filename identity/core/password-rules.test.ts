import { expect, test } from "vitest";
import {
  assertAcceptable,
  assertOldEnough,
  expiryOf,
  isLocked,
  type PasswordRules,
  passwordVerdict,
} from "./password-rules.ts";

const DAY_MS = 86_400_000;
const NONE: PasswordRules = {
  inactiveDays: 0,
  expiresDays: 0,
  uniqueLastCount: 0,
  minimumAgeDays: 0,
  pattern: undefined,
  changeUponFirstUse: false,
};

test("a password must fit the operator's expression, and be of a bounded length", () => {
  const pattern = { source: "b|abc", description: "abc or b", isMatchedBy: (given: string) => given === "abc" };
  expect(() => assertAcceptable("abc", { pattern })).not.toThrow();
  expect(() => assertAcceptable("ab", { pattern })).toThrow("abc or b");
  expect(() => assertAcceptable("x".repeat(4_097), NONE)).toThrow("4096");
});

test("a password ends at a whole second, as soon as it is set where it must be changed, or never", () => {
  expect(expiryOf(NONE, {}, "owner", 5_500)).toBeNull();
  expect(expiryOf({ ...NONE, expiresDays: 1 }, {}, "owner", 5_500)).toBe(DAY_MS + 5_000);
  expect(expiryOf({ ...NONE, expiresDays: 1 }, { ignore_password_expiry: true }, "owner", 5_500)).toBeNull();
  const first = { ...NONE, changeUponFirstUse: true };
  expect(expiryOf(first, {}, "administrator", 5_500)).toBe(5_500);
  expect(expiryOf(first, {}, "owner", 5_500)).toBeNull();
  expect(expiryOf(first, { ignore_change_password_upon_first_use: true }, "administrator", 5_500)).toBeNull();
});

test("what a right password is good for depends on its end and on who set it", () => {
  const verdict = (expires_at_ms: number | null, self_service: number, options = {}) =>
    passwordVerdict({ created_at_ms: 10, expires_at_ms, self_service }, options, 20);
  expect([verdict(null, 0), verdict(21, 0), verdict(20, 0), verdict(10, 0), verdict(10, 1)]).toEqual([
    "right",
    "right",
    "expired",
    "must-change",
    "expired",
  ]);
  expect(verdict(10, 0, { ignore_password_expiry: true })).toBe("right");
  expect(verdict(10, 0, { ignore_change_password_upon_first_use: true })).toBe("right");
  expect(verdict(15, 0, { ignore_change_password_upon_first_use: true })).toBe("expired");
});

test("a lock holds for its seconds after the last failure", () => {
  const rule = { failureAttempts: 2, durationSeconds: 1 };
  const locked = (count: number, nowMs: number, options = {}) =>
    isLocked(rule, options, { failed_login_count: count, failed_login_at_ms: 1_000 }, nowMs);
  expect([locked(1, 1_500), locked(2, 1_999), locked(3, 1_999), locked(2, 2_000)]).toEqual([false, true, true, false]);
  expect(locked(2, 1_500, { ignore_lockout_failure_attempts: true })).toBe(false);
  expect(isLocked({ ...rule, failureAttempts: 0 }, {}, { failed_login_count: 9, failed_login_at_ms: 1 }, 1)).toBe(
    false,
  );
});

test("only a password that its owner chose has a least age", () => {
  const rules = { ...NONE, minimumAgeDays: 2 };
  const state = { created_at_ms: 0, expires_at_ms: null };
  expect(() => assertOldEnough(rules, { ...state, self_service: 1 }, DAY_MS)).toThrow("in 1 day(s)");
  expect(() => assertOldEnough(rules, { ...state, self_service: 1 }, 2 * DAY_MS)).not.toThrow();
  expect(() => assertOldEnough(rules, { ...state, self_service: 0 }, DAY_MS)).not.toThrow();
});
