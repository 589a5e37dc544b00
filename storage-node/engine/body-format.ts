import { xxh64 } from "../../common/hash.ts";
import { getCount, regionOf, setCount } from "./format.ts";

export const BLOCK_BYTES = 65_536;
export const BLOCK_SUM_BYTES = 8;
/** From one block's beginning to the next one's. */
export const BLOCK_STRIDE = BLOCK_BYTES + BLOCK_SUM_BYTES;
export const BODY_HEADER_BYTES = 64;

const MAGIC = 0x424c5352;
const VERSION = 1;
const SUMMED_BYTES = 24;

/** The first bytes of a large body's file. */
export const encodeBodyHeader = (fileId: number, deviceSeed: bigint): Uint8Array => {
  const { bytes, view } = regionOf(new Uint8Array(BODY_HEADER_BYTES));
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, VERSION);
  setCount(view, 8, fileId);
  view.setBigUint64(16, deviceSeed, true);
  view.setBigUint64(24, xxh64(bytes.subarray(0, SUMMED_BYTES), deviceSeed), true);
  return bytes;
};

/** The file's id, undefined for what is no header of this device. */
export const decodeBodyHeader = (bytes: Uint8Array, deviceSeed: bigint): number | undefined => {
  if (bytes.length < BODY_HEADER_BYTES) return undefined;
  const { view } = regionOf(bytes);
  if (view.getUint32(0, true) !== MAGIC || view.getUint8(4) !== VERSION) return undefined;
  if (view.getBigUint64(16, true) !== deviceSeed) return undefined;
  if (view.getBigUint64(24, true) !== xxh64(bytes.subarray(0, SUMMED_BYTES), deviceSeed)) return undefined;
  return getCount(view, 8);
};

/** The checksum that stands behind a block. */
export const blockSum = (data: Uint8Array, fileId: number, block: number, deviceSeed: bigint): bigint =>
  BigInt.asUintN(64, xxh64(data, deviceSeed + (BigInt(fileId) << 24n) + BigInt(block)));
