import { expect, test, vi } from "vitest";
import { silentLog } from "./log.ts";
import { createMetrics } from "./metrics.ts";
import { type OpenFiles, openFiles, stateAfter, watchOpenFiles } from "./open-files.ts";

test("few descriptors are left from nine tenths on, and enough again below eight", () => {
  const limit = 100;
  expect(stateAfter("enough", { open: 89, limit })).toBe("enough");
  expect(stateAfter("enough", { open: 90, limit })).toBe("few");
  expect(stateAfter("enough", undefined)).toBe("few");
  expect(stateAfter("few", { open: 80, limit })).toBe("few");
  expect(stateAfter("few", { open: 79, limit })).toBe("enough");
  expect(stateAfter("enough", { open: 5000, limit: Number.POSITIVE_INFINITY })).toBe("enough");
});

test("this process has some open, and may have more", () => {
  const files = openFiles();
  expect(files?.open).toBeGreaterThan(2);
  expect(files?.limit).toBeGreaterThan(files!.open);
});

test("it is told once that few are left, and once that there are enough again", () => {
  vi.useFakeTimers();
  const told: [message: string, fields: object | undefined][] = [];
  const tell = (message: string, fields?: object): void => void told.push([message, fields]);
  let files: OpenFiles | undefined = { open: 10, limit: 100 };
  const metrics = createMetrics();
  using _ = watchOpenFiles({ ...silentLog, info: tell, warn: tell }, metrics, () => files);
  for (const next of [{ open: 95, limit: 100 }, undefined, { open: 85, limit: 100 }, { open: 20, limit: 100 }]) {
    files = next;
    vi.advanceTimersByTime(1000);
  }
  vi.useRealTimers();
  expect(told).toEqual([
    [
      expect.stringContaining("few descriptors are left"),
      { open: 95, limit: 100, remedy: expect.stringContaining("raise the limit of open files") },
    ],
    ["there are enough descriptors again", { open: 20, limit: 100 }],
  ]);
  expect(metrics.render()).toContain("ringstead_open_files 20");
});
