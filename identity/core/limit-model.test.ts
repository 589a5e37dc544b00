import { expect, test } from "vitest";
import { misfitOf, type OwnedLimit } from "./limit-model.ts";

const ofDomain = (resourceLimit: number): OwnedLimit => ({
  registeredLimitId: "r",
  projectId: null,
  domainId: "d",
  resourceLimit,
});
const ofProject = (resourceLimit: number): OwnedLimit => ({
  registeredLimitId: "r",
  projectId: "p",
  domainId: null,
  resourceLimit,
});
const surroundings = (...limits: OwnedLimit[]) => ({
  domainOf: new Map([["p", "d"]]),
  defaults: new Map([["r", 10]]),
  limits,
});

test("the flat model takes any limit", () => {
  expect(misfitOf("flat", [ofProject(100)], surroundings(ofDomain(1)))).toBeUndefined();
});

test("a project's limit is at most its domain's, or what holds where the domain has none", () => {
  const fits = (value: number, ...limits: OwnedLimit[]) =>
    misfitOf("strict_two_level", [ofProject(value)], surroundings(...limits)) === undefined;
  expect([fits(10), fits(11)]).toEqual([true, false]);
  expect([fits(20, ofDomain(20)), fits(21, ofDomain(20))]).toEqual([true, false]);
  expect([fits(0, ofDomain(0)), fits(1, ofDomain(0))]).toEqual([true, false]);
});

test("a domain's limit is not below one of its projects'", () => {
  const fits = (value: number, project: OwnedLimit) =>
    misfitOf("strict_two_level", [ofDomain(value)], surroundings(ofDomain(value), project)) === undefined;
  expect([fits(5, ofProject(5)), fits(4, ofProject(5))]).toEqual([true, false]);
});

test("no limit at all is more than any, and bounds nothing", () => {
  const fits = (changed: OwnedLimit, ...limits: OwnedLimit[]) =>
    misfitOf("strict_two_level", [changed], surroundings(...limits)) === undefined;
  expect(fits(ofProject(-1), ofDomain(1_000))).toBe(false);
  expect(fits(ofProject(-1), ofDomain(-1))).toBe(true);
  expect(fits(ofProject(1_000), ofDomain(-1))).toBe(true);
  expect(fits(ofDomain(1_000), ofDomain(1_000), ofProject(-1))).toBe(false);
});
