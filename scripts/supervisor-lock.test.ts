import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { isRunning, startTimeOf } from "../common/process-identity.ts";
import { lockHolder, takeLock } from "./supervisor-lock.ts";

const folder = mkdtempSync(join(tmpdir(), "ringstead-lock-"));
afterAll(() => rmSync(folder, { recursive: true }));
const own = { pid: process.pid, startTime: startTimeOf(process.pid) ?? 0 };

it("is held by one process at a time, and the refusal names its pid", () => {
  const file = join(folder, "one.lock");
  {
    using _lock = takeLock(file, "/data");
    expect(lockHolder(file)).toEqual(own);
    expect(() => takeLock(file, "/data")).toThrow(`already runs on /data with pid ${process.pid}`);
  }
  expect(lockHolder(file)).toBeUndefined();
});

it.each([
  ["a dead process", { pid: 2 ** 22 + 1, startTime: 1 }],
  ["a later process with the same pid", { ...own, startTime: own.startTime - 1 }],
  ["nonsense", "x"],
])("a lock of %s is taken over", (_name, contents) => {
  const file = join(folder, "stale.lock");
  writeFileSync(file, JSON.stringify(contents));
  using _lock = takeLock(file, "/data");
  expect(lockHolder(file)).toEqual(own);
});

it("a process is known by pid and start time", () => {
  expect(isRunning(own)).toBe(true);
  expect(isRunning({ ...own, startTime: own.startTime + 1 })).toBe(false);
});
