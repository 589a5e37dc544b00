import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { LatestFile } from "./latest-file.ts";

let folder: string;
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), "ringstead-latest-"))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test("of many texts that come while one is written only the last is written after it", async () => {
  const failures: unknown[] = [];
  const path = join(folder, "moves.json");
  const file = new LatestFile(path, 0o644, (error) => failures.push(error));
  for (let count = 0; count < 1000; count++) file.put(`text ${count}`);
  // It is written by nobody who puts something.
  expect(readdirSync(folder)).not.toContain("moves.json");
  await file[Symbol.asyncDispose]();
  expect(readFileSync(path, "utf8")).toBe("text 999");
  expect(readdirSync(folder)).toEqual(["moves.json"]);
  expect(statSync(path).mode & 0o777).toBe(0o644);
  expect(failures).toEqual([]);
});

test("what could not be written is told, and the next text is tried again", async () => {
  const failures: unknown[] = [];
  const path = join(folder, "rings", "moves.json");
  const file = new LatestFile(path, 0o644, (error) => failures.push(error));
  file.put("first");
  await file[Symbol.asyncDispose]();
  expect(failures).toMatchObject([{ code: "ENOENT" }]);
  const other = new LatestFile(join(folder, "moves.json"), 0o600, (error) => failures.push(error));
  other.put("first");
  await other[Symbol.asyncDispose]();
  other.put("second");
  await other[Symbol.asyncDispose]();
  expect(readFileSync(join(folder, "moves.json"), "utf8")).toBe("second");
  expect(failures).toHaveLength(1);
});
