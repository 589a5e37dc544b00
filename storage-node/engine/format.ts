import { xxh64, xxh64OfString } from "../../common/hash.ts";

/** FORMAT.md in this folder is the reference; this file only encodes and decodes. */
export const DEVICE_FORMAT = 2;
export const SEGMENT_BYTES = 64 * 1024 * 1024;
/** Where a segment's records begin. */
export const SEGMENT_DATA_START = 8192;
export const SEGMENT_HEADER_COPIES: readonly number[] = [0, 4096];
export const SEGMENT_HEADER_BYTES = 64;
export const RECORD_HEAD_BYTES = 80;
export const MAX_KEY_BYTES = 4096;
export const MAX_VALUE_BYTES = 65_536;
/** The largest body the log takes; larger ones are staged. */
export const MAX_LOG_BODY_BYTES = 1024 * 1024;
export const MAX_RECORD_BYTES = RECORD_HEAD_BYTES + MAX_KEY_BYTES + MAX_VALUE_BYTES + MAX_LOG_BODY_BYTES + 24;

export const KIND_PUT = 1;
export const KIND_DELETE = 2;
export const BODY_NONE = 0;
export const BODY_HERE = 1;
export const BODY_ELSEWHERE = 2;
export const BODY_FILE = 3;
export const FLAG_COMMIT_END = 1;
export const FLAG_CARRIED = 2;
/** The superseded body is a file. */
const FLAG_FREES_FILE = 4;

const SEGMENT_MAGIC = 0x47535352;
const RECORD_MAGIC = 0x43525352;
const SEGMENT_VERSION = 1;
const RECORD_VERSION = 2;
/** Before digests: what a record supersedes stood elsewhere, and its digest nowhere. */
const RECORD_VERSION_1 = 1;
const TWO_32 = 4_294_967_296;

/** The magic as bytes, for finding records behind damage. */
export const RECORD_MAGIC_BYTES: Uint8Array = new Uint8Array([0x52, 0x53, 0x52, 0x43]);
/** Where in a record the magic stands. */
export const RECORD_MAGIC_OFFSET = 8;

/** Bytes with the view that numbers are written through. */
export type Region = { readonly bytes: Uint8Array; readonly view: DataView };

/** A region over `bytes`, without copying. */
export const regionOf = (bytes: Uint8Array): Region => ({
  bytes,
  view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
});

/** Writes a count below 2^53 as u64. */
export const setCount = (view: DataView, at: number, count: number): void => {
  view.setUint32(at, count >>> 0, true);
  view.setUint32(at + 4, Math.floor(count / TWO_32), true);
};

/** Reads a u64 as a count; what is 2^53 or more comes out inexact, and is refused by its users' bounds. */
export const getCount = (view: DataView, at: number): number =>
  view.getUint32(at, true) + view.getUint32(at + 4, true) * TWO_32;

const padded = (length: number): number => (length + 7) & ~7;

export type DeviceIdentity = { readonly clusterId: string; readonly node: string; readonly device: string };

/** The seed of all checksums of a device. */
export const deviceSeedOf = (identity: DeviceIdentity): bigint =>
  xxh64OfString(`${identity.clusterId}/${identity.node}/${identity.device}`);

/** The seed of the records of a segment at offset 0; a record's own seed is this plus its offset. */
export const segmentSeedOf = (deviceSeed: bigint, segment: number): bigint =>
  BigInt.asUintN(64, deviceSeed + (BigInt(segment) << 32n));

/** What a segment's header says. */
export type SegmentHeader = {
  readonly inUse: boolean;
  readonly number: number;
  readonly sizeBytes: number;
  readonly firstSequence: number;
};

/** One copy of a segment's header. */
export const encodeSegmentHeader = (header: SegmentHeader, deviceSeed: bigint): Uint8Array => {
  const { bytes, view } = regionOf(new Uint8Array(SEGMENT_HEADER_BYTES));
  view.setUint32(8, SEGMENT_MAGIC, true);
  view.setUint8(12, SEGMENT_VERSION);
  view.setUint8(13, header.inUse ? 1 : 0);
  view.setBigUint64(16, deviceSeed, true);
  view.setUint32(24, header.number, true);
  view.setUint32(28, header.sizeBytes, true);
  setCount(view, 32, header.firstSequence);
  view.setBigUint64(0, xxh64(bytes.subarray(8), deviceSeed), true);
  return bytes;
};

