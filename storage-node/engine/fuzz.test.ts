import fc from "fast-check";
import { expect, test } from "vitest";
import { BODY_HEADER_BYTES, blockSum, decodeBodyHeader, encodeBodyHeader } from "./body-format.ts";
import {
  BODY_FILE,
  BODY_HERE,
  BODY_NONE,
  decodeRecordHead,
  decodeSegmentHeader,
  emptyRecordFields,
  encodeRecord,
  encodeSegmentHeader,
  MAX_RECORD_BYTES,
  recordIsValid,
  recordSize,
  regionOf,
} from "./format.ts";
import { decodeCheckpoint, decodeLiveEntry, encodeCheckpoint, encodeLiveEntry } from "./index-format.ts";

const RUNS = { seed: 20_263, numRuns: 400 };
const SEED = 0x5eedn;

/** Everything here has a checksum: one changed byte, or one cut off, must not read as something else. */
const alterations = fc.record({ at: fc.nat(), by: fc.integer({ min: 1, max: 255 }), end: fc.nat() });
const altered = (bytes: Uint8Array, at: number, by: number): Uint8Array => {
  const copy = Uint8Array.from(bytes);
  copy[at % copy.length] = (copy[at % copy.length] ?? 0) ^ by;
  return copy;
};
const u32 = fc.nat({ max: 0xffffffff });
const count = fc.nat({ max: Number.MAX_SAFE_INTEGER });

test("any bytes are a checkpoint or none, and an altered one is none", () => {
  const checkpoint = fc.record({
    segment: u32,
    offset: u32,
    nextSequence: count,
    nextFileId: count,
    digestScheme: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    segments: fc.array(fc.record({ number: u32, used: u32, live: u32, deletes: u32 }), { maxLength: 4 }),
    looseFiles: fc.array(count, { maxLength: 4 }),
  });
  fc.assert(
    fc.property(checkpoint, alterations, fc.uint8Array({ maxLength: 150 }), (given, { at, by, end }, noise) => {
      const bytes = encodeCheckpoint(given, SEED);
      expect(decodeCheckpoint(bytes, SEED)).toEqual(given);
      expect(decodeCheckpoint(altered(bytes, at, by), SEED)).toBeUndefined();
      expect(decodeCheckpoint(bytes.subarray(0, end % bytes.length), SEED)).toBeUndefined();
      expect(decodeCheckpoint(bytes, SEED + 1n)).toBeUndefined();
      expect(decodeCheckpoint(noise, SEED)).toBeUndefined();
    }),
    RUNS,
  );
});

test("any bytes are an index value or none, and an altered one is none", () => {
  const entry = fc.record({
    segment: u32,
    offset: u32,
    size: u32,
    keyLength: u32,
    value: fc.uint8Array({ maxLength: 256 }),
    bodyKind: fc.constantFrom(BODY_NONE, BODY_FILE),
    bodyOffset: count,
    bodyLength: count,
    digest: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  });
  fc.assert(
    fc.property(entry, alterations, fc.uint8Array({ maxLength: 150 }), (given, { at, by, end }, noise) => {
      const bodyOffset = given.bodyKind === BODY_FILE ? given.bodyOffset : 0;
      const whole = { ...given, bodyOffset, bodySegment: 0, valueLength: given.value.length };
      const bytes = encodeLiveEntry(whole);
      expect({ ...decodeLiveEntry(bytes), value: [] }).toEqual({ ...whole, value: [] });
      expect(decodeLiveEntry(altered(bytes, at, by))).toBeUndefined();
      expect(decodeLiveEntry(bytes.subarray(0, end % bytes.length))).toBeUndefined();
      expect(decodeLiveEntry(noise)).toBeUndefined();
    }),
    RUNS,
  );
});

