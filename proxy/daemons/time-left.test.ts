import { expect, test } from "vitest";
import { TimeLeft } from "./time-left.ts";

test("the time left follows from the partitions of the last minute", () => {
  const it = new TimeLeft();
  expect(it.seconds(10, 0)).toBeUndefined();
  it.begin(0);
  expect(it.seconds(10, 1000)).toBeUndefined();
  for (let second = 1; second <= 10; second++) it.note(second * 1000);
  expect(it.seconds(10, 10_000)).toBe(10);
  expect(it.seconds(1000, 10_000)).toBe(1020);
  // Nothing came for long: what was then says nothing of now.
  expect(it.seconds(10, 100_000)).toBeUndefined();
  it.note(100_000);
  expect(it.seconds(10, 100_000)).toBe(600);
});

test("of thousands in a minute the last ones tell the rate", () => {
  const it = new TimeLeft();
  it.begin(0);
  for (let count = 1; count <= 5000; count++) it.note(count * 10);
  expect(it.seconds(1000, 50_000)).toBe(10);
});

test("what was moved before says nothing of the next change of the rings", () => {
  const it = new TimeLeft();
  it.begin(0);
  it.note(1000);
  it.end();
  it.begin(2000);
  expect(it.seconds(5, 3000)).toBeUndefined();
});
