import { expect, test } from "vitest";
import { releaseMemory } from "./release-memory.ts";

test("a large buffer's memory is given back, and its views are empty", () => {
  const buffer = Buffer.allocUnsafeSlow(1024 * 1024);
  const view = buffer.subarray(100);
  const before = process.memoryUsage().arrayBuffers;
  releaseMemory(view);
  releaseMemory(view);
  expect(process.memoryUsage().arrayBuffers).toBeLessThanOrEqual(before - 1024 * 1024);
  expect([buffer.length, view.length]).toEqual([0, 0]);
});

test("buffers of any size that Node takes from its pool are left alone", () => {
  for (let length = 1; length <= Buffer.poolSize; length *= 2) {
    const buffer = Buffer.allocUnsafe(length - 1);
    const other = Buffer.from("beside it");
    releaseMemory(buffer);
    expect(other.toString()).toBe("beside it");
  }
});
