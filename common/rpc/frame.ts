import { Packr, RESERVE_START_SPACE } from "msgpackr";
import { RingsteadError } from "../errors.ts";

/** Frames of FORMAT.md: encode, decode, constants. */
const FRAME_HEADER_BYTES = 16;
const FRAME_MAGIC = 0x52;
const FRAME_VERSION = 1;
const HEADER_LIMIT_BYTES = 1024 * 1024;
const BODY_LIMIT_BYTES = 8 * 1024 * 1024;

export const FRAME_HELLO = 1;
export const FRAME_REQUEST = 2;
export const FRAME_REPLY = 3;
export const FRAME_ERROR = 4;

/** As part of an error: it holds for all parts that were not answered yet. */
export const ALL_PARTS = 255;
/** No request has this id: a reply to it is the last frame of a server that ends. */
export const FAREWELL_ID = 0;
/** A request may have so many addressees, each of which answers with its part. */
export const PARTS_LIMIT = 16;

/** A peer that did not prove itself may send no frame that is longer: memory for strangers is bounded. */
export const HELLO_LIMIT_BYTES = 1024;
const FRAME_LIMIT_BYTES = FRAME_HEADER_BYTES + HEADER_LIMIT_BYTES + BODY_LIMIT_BYTES;

export type Frame = {
  readonly type: number;
  /** Which addressee of the request answers; 0 in everything but a reply or an error. */
  readonly part: number;
  readonly id: number;
  readonly header: readonly unknown[];
  readonly body: Buffer;
  /** The body's memory is its own, for `releaseMemory`. */
  readonly ownsBody: boolean;
};

export const EMPTY_BODY = Buffer.alloc(0);
/** Bytes in a header are copied out: headers are unpacked from memory that is written again. */
const packr = new Packr({ useRecords: false, moreTypes: false, mapsAsObjects: true, copyBuffers: true });
/** Leaves room for the prefix before the header, so that a frame is packed where it is sent from. */
const PACK_BEHIND_PREFIX = RESERVE_START_SPACE | FRAME_HEADER_BYTES;

/** The frame's prefix and header in one buffer; the body follows it on the wire as it is. */
export const encodeFrame = (
  type: number,
  id: number,
  header: readonly unknown[],
  bodyLength: number,
  part = 0,
): Buffer => {
  const frame = packr.pack(header, PACK_BEHIND_PREFIX);
  const headerLength = frame.length - FRAME_HEADER_BYTES;
  if (headerLength > HEADER_LIMIT_BYTES || bodyLength > BODY_LIMIT_BYTES) {
    throw new RingsteadError("rpc-too-large", "an RPC message is larger than the wire allows", { bodyLength });
  }
  frame[0] = FRAME_MAGIC;
  frame[1] = type;
  frame[2] = part;
  frame[3] = FRAME_VERSION;
  frame.writeUInt32BE(id, 4);
  frame.writeUInt32BE(headerLength, 8);
  frame.writeUInt32BE(bodyLength, 12);
  return frame;
};

const malformed = (why: string): RingsteadError => new RingsteadError("rpc-malformed", `malformed RPC frame: ${why}`);

/** Longer headers are rare (confirms in a batch, long lists), and are unpacked from memory of their own. */
const USUAL_HEADER_BYTES = 4096;
/**
 * Headers are unpacked here: msgpackr hangs a DataView on every buffer that it is given, which costs more than to copy a hundred bytes.
 */
const headerBytes = Buffer.allocUnsafeSlow(USUAL_HEADER_BYTES);

/**
 * Cuts a byte stream into frames. Bodies of frames that arrive in one chunk are views of it; a frame over several chunks is
 * gathered into one buffer of its size, each byte copied once.
 */
export class FrameDecoder {
  #pending: Buffer = EMPTY_BODY;
  #pendingLength = 0;
  readonly #onFrame: (frame: Frame) => void;
  #limitBytes: number;

  /** @param limitBytes of a whole frame, until `trust` */
  constructor(onFrame: (frame: Frame) => void, limitBytes = FRAME_LIMIT_BYTES) {
    this.#onFrame = onFrame;
    this.#limitBytes = limitBytes;
  }

  /** Frames behind this one may be as long as the wire allows. */
  trust(): void {
    this.#limitBytes = FRAME_LIMIT_BYTES;
  }

