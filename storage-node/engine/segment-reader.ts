import type { DiskFile } from "../../common/disk.ts";
import {
  MAX_RECORD_BYTES,
  RECORD_HEAD_BYTES,
  RECORD_MAGIC_BYTES,
  RECORD_MAGIC_OFFSET,
  type RecordFields,
  type Region,
  decodeRecordHead,
  emptyRecordFields,
  recordIsValid,
  regionOf,
} from "./format.ts";

/** What is read of a segment. */
type Readable = Pick<DiskFile, "read">;

/** Large enough for a record of any size. */
const WINDOW_BYTES = Math.max(2 * 1024 * 1024, MAX_RECORD_BYTES);

/** A small segment needs no more than itself. */
const windowFor = (end: number): Region => regionOf(new Uint8Array(Math.min(WINDOW_BYTES, end)));

/** Reads a segment's records in order, checking each. One window of memory, one read per window. */
export class SegmentReader {
  /** Of the record that `read` last found. */
  readonly fields: RecordFields = emptyRecordFields();
  region: Region;
  /** Where in `region` that record begins. */
  at = 0;
  #file: Readable;
  #seed: bigint;
  #end: number;
  #windowStart = 0;
  #windowLength = 0;

  constructor(file: Readable, seed: bigint, end: number) {
    this.#file = file;
    this.#seed = seed;
    this.#end = end;
    this.region = windowFor(end);
  }

  /** Goes on with another segment, keeping the window's memory. */
  turnTo(file: Readable, seed: bigint, end: number): void {
    this.#file = file;
    this.#seed = seed;
    this.#end = end;
    this.#windowLength = 0;
    if (this.region.bytes.length < Math.min(WINDOW_BYTES, end)) this.region = windowFor(end);
  }

  /** The size of the valid record at `offset`, 0 where there is none. */
  async read(offset: number): Promise<number> {
    if (offset + RECORD_HEAD_BYTES > this.#end) return 0;
    if (!this.#covers(offset, RECORD_HEAD_BYTES)) await this.#load(offset);
    if (!this.#covers(offset, RECORD_HEAD_BYTES)) return 0;
    const size = decodeRecordHead(this.region.view, offset - this.#windowStart, this.fields);
    if (size === 0 || offset + size > this.#end) return 0;
    if (!this.#covers(offset, size)) await this.#load(offset);
    if (!this.#covers(offset, size)) return 0;
    this.at = offset - this.#windowStart;
    return recordIsValid(this.region, this.at, this.fields, this.#seed, offset) ? size : 0;
  }

  /** The offset of the first valid record at or behind `offset`, which `fields` then describe; undefined where there is none. */
  async find(offset: number): Promise<number | undefined> {
    let candidate = (offset + 7) & ~7;
    while (candidate + RECORD_HEAD_BYTES <= this.#end) {
      if (!this.#covers(candidate, RECORD_HEAD_BYTES)) await this.#load(candidate);
      if (!this.#covers(candidate, RECORD_HEAD_BYTES)) return undefined;
      const window = Buffer.from(this.region.bytes.buffer, this.region.bytes.byteOffset, this.#windowLength);
      const found = window.indexOf(RECORD_MAGIC_BYTES, candidate - this.#windowStart + RECORD_MAGIC_OFFSET);
      if (found < 0) {
        candidate = (this.#windowStart + this.#windowLength - RECORD_HEAD_BYTES + 8) & ~7;
        continue;
      }
      const start = this.#windowStart + found - RECORD_MAGIC_OFFSET;
      if (start % 8 === 0 && (await this.read(start)) > 0) return start;
      candidate = (start + 8) & ~7;
    }
    return undefined;
  }

  #covers(offset: number, length: number): boolean {
    return offset >= this.#windowStart && offset + length <= this.#windowStart + this.#windowLength;
  }

  async #load(offset: number): Promise<void> {
    const length = Math.min(WINDOW_BYTES, this.#end - offset);
    this.#windowStart = offset;
    this.#windowLength = 0;
    this.#windowLength = await this.#file.read([this.region.bytes.subarray(0, length)], offset);
  }
}
