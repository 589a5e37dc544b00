import fc from "fast-check";
import { encode } from "msgpackr";
import { expect, test } from "vitest";
import { type Ballot, NO_INCARNATION } from "../common/ballot.ts";
import { RingsteadError } from "../common/errors.ts";
import {
  decodeContainerRecord,
  decodeRowValue,
  encodeContainerRecord,
  encodeRowValue,
  HeaderReader,
  packRegister,
  packRow,
  packRows,
  type Row,
  unpackFates,
  unpackRegister,
  unpackRow,
  unpackRows,
} from "./wire.ts";

const RUNS = { seed: 20_261, numRuns: 400 };
const CODES = ["bad-message", "row-damaged"];

/** What a decoder gives; its typed refusal counts as an answer, every other exception fails the test. */
const attempt = <T>(decode: () => T): T | undefined => {
  try {
    return decode();
  } catch (error) {
    if (error instanceof RingsteadError && CODES.includes(error.code)) return undefined;
    throw error;
  }
};

const ballot = fc.stringMatching(/^[0-9a-f]{48}$/) as fc.Arbitrary<Ballot>;
/** What msgpack may bring: anything, often near to what is expected. */
const { field } = fc.letrec<{ field: unknown }>((tie) => ({
  field: fc.oneof(
    { maxDepth: 3 },
    fc.nat({ max: 6 }),
    ballot,
    fc.string(),
    fc.double(),
    fc.bigInt({ min: 0n, max: 2n ** 63n }),
    fc.constantFrom(null, undefined, true, Number.NaN, -1, 2 ** 53),
    fc.uint8Array({ maxLength: 40 }),
    fc.dictionary(fc.string(), fc.string()),
    fc.array(tie("field"), { maxLength: 8 }),
  ),
}));
const fields = fc.array(field, { maxLength: 12 });

test("any header fields are read, or refused as bad-message", () => {
  fc.assert(
    fc.property(fields, (given) => {
      const reader = (): HeaderReader => new HeaderReader(given);
      const register = attempt(() => unpackRegister(reader()));
      if (register !== undefined) expect(register.version).toMatch(/^[0-9a-f]{48}$/);
      const row = attempt(() => unpackRow(reader()));
      if (row !== undefined) expect(typeof row.name).toBe("string");
      const name = attempt(() => reader().name());
      if (name !== undefined) expect(name.hash32).toBeLessThanOrEqual(0xffffffff);
      attempt(() => unpackFates(reader()));
      attempt(() => reader().texts(16));
      attempt(() => reader().counts(16));
      attempt(() =>
        reader()
          .list(16)
          .map((item) => item.name()),
      );
      attempt(() => unpackRegister(reader().nested()));
    }),
    RUNS,
  );
});

const rowOf = fc.record({
  name: fc.string({ unit: "grapheme", maxLength: 30 }),
  version: ballot,
  isDeleted: fc.boolean(),
  objects: fc.integer(),
  bytes: fc.integer(),
  payload: fc.uint8Array({ maxLength: 40 }),
});
const shown = ({ name, version, isDeleted, objects, bytes, payload }: Row): unknown => [
  name,
  version,
  isDeleted,
  objects,
  bytes,
  [...payload],
];

test("rows and registers read as they were packed", () => {
  fc.assert(
    fc.property(fc.array(rowOf, { maxLength: 6 }), ballot, ballot, (rows, version, other) => {
      for (const row of rows) {
        expect(shown(unpackRow(new HeaderReader(packRow(row) ?? []))!)).toEqual(shown(row));
        expect(shown(decodeRowValue(row.name, row.isDeleted, encodeRowValue(row)))).toEqual(shown(row));
      }
      const page = packRows(
        rows.map((row) => ({ name: Buffer.from(row.name), value: encodeRowValue(row), isDeleted: row.isDeleted })),
      );
      expect(unpackRows(page).map(shown)).toEqual(rows.map(shown));
      const register = {
        version,
        ballot: other,
        state: "accepted" as const,
        bodyVersion: other,
        isTombstone: false,
        bodyLength: 5,
        metadata: new Uint8Array([1]),
      };
      expect(unpackRegister(new HeaderReader(packRegister(register) ?? []))).toEqual(register);
    }),
    RUNS,
  );
});

test("any bytes are a page of rows whose every field can be read, or bad-message", () => {
  const lengths = fc.array(fc.nat({ max: 200 }), { maxLength: 4 });
  fc.assert(
    fc.property(
      fc.array(rowOf, { maxLength: 4 }),
      fc.uint8Array({ maxLength: 150 }),
      lengths,
      fc.nat(),
      (rows, noise, runs, at) => {
        const page = packRows(
          rows.map((row) => ({ name: Buffer.from(row.name), value: encodeRowValue(row), isDeleted: row.isDeleted })),
        );
        const altered = Buffer.concat([page, noise]);
        if (altered.length > 0) altered[at % altered.length] = noise[0] ?? 255;
        for (const read of [
          () => unpackRows(Buffer.from(noise)),
          () => unpackRows(altered),
          () => unpackRows(altered, runs),
        ]) {
          for (const row of attempt(read) ?? []) {
            expect(shown(row)).toHaveLength(6);
            expect(row.version).toMatch(/^[0-9a-f]{48}$/);
          }
        }
      },
    ),
    RUNS,
  );
});

test("any bytes are a row's value, or row-damaged", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      const row = attempt(() => decodeRowValue("name", false, bytes));
      expect(row === undefined).toBe(bytes.length < 40);
    }),
    RUNS,
  );
});

test("any bytes are a container's record, or bad-message", () => {
  const plain = { status: "open", incarnation: NO_INCARNATION, headers: { "x-container-read": ".r:*" } } as const;
  expect({ ...decodeContainerRecord(encodeContainerRecord(plain)).headers }).toEqual(plain.headers);
  const shards = {
    rows: "leaving",
    index: [
      { upTo: "m", id: "1" },
      { upTo: "", id: "2" },
    ],
    change: { from: ["1", "2"], to: [{ upTo: "", id: "3" }] },
  } as const;
  const sound = encodeContainerRecord({ ...plain, shards });
  expect(decodeContainerRecord(sound).shards).toEqual(shards);
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 80 }),
        fields.map((value) => encode(value)),
      ),
      (bytes) => {
        const decoded = attempt(() => decodeContainerRecord(bytes));
        if (decoded === undefined) return;
        expect(["open", "closing"]).toContain(decoded.status);
        expect(decoded.shards?.index).not.toEqual([]);
      },
    ),
    RUNS,
  );
  fc.assert(
    fc.property(
      fc.nat({ max: sound.length - 1 }),
      fc.nat({ max: 255 }),
      fc.nat({ max: sound.length }),
      (at, byte, end) => {
        const altered = Uint8Array.from(sound);
        altered[at] = byte;
        attempt(() => decodeContainerRecord(altered));
        attempt(() => decodeContainerRecord(sound.subarray(0, end)));
      },
    ),
    RUNS,
  );
});
