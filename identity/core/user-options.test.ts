import { expect, test } from "vitest";
import { mayChange, mergedOptions } from "./user-options.ts";

test("an option that is set stays until null takes it back", () => {
  const before = { lock_password: true, ignore_password_expiry: false };
  expect(mergedOptions(before, undefined)).toEqual(before);
  expect(mergedOptions(before, { lock_password: null, immutable: true })).toEqual({
    ignore_password_expiry: false,
    immutable: true,
  });
  expect(before).toEqual({ lock_password: true, ignore_password_expiry: false });
});

test("what is immutable takes one change only: to be so no more", () => {
  const fixed = { immutable: true };
  expect([mayChange(fixed, { name: "x" }), mayChange(fixed, { options: {} }), mayChange(fixed, {})]).toEqual([
    false,
    false,
    false,
  ]);
  expect(mayChange(fixed, { options: { immutable: true } })).toBe(false);
  expect(mayChange(fixed, { options: { immutable: false }, name: "x" })).toBe(false);
  expect([
    mayChange(fixed, { options: { immutable: false } }),
    mayChange(fixed, { options: { immutable: null } }),
  ]).toEqual([true, true]);
  expect(mayChange({ immutable: false }, { name: "x" })).toBe(true);
});
