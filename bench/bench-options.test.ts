import { expect, test } from "vitest";
import { parseBenchOptions } from "./bench-options.ts";
import { ROWS } from "./rows.ts";

test("without options all rows are measured, two runs of eight seconds, a million names, nothing kept", () => {
  expect(parseBenchOptions([])).toMatchObject({
    compareSwift: false,
    rows: ROWS,
    seconds: 8,
    rounds: 2,
    full: false,
    names: 1_000_000,
    fillSeconds: 900,
    keep: false,
  });
});

test("rows run in their own order, whatever the order in which they were named", () => {
  const { rows } = parseBenchOptions(["--rows", "get-4k,put-4k"]);
  expect(rows.map(({ id }) => id)).toEqual(["put-4k", "get-4k"]);
});

test("an unknown row is refused with the names of all rows", () => {
  expect(() => parseBenchOptions(["--rows", "put-4k,put-9k"])).toThrow(/no row "put-9k".*put-4k,get-4k/);
});

test("numbers that are none, not positive or too large are refused", () => {
  for (const text of ["0", "-1", "x", "3601", "Infinity", ""])
    expect(() => parseBenchOptions([`--seconds=${text}`])).toThrow(/--seconds takes a number up to 3600/);
  expect(() => parseBenchOptions(["--names", "10000001"])).toThrow(/--names/);
});

test("a comparison with anything but Swift is refused", () => {
  expect(parseBenchOptions(["--compare", "swift"]).compareSwift).toBe(true);
  expect(() => parseBenchOptions(["--compare", "minio"])).toThrow(/--compare takes swift/);
});

test("every row has a name of its own", () => {
  expect(new Set(ROWS.map(({ id }) => id)).size).toBe(ROWS.length);
});
