import { expect, test } from "vitest";
import { cpuOfLoadMs, isQuiet, shareOf } from "./cpu-accounting.ts";
import { cpuMsOfStat } from "./process-usage.ts";

test("what a server takes without any load is not charged to the load", () => {
  expect(cpuOfLoadMs({ cpuMs: 900, elapsedMs: 2000 }, 0.05)).toBe(800);
});

test("a load never costs less than nothing, even where the server idled more than before", () => {
  expect(cpuOfLoadMs({ cpuMs: 50, elapsedMs: 2000 }, 0.05)).toBe(0);
});

test("a stretch of no length has no share", () => {
  expect(shareOf({ cpuMs: 0, elapsedMs: 0 })).toBe(0);
});

test("a server is quiet at its idle share and a tick above it, not when it still works", () => {
  expect(isQuiet({ cpuMs: 10, elapsedMs: 500 }, 0.02)).toBe(true);
  expect(isQuiet({ cpuMs: 20, elapsedMs: 500 }, 0.02)).toBe(true);
  expect(isQuiet({ cpuMs: 100, elapsedMs: 500 }, 0.02)).toBe(false);
});

test("CPU time of a process holds that of its ended children, whatever its name holds", () => {
  const fields = "S 1 7 7 0 -1 4194304 900 0 0 0 11 22 33 44 20 0 1 0";
  expect(cpuMsOfStat(`7 (a) b (c) ${fields}`)).toBe(1100);
});

test("a process that has ended takes no CPU time", () => {
  expect(cpuMsOfStat("")).toBe(0);
});
