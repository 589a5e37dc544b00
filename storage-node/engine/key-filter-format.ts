import assert from "node:assert/strict";
import { xxh64 } from "../../common/hash.ts";
import { regionOf } from "./format.ts";
import { FilterLayer, wordsOf } from "./key-filter.ts";

const MAGIC = 0x4c46_5352;
const VERSION = 1;
const STAMP_MAGIC = 0x5346_5352;
const STAMP_VERSION = 1;
const STAMP_FIXED_BYTES = 24;
const STAMP_LAYER_BYTES = 4;
const FILTER_HEADER_BYTES = 4096;
const SUMS_START = 32;
/** A layer of more keys has more pieces than the header has room for. */
const MAX_CAPACITY = 2 ** 25;
/** No file of a layer is longer. */
export const MAX_FILTER_FILE_BYTES = FILTER_HEADER_BYTES + wordsOf(MAX_CAPACITY) * 4;
/** Bytes under one checksum, and written at once. */
export const FILTER_PIECE_BYTES = 256 * 1024;

/** A piece of a layer's bits: where it lies in the file, and its bytes in the layer's own memory. */
export type FilterPiece = { readonly fileOffset: number; readonly bytes: Uint8Array };

/** The pieces of a layer, in order. */
export const filterPieces = (layer: FilterLayer): FilterPiece[] => {
  const all = new Uint8Array(layer.words.buffer, layer.words.byteOffset, layer.words.byteLength);
  const pieces: FilterPiece[] = [];
  for (let at = 0; at < all.length; at += FILTER_PIECE_BYTES)
    pieces.push({ fileOffset: FILTER_HEADER_BYTES + at, bytes: all.subarray(at, at + FILTER_PIECE_BYTES) });
  return pieces;
};

/** The header of a layer's file. `count` as it was before the first piece was taken; `sums` are those of the pieces, in order. */
export const encodeFilterHeader = (
  layer: FilterLayer,
  count: number,
  sums: readonly bigint[],
  deviceSeed: bigint,
): Uint8Array => {
  assert(layer.capacity <= MAX_CAPACITY, "the header has room for the checksums of all pieces");
  const { bytes, view } = regionOf(new Uint8Array(FILTER_HEADER_BYTES));
  view.setUint32(8, MAGIC, true);
  view.setUint32(12, VERSION, true);
  view.setUint32(16, layer.number, true);
  view.setUint32(20, layer.capacity, true);
  view.setUint32(24, count, true);
  view.setUint32(28, layer.life, true);
  for (const [at, sum] of sums.entries()) view.setBigUint64(SUMS_START + at * 8, sum, true);
  view.setBigUint64(0, xxh64(bytes.subarray(8), deviceSeed), true);
  return bytes;
};

/** The checksum of a piece. */
export const filterPieceSum = (bytes: Uint8Array, deviceSeed: bigint): bigint =>
  BigInt.asUintN(64, xxh64(bytes, deviceSeed));

/** The layer that a whole file holds; undefined where it is damaged, or no layer of this device. */
export const decodeFilterFile = (file: Uint8Array, deviceSeed: bigint): FilterLayer | undefined => {
  if (file.length < FILTER_HEADER_BYTES) return undefined;
  const { view } = regionOf(file);
  if (view.getUint32(8, true) !== MAGIC || view.getUint32(12, true) !== VERSION) return undefined;
  const header = file.subarray(8, FILTER_HEADER_BYTES);
  if (view.getBigUint64(0, true) !== BigInt.asUintN(64, xxh64(header, deviceSeed))) return undefined;
  const capacity = view.getUint32(20, true);
  if (file.length !== FILTER_HEADER_BYTES + wordsOf(capacity) * 4) return undefined;
  const words = new Uint32Array(wordsOf(capacity));
  const [number, count, life] = [16, 24, 28].map((at) => view.getUint32(at, true));
  const layer = new FilterLayer(life ?? 0, number ?? 0, capacity, words, count);
  for (const [at, { fileOffset, bytes }] of filterPieces(layer).entries()) {
    bytes.set(file.subarray(fileOffset, fileOffset + bytes.length));
    if (filterPieceSum(bytes, deviceSeed) !== view.getBigUint64(SUMS_START + at * 8, true)) return undefined;
  }
  return layer;
};

/** A filter that knows every key: how many keys each of its layers has to hold at least, in the order of their numbers. */
export type FilterStamp = { readonly life: number; readonly counts: readonly number[] };

/** A checkpoint with the stamp of the filter that belongs to it before it. */
export const stampCheckpoint = ({ life, counts }: FilterStamp, checkpoint: Uint8Array): Uint8Array => {
  const size = STAMP_FIXED_BYTES + counts.length * STAMP_LAYER_BYTES;
  const { bytes, view } = regionOf(new Uint8Array(size + checkpoint.length));
  view.setUint32(8, STAMP_MAGIC, true);
  view.setUint32(12, STAMP_VERSION, true);
  view.setUint32(16, life, true);
  view.setUint32(20, counts.length, true);
  for (const [at, count] of counts.entries()) view.setUint32(STAMP_FIXED_BYTES + at * STAMP_LAYER_BYTES, count, true);
  view.setBigUint64(0, xxh64(bytes.subarray(8, size)), true);
  bytes.set(checkpoint, size);
  return bytes;
};

/** The other way round. Bytes without a valid stamp are a checkpoint without one. */
export const readStamp = (bytes: Uint8Array): { stamp: FilterStamp | undefined; checkpoint: Uint8Array } => {
  const bare = { stamp: undefined, checkpoint: bytes };
  if (bytes.length < STAMP_FIXED_BYTES) return bare;
  const { view } = regionOf(bytes);
  const layers = view.getUint32(20, true);
  const size = STAMP_FIXED_BYTES + layers * STAMP_LAYER_BYTES;
  if (view.getUint32(8, true) !== STAMP_MAGIC || view.getUint32(12, true) !== STAMP_VERSION) return bare;
  if (bytes.length < size) return bare;
  if (view.getBigUint64(0, true) !== BigInt.asUintN(64, xxh64(bytes.subarray(8, size)))) return bare;
  const counts: number[] = [];
  for (let at = STAMP_FIXED_BYTES; at < size; at += STAMP_LAYER_BYTES) counts.push(view.getUint32(at, true));
  return { stamp: { life: view.getUint32(16, true), counts }, checkpoint: bytes.subarray(size) };
};
