import assert from "node:assert/strict";
import { RingsteadError, codeOf, messageOf } from "../../common/errors.ts";
import type { BodyFiles } from "./body-files.ts";
import type { LateMutation, Mutation, NewBody } from "./device-engine.ts";
import type { DigestTable } from "./digest-table.ts";
import type { EntryTable } from "./entry-table.ts";
import {
  BODY_ELSEWHERE,
  BODY_FILE,
  BODY_HERE,
  BODY_NONE,
  FLAG_CARRIED,
  FLAG_COMMIT_END,
  KIND_DELETE,
  KIND_PUT,
  MAX_KEY_BYTES,
  MAX_LOG_BODY_BYTES,
  MAX_VALUE_BYTES,
  bodySpace,
  emptyRecordFields,
  encodeRecord,
  recordSize,
} from "./format.ts";
import type { LiveEntry } from "./index-format.ts";
import type { Batch, LogWriter } from "./log-writer.ts";
import { fileIdOfName } from "./paths.ts";
import { bodyIsInside, entryOf } from "./recovery.ts";
import { nameOf } from "./scan-merge.ts";
import type { SegmentStore } from "./segment-store.ts";

/** What one commit may bring; a larger one would hold up all others for the time of its write. */
const MAX_COMMIT_BYTES = 4 * 1024 * 1024;
/** A put whose value is longer is no "small record that frees space". */
const MAX_FREEING_VALUE_BYTES = 4096;
const EMPTY = new Uint8Array(0);
const freedDigest = new BigUint64Array(1);
const freedDigestHalves = new Uint32Array(freedDigest.buffer);

/**
 * Turns commits into records at the head of the log, with the account of what they supersede.
 *
 * A batch with late puts is one commit: from the first of them on no record ends a commit but the last of the batch, which is a
 * late one. So after power loss what was counted and what is counted agree, and nobody waits for it longer than for the batch.
 */
export class LogAppender {
  readonly #segments: SegmentStore;
  readonly #bodies: BodyFiles;
  readonly #table: EntryTable;
  readonly #writer: LogWriter;
  readonly #digests: DigestTable;
  readonly #fields = emptyRecordFields();
  recordCount = 0;
  /** Log bytes so far. */
  appendedBytes = 0;

  constructor(segments: SegmentStore, bodies: BodyFiles, table: EntryTable, writer: LogWriter, digests: DigestTable) {
    this.#segments = segments;
    this.#bodies = bodies;
    this.#table = table;
    this.#writer = writer;
    this.#digests = digests;
  }

  /** Errors (thrown, nothing changed): "device-full", "device-failed", "device-overloaded", "entry-damaged". */
  apply(mutations: readonly Mutation[]): Batch {
    let size = 0;
    let lateBytes = 0;
    // Everything is checked before the first record is encoded, so that a refused commit changes nothing.
    for (const mutation of mutations) {
      const space = this.#spaceOf(mutation);
      if (mutation.kind === "late") lateBytes += space;
      else size += space;
    }
    assert(size + lateBytes <= Math.min(MAX_COMMIT_BYTES, this.#segments.capacity), "a commit has at most 4 MiB");
    const batch = this.#reserve(mutations, size, lateBytes);
    try {
      if (lateBytes > 0) this.#promise(batch, mutations);
      const end = batch.lates.size > 0 ? 0 : FLAG_COMMIT_END;
      const last = mutations.length - 1;
      for (let index = 0; index <= last; index++) {
        const mutation = mutations[index];
        if (mutation === undefined || mutation.kind === "late") continue;
        const flags = index === last ? end : 0;
        if (mutation.kind === "put") this.#put(batch, mutation.key, mutation.value, mutation.body, flags);
        else this.#delete(batch, mutation.key, flags);
      }
    } catch (error) {
      // Half a commit is in the batch, and must not get its end from the next one.
      this.#writer.fail(new RingsteadError("device-failed", `a commit could not be encoded: ${messageOf(error)}`));
      throw error;
    }
    this.#writer.schedule();
    return batch;
  }

  #reserve(mutations: readonly Mutation[], size: number, lateBytes: number): Batch {
    try {
      return this.#writer.reserve(size, lateBytes, "growing");
    } catch (error) {
      if (codeOf(error) !== "device-full" || !this.#frees(mutations)) throw error;
      return this.#writer.reserve(size, lateBytes, "freeing");
    }
  }

  /** Whether a commit brings nothing but small records, and supersedes something. */
  #frees(mutations: readonly Mutation[]): boolean {
    let frees = false;
    for (const mutation of mutations) {
      if (mutation.kind === "late") continue;
      if (mutation.kind === "put") {
        const isSmall = mutation.body.kind === "none" || mutation.body.kind === "keep";
        if (!isSmall || mutation.value.length > MAX_FREEING_VALUE_BYTES) return false;
      }
      frees ||= this.#table.superseded(mutation.key, nameOf(mutation.key)) !== undefined;
    }
    return frees;
  }

  #spaceOf(mutation: Mutation): number {
    const { key } = mutation;
    assert(key.length > 0 && key.length <= MAX_KEY_BYTES, "a key has 1 to 4096 bytes");
    if (mutation.kind === "delete") return recordSize(key.length, 0, BODY_NONE, 0);
    if (mutation.kind === "late") {
      assert(mutation.maxBytes <= MAX_VALUE_BYTES, "a value has at most 64 KiB");
      return recordSize(key.length, mutation.maxBytes, BODY_NONE, 0);
    }
    const { value, body } = mutation;
    assert(value.length <= MAX_VALUE_BYTES, "a value has at most 64 KiB");
    if (body.kind === "bytes") {
      assert(body.bytes.length <= MAX_LOG_BODY_BYTES, "a body in the log has at most 1 MiB");
      return recordSize(key.length, value.length, BODY_HERE, body.bytes.length);
    }
    assert(body.kind !== "staged" || this.#mayName(key, body.file, body.length), "the staged body is not sealed");
    // Whether there is a body to keep must be known before anything is encoded.
    if (body.kind === "keep") this.#table.live(key, nameOf(key));
    return recordSize(key.length, value.length, BODY_NONE, 0);
  }

  /** A sealed file, or the one that the key has already. */
  #mayName(key: Uint8Array, file: string, length: number): boolean {
    if (this.#bodies.isSealed(file, length)) return true;
    const old = this.#table.live(key, nameOf(key));
    return old?.bodyKind === BODY_FILE && old.bodyOffset === fileIdOfName(file) && old.bodyLength === length;
  }

  /** Lets the late ones of a commit change what they stand for, and keeps room for their records. */
  #promise(batch: Batch, mutations: readonly Mutation[]): void {
    for (const mutation of mutations) {
      if (mutation.kind !== "late") continue;
      this.#promiseOne(batch, mutation);
      mutation.change();
    }
  }

