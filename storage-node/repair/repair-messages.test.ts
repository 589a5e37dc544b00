import fc from "fast-check";
import { expect, test } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { packCarried, unpackCarried } from "./carried-entries.ts";
import { packStamps, stampOf, unpackStamps } from "./entry-list.ts";

const bytes = fc.uint8Array({ minLength: 1, maxLength: 80 });
const EMPTY = new Uint8Array(0);
const RUNS = { numRuns: 300 };

/** What either decoder makes of bytes: a value, or the one error that it may throw. */
const decoded = <T>(decode: (body: Buffer) => T, body: Uint8Array): T | undefined => {
  try {
    return decode(Buffer.from(body));
  } catch (error) {
    if (error instanceof RingsteadError && error.code === "bad-message") return undefined;
    throw error;
  }
};

test("carried entries come back as they were, and no bytes of a peer do harm", () => {
  const entry = fc.record({
    key: bytes,
    value: fc.uint8Array({ maxLength: 200 }),
    body: fc.option(fc.uint8Array({ maxLength: 300 }), { nil: undefined }),
    far: fc.nat({ max: 2 ** 40 }),
  });
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 6 }), fc.uint8Array({ maxLength: 60 }), fc.nat(), (given, noise, cut) => {
      const packed = packCarried(
        given.map(({ key, value, body = EMPTY, far }) => {
          const isBodyHere = body !== EMPTY;
          return { key, value, body, isBodyHere, bodyLength: isBodyHere ? body.length : far };
        }),
      );
      const found = unpackCarried(packed);
      expect(found.map(({ key }) => [...key])).toEqual(given.map(({ key }) => [...key]));
      expect(found.map(({ value }) => [...value])).toEqual(given.map(({ value }) => [...value]));
      expect(found.map(({ isBodyHere, body }) => (isBodyHere ? [...body] : undefined))).toEqual(
        given.map(({ body }) => (body === undefined ? undefined : [...body])),
      );
      decoded(unpackCarried, packed.subarray(0, cut % (packed.length + 1)));
      decoded(unpackCarried, noise);
    }),
    RUNS,
  );
});

test("lists of entries come back as they were, and no bytes of a peer do harm", () => {
  const entry = fc.record({ key: bytes, value: fc.uint8Array({ minLength: 60, maxLength: 90 }) });
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 6 }), fc.uint8Array({ maxLength: 60 }), fc.nat(), (given, noise, cut) => {
      const packed = packStamps(given);
      expect(unpackStamps(packed)).toEqual(given.map(({ key, value }) => stampOf(key, value)));
      decoded(unpackStamps, packed.subarray(0, cut % (packed.length + 1)));
      decoded(unpackStamps, noise);
    }),
    RUNS,
  );
});