/** Undefined for anything but a valid header of this device. */
export const decodeSegmentHeader = (bytes: Uint8Array, deviceSeed: bigint): SegmentHeader | undefined => {
  if (bytes.length < SEGMENT_HEADER_BYTES) return undefined;
  const { view } = regionOf(bytes);
  if (view.getUint32(8, true) !== SEGMENT_MAGIC || view.getUint8(12) !== SEGMENT_VERSION) return undefined;
  if (view.getBigUint64(16, true) !== deviceSeed) return undefined;
  if (view.getBigUint64(0, true) !== xxh64(bytes.subarray(8, SEGMENT_HEADER_BYTES), deviceSeed)) return undefined;
  return {
    inUse: view.getUint8(13) === 1,
    number: view.getUint32(24, true),
    sizeBytes: view.getUint32(28, true),
    firstSequence: getCount(view, 32),
  };
};

/** A record's fields. The writer keeps one and changes it from record to record, so all fields are mutable numbers. */
export type RecordFields = {
  kind: number;
  bodyKind: number;
  flags: number;
  sequence: number;
  batchFirst: number;
  freedRecordSegment: number;
  freedRecordBytes: number;
  freedBodySegment: number;
  freedBodyBytes: number;
  freedFile: number;
  /** Digest of the superseded entry, as two halves; 0 where there was none. */
  freedDigestLow: number;
  freedDigestHigh: number;
  /** Segment of a body in another record, else 0. */
  bodySegment: number;
  /** Offset of a body in another record; file id; first sequence number of a delete; else 0. */
  bodyOffset: number;
  bodyLength: number;
  valueLength: number;
  keyLength: number;
};

/** Fields to be filled in. */
export const emptyRecordFields = (): RecordFields => ({
  kind: KIND_PUT,
  bodyKind: BODY_NONE,
  flags: 0,
  sequence: 0,
  batchFirst: 0,
  freedRecordSegment: 0,
  freedRecordBytes: 0,
  freedBodySegment: 0,
  freedBodyBytes: 0,
  freedFile: 0,
  freedDigestLow: 0,
  freedDigestHigh: 0,
  bodySegment: 0,
  bodyOffset: 0,
  bodyLength: 0,
  valueLength: 0,
  keyLength: 0,
});

/** Where, counted from the record's beginning, an inline body begins; its checksum stands in the 8 bytes before. */
export const bodyStartOf = (keyLength: number, valueLength: number): number =>
  padded(RECORD_HEAD_BYTES + keyLength + valueLength) + 8;

/** Bytes that an inline body of `length` takes in its record, with checksum and padding. */
export const bodySpace = (length: number): number => 8 + padded(length);

/** The whole size of a record, a multiple of 8. */
export const recordSize = (keyLength: number, valueLength: number, bodyKind: number, bodyLength: number): number =>
  padded(RECORD_HEAD_BYTES + keyLength + valueLength) + (bodyKind === BODY_HERE ? bodySpace(bodyLength) : 0);

/**
 * Writes a record at `at` and returns its size. `seed` is the segment's; `offset` the record's offset in the segment.
 * Requires: the region has room; fields' lengths are those of key, value and body (which counts for body kind "here" only).
 */
export const encodeRecord = (
  region: Region,
  at: number,
  fields: RecordFields,
  key: Uint8Array,
  value: Uint8Array,
  body: Uint8Array | undefined,
  seed: bigint,
  offset: number,
): number => {
  const { bytes, view } = region;
  view.setUint32(at + 8, RECORD_MAGIC, true);
  view.setUint8(at + 12, RECORD_VERSION);
  view.setUint8(at + 13, fields.kind);
  view.setUint8(at + 14, fields.bodyKind);
  view.setUint8(at + 15, fields.flags | (fields.freedFile === 0 ? 0 : FLAG_FREES_FILE));
  setCount(view, at + 16, fields.sequence);
  setCount(view, at + 24, fields.batchFirst);
  view.setUint32(at + 32, fields.freedRecordSegment, true);
  view.setUint32(at + 36, fields.freedRecordBytes, true);
  if (fields.freedFile === 0) {
    view.setUint32(at + 40, fields.freedBodySegment, true);
    view.setUint32(at + 44, fields.freedBodyBytes, true);
  } else setCount(view, at + 40, fields.freedFile);
  view.setUint32(at + 48, fields.freedDigestLow, true);
  view.setUint32(at + 52, fields.freedDigestHigh, true);
  if (fields.bodyKind === BODY_ELSEWHERE) {
    view.setUint32(at + 56, fields.bodyOffset, true);
    view.setUint32(at + 60, fields.bodySegment, true);
  } else setCount(view, at + 56, fields.bodyOffset);
  setCount(view, at + 64, fields.bodyLength);
  view.setUint32(at + 72, value.length, true);
  view.setUint16(at + 76, key.length, true);
  view.setUint16(at + 78, 0, true);
  bytes.set(key, at + RECORD_HEAD_BYTES);
  bytes.set(value, at + RECORD_HEAD_BYTES + key.length);
  const headEnd = at + RECORD_HEAD_BYTES + key.length + value.length;
  view.setBigUint64(at, xxh64(bytes.subarray(at + 8, headEnd), seed + BigInt(offset)), true);
  let end = padded(headEnd - at) + at;
  bytes.fill(0, headEnd, end);
  if (body !== undefined) {
    view.setBigUint64(end, xxh64(body, seed + BigInt(offset + end + 8 - at)), true);
    bytes.set(body, end + 8);
    const bodyEnd = end + 8 + body.length;
    end += bodySpace(body.length);
    bytes.fill(0, bodyEnd, end);
  }
  return end - at;
};

