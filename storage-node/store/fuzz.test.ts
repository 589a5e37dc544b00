import fc from "fast-check";
import { expect, test } from "vitest";
import type { Ballot } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import { decodeCounters, encodeCounters } from "./counters-format.ts";
import { spaceOfKey } from "./key-space.ts";
import { nameOfRegisterKey, registerKey } from "./keys.ts";
import { decodeRegister, encodeRegister } from "./register-format.ts";

const RUNS = { seed: 20_262, numRuns: 400 };

const attempt = <T>(code: string, decode: () => T): T | undefined => {
  try {
    return decode();
  } catch (error) {
    if (error instanceof RingsteadError && error.code === code) return undefined;
    throw error;
  }
};

test("any bytes are a register, or register-damaged; what was written reads the same", () => {
  const ballot = fc.stringMatching(/^[0-9a-f]{48}$/) as fc.Arbitrary<Ballot>;
  const register = fc.record({
    version: ballot,
    ballot,
    bodyVersion: ballot,
    state: fc.constantFrom("accepted", "confirmed", "void"),
    isTombstone: fc.boolean(),
    bodyLength: fc.nat({ max: 2 ** 48 - 1 }),
    metadata: fc.uint8Array({ maxLength: 50 }),
  });
  fc.assert(
    fc.property(register, fc.uint8Array({ maxLength: 120 }), fc.nat(), fc.nat(), (given, noise, at, end) => {
      const bytes = encodeRegister(given);
      expect({ ...decodeRegister(bytes), metadata: [] }).toEqual({ ...given, metadata: [] });
      attempt("register-damaged", () => decodeRegister(noise));
      attempt("register-damaged", () => decodeRegister(bytes.subarray(0, end % (bytes.length + 1))));
      bytes[at % bytes.length] = noise[0] ?? 0;
      attempt("register-damaged", () => decodeRegister(bytes));
    }),
    RUNS,
  );
});

test("any bytes are counters or none; what was written reads the same", () => {
  const figure = fc.nat();
  const counters = fc.record({
    rows: figure,
    objects: figure,
    bytes: figure,
    deletedRows: figure,
    setHash: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  });
  fc.assert(
    fc.property(counters, fc.uint8Array({ maxLength: 60 }), (given, noise) => {
      expect(decodeCounters(encodeCounters(given))).toEqual(given);
      const decoded = decodeCounters(noise);
      if (decoded !== undefined) expect(decoded.setHash).toBeGreaterThanOrEqual(0n);
    }),
    RUNS,
  );
});

test("any bytes as a key name a register, or none, and have a space, or unknown-key-kind", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), fc.string({ unit: "grapheme" }), (noise, path) => {
      nameOfRegisterKey(noise);
      attempt("unknown-key-kind", () => spaceOfKey(noise));
      const name = { space: "object", hash32: noise.length, path } as const;
      expect(nameOfRegisterKey(registerKey(name))).toEqual(name);
      expect(spaceOfKey(registerKey(name))).toBe("object");
    }),
    RUNS,
  );
});