  /**
   * Gives whether nothing refers to the chunk's memory. Errors: "rpc-malformed"; the connection is of no use afterwards.
   * @param isReused the chunk's memory is written again after this call: bodies are copied out of it
   * @param length how much of the chunk there is to read
   */
  push(chunk: Buffer, isReused = false, length = chunk.length): boolean {
    let offset = 0;
    let isFree = true;
    while (this.#pendingLength > 0 && offset < length) {
      const wanted = this.#pendingLength < FRAME_HEADER_BYTES ? FRAME_HEADER_BYTES : this.#totalOf(this.#pending, 0);
      this.#reserve(wanted);
      const taken = Math.min(wanted - this.#pendingLength, length - offset);
      chunk.copy(this.#pending, this.#pendingLength, offset, offset + taken);
      this.#pendingLength += taken;
      offset += taken;
      if (this.#pendingLength >= FRAME_HEADER_BYTES && this.#pendingLength === this.#totalOf(this.#pending, 0)) {
        const whole = this.#pending;
        this.#pending = EMPTY_BODY;
        this.#pendingLength = 0;
        this.#deliver(whole, 0, false, true);
      }
    }
    while (length - offset >= FRAME_HEADER_BYTES) {
      const total = this.#totalOf(chunk, offset);
      if (length - offset < total) break;
      this.#deliver(chunk, offset, isReused, isReused);
      isFree &&= isReused;
      offset += total;
    }
    if (offset < length) {
      const left = length - offset;
      this.#reserve(left < FRAME_HEADER_BYTES ? FRAME_HEADER_BYTES : this.#totalOf(chunk, offset));
      chunk.copy(this.#pending, 0, offset, length);
      this.#pendingLength = left;
    }
    return isFree;
  }

  #totalOf(buffer: Buffer, offset: number): number {
    const total = totalOf(buffer, offset);
    if (total > this.#limitBytes) throw malformed("too large before a hello");
    return total;
  }

  /** Room for a frame of which `#pendingLength` bytes are there. */
  #reserve(wanted: number): void {
    if (this.#pending.length >= wanted) return;
    const larger = Buffer.allocUnsafe(wanted);
    this.#pending.copy(larger, 0, 0, this.#pendingLength);
    this.#pending = larger;
  }

  /** The frame at `offset`, which is there as a whole. */
  #deliver(source: Buffer, offset: number, isReused: boolean, ownsBody: boolean): void {
    const bodyAt = offset + FRAME_HEADER_BYTES + source.readUInt32BE(offset + 8);
    const header = headerIn(source, offset + FRAME_HEADER_BYTES, bodyAt);
    const bodyLength = source.readUInt32BE(offset + 12);
    let body: Buffer = EMPTY_BODY;
    if (bodyLength > 0) {
      body = source.subarray(bodyAt, bodyAt + bodyLength);
      if (isReused) body = Buffer.from(body);
    }
    this.#onFrame({
      type: source.readUInt8(offset + 1),
      part: source.readUInt8(offset + 2),
      id: source.readUInt32BE(offset + 4),
      header,
      body,
      ownsBody,
    });
  }
}

const totalOf = (buffer: Buffer, offset: number): number => {
  if (buffer[offset] !== FRAME_MAGIC) throw malformed("wrong magic");
  if (buffer[offset + 3] !== FRAME_VERSION) throw malformed("unknown version");
  const headerLength = buffer.readUInt32BE(offset + 8);
  const bodyLength = buffer.readUInt32BE(offset + 12);
  if (headerLength > HEADER_LIMIT_BYTES || bodyLength > BODY_LIMIT_BYTES) throw malformed("too large");
  return FRAME_HEADER_BYTES + headerLength + bodyLength;
};

const headerIn = (source: Buffer, start: number, end: number): readonly unknown[] => {
  const length = end - start;
  const bytes = length <= USUAL_HEADER_BYTES ? headerBytes : Buffer.allocUnsafeSlow(length);
  source.copy(bytes, 0, start, end);
  let header: unknown;
  try {
    header = packr.unpack(bytes, length);
  } catch {
    throw malformed("header is no msgpack");
  }
  if (!Array.isArray(header)) throw malformed("header is no array");
  return header;
};