/** What became free besides the superseded record. */
const decodeFreed = (view: DataView, at: number, fields: RecordFields, version: number): void => {
  const freesFile = version === RECORD_VERSION && (fields.flags & FLAG_FREES_FILE) !== 0;
  fields.flags &= ~FLAG_FREES_FILE;
  fields.freedBodySegment = freesFile ? 0 : view.getUint32(at + 40, true);
  fields.freedBodyBytes = freesFile ? 0 : view.getUint32(at + 44, true);
  fields.freedFile = freesFile ? getCount(view, at + 40) : 0;
  fields.freedDigestLow = 0;
  fields.freedDigestHigh = 0;
  if (version === RECORD_VERSION_1) fields.freedFile = getCount(view, at + 48);
  else {
    fields.freedDigestLow = view.getUint32(at + 48, true);
    fields.freedDigestHigh = view.getUint32(at + 52, true);
  }
};

/** Reads a head's fields into `fields` and returns the record's size, or 0 where no plausible head stands. Checks no checksum. */
export const decodeRecordHead = (view: DataView, at: number, fields: RecordFields): number => {
  if (view.getUint32(at + 8, true) !== RECORD_MAGIC) return 0;
  const version = view.getUint8(at + 12);
  if (version !== RECORD_VERSION && version !== RECORD_VERSION_1) return 0;
  fields.kind = view.getUint8(at + 13);
  fields.bodyKind = view.getUint8(at + 14);
  fields.flags = view.getUint8(at + 15);
  fields.sequence = getCount(view, at + 16);
  fields.batchFirst = getCount(view, at + 24);
  fields.freedRecordSegment = view.getUint32(at + 32, true);
  fields.freedRecordBytes = view.getUint32(at + 36, true);
  decodeFreed(view, at, fields, version);
  if (fields.bodyKind === BODY_ELSEWHERE) {
    fields.bodyOffset = view.getUint32(at + 56, true);
    fields.bodySegment = view.getUint32(at + 60, true);
  } else {
    fields.bodyOffset = getCount(view, at + 56);
    fields.bodySegment = 0;
  }
  fields.bodyLength = getCount(view, at + 64);
  fields.valueLength = view.getUint32(at + 72, true);
  fields.keyLength = view.getUint16(at + 76, true);
  if (fields.kind !== KIND_PUT && fields.kind !== KIND_DELETE) return 0;
  if (fields.bodyKind > BODY_FILE || fields.keyLength === 0 || fields.keyLength > MAX_KEY_BYTES) return 0;
  if (fields.valueLength > MAX_VALUE_BYTES) return 0;
  if (fields.bodyKind === BODY_HERE && fields.bodyLength > MAX_LOG_BODY_BYTES) return 0;
  return recordSize(fields.keyLength, fields.valueLength, fields.bodyKind, fields.bodyLength);
};

/** Whether the head, key and value at `at` are what was written at `offset` of the segment with this seed. */
export const headIsValid = (
  region: Region,
  at: number,
  fields: RecordFields,
  seed: bigint,
  offset: number,
): boolean => {
  const end = at + RECORD_HEAD_BYTES + fields.keyLength + fields.valueLength;
  const sum = xxh64(region.bytes.subarray(at + 8, end), seed + BigInt(offset));
  return region.view.getBigUint64(at, true) === sum;
};

/** Whether head and body at `at` are valid. */
export const recordIsValid = (
  region: Region,
  at: number,
  fields: RecordFields,
  seed: bigint,
  offset: number,
): boolean => {
  if (!headIsValid(region, at, fields, seed, offset)) return false;
  if (fields.bodyKind !== BODY_HERE) return true;
  const start = at + bodyStartOf(fields.keyLength, fields.valueLength);
  return bodyIsValid(region, start, fields.bodyLength, seed, offset + start - at);
};

/** Whether the body at `start`, its checksum in the 8 bytes before, is what was written at `bodyOffset` of the segment with this seed. */
export const bodyIsValid = (region: Region, start: number, length: number, seed: bigint, bodyOffset: number): boolean =>
  region.view.getBigUint64(start - 8, true) ===
  BigInt.asUintN(64, xxh64(region.bytes.subarray(start, start + length), seed + BigInt(bodyOffset)));
