import { xxh64 } from "../common/hash.ts";
import { messageOf, RingsteadError } from "../common/errors.ts";

/**
 * The frame that ring and builder files share; FORMAT.md has the byte table.
 *
 *     magic 8 | version u16 | zero u16 | header length u32 | header (JSON) | body | xxh64 u64        little endian
 */
export type Frame = { readonly formatVersion: number; readonly header: unknown; readonly body: Uint8Array };

/** What a kind of file is called in messages, how it begins, and the newest version of its format; all from 1 on are read. */
export type FrameKind = { readonly name: string; readonly magic: string; readonly formatVersion: number };

const FRAME_PREFIX_BYTES = 16;
const FRAME_TRAILER_BYTES = 8;
/** 65,535 devices with the longest names and remarks stay below. */
const FRAME_HEADER_BYTES_MAX = 128 * 1024 * 1024;
/** The checksum goes block by block, so that hashing a big ring does not copy all of it into WebAssembly memory. */
const CHECKSUM_BLOCK_BYTES = 1024 * 1024;

const textEncoder = new TextEncoder();
const textDecoder = new TextDecoder("utf-8", { fatal: true });

/** xxh64 of each block seeded with that of the block before; for up to one block it is plain xxh64 with seed 0. */
export const frameChecksum = (bytes: Uint8Array): bigint => {
  let checksum = 0n;
  for (let offset = 0; offset === 0 || offset < bytes.length; offset += CHECKSUM_BLOCK_BYTES)
    checksum = xxh64(bytes.subarray(offset, offset + CHECKSUM_BLOCK_BYTES), checksum);
  return checksum;
};

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** `writeBody` fills exactly `bodyBytes` bytes of the view it is given. `kind.formatVersion` is the version that is written. */
export const encodeFrame = (
  kind: FrameKind,
  header: unknown,
  bodyBytes: number,
  writeBody: (view: DataView) => void,
): Uint8Array => {
  const headerBytes = textEncoder.encode(JSON.stringify(header));
  const bodyOffset = FRAME_PREFIX_BYTES + headerBytes.length;
  const trailerOffset = bodyOffset + bodyBytes;
  const bytes = new Uint8Array(trailerOffset + FRAME_TRAILER_BYTES);
  const view = viewOf(bytes);
  bytes.set(textEncoder.encode(kind.magic), 0);
  view.setUint16(8, kind.formatVersion, true);
  view.setUint32(12, headerBytes.length, true);
  bytes.set(headerBytes, FRAME_PREFIX_BYTES);
  writeBody(new DataView(bytes.buffer, bodyOffset, bodyBytes));
  view.setBigUint64(trailerOffset, frameChecksum(bytes.subarray(0, trailerOffset)), true);
  return bytes;
};

/** A file that is not what it should be: code `ring-file-damaged`. */
export const damaged = (kind: FrameKind, reason: string, fields: Record<string, unknown> = {}): RingsteadError =>
  new RingsteadError("ring-file-damaged", `this ${kind.name} ${reason}`, { kind: kind.name, reason, ...fields });

/**
 * Checks magic, version, lengths and checksum; what the header says is for the caller to check.
 * @throws RingsteadError `ring-file-foreign` (some other file), `ring-file-damaged`, or `ring-file-too-new` (a format
 *   version that this program does not know)
 */
export const decodeFrame = (kind: FrameKind, bytes: Uint8Array): Frame => {
  const size = bytes.length;
  const magicBytes = textEncoder.encode(kind.magic);
  if (magicBytes.some((byte, index) => index < size && bytes[index] !== byte))
    throw new RingsteadError("ring-file-foreign", `this is no ${kind.name}: it begins differently`, {
      kind: kind.name,
    });
  if (size < FRAME_PREFIX_BYTES + FRAME_TRAILER_BYTES)
    throw damaged(kind, `is cut short: it has only ${size} bytes`, { sizeBytes: size });
  const view = viewOf(bytes);
  const formatVersion = view.getUint16(8, true);
  const trailerOffset = size - FRAME_TRAILER_BYTES;
  const sound = view.getBigUint64(trailerOffset, true) === frameChecksum(bytes.subarray(0, trailerOffset));
  if (sound && formatVersion > kind.formatVersion) throw tooNew(kind, formatVersion);
  if (!sound) throw damaged(kind, "is cut short or altered: its checksum does not fit", { sizeBytes: size });
  if (formatVersion < 1) throw damaged(kind, `has the unknown format version ${formatVersion}`);
  if (view.getUint16(10, true) !== 0) throw damaged(kind, "has a reserved field that is not zero");
  const headerLength = view.getUint32(12, true);
  if (headerLength > FRAME_HEADER_BYTES_MAX || FRAME_PREFIX_BYTES + headerLength > trailerOffset)
    throw damaged(kind, `says that its header has ${headerLength} bytes`);
  const bodyOffset = FRAME_PREFIX_BYTES + headerLength;
  const header = parseHeader(kind, bytes.subarray(FRAME_PREFIX_BYTES, bodyOffset));
  return { formatVersion, header, body: bytes.subarray(bodyOffset, trailerOffset) };
};

const tooNew = (kind: FrameKind, formatVersion: number): RingsteadError =>
  new RingsteadError(
    "ring-file-too-new",
    `this ${kind.name} was written by a newer Ringstead (format ${formatVersion}; this one reads up to ${kind.formatVersion})`,
    { kind: kind.name, formatVersion, supported: kind.formatVersion },
  );

const parseHeader = (kind: FrameKind, bytes: Uint8Array): unknown => {
  try {
    return JSON.parse(textDecoder.decode(bytes));
  } catch (cause) {
    throw damaged(kind, `has a header that is no JSON: ${messageOf(cause)}`);
  }
};
