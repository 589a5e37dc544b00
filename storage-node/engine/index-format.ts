import { xxh64 } from "../../common/hash.ts";
import { BODY_ELSEWHERE, BODY_FILE, BODY_NONE, getCount, regionOf, setCount } from "./format.ts";

/** A value of at most this many bytes stands in the index too; a longer one is read from the log. */
export const MAX_INLINE_VALUE_BYTES = 256;
const FIXED_BYTES = 56;
const VERSION = 2;
/** A checkpoint of another version means index values of another layout: the index is then rebuilt. */
const CHECKPOINT_VERSION = 3;
const CHECKPOINT_MAGIC = 0x50435352;
const CHECKPOINT_FIXED_BYTES = 56;
const CHECKPOINT_SEGMENT_BYTES = 20;

/** What the engine knows of a key: where its record and its body lie. Never changed once made. */
export type LiveEntry = {
  readonly segment: number;
  readonly offset: number;
  /** The record's whole size. */
  readonly size: number;
  readonly keyLength: number;
  readonly valueLength: number;
  /** Undefined where it is to be read from the log. */
  readonly value: Uint8Array | undefined;
  /** BODY_NONE, BODY_ELSEWHERE (in the log, be it in this record or another) or BODY_FILE. */
  readonly bodyKind: number;
  readonly bodySegment: number;
  /** Offset in the segment, or file id. */
  readonly bodyOffset: number;
  readonly bodyLength: number;
  /** What the entry adds to its bucket (`digest-table.ts`); 0 where it is not counted. */
  readonly digest: bigint;
};

/** The index values of entries, in one piece of memory; undefined stays undefined. */
export const encodeLiveEntries = (entries: readonly (LiveEntry | undefined)[]): (Uint8Array | undefined)[] => {
  let size = 0;
  for (const entry of entries) if (entry !== undefined) size += encodedSize(entry);
  const { bytes, view } = regionOf(Buffer.allocUnsafeSlow(size));
  let at = 0;
  return entries.map((entry) => {
    if (entry === undefined) return undefined;
    const start = at;
    at += encodedSize(entry);
    encodeAt(bytes, view, start, entry);
    return bytes.subarray(start, at);
  });
};

/** The index value of one entry. */
export const encodeLiveEntry = (entry: LiveEntry): Uint8Array => {
  const { bytes, view } = regionOf(Buffer.allocUnsafe(encodedSize(entry)));
  encodeAt(bytes, view, 0, entry);
  return bytes;
};

const isInline = (value: Uint8Array | undefined): value is Uint8Array =>
  value !== undefined && value.length <= MAX_INLINE_VALUE_BYTES;

const encodedSize = ({ value }: LiveEntry): number => FIXED_BYTES + (isInline(value) ? value.length : 0);

const encodeAt = (bytes: Uint8Array, view: DataView, at: number, entry: LiveEntry): void => {
  view.setUint32(at + 8, VERSION | (entry.bodyKind << 8), true);
  view.setUint32(at + 12, entry.segment, true);
  view.setUint32(at + 16, entry.offset, true);
  view.setUint32(at + 20, entry.size, true);
  view.setUint32(at + 24, entry.valueLength, true);
  view.setUint32(at + 28, entry.keyLength, true);
  if (entry.bodyKind === BODY_FILE) setCount(view, at + 32, entry.bodyOffset);
  else {
    view.setUint32(at + 32, entry.bodyOffset, true);
    view.setUint32(at + 36, entry.bodySegment, true);
  }
  setCount(view, at + 40, entry.bodyLength);
  view.setBigUint64(at + 48, entry.digest, true);
  if (isInline(entry.value)) bytes.set(entry.value, at + FIXED_BYTES);
  view.setBigUint64(at, xxh64(bytes.subarray(at + 8, at + encodedSize(entry))), true);
};

const sum = new BigUint64Array(1);
const sumHalves = new Uint32Array(sum.buffer);

