import { expect, test } from "vitest";
import { MIXED_PATTERN } from "./mixed-pattern.ts";

const countOf = (kind: string, end = MIXED_PATTERN.length): number =>
  MIXED_PATTERN.slice(0, end).filter((each) => each === kind).length;

test("a mixed load is 80 GET, 15 PUT, 3 DELETE and 2 listings of 100", () => {
  expect(MIXED_PATTERN).toHaveLength(100);
  expect(["GET", "PUT", "DELETE", "list"].map((kind) => countOf(kind))).toEqual([80, 15, 3, 2]);
});

test("any beginning of the mixed pattern holds more PUTs than DELETEs, and about the shares", () => {
  for (let end = 7; end <= MIXED_PATTERN.length; end += 1) {
    expect(countOf("PUT", end)).toBeGreaterThan(countOf("DELETE", end));
    expect(Math.abs(countOf("GET", end) - end * 0.8)).toBeLessThan(2);
  }
});
