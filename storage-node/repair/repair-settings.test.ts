import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Log } from "../../common/log.ts";
import { readRepairSettings, WatchedRepairSettings, writeRepairSettings } from "./repair-settings.ts";

let folder = "";
let path = "";
const errors: string[] = [];
const log: Log = { info() {}, warn() {}, error: (message) => void errors.push(message), child: () => log };

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "repair-settings-"));
  path = join(folder, "repair.json");
  errors.length = 0;
});
afterEach(() => rmSync(folder, { recursive: true }));

const NONE = { isPaused: false, bytesPerSecond: undefined, operationsPerSecond: undefined };
const PAUSED = { isPaused: true, bytesPerSecond: 5_000_000, operationsPerSecond: undefined };

test("what was written is read; where nothing was, nothing is held back", () => {
  expect(readRepairSettings(path)).toEqual(NONE);
  writeRepairSettings(path, PAUSED);
  expect(readRepairSettings(path)).toEqual(PAUSED);
});

test.each(["", "{}", "[]", '{"paused":"yes"}', '{"paused":true,"bytes_per_second":0}', '{"paused":true,"more":1}'])(
  "a file with %j is refused with what to do",
  (text) => {
    writeFileSync(path, text);
    expect(() => readRepairSettings(path)).toThrow(expect.objectContaining({ code: "bad-repair-settings" }));
    expect(() => readRepairSettings(path)).toThrow(/remove it/);
  },
);

test("a change is followed within a second, and a file that cannot be read changes nothing", async () => {
  using watched = new WatchedRepairSettings(path, log);
  expect(watched.now).toEqual(NONE);
  writeRepairSettings(path, PAUSED);
  await expect.poll(() => watched.now, { timeout: 1000 }).toEqual(PAUSED);
  writeFileSync(path, "{");
  await expect.poll(() => errors, { timeout: 1000 }).toHaveLength(1);
  expect(watched.now).toEqual(PAUSED);
  rmSync(path);
  await expect.poll(() => watched.now, { timeout: 1000 }).toEqual(NONE);
});
