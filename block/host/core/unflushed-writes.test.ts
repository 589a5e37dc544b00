import { expect, test } from "vitest";
import { UnflushedWrites } from "./unflushed-writes.ts";

test("a flush covers what was answered before it began, and nothing that was answered since", () => {
  const writes = new UnflushedWrites();
  const [first, second, third] = [0, 1, 2].map((block) => writes.begin(block, 1, Buffer.alloc(1, block)));
  expect(writes.isEmpty).toBe(true);
  writes.answered(second!);
  expect(writes.isEmpty).toBe(false);
  const mark = writes.mark();
  writes.answered(first!);
  expect(writes.kept).toEqual([first, second]);
  writes.flushed(mark);
  expect(writes.kept).toEqual([first]);
  writes.answered(third!);
  writes.flushed(writes.mark());
  expect(writes.kept).toEqual([]);
  expect([writes.bytes, writes.isEmpty]).toEqual([0, true]);
});

test("those that are given again come in the order in which they came, and what was refused is not among them", () => {
  const writes = new UnflushedWrites();
  const [first, second, third] = [0, 1, 2].map((block) => writes.begin(block, 1, undefined));
  for (const write of [third!, first!]) writes.answered(write);
  writes.forget(second!);
  expect(writes.kept.map(({ offset }) => offset)).toEqual([0, 2]);
  expect(writes.bytes).toBeGreaterThan(0);
});
