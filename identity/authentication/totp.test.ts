import { expect, test } from "vitest";
import { decodeBase32, stepOf, totpCode } from "./totp.ts";

const SECRET = Buffer.from("12345678901234567890");

test("codes are those of RFC 6238, appendix B, in their last six digits", () => {
  const vectors: [seconds: number, code: string][] = [
    [59, "287082"],
    [1_111_111_109, "081804"],
    [1_111_111_111, "050471"],
    [1_234_567_890, "005924"],
    [2_000_000_000, "279037"],
    [20_000_000_000, "353130"],
  ];
  for (const [seconds, code] of vectors) expect(totpCode(SECRET, Math.floor(seconds / 30))).toBe(code);
});

test("base32 decodes with and without padding, and nothing else does", () => {
  expect(decodeBase32("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")).toEqual(SECRET);
  expect(decodeBase32("MZXW6YQ=")?.toString()).toBe("foob");
  expect(decodeBase32("MZXW6YQ")?.toString()).toBe("foob");
  for (const text of ["", "=", "A", "mzxw6yq", "MZXW1", "MZ XW"]) expect(decodeBase32(text)).toBeUndefined();
});

test("the code of now and the one before are good, a later or older one is not", () => {
  const nowMs = 1_700_000_015_000;
  const step = Math.floor(nowMs / 30_000);
  expect(stepOf(SECRET, totpCode(SECRET, step), nowMs)).toBe(step);
  expect(stepOf(SECRET, totpCode(SECRET, step - 1), nowMs)).toBe(step - 1);
  for (const other of [step - 2, step + 1]) expect(stepOf(SECRET, totpCode(SECRET, other), nowMs)).toBeUndefined();
  for (const text of ["", "12345", "1234567", "12345a", "１２３４５６"])
    expect(stepOf(SECRET, text, nowMs)).toBeUndefined();
});
