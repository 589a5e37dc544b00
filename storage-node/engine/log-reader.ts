import assert from "node:assert/strict";
import { RingsteadError, codeOf } from "../../common/errors.ts";
import type { BodyFiles } from "./body-files.ts";
import type { BodyReference } from "./device-engine.ts";
import type { EntryTable } from "./entry-table.ts";
import {
  BODY_FILE,
  BODY_NONE,
  RECORD_HEAD_BYTES,
  bodyIsValid,
  decodeRecordHead,
  emptyRecordFields,
  headIsValid,
  regionOf,
} from "./format.ts";
import type { LiveEntry } from "./index-format.ts";
import type { LogWriter } from "./log-writer.ts";
import { fileIdOfName, nameOfFileId } from "./paths.ts";
import type { SegmentStore } from "./segment-store.ts";

const EMPTY = new Uint8Array(0);

/** Where an entry's body lies, as the engine's users are told. */
export const bodyReference = (live: LiveEntry): BodyReference => {
  if (live.bodyKind === BODY_FILE)
    return { kind: "file", file: nameOfFileId(live.bodyOffset), length: live.bodyLength };
  if (live.bodyKind === BODY_NONE) return { kind: "none" };
  return { kind: "log", segment: live.bodySegment, offset: live.bodyOffset, length: live.bodyLength };
};

/** Reads values and bodies that entries refer to; nothing leaves it unchecked. */
export class LogReader {
  readonly #segments: SegmentStore;
  readonly #bodies: BodyFiles;
  readonly #writer: LogWriter;
  readonly #table: EntryTable;

  constructor(segments: SegmentStore, bodies: BodyFiles, writer: LogWriter, table: EntryTable) {
    this.#segments = segments;
    this.#bodies = bodies;
    this.#writer = writer;
    this.#table = table;
  }

  /** An entry's value, from its record where the index has not got it. Errors (thrown): "entry-damaged". */
  valueNow(live: LiveEntry): Uint8Array {
    if (live.value !== undefined) return live.value;
    const bytes = Buffer.allocUnsafe(RECORD_HEAD_BYTES + live.keyLength + live.valueLength);
    const slot = this.#segments.segments.get(live.segment)?.slot;
    const count = slot?.file.readSync(bytes, live.offset) ?? 0;
    return this.#checkedValue(live, bytes, count);
  }

  /** The same without blocking; undefined where the segment was recycled meanwhile. */
  async value(live: LiveEntry): Promise<Uint8Array | undefined> {
    if (live.value !== undefined) return live.value;
    const segment = this.#segments.segments.get(live.segment);
    const bytes = Buffer.allocUnsafe(RECORD_HEAD_BYTES + live.keyLength + live.valueLength);
    if (segment === undefined || !(await this.#segments.read(segment, bytes, live.offset))) return undefined;
    return this.#checkedValue(live, bytes, bytes.length);
  }

  #checkedValue(live: LiveEntry, bytes: Buffer, count: number): Uint8Array {
    const segment = this.#segments.segments.get(live.segment);
    const region = regionOf(bytes);
    const fields = emptyRecordFields();
    const isValid =
      segment !== undefined &&
      count === bytes.length &&
      decodeRecordHead(region.view, 0, fields) === live.size &&
      fields.keyLength === live.keyLength &&
      fields.valueLength === live.valueLength &&
      headIsValid(region, 0, fields, segment.seed, live.offset);
    if (isValid) return bytes.subarray(RECORD_HEAD_BYTES + live.keyLength);
    this.#table.damagedReads++;
    const { segment: number, offset } = live;
    throw new RingsteadError("entry-damaged", "an entry's record is damaged", { segment: number, offset });
  }

  /** Errors: "body-damaged", "body-gone". */
  async body(body: BodyReference, offset: number, length: number): Promise<Uint8Array> {
    assert(offset >= 0 && length >= 0, "a range begins at or behind 0");
    if (body.kind === "none") return EMPTY;
    const count = Math.max(0, Math.min(length, body.length - offset));
    if (body.kind === "log") {
      const whole = await this.#logBody(body.segment, body.offset, body.length);
      return count === whole.length ? whole : whole.subarray(offset, offset + count);
    }
    const fileId = fileIdOfName(body.file);
    assert(fileId !== undefined, "a body file has an engine's name");
    try {
      return await this.#bodies.read(fileId, body.length, offset, count);
    } catch (error) {
      if (codeOf(error) === "body-damaged") this.#table.damagedReads++;
      throw error;
    }
  }

  async #logBody(number: number, offset: number, length: number): Promise<Uint8Array> {
    const inMemory = this.#writer.inMemory(number, offset, length);
    if (inMemory !== undefined) return new Uint8Array(inMemory);
    const segment = this.#segments.segments.get(number);
    const bytes = Buffer.allocUnsafe(8 + length);
    let isThere = false;
    let cause: unknown;
    try {
      isThere = segment !== undefined && (await this.#segments.read(segment, bytes, offset - 8));
    } catch (error) {
      cause = error;
    }
    if (segment === undefined || this.#segments.segments.get(number) !== segment) {
      throw new RingsteadError("body-gone", "the body was superseded", { segment: number, offset });
    }
    if (isThere && bodyIsValid(regionOf(bytes), 8, length, segment.seed, offset)) return bytes.subarray(8);
    this.#table.damagedReads++;
    throw new RingsteadError("body-damaged", "a body in the log is damaged", { segment: number, offset, cause });
  }
}
