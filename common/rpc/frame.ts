import { Packr } from "msgpackr";
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
/** A request may have so many addressees, each of which answers with its part. */
export const PARTS_LIMIT = 16;

export type Frame = {
  readonly type: number;
  /** Which addressee of the request answers; 0 in everything but a reply or an error. */
  readonly part: number;
  readonly id: number;
  readonly header: readonly unknown[];
  readonly body: Buffer;
};

export const EMPTY_BODY = Buffer.alloc(0);
const packr = new Packr({ useRecords: false, moreTypes: false, mapsAsObjects: true });

/** The frame's prefix and header in one buffer; the body follows it on the wire as it is. */
export const encodeFrame = (
  type: number,
  id: number,
  header: readonly unknown[],
  bodyLength: number,
  part = 0,
): Buffer => {
  const packed = packr.pack(header);
  if (packed.length > HEADER_LIMIT_BYTES || bodyLength > BODY_LIMIT_BYTES) {
    throw new RingsteadError("rpc-too-large", "an RPC message is larger than the wire allows", { bodyLength });
  }
  const buffer = Buffer.allocUnsafe(FRAME_HEADER_BYTES + packed.length);
  buffer[0] = FRAME_MAGIC;
  buffer[1] = type;
  buffer[2] = part;
  buffer[3] = FRAME_VERSION;
  buffer.writeUInt32BE(id, 4);
  buffer.writeUInt32BE(packed.length, 8);
  buffer.writeUInt32BE(bodyLength, 12);
  buffer.set(packed, FRAME_HEADER_BYTES);
  return buffer;
};

const malformed = (why: string): RingsteadError => new RingsteadError("rpc-malformed", `malformed RPC frame: ${why}`);

/**
 * Cuts a byte stream into frames. Bodies of frames that arrive in one chunk are views of it; a frame over several chunks is
 * gathered into one buffer of its size, each byte copied once.
 */
export class FrameDecoder {
  #pending: Buffer = EMPTY_BODY;
  #pendingLength = 0;
  readonly #onFrame: (frame: Frame) => void;

  constructor(onFrame: (frame: Frame) => void) {
    this.#onFrame = onFrame;
  }

  /**
   * Errors: "rpc-malformed"; the connection is of no use afterwards.
   * @param isReused the chunk's memory is written again after this call: frames are copied out of it
   */
  push(chunk: Buffer, isReused = false): void {
    let input = chunk;
    while (this.#pendingLength > 0 && input.length > 0) {
      const wanted = this.#pendingLength < FRAME_HEADER_BYTES ? FRAME_HEADER_BYTES : this.#totalOf(this.#pending, 0);
      this.#reserve(wanted);
      const taken = Math.min(wanted - this.#pendingLength, input.length);
      input.copy(this.#pending, this.#pendingLength, 0, taken);
      this.#pendingLength += taken;
      input = input.subarray(taken);
      if (this.#pendingLength >= FRAME_HEADER_BYTES && this.#pendingLength === this.#totalOf(this.#pending, 0)) {
        const whole = this.#pending.subarray(0, this.#pendingLength);
        this.#pending = EMPTY_BODY;
        this.#pendingLength = 0;
        this.#deliver(whole);
      }
    }
    let offset = 0;
    while (input.length - offset >= FRAME_HEADER_BYTES) {
      const total = this.#totalOf(input, offset);
      if (input.length - offset < total) break;
      const frame = input.subarray(offset, offset + total);
      this.#deliver(isReused ? Buffer.from(frame) : frame);
      offset += total;
    }
    if (offset < input.length) {
      this.#pending = Buffer.from(input.subarray(offset));
      this.#pendingLength = this.#pending.length;
    }
  }

  #reserve(wanted: number): void {
    if (this.#pending.length >= wanted) return;
    const larger = Buffer.allocUnsafe(wanted);
    this.#pending.copy(larger, 0, 0, this.#pendingLength);
    this.#pending = larger;
  }

  #totalOf(buffer: Buffer, offset: number): number {
    if (buffer[offset] !== FRAME_MAGIC) throw malformed("wrong magic");
    if (buffer[offset + 3] !== FRAME_VERSION) throw malformed("unknown version");
    const headerLength = buffer.readUInt32BE(offset + 8);
    const bodyLength = buffer.readUInt32BE(offset + 12);
    if (headerLength > HEADER_LIMIT_BYTES || bodyLength > BODY_LIMIT_BYTES) throw malformed("too large");
    return FRAME_HEADER_BYTES + headerLength + bodyLength;
  }

  #deliver(whole: Buffer): void {
    const headerEnd = FRAME_HEADER_BYTES + whole.readUInt32BE(8);
    let header: unknown;
    try {
      header = packr.unpack(whole.subarray(FRAME_HEADER_BYTES, headerEnd));
    } catch {
      throw malformed("header is no msgpack");
    }
    if (!Array.isArray(header)) throw malformed("header is no array");
    this.#onFrame({
      type: whole.readUInt8(1),
      part: whole.readUInt8(2),
      id: whole.readUInt32BE(4),
      header,
      body: whole.subarray(headerEnd),
    });
  }
}
