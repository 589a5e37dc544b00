import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { PromiseBook } from "./promise-book.ts";

/** The versions of "k" that a cut allows. */
const allowed = (lines: readonly unknown[], kept: number, seen = kept): number[] => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-book-"));
  try {
    const path = join(folder, "book");
    writeFileSync(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    return new PromiseBook(path).allowed("k", kept, seen).map(({ version }) => version);
  } finally {
    rmSync(folder, { recursive: true });
  }
};

const put = (version: number, at: number): unknown => ["asked", "k", version, false, at];
const done = (version: number, at: number): unknown => ["done", "k", version, at];

test("what was promised before a cut must be there, and what was asked for after it may", () => {
  const lines = [put(1, 2), done(1, 4), put(2, 5), put(3, 6), done(2, 9)];
  expect(allowed(lines, 3)).toEqual([0, 1]);
  expect(allowed(lines, 4)).toEqual([1]);
  expect(allowed(lines, 8)).toEqual([1, 2, 3]);
  expect(allowed(lines, 9)).toEqual([2, 3]);
});

test("what was asked for when the disk had got nothing of it cannot be there", () => {
  const lines = [put(1, 2), done(1, 4), put(2, 7)];
  expect(allowed(lines, 4, 6)).toEqual([1]);
  expect(allowed(lines, 4, 7)).toEqual([1, 2]);
});

test("what a new process found stays, and what it did not find never comes back", () => {
  const lines = [put(1, 2), done(1, 4), put(2, 5), put(3, 5), ["seen", "k", 2, 8], put(4, 9)];
  expect(allowed(lines, 7)).toEqual([1, 2, 3]);
  expect(allowed(lines, 8)).toEqual([2]);
  expect(allowed(lines, 10)).toEqual([2, 4]);
  const gone = [put(1, 2), done(1, 4), ["asked", "k", 2, true, 5], ["seen", "k", 0, 8]];
  expect(allowed(gone, 8)).toEqual([2]);
});
