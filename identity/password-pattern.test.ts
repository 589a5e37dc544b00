import { expect, test } from "vitest";
import { PASSWORD_MAX } from "./core/password-rules.ts";
import { createPasswordPattern } from "./password-pattern.ts";

const isMatched = (source: string, password: string): boolean =>
  createPasswordPattern(source, source).isMatchedBy(password);

test("an expression must fit where a password begins, also where another alternative fits later", () => {
  for (const password of ["abc", "bx"]) expect([password, isMatched("b|abc", password)]).toEqual([password, true]);
  for (const password of ["xb", "ab", ""]) expect([password, isMatched("b|abc", password)]).toEqual([password, false]);
  expect(isMatched("^.{7,}$", "seven 7")).toBe(true);
  expect(isMatched("^.{7,}$", "six  6")).toBe(false);
});

test("one pattern judges each password by itself", () => {
  const pattern = createPasswordPattern("[a-z]+", "letters");
  for (let count = 0; count < 3; count += 1) {
    expect([pattern.isMatchedBy("abc"), pattern.isMatchedBy("1"), pattern.isMatchedBy("a")]).toEqual([
      true,
      false,
      true,
    ]);
  }
});

test("lookaheads work, as in Keystone's own example", () => {
  const source = "^(?=.*\\d)(?=.*[a-zA-Z]).{7,}$";
  expect(["letters1", "l1", "lettersonly", "12345678"].map((password) => isMatched(source, password))).toEqual([
    true,
    false,
    false,
    false,
  ]);
  expect(isMatched(source, `${"x".repeat(PASSWORD_MAX - 1)}1`)).toBe(true);
});

test("an expression that goes back and forth refuses the password in time, and the next one is judged", () => {
  for (const source of ["^(a+)+$", "^(a|aa)+$", "(?=(a*)*b)a", "^(.*?,){30}x"]) {
    const pattern = createPasswordPattern(source, "the rule");
    const evil = source.includes(",") ? ",".repeat(PASSWORD_MAX) : `${"a".repeat(PASSWORD_MAX - 1)}!`;
    const startedAtMs = performance.now();
    expect(() => pattern.isMatchedBy(evil)).toThrow("too long to compare with the requirements: the rule");
    expect(performance.now() - startedAtMs).toBeLessThan(1_000);
    expect(pattern.isMatchedBy("!")).toBe(false);
  }
});

test("what is no expression is refused at the start", () => {
  expect(() => createPasswordPattern("(", "")).toThrow(SyntaxError);
});