  #promiseOne(batch: Batch, { key, maxBytes, value }: LateMutation): void {
    const space = recordSize(key.length, maxBytes, BODY_NONE, 0);
    this.#writer.promise(batch, nameOf(key), { key: new Uint8Array(key), maxBytes, space, value });
  }

  /** Encodes a batch's late puts, the last thing it gets. */
  closeBatch(batch: Batch): void {
    let left = batch.lates.size;
    for (const { key, maxBytes, value } of batch.lates.values()) {
      const bytes = value();
      assert(bytes.length <= maxBytes, "a late value has at most the bytes that were reserved");
      this.#put(batch, key, bytes, { kind: "none" }, --left === 0 ? FLAG_COMMIT_END : 0);
    }
  }

  #put(batch: Batch, key: Uint8Array, value: Uint8Array, body: NewBody, flags: number): void {
    const fields = this.#fields;
    const name = nameOf(key);
    const old = this.#table.superseded(key, name);
    this.#begin(KIND_PUT, flags, 0);
    let bytes: Uint8Array | undefined;
    let keeps = false;
    if (body.kind === "bytes") {
      fields.bodyKind = BODY_HERE;
      fields.bodyLength = body.bytes.length;
      bytes = body.bytes;
    } else if (body.kind === "staged") {
      fields.bodyKind = BODY_FILE;
      fields.bodyLength = body.length;
      const isOld = !this.#bodies.isSealed(body.file, body.length);
      fields.bodyOffset = isOld ? (old?.bodyOffset ?? 0) : this.#bodies.adopt(body.file, body.length);
      keeps = isOld;
    } else if (body.kind === "keep" && old !== undefined) {
      this.#keepBody(old);
      keeps = true;
    }
    this.#supersede(batch, old, keeps);
    const bucket = this.#digests.scheme.bucketOf(key);
    const digest = bucket < 0 ? 0n : this.#digests.scheme.digestOf(key, value);
    if (bucket >= 0) this.#digests.replace(bucket, old?.digest, digest);
    this.#encode(batch, name, key, value, bytes, digest);
  }

  #delete(batch: Batch, key: Uint8Array, flags: number): void {
    const name = nameOf(key);
    const old = this.#table.superseded(key, name);
    this.#begin(KIND_DELETE, flags, this.#writer.position.nextSequence);
    this.#supersede(batch, old, false);
    if (old !== undefined) this.#digests.replace(this.#digests.scheme.bucketOf(key), old.digest, undefined);
    this.#encode(batch, name, key, EMPTY, undefined, 0n);
  }

  /**
   * For compaction: writes the key's present entry anew at the head of the log, with `body` as its body where that is to move too.
   * Requires: `live` was got in this turn, `value` is its value. Errors (thrown): those of `apply`.
   */
  move(key: Uint8Array, live: LiveEntry, value: Uint8Array, body: Uint8Array | undefined): void {
    const size = recordSize(key.length, value.length, body === undefined ? BODY_NONE : BODY_HERE, live.bodyLength);
    const batch = this.#writer.reserve(size, 0, "moving");
    this.#begin(KIND_PUT, this.#endOf(batch) | FLAG_CARRIED, 0);
    this.#keepBody(live);
    if (body !== undefined) {
      this.#fields.bodyKind = BODY_HERE;
      this.#fields.bodySegment = 0;
      this.#fields.bodyOffset = 0;
    }
    this.#supersede(batch, live, body === undefined);
    this.#encode(batch, nameOf(key), key, value, body, live.digest);
    this.#writer.schedule();
  }

  /** For compaction: takes a delete along. Requires: the key is absent in this turn. */
  carryDelete(key: Uint8Array, firstSequence: number): void {
    const batch = this.#writer.reserve(recordSize(key.length, 0, BODY_NONE, 0), 0, "moving");
    this.#begin(KIND_DELETE, this.#endOf(batch) | FLAG_CARRIED, firstSequence);
    this.#supersede(batch, undefined, false);
    this.#encode(batch, nameOf(key), key, EMPTY, undefined, 0n);
    this.#writer.schedule();
  }

  #endOf(batch: Batch): number {
    return batch.lates.size > 0 ? 0 : FLAG_COMMIT_END;
  }

  #begin(kind: number, flags: number, bodyOffset: number): void {
    const fields = this.#fields;
    fields.kind = kind;
    fields.flags = flags;
    fields.bodyKind = BODY_NONE;
    fields.bodySegment = 0;
    fields.bodyOffset = bodyOffset;
    fields.bodyLength = 0;
  }

  #keepBody(old: LiveEntry): void {
    const fields = this.#fields;
    fields.bodyKind = old.bodyKind;
    fields.bodySegment = old.bodySegment;
    fields.bodyOffset = old.bodyOffset;
    fields.bodyLength = old.bodyLength;
  }

  /** Accounts for what the next record supersedes, in the record and in the segments. */
  #supersede(batch: Batch, old: LiveEntry | undefined, keepsBody: boolean): void {
    const fields = this.#fields;
    fields.freedRecordSegment = 0;
    fields.freedRecordBytes = 0;
    fields.freedBodySegment = 0;
    fields.freedBodyBytes = 0;
    fields.freedFile = 0;
    freedDigest[0] = old?.digest ?? 0n;
    fields.freedDigestLow = freedDigestHalves[0] ?? 0;
    fields.freedDigestHigh = freedDigestHalves[1] ?? 0;
    if (old === undefined) return;
    const isInside = old.bodyKind === BODY_ELSEWHERE && bodyIsInside(old);
    fields.freedRecordSegment = old.segment;
    fields.freedRecordBytes = isInside && keepsBody ? old.size - bodySpace(old.bodyLength) : old.size;
    this.#free(old.segment, fields.freedRecordBytes);
    if (keepsBody) return;
    if (old.bodyKind === BODY_FILE) {
      fields.freedFile = old.bodyOffset;
      batch.freedFiles.push(old.bodyOffset);
      this.#bodies.supersede(old.bodyOffset);
    } else if (old.bodyKind === BODY_ELSEWHERE && !isInside) {
      fields.freedBodySegment = old.bodySegment;
      fields.freedBodyBytes = bodySpace(old.bodyLength);
      this.#free(old.bodySegment, fields.freedBodyBytes);
    }
  }

  #free(number: number, bytes: number): void {
    const segment = this.#segments.segments.get(number);
    if (segment !== undefined) segment.live -= bytes;
  }

  /** Encodes the record that `#fields` describe at the head of the log, and shows it. */
  #encode(
    batch: Batch,
    name: string,
    key: Uint8Array,
    value: Uint8Array,
    body: Uint8Array | undefined,
    digest: bigint,
  ): void {
    const fields = this.#fields;
    const { segment } = batch;
    const at = batch.length;
    const offset = batch.base + at;
    fields.sequence = this.#writer.position.nextSequence;
    fields.batchFirst = batch.firstSequence;
    fields.keyLength = key.length;
    fields.valueLength = value.length;
    const size = encodeRecord(batch.region, at, fields, key, value, body, segment.seed, offset);
    this.#writer.advance(batch, size);
    this.appendedBytes += size;
    this.recordCount++;
    const isPut = fields.kind === KIND_PUT;
    if (isPut) segment.live += size;
    else segment.deletes += size;
    const live = isPut ? entryOf(segment.number, offset, size, fields, new Uint8Array(value), digest) : undefined;
    const pending = { name, live, batch };
    batch.pendings.push(pending);
    this.#table.show(pending);
  }
}
