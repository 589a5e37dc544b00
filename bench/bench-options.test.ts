import { expect, test } from "vitest";
import { parseBenchOptions } from "./bench-options.ts";
import { IDENTITY_ROWS } from "./identity-rows.ts";
import { ROWS } from "./rows.ts";
import { TOKEN_ROWS } from "./token-rows.ts";

test("without options all rows are measured, two runs of eight seconds, a million names, nothing kept", () => {
  expect(parseBenchOptions([])).toMatchObject({
    compare: undefined,
    rows: ROWS,
    identityRows: [],
    tokenRows: [],
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

test("a comparison with anything but Swift and Keystone, or of tokens, is refused", () => {
  expect(parseBenchOptions(["--compare", "swift"]).compare).toBe("swift");
  expect(() => parseBenchOptions(["--compare", "minio"])).toThrow(/--compare takes swift, keystone or tokens/);
});

test("a comparison with Keystone has rows of its own", () => {
  const { rows, identityRows } = parseBenchOptions(["--compare", "keystone", "--rows", "token-validate"]);
  expect([rows, identityRows.map(({ id }) => id)]).toEqual([[], ["token-validate"]]);
  expect(() => parseBenchOptions(["--compare", "keystone", "--rows", "put-4k"])).toThrow(/no row "put-4k".*token-by/);
});

test("a comparison of tokens has rows of its own", () => {
  const { rows, identityRows, tokenRows } = parseBenchOptions(["--compare", "tokens", "--rows", "cold-token-check"]);
  expect([rows, identityRows, tokenRows.map(({ id }) => id)]).toEqual([[], [], ["cold-token-check"]]);
});

test("every row has a name of its own", () => {
  const ids = [...ROWS, ...IDENTITY_ROWS, ...TOKEN_ROWS].map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
});
