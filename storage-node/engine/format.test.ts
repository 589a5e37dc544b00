import { expect, test } from "vitest";
import { BLOCK_BYTES, decodeBodyHeader, encodeBodyHeader } from "./body-format.ts";
import {
  BODY_HERE,
  FLAG_COMMIT_END,
  KIND_PUT,
  SEGMENT_BYTES,
  decodeRecordHead,
  decodeSegmentHeader,
  deviceSeedOf,
  emptyRecordFields,
  encodeRecord,
  encodeSegmentHeader,
  recordIsValid,
  recordSize,
  regionOf,
  segmentSeedOf,
} from "./format.ts";
import { decodeCheckpoint, decodeLiveEntry, encodeCheckpoint, encodeLiveEntry } from "./index-format.ts";

const seed = deviceSeedOf({ clusterId: "c1", node: "n1", device: "d1" });
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

const sampleRecord = (): { bytes: Uint8Array; size: number } => {
  const fields = emptyRecordFields();
  Object.assign(fields, {
    kind: KIND_PUT,
    bodyKind: BODY_HERE,
    flags: FLAG_COMMIT_END,
    sequence: 2 ** 32 + 7,
    batchFirst: 2 ** 32 + 5,
    freedRecordSegment: 2,
    freedRecordBytes: 104,
    freedBodySegment: 1,
    freedBodyBytes: 24,
    freedDigestLow: 0x01020304,
    freedDigestHigh: 0xf1f2f3f4,
    bodyLength: 5,
  });
  const bytes = new Uint8Array(256).fill(0xee);
  const region = regionOf(bytes);
  const size = encodeRecord(
    region,
    8,
    fields,
    Buffer.from("key"),
    Buffer.from("value"),
    Buffer.from("bytes"),
    segmentSeedOf(seed, 3),
    8192,
  );
  return { bytes, size };
};

test("a segment header is what FORMAT.md says", () => {
  const header = { inUse: true, number: 7, sizeBytes: SEGMENT_BYTES, firstSequence: 2 ** 33 + 1 };
  const bytes = encodeSegmentHeader(header, seed);
  expect(hex(bytes)).toMatchInlineSnapshot(
    `"58700c3fd3450e1d525353470101000091e1da37e6f6fe5307000000000000040100000002000000000000000000000000000000000000000000000000000000"`,
  );
  expect(decodeSegmentHeader(bytes, seed)).toEqual(header);
  expect(decodeSegmentHeader(bytes, seed + 1n)).toBeUndefined();
  for (let at = 0; at < bytes.length; at++) {
    const damaged = bytes.slice();
    damaged[at]! ^= 1;
    expect(decodeSegmentHeader(damaged, seed)).toBeUndefined();
  }
});

test("a record is what FORMAT.md says", () => {
  const { bytes, size } = sampleRecord();
  expect(size).toBe(recordSize(3, 5, BODY_HERE, 5));
  expect(hex(bytes.subarray(8, 8 + size))).toMatchInlineSnapshot(
    `"7707d7df78254d105253524302010101070000000100000005000000010000000200000068000000010000001800000004030201f4f3f2f10000000000000000050000000000000005000000030000006b657976616c75652c236c1cc2e95eee6279746573000000"`,
  );
  expect(bytes[8 + size]).toBe(0xee);
});

test("a record is valid only unchanged, in its segment, at its offset", () => {
  const { bytes, size } = sampleRecord();
  const fields = emptyRecordFields();
  const region = regionOf(bytes);
  expect(decodeRecordHead(region.view, 8, fields)).toBe(size);
  expect(fields).toMatchObject({
    sequence: 2 ** 32 + 7,
    batchFirst: 2 ** 32 + 5,
    keyLength: 3,
    valueLength: 5,
    bodyLength: 5,
  });
  expect(recordIsValid(region, 8, fields, segmentSeedOf(seed, 3), 8192)).toBe(true);
  expect(recordIsValid(region, 8, fields, segmentSeedOf(seed, 4), 8192)).toBe(false);
  expect(recordIsValid(region, 8, fields, segmentSeedOf(seed, 3), 8200)).toBe(false);
  const padding = new Set([109, 110, 111]);
  for (let at = 8; at < 8 + size; at++) {
    const damaged = regionOf(bytes.slice());
    damaged.bytes[at]! ^= 1;
    const isFound = decodeRecordHead(damaged.view, 8, fields) === size;
    const isValid = isFound && recordIsValid(damaged, 8, fields, segmentSeedOf(seed, 3), 8192);
    if (!padding.has(at)) expect(isValid, `byte ${at}`).toBe(false);
  }
});

test("bytes of any kind decode into a record or into none, never into an error", () => {
  const fields = emptyRecordFields();
  const { bytes } = sampleRecord();
  for (let round = 0; round < 2000; round++) {
    const damaged = regionOf(bytes.slice());
    for (let flips = 0; flips < 8; flips++)
      damaged.bytes[8 + Math.floor(Math.random() * 80)] = Math.floor(Math.random() * 256);
    expect(() => decodeRecordHead(damaged.view, 8, fields)).not.toThrow();
  }
});

test("a large body's header is what FORMAT.md says", () => {
  const bytes = encodeBodyHeader(258, seed);
  expect(hex(bytes)).toMatchInlineSnapshot(
    `"52534c4201000000020100000000000091e1da37e6f6fe53672c14ce6922cc790000000000000000000000000000000000000000000000000000000000000000"`,
  );
  expect(decodeBodyHeader(bytes, seed)).toBe(258);
  expect(BLOCK_BYTES).toBe(65_536);
});

test("an index value keeps short values, and says of long ones only where they are", () => {
  const live = {
    segment: 3,
    offset: 8192,
    size: 400,
    keyLength: 11,
    valueLength: 4,
    value: new Uint8Array([1, 2, 3, 4]),
    bodyKind: 2,
    bodySegment: 2,
    bodyOffset: 9000,
    bodyLength: 77,
    digest: 0xf1f2f3f401020304n,
  };
  const bytes = encodeLiveEntry(live);
  expect(hex(bytes)).toMatchInlineSnapshot(
    `"762f6c2a1fad2b3a02020000030000000020000090010000040000000b00000028230000020000004d0000000000000004030201f4f3f2f101020304"`,
  );
  expect(decodeLiveEntry(new Uint8Array(bytes))).toEqual(live);
  for (let at = 0; at < bytes.length; at++) {
    const damaged = new Uint8Array(bytes);
    damaged[at]! ^= 1;
    expect(decodeLiveEntry(damaged)).toBeUndefined();
  }
  const long = {
    ...live,
    valueLength: 300,
    value: new Uint8Array(300),
    bodyKind: 3,
    bodySegment: 0,
    bodyOffset: 2 ** 40,
  };
  expect(decodeLiveEntry(encodeLiveEntry(long))).toEqual({ ...long, value: undefined });
  expect(decodeLiveEntry(bytes.subarray(0, 49))).toBeUndefined();
});

test("a checkpoint comes back as it was, and damaged not at all", () => {
  const checkpoint = {
    segment: 5,
    offset: 12_000,
    nextSequence: 2 ** 34,
    nextFileId: 17,
    digestScheme: 2n ** 63n + 1n,
    segments: [{ number: 4, used: 1000, live: 900, deletes: 8 }],
    looseFiles: [3, 2 ** 35],
  };
  const bytes = encodeCheckpoint(checkpoint, seed);
  expect(decodeCheckpoint(bytes, seed)).toEqual(checkpoint);
  bytes[50]! ^= 4;
  expect(decodeCheckpoint(bytes, seed)).toBeUndefined();
});