const u32At = (bytes: Uint8Array, at: number): number =>
  ((bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24)) >>> 0;

/**
 * The value that an index value holds itself; undefined where it is in the log, or where the index value is damaged. Scans ask for a
 * thousand of them, and for little else: no view of the fields and no object for them is made on the way.
 */
export const inlineValueOf = (bytes: Uint8Array): Uint8Array | undefined => {
  if (bytes.length < FIXED_BYTES || bytes[8] !== VERSION) return undefined;
  const valueLength = u32At(bytes, 24);
  if (valueLength > MAX_INLINE_VALUE_BYTES || bytes.length !== FIXED_BYTES + valueLength) return undefined;
  sum[0] = xxh64(bytes.subarray(8));
  return sumHalves[0] === u32At(bytes, 0) && sumHalves[1] === u32At(bytes, 4) ? bytes.subarray(FIXED_BYTES) : undefined;
};

/** Of an index value that is what was written: all that a walk over every entry wants to know of most. Written to by `readIntact`. */
export type IntactValue = { bodyKind: number; digest: bigint };

const digestOfIntact = new BigUint64Array(1);
const digestHalves = new Uint32Array(digestOfIntact.buffer);

/** Fills `into`; false for what `decodeLiveEntry` would not take. Makes no object, as `inlineValueOf`. */
export const readIntact = (bytes: Uint8Array, into: IntactValue): boolean => {
  if (bytes.length < FIXED_BYTES || bytes[8] !== VERSION) return false;
  const valueLength = u32At(bytes, 24);
  if (bytes.length !== FIXED_BYTES + (valueLength <= MAX_INLINE_VALUE_BYTES ? valueLength : 0)) return false;
  const bodyKind = bytes[9];
  if (bodyKind !== BODY_NONE && bodyKind !== BODY_ELSEWHERE && bodyKind !== BODY_FILE) return false;
  sum[0] = xxh64(bytes.subarray(8));
  if (sumHalves[0] !== u32At(bytes, 0) || sumHalves[1] !== u32At(bytes, 4)) return false;
  digestHalves[0] = u32At(bytes, 48);
  digestHalves[1] = u32At(bytes, 52);
  into.bodyKind = bodyKind;
  into.digest = digestOfIntact[0] ?? 0n;
  return true;
};

/** Undefined for what is no index value of this version, or a damaged one: LevelDB does not check what it reads. */
export const decodeLiveEntry = (bytes: Uint8Array): LiveEntry | undefined => {
  if (bytes.length < FIXED_BYTES) return undefined;
  const { view } = regionOf(bytes);
  const bodyKind = view.getUint8(9);
  if (view.getUint8(8) !== VERSION) return undefined;
  if (bodyKind !== BODY_NONE && bodyKind !== BODY_ELSEWHERE && bodyKind !== BODY_FILE) return undefined;
  const valueLength = view.getUint32(24, true);
  const inline = valueLength <= MAX_INLINE_VALUE_BYTES;
  if (bytes.length !== FIXED_BYTES + (inline ? valueLength : 0)) return undefined;
  if (view.getBigUint64(0, true) !== BigInt.asUintN(64, xxh64(bytes.subarray(8)))) return undefined;
  return {
    segment: view.getUint32(12, true),
    offset: view.getUint32(16, true),
    size: view.getUint32(20, true),
    keyLength: view.getUint32(28, true),
    valueLength,
    value: inline ? bytes.subarray(FIXED_BYTES) : undefined,
    bodyKind,
    bodySegment: bodyKind === BODY_FILE ? 0 : view.getUint32(36, true),
    bodyOffset: bodyKind === BODY_FILE ? getCount(view, 32) : view.getUint32(32, true),
    bodyLength: getCount(view, 40),
    digest: view.getBigUint64(48, true),
  };
};