test("any bytes are a segment's header or none, and an altered one is none", () => {
  const template = { inUse: true, number: 7, sizeBytes: 65_536, firstSequence: 12 };
  fc.assert(
    fc.property(alterations, fc.uint8Array({ maxLength: 150 }), ({ at, by, end }, noise) => {
      const bytes = encodeSegmentHeader(template, SEED);
      expect(decodeSegmentHeader(bytes, SEED)).toEqual(template);
      const damaged = decodeSegmentHeader(altered(bytes, at, by), SEED);
      // The bytes behind the checksummed part are padding.
      if (damaged !== undefined) expect(damaged).toEqual(template);
      expect(decodeSegmentHeader(bytes.subarray(0, end % bytes.length), SEED)).toBeUndefined();
      expect(decodeSegmentHeader(noise, SEED)).toBeUndefined();
    }),
    RUNS,
  );
});

test("any bytes are a body file's header or none, an altered one never names another file, and a block's sum tells it from every other", () => {
  fc.assert(
    fc.property(count, alterations, fc.uint8Array({ maxLength: 150 }), (fileId, { at, by, end }, noise) => {
      const bytes = encodeBodyHeader(fileId, SEED);
      expect(decodeBodyHeader(bytes, SEED)).toBe(fileId);
      expect([undefined, fileId]).toContain(decodeBodyHeader(altered(bytes, at, by), SEED));
      expect(decodeBodyHeader(bytes.subarray(0, end % BODY_HEADER_BYTES), SEED)).toBeUndefined();
      expect(decodeBodyHeader(noise, SEED)).toBeUndefined();
      if (noise.length > 0) expect(blockSum(altered(noise, at, by), 1, 0, SEED)).not.toBe(blockSum(noise, 1, 0, SEED));
      expect(blockSum(noise, 1, 1, SEED)).not.toBe(blockSum(noise, 1, 0, SEED));
    }),
    RUNS,
  );
});

test("any bytes are a record's head or none, with a size that the format allows", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 80, maxLength: 200 }), fc.boolean(), (noise, isMarked) => {
      const bytes = Uint8Array.from(noise);
      // With the right magic and version the lengths are what is tried.
      if (isMarked) bytes.set([0x52, 0x53, 0x52, 0x43, 1, 1, 1], 8);
      const fields = emptyRecordFields();
      const size = decodeRecordHead(regionOf(bytes).view, 0, fields);
      expect(size).toBeGreaterThanOrEqual(0);
      expect(size).toBeLessThanOrEqual(MAX_RECORD_BYTES);
      expect(size % 8).toBe(0);
    }),
    RUNS,
  );
});

test("a record with a changed byte is no valid record, but for its padding, and neither is one at another place", () => {
  const bytes = fc.uint8Array({ maxLength: 60 });
  const key = fc.uint8Array({ minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(key, bytes, fc.option(bytes, { nil: undefined }), alterations, (keyBytes, value, body, { at, by }) => {
      const fields = {
        ...emptyRecordFields(),
        bodyKind: body === undefined ? BODY_NONE : BODY_HERE,
        bodyLength: body?.length ?? 0,
        keyLength: keyBytes.length,
        valueLength: value.length,
        sequence: 9,
      };
      const region = regionOf(
        new Uint8Array(recordSize(keyBytes.length, value.length, fields.bodyKind, fields.bodyLength)),
      );
      const size = encodeRecord(region, 0, fields, keyBytes, value, body, SEED, 4096);
      expect(size).toBe(region.bytes.length);
      const isSound = (candidate: Uint8Array, offset = 4096): boolean => {
        const found = emptyRecordFields();
        const other = regionOf(candidate);
        const length = decodeRecordHead(other.view, 0, found);
        return length > 0 && length <= candidate.length && recordIsValid(other, 0, found, SEED, offset);
      };
      expect(isSound(region.bytes)).toBe(true);
      expect(isSound(region.bytes, 8192)).toBe(false);
      const index = at % size;
      const headEnd = 80 + keyBytes.length + value.length;
      const bodyStart = Math.ceil(headEnd / 8) * 8;
      const isPadding =
        (index >= headEnd && index < bodyStart) || (body !== undefined && index >= bodyStart + 8 + body.length);
      expect(isSound(altered(region.bytes, at, by))).toBe(isPadding);
    }),
    RUNS,
  );
});
