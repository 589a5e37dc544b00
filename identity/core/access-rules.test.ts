import fc from "fast-check";
import { expect, test } from "vitest";
import { isAllowedByRules, pathFits } from "./access-rules.ts";

test.each([
  ["/v2.1/servers", "/v2.1/servers", true],
  ["/v2.1/servers/", "/v2.1/servers", false],
  ["/v2.1/servers/1", "/v2.1/servers/{id}", true],
  ["/v2.1/servers/", "/v2.1/servers/{id}", false],
  ["/v2.1/servers/1/action", "/v2.1/servers/{id}", false],
  ["/v2.1/servers/1/action", "/v2.1/servers/*/action", true],
  ["/v2.1/servers/1/2/action", "/v2.1/servers/*/action", false],
  ["/v2.1/servers/1/2/action", "/v2.1/servers/**/action", true],
  ["/v1/AUTH_x/c/o", "/v1/**", true],
  ["/v1", "/v1/**", false],
  ["/a.b", "/a?b", false],
  ["/axb", "/a.b", false],
  ["/", "/**", true],
  ["/{", "/{", true],
])("%s fits %s: %s", (path, pattern, fits) => {
  expect(pathFits(path, pattern)).toBe(fits);
});

test("a pattern without wildcards fits itself alone, and any path fits **", () => {
  const plain = fc.string({ maxLength: 30 }).map((text) => `/${text.replaceAll(/[{}*]/g, "")}`);
  fc.assert(
    fc.property(plain, plain, (path, pattern) => {
      expect(pathFits(path, pattern)).toBe(path === pattern);
      expect(pathFits(path, "**")).toBe(true);
    }),
  );
});

test("a pattern made to take long is judged at once", () => {
  expect(pathFits(`/${"a".repeat(2_000)}`, `/${"**a".repeat(70)}b`)).toBe(false);
  expect(pathFits(`/${"a".repeat(100_000)}`, "/**")).toBe(false);
});

test("no rules allow everything, an empty list nothing, and a rule its own service and method", () => {
  const rules = [{ service: "object-store", method: "GET", path: "/v1/**" }];
  expect(isAllowedByRules(undefined, "object-store", "PUT", "/v1/a")).toBe(true);
  expect(isAllowedByRules([], "object-store", "GET", "/v1/a")).toBe(false);
  expect(isAllowedByRules(rules, "object-store", "GET", "/v1/a")).toBe(true);
  expect(isAllowedByRules(rules, "object-store", "PUT", "/v1/a")).toBe(false);
  expect(isAllowedByRules(rules, "image", "GET", "/v1/a")).toBe(false);
});
