import fc from "fast-check";
import { encode } from "msgpackr";
import { expect, test } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import {
  decodeObjectMetadata,
  decodeObjectRow,
  encodeObjectMetadata,
  encodeObjectRow,
  keptMetadata,
} from "./object-metadata.ts";

const RUNS = { seed: 20_264, numRuns: 400 };

const attempt = <T>(codes: readonly string[], decode: () => T): T | undefined => {
  try {
    return decode();
  } catch (error) {
    if (error instanceof RingsteadError && codes.includes(error.code)) return undefined;
    throw error;
  }
};

const text = fc.string({ unit: "grapheme", maxLength: 40 });
const metadata = fc.record({
  etag: fc.stringMatching(/^[0-9a-f]{32}$/),
  contentType: text,
  headers: fc.dictionary(fc.stringMatching(/^[a-z-]{1,20}$/), text, { maxKeys: 5 }),
  deleteAt: fc.option(fc.integer({ min: 1, max: 9_999_999_999 }), { nil: undefined }),
});

test("an object's metadata reads as it was written; any other bytes are metadata, or bad-message", () => {
  fc.assert(
    fc.property(metadata, fc.uint8Array({ maxLength: 80 }), fc.nat(), fc.nat(), (given, noise, at, end) => {
      const bytes = Uint8Array.from(encodeObjectMetadata(given));
      const decoded = decodeObjectMetadata(bytes);
      expect({ ...decoded, headers: { ...decoded.headers } }).toEqual(given);
      for (const other of [noise, bytes.subarray(0, end % bytes.length)])
        attempt(["bad-message"], () => decodeObjectMetadata(other));
      bytes[at % bytes.length] = noise[0] ?? 255;
      attempt(["bad-message"], () => decodeObjectMetadata(bytes));
    }),
    RUNS,
  );
});

test("whatever msgpack may bring in place of metadata is metadata, or bad-message", () => {
  fc.assert(
    fc.property(fc.oneof(fc.jsonValue(), fc.array(fc.oneof(text, fc.double(), fc.dictionary(text, text)))), (value) => {
      const decoded = attempt(["bad-message"], () => decodeObjectMetadata(encode(value)));
      if (decoded !== undefined) expect(typeof decoded.etag).toBe("string");
    }),
    RUNS,
  );
});

test("a due time of any length is kept as one that can be read back and sorts in the index", () => {
  const given = { etag: "", contentType: "", headers: {} };
  for (const deleteAt of [Number.POSITIVE_INFINITY, 1e300, 2 ** 60, 10_000_000_000]) {
    const kept = keptMetadata({ ...given, deleteAt });
    expect(kept.deleteAt).toBe(9_999_999_999);
    expect(decodeObjectMetadata(encodeObjectMetadata(kept)).deleteAt).toBe(kept.deleteAt);
  }
});

test("any bytes are the payload of an object's row", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 60 }),
      fc.stringMatching(/^[0-9a-f]{32}$/),
      text,
      (noise, etag, contentType) => {
        const { etag: read } = decodeObjectRow(noise);
        expect(read).not.toContain("\0");
        if (!contentType.includes("\0"))
          expect(decodeObjectRow(encodeObjectRow({ etag, contentType }))).toEqual({ etag, contentType });
      },
    ),
    RUNS,
  );
});
