import { expect, test } from "vitest";
import { missingFactors } from "./factors.ts";

const OFFERED = new Set(["password", "totp", "token", "application_credential"]);
const rules = (...lists: unknown[]) => ({ multi_factor_auth_rules: lists });

test("without rules, or with rules switched off, any method is enough", () => {
  for (const options of [{}, rules(), { ...rules(["password", "totp"]), multi_factor_auth_enabled: false }]) {
    expect(missingFactors(options, ["password"], OFFERED)).toBeUndefined();
  }
});

test("one rule that is fulfilled is enough, whatever else was proved", () => {
  const options = rules(["password", "totp"], ["application_credential"]);
  expect(missingFactors(options, ["totp", "password"], OFFERED)).toBeUndefined();
  expect(missingFactors(options, ["token", "application_credential"], OFFERED)).toBeUndefined();
});

test("rules that nothing was proved for are not told", () => {
  const options = rules(["password", "totp"], ["application_credential"]);
  expect(missingFactors(options, ["password"], OFFERED)).toEqual([["password", "totp"]]);
  expect(missingFactors(options, ["token"], OFFERED)).toEqual([]);
});

test("a method that nobody offers is not asked for", () => {
  expect(missingFactors(rules(["password", "retina"]), ["password"], OFFERED)).toBeUndefined();
  expect(missingFactors(rules(["retina"]), ["password"], OFFERED)).toBeUndefined();
  expect(missingFactors(rules(["password", "totp", "retina"]), ["password"], OFFERED)).toEqual([["password", "totp"]]);
});

test("what is no list of names is no rule", () => {
  expect(missingFactors({ multi_factor_auth_rules: "password" }, ["token"], OFFERED)).toBeUndefined();
  expect(missingFactors(rules([], [1], "x", { length: 1 }), ["token"], OFFERED)).toBeUndefined();
});