type SegmentFigures = {
  readonly number: number;
  /** Where its records end. */
  readonly used: number;
  /** Bytes of records and bodies that entries refer to. */
  readonly live: number;
  /** Bytes of deletes. */
  readonly deletes: number;
};

/** "The index holds everything before this position", and what else recovery wants to know of that moment. */
export type Checkpoint = {
  readonly segment: number;
  readonly offset: number;
  readonly nextSequence: number;
  readonly nextFileId: number;
  /** Of the digests that the entries carry. */
  readonly digestScheme: bigint;
  readonly segments: readonly SegmentFigures[];
  readonly looseFiles: readonly number[];
};

/** The checkpoint as the index stores it. */
export const encodeCheckpoint = (checkpoint: Checkpoint, deviceSeed: bigint): Uint8Array => {
  const { segments, looseFiles } = checkpoint;
  const size = CHECKPOINT_FIXED_BYTES + segments.length * CHECKPOINT_SEGMENT_BYTES + looseFiles.length * 8;
  const { bytes, view } = regionOf(new Uint8Array(size));
  view.setUint32(8, CHECKPOINT_MAGIC, true);
  view.setUint32(12, CHECKPOINT_VERSION, true);
  view.setUint32(16, checkpoint.segment, true);
  view.setUint32(20, checkpoint.offset, true);
  setCount(view, 24, checkpoint.nextSequence);
  setCount(view, 32, checkpoint.nextFileId);
  view.setUint32(40, segments.length, true);
  view.setUint32(44, looseFiles.length, true);
  view.setBigUint64(48, checkpoint.digestScheme, true);
  let at = CHECKPOINT_FIXED_BYTES;
  for (const figures of segments) {
    view.setUint32(at, figures.number, true);
    view.setUint32(at + 4, figures.used, true);
    view.setUint32(at + 8, figures.live, true);
    view.setUint32(at + 12, figures.deletes, true);
    at += CHECKPOINT_SEGMENT_BYTES;
  }
  for (const file of looseFiles) {
    setCount(view, at, file);
    at += 8;
  }
  view.setBigUint64(0, xxh64(bytes.subarray(8), deviceSeed), true);
  return bytes;
};

/** Undefined for what is no valid checkpoint of this device; the index is then rebuilt. */
export const decodeCheckpoint = (bytes: Uint8Array | undefined, deviceSeed: bigint): Checkpoint | undefined => {
  if (bytes === undefined || bytes.length < CHECKPOINT_FIXED_BYTES) return undefined;
  const { view } = regionOf(bytes);
  if (view.getUint32(8, true) !== CHECKPOINT_MAGIC || view.getUint32(12, true) !== CHECKPOINT_VERSION) return undefined;
  const segmentCount = view.getUint32(40, true);
  const fileCount = view.getUint32(44, true);
  if (bytes.length !== CHECKPOINT_FIXED_BYTES + segmentCount * CHECKPOINT_SEGMENT_BYTES + fileCount * 8)
    return undefined;
  if (view.getBigUint64(0, true) !== xxh64(bytes.subarray(8), deviceSeed)) return undefined;
  const segments: SegmentFigures[] = [];
  let at = CHECKPOINT_FIXED_BYTES;
  for (let index = 0; index < segmentCount; index++, at += CHECKPOINT_SEGMENT_BYTES) {
    segments.push({
      number: view.getUint32(at, true),
      used: view.getUint32(at + 4, true),
      live: view.getUint32(at + 8, true),
      deletes: view.getUint32(at + 12, true),
    });
  }
  const looseFiles: number[] = [];
  for (let index = 0; index < fileCount; index++, at += 8) looseFiles.push(getCount(view, at));
  return {
    segment: view.getUint32(16, true),
    offset: view.getUint32(20, true),
    nextSequence: getCount(view, 24),
    nextFileId: getCount(view, 32),
    digestScheme: view.getBigUint64(48, true),
    segments,
    looseFiles,
  };
};
