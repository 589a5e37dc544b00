import { xxh64 } from "../../common/hash.ts";
import { getCount, regionOf, setCount } from "./format.ts";
import { type DigestScheme, DigestTable } from "./digest-table.ts";

const MAGIC = 0x47445352;
const VERSION = 1;
const FIXED_BYTES = 40;
const BUCKET_BYTES = 16;

/** A file of digests for `bucketCount` buckets is no longer than that. */
export const maxDigestFileBytes = (bucketCount: number): number => FIXED_BYTES + bucketCount * BUCKET_BYTES;

/** The buckets that hold something, as they are before the record `nextSequence` (FORMAT.md). */
export const encodeDigests = (table: DigestTable, nextSequence: number, deviceSeed: bigint): Uint8Array => {
  const { counts, sums } = table;
  const filled: number[] = [];
  for (let bucket = 0; bucket < counts.length; bucket++) if (counts[bucket] !== 0) filled.push(bucket);
  const used = filled.length;
  const { bytes, view } = regionOf(new Uint8Array(FIXED_BYTES + used * BUCKET_BYTES));
  view.setUint32(8, MAGIC, true);
  view.setUint32(12, VERSION, true);
  view.setBigUint64(16, table.scheme.id, true);
  setCount(view, 24, nextSequence);
  view.setUint32(32, used, true);
  let at = FIXED_BYTES;
  for (const bucket of filled) {
    view.setUint32(at, bucket, true);
    view.setUint32(at + 4, counts[bucket] ?? 0, true);
    view.setBigUint64(at + 8, sums[bucket] ?? 0n, true);
    at += BUCKET_BYTES;
  }
  view.setBigUint64(0, xxh64(bytes.subarray(8), deviceSeed), true);
  return bytes;
};

/** Undefined for what is damaged, of another scheme or device, or of another moment than `nextSequence`. */
export const decodeDigests = (
  bytes: Uint8Array,
  scheme: DigestScheme,
  nextSequence: number,
  deviceSeed: bigint,
): DigestTable | undefined => {
  if (bytes.length < FIXED_BYTES) return undefined;
  const { view } = regionOf(bytes);
  if (view.getUint32(8, true) !== MAGIC || view.getUint32(12, true) !== VERSION) return undefined;
  if (view.getBigUint64(16, true) !== scheme.id || getCount(view, 24) !== nextSequence) return undefined;
  const used = view.getUint32(32, true);
  if (bytes.length !== FIXED_BYTES + used * BUCKET_BYTES) return undefined;
  if (view.getBigUint64(0, true) !== BigInt.asUintN(64, xxh64(bytes.subarray(8), deviceSeed))) return undefined;
  const table = new DigestTable(scheme);
  for (let at = FIXED_BYTES; at < bytes.length; at += BUCKET_BYTES) {
    const bucket = view.getUint32(at, true);
    if (bucket >= scheme.bucketCount) return undefined;
    table.counts[bucket] = view.getUint32(at + 4, true);
    table.sums[bucket] = view.getBigUint64(at + 8, true);
  }
  return table;
};
