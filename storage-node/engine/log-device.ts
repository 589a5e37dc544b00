import assert from "node:assert/strict";
import { RingsteadError, messageOf } from "../../common/errors.ts";
import type { BodyFiles } from "./body-files.ts";
import type {
  BodyReference,
  DeviceEngine,
  DeviceState,
  Entry,
  Mutation,
  NewBody,
  StagedBody,
} from "./device-engine.ts";
import { EntryCache } from "./entry-cache.ts";
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
  RECORD_HEAD_BYTES,
  bodyIsValid,
  bodySpace,
  decodeRecordHead,
  emptyRecordFields,
  encodeRecord,
  headIsValid,
  recordSize,
  regionOf,
} from "./format.ts";
import type { Index, IndexOperation } from "./index-port.ts";
import { type LiveEntry, decodeLiveEntry, encodeCheckpoint, encodeLiveEntry } from "./index-format.ts";
import { type Batch, LogWriter, type Pending } from "./log-writer.ts";
import { fileIdOfName, nameOfFileId } from "./paths.ts";
import { type RecoveryReport, bodyIsInside, entryOf } from "./recovery.ts";
import { mergeScan, nameOf } from "./scan-merge.ts";
import type { Segment, SegmentStore } from "./segment-store.ts";

/** One commit must fit a batch's buffer and a segment. */
const MAX_COMMIT_BYTES = 4 * 1024 * 1024;
/** Operations per write of the index. */
const MAX_INDEX_OPERATIONS = 4096;
/** How often a full device makes a checkpoint, so that compaction may look at its newest segments too. */
const FULL_CHECKPOINT_INTERVAL_MS = 1000;
/** Entries that may wait for the index before the log waits too: LevelDB stalls writers when its compaction lags. */
const MAX_UNINDEXED_ENTRIES = 50_000;
/** Values of a scan read from the log at once. */
const VALUE_READS = 16;
const MAX_SCAN_LIMIT = 10_000;
const EMPTY = new Uint8Array(0);

/** What the device is made of; `open-device.ts` puts it together. */
export type LogDeviceParts = {
  readonly deviceSeed: bigint;
  readonly segments: SegmentStore;
  readonly index: Index;
  readonly bodies: BodyFiles;
  readonly recovered: RecoveryReport;
  readonly head: Segment;
  /** Closed last, when the device is. */
  readonly resources: AsyncDisposable;
  /** Log between two checkpoints. */
  readonly checkpointBytes: number;
};

const bodyReference = (live: LiveEntry): BodyReference => {
  if (live.bodyKind === BODY_FILE)
    return { kind: "file", file: nameOfFileId(live.bodyOffset), length: live.bodyLength };
  if (live.bodyKind === BODY_NONE) return { kind: "none" };
  return { kind: "log", segment: live.bodySegment, offset: live.bodyOffset, length: live.bodyLength };
};

/**
 * The device engine over a segmented log and a derived index.
 *
 *     apply ─encode─▶ batch ─write, fdatasync─▶ acknowledged ─▶ index
 *                └─▶ overlay (what get and scan see) ─────────────┘ until the index has it
 *
 * A 4 KiB put costs one lookup of the entry it supersedes, two xxh64, one copy of the body into the batch, one index operation;
 * system calls and promises are per batch. Measured by `bench/device-engine.ts`.
 */
export class LogDevice implements DeviceEngine {
  readonly #deviceSeed: bigint;
  readonly #segments: SegmentStore;
  readonly #index: Index;
  readonly #bodies: BodyFiles;
  readonly #recovered: RecoveryReport;
  readonly #resources: AsyncDisposable;
  readonly #writer: LogWriter;
  readonly #overlay = new Map<string, Pending>();
  readonly #cache = new EntryCache();
  readonly #fields = emptyRecordFields();
  readonly #checkpointBytes: number;
  readonly #removals = new Set<Promise<void>>();
  #toIndex: Batch[] = [];
  #indexing: Promise<void> | undefined;
  /** Everything before this sequence number is in the index. */
  #indexedBefore: number;
  #sinceCheckpoint = 0;
  #checkpointing: Promise<void> | undefined;
  /** Segments before this one are in no replay any more. */
  #checkpointSegment = 0;
  #fullCheckpointAtMs = 0;
  #recordCount = 0;
  #damagedReads = 0;
  #isClosed = false;
  /** Called after each checkpoint. */
  onCheckpoint: () => void = () => {};
  compactionFigures: () => Readonly<Record<string, number>> = () => ({});
  /** Called when the device is closed, before anything is taken from it. */
  onClose: () => Promise<void> = async () => {};

  constructor(parts: LogDeviceParts) {
    this.#deviceSeed = parts.deviceSeed;
    this.#segments = parts.segments;
    this.#index = parts.index;
    this.#bodies = parts.bodies;
    this.#recovered = parts.recovered;
    this.#resources = parts.resources;
    this.#checkpointBytes = parts.checkpointBytes;
    this.#indexedBefore = parts.recovered.nextSequence;
    const offset = parts.recovered.head?.offset ?? parts.head.used;
    this.#writer = new LogWriter(
      parts.segments,
      { segment: parts.head, offset, nextSequence: parts.recovered.nextSequence },
      (batch) => this.#synced(batch),
      () => {},
    );
  }

  readonly state = (): DeviceState => {
    const { failure } = this.#writer;
    if (failure !== undefined) return { kind: "failed", reason: failure };
    if (!this.#segments.isShort) return { kind: "serving" };
    this.#segments.lookForSpace();
    return { kind: "full" };
  };

  apply(mutations: readonly Mutation[]): Promise<void> {
    assert(mutations.length > 0, "a commit changes something");
    assert(!this.#isClosed, "the device is closed");
    let batch: Batch;
    try {
      batch = this.#writer.reserve(this.#sizeOf(mutations), false);
    } catch (error) {
      // A full device may have something to compact.
      if (this.#segments.isShort && this.#writer.failure === undefined) this.#checkpointWhenFull();
      return Promise.reject(error);
    }
    try {
      const last = mutations.length - 1;
      for (let index = 0; index <= last; index++) {
        const mutation = mutations[index];
        if (mutation === undefined) continue;
        const flags = index === last ? FLAG_COMMIT_END : 0;
        if (mutation.kind === "put") this.#put(batch, mutation.key, mutation.value, mutation.body, flags);
        else this.#delete(batch, mutation.key, flags);
      }
    } catch (error) {
      // Half a commit is in the batch, and must not get its end from the next one.
      this.#writer.fail(new RingsteadError("device-failed", `a commit could not be encoded: ${messageOf(error)}`));
      throw error;
    }
    this.#writer.schedule();
    return batch.synced;
  }

  #checkpointWhenFull(): void {
    if (Date.now() - this.#fullCheckpointAtMs < FULL_CHECKPOINT_INTERVAL_MS) return;
    this.#fullCheckpointAtMs = Date.now();
    void this.checkpoint();
  }

  /** Checks everything before the first record is encoded, so that a refused commit changes nothing. */
  #sizeOf(mutations: readonly Mutation[]): number {
    let size = 0;
    for (const mutation of mutations) {
      const { key } = mutation;
      assert(key.length > 0 && key.length <= MAX_KEY_BYTES, "a key has 1 to 4096 bytes");
      if (mutation.kind === "delete") {
        size += recordSize(key.length, 0, BODY_NONE, 0);
        continue;
      }
      const { value, body } = mutation;
      assert(value.length <= MAX_VALUE_BYTES, "a value has at most 64 KiB");
      if (body.kind === "bytes") {
        assert(body.bytes.length <= MAX_LOG_BODY_BYTES, "a body in the log has at most 1 MiB");
        size += recordSize(key.length, value.length, BODY_HERE, body.bytes.length);
      } else {
        assert(body.kind !== "staged" || this.#mayName(key, body.file, body.length), "the staged body is not sealed");
        // Whether there is a body to keep must be known before anything is encoded.
        if (body.kind === "keep") this.#live(key, nameOf(key));
        size += recordSize(key.length, value.length, BODY_NONE, 0);
      }
    }
    assert(size <= Math.min(MAX_COMMIT_BYTES, this.#segments.capacity), "a commit has at most 4 MiB");
    return size;
  }

  /** A sealed file, or the one that the key has already. */
  #mayName(key: Uint8Array, file: string, length: number): boolean {
    if (this.#bodies.isSealed(file, length)) return true;
    const old = this.#live(key, nameOf(key));
    return old?.bodyKind === BODY_FILE && old.bodyOffset === fileIdOfName(file) && old.bodyLength === length;
  }

  /** Errors (thrown): "entry-damaged". */
  #live(key: Uint8Array, name: string): LiveEntry | undefined {
    const pending = this.#overlay.get(name);
    if (pending !== undefined) return pending.live;
    const cached = this.#cache.get(name);
    if (cached !== undefined) return cached ?? undefined;
    const bytes = this.#readIndex(key);
    if (bytes === undefined) {
      // Whoever asks is mostly about to put it, which asks again.
      this.#cache.set(name, null);
      return undefined;
    }
    const live = this.#decoded(bytes);
    this.#cache.set(name, live);
    return live;
  }

  #readIndex(key: Uint8Array): Uint8Array | undefined {
    try {
      return this.#index.get(key);
    } catch (error) {
      this.#damagedReads++;
      throw new RingsteadError("entry-damaged", `the index cannot be read: ${messageOf(error)}`);
    }
  }

  #decoded(bytes: Uint8Array): LiveEntry {
    const live = decodeLiveEntry(bytes);
    if (live !== undefined) return live;
    this.#damagedReads++;
    throw new RingsteadError("entry-damaged", "the index holds a damaged entry");
  }

  /** What a mutation supersedes; a damaged entry is superseded like an absent one, which is how it is healed. */
  #superseded(key: Uint8Array, name: string): LiveEntry | undefined {
    try {
      return this.#live(key, name);
    } catch (error) {
      if (error instanceof RingsteadError && error.code === "entry-damaged") return undefined;
      throw error;
    }
  }

  #put(batch: Batch, key: Uint8Array, value: Uint8Array, body: NewBody, flags: number): void {
    const fields = this.#fields;
    const name = nameOf(key);
    const old = this.#superseded(key, name);
    fields.kind = KIND_PUT;
    fields.flags = flags;
    fields.bodySegment = 0;
    fields.bodyOffset = 0;
    fields.bodyLength = 0;
    fields.bodyKind = BODY_NONE;
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
    this.#encode(batch, name, key, value, bytes);
  }

  #keepBody(old: LiveEntry): void {
    const fields = this.#fields;
    fields.bodyKind = old.bodyKind;
    fields.bodySegment = old.bodySegment;
    fields.bodyOffset = old.bodyOffset;
    fields.bodyLength = old.bodyLength;
  }

  #delete(batch: Batch, key: Uint8Array, flags: number): void {
    const fields = this.#fields;
    const name = nameOf(key);
    fields.kind = KIND_DELETE;
    fields.flags = flags;
    fields.bodyKind = BODY_NONE;
    fields.bodySegment = 0;
    fields.bodyOffset = this.#writer.position.nextSequence;
    fields.bodyLength = 0;
    this.#supersede(batch, this.#superseded(key, name), false);
    this.#encode(batch, name, key, EMPTY, undefined);
  }

  /** Accounts for what the next record supersedes, in the record and in the segments. */
  #supersede(batch: Batch, old: LiveEntry | undefined, keepsBody: boolean): void {
    const fields = this.#fields;
    fields.freedRecordSegment = 0;
    fields.freedRecordBytes = 0;
    fields.freedBodySegment = 0;
    fields.freedBodyBytes = 0;
    fields.freedFile = 0;
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
  #encode(batch: Batch, name: string, key: Uint8Array, value: Uint8Array, body: Uint8Array | undefined): void {
    const fields = this.#fields;
    const { segment } = batch;
    const at = batch.length;
    const offset = batch.offset + at;
    fields.sequence = this.#writer.position.nextSequence;
    fields.batchFirst = batch.firstSequence;
    fields.keyLength = key.length;
    fields.valueLength = value.length;
    const size = encodeRecord(batch.region, at, fields, key, value, body, segment.seed, offset);
    this.#writer.advance(batch, size);
    this.#sinceCheckpoint += size;
    this.#recordCount++;
    const keyAt = at + RECORD_HEAD_BYTES;
    const ownKey = batch.region.bytes.subarray(keyAt, keyAt + key.length);
    const isPut = fields.kind === KIND_PUT;
    if (isPut) segment.live += size;
    else segment.deletes += size;
    const live = isPut ? entryOf(segment.number, offset, size, fields, new Uint8Array(value)) : undefined;
    const pending: Pending = { name, key: ownKey, live, batch };
    batch.pendings.push(pending);
    this.#overlay.set(name, pending);
  }

  /** A promise where the log is to wait: the index lags behind. */
  #synced(batch: Batch): Promise<void> | undefined {
    this.#toIndex.push(batch);
    for (const fileId of batch.freedFiles) {
      // A file left behind by a failing unlink stays among the loose files and goes at the next recovery.
      const removal: Promise<void> = this.#bodies
        .remove(fileId)
        .catch(() => {})
        .finally(() => this.#removals.delete(removal));
      this.#removals.add(removal);
    }
    this.#indexing ??= this.#runIndexing();
    return this.#overlay.size > MAX_UNINDEXED_ENTRIES ? this.#indexing : undefined;
  }

  async #runIndexing(): Promise<void> {
    try {
      while (this.#toIndex.length > 0) {
        const batches = this.#toIndex;
        this.#toIndex = [];
        await this.#writeIndex(batches);
        for (const batch of batches) this.#indexed(batch);
        if (this.#sinceCheckpoint >= this.#checkpointBytes) void this.checkpoint();
      }
    } catch (error) {
      this.#writer.fail(new RingsteadError("device-failed", `the index cannot be written: ${messageOf(error)}`));
    } finally {
      this.#indexing = undefined;
    }
  }

  async #writeIndex(batches: readonly Batch[]): Promise<void> {
    let operations: IndexOperation[] = [];
    for (const batch of batches) {
      for (const { key, live } of batch.pendings) {
        operations.push(live === undefined ? { type: "del", key } : { type: "put", key, value: encodeLiveEntry(live) });
      }
      if (operations.length >= MAX_INDEX_OPERATIONS) {
        await this.#index.write(operations);
        operations = [];
      }
    }
    if (operations.length > 0) await this.#index.write(operations);
  }

  #indexed(batch: Batch): void {
    for (const pending of batch.pendings) {
      const { name, live } = pending;
      if (this.#overlay.get(name) !== pending) continue;
      this.#overlay.delete(name);
      this.#cache.set(name, live ?? null);
    }
    this.#indexedBefore = batch.firstSequence + batch.pendings.length;
    this.#writer.recycle(batch);
  }

  get(key: Uint8Array): Entry | undefined {
    const live = this.#live(key, nameOf(key));
    if (live === undefined) return undefined;
    return { value: live.value ?? this.#readValueNow(live), body: bodyReference(live) };
  }

  /** Errors (thrown): "entry-damaged". */
  #readValueNow(live: LiveEntry): Uint8Array {
    const bytes = Buffer.allocUnsafe(RECORD_HEAD_BYTES + live.keyLength + live.valueLength);
    const slot = this.#segments.segments.get(live.segment)?.slot;
    const count = slot?.file.readSync(bytes, live.offset) ?? 0;
    return this.#checkedValue(live, bytes, count);
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
    this.#damagedReads++;
    const { segment: number, offset } = live;
    throw new RingsteadError("entry-damaged", "an entry's record is damaged", { segment: number, offset });
  }

  durable(key: Uint8Array): Promise<void> | undefined {
    const pending = this.#overlay.get(nameOf(key));
    return pending === undefined || pending.batch.isSynced ? undefined : pending.batch.synced;
  }

  sync(): Promise<void> {
    return this.#writer.sync();
  }

  async readBody(body: BodyReference, offset: number, length: number): Promise<Uint8Array> {
    assert(offset >= 0 && length >= 0, "a range begins at or behind 0");
    if (body.kind === "none") return EMPTY;
    const count = Math.max(0, Math.min(length, body.length - offset));
    if (body.kind === "log") {
      const whole = await this.#readLogBody(body.segment, body.offset, body.length);
      return count === whole.length ? whole : whole.subarray(offset, offset + count);
    }
    const fileId = fileIdOfName(body.file);
    assert(fileId !== undefined, "a body file has an engine's name");
    try {
      return await this.#bodies.read(fileId, body.length, offset, count);
    } catch (error) {
      if (error instanceof RingsteadError && error.code === "body-damaged") this.#damagedReads++;
      throw error;
    }
  }

  async #readLogBody(number: number, offset: number, length: number): Promise<Uint8Array> {
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
    this.#damagedReads++;
    throw new RingsteadError("body-damaged", "a body in the log is damaged", { segment: number, offset, cause });
  }

  async stage(): Promise<StagedBody> {
    const state = this.state();
    if (state.kind === "failed") throw state.reason;
    if (state.kind === "full") throw new RingsteadError("device-full", "the device is full");
    return this.#bodies.stage();
  }

  async scan(range: {
    gte: Uint8Array;
    lt: Uint8Array;
    limit: number;
    reverse?: boolean;
  }): Promise<{ key: Uint8Array; value: Uint8Array }[]> {
    const { gte, lt, limit, reverse = false } = range;
    assert(limit <= MAX_SCAN_LIMIT, "a scan has at most 10,000 entries");
    if (limit <= 0) return [];
    // The cursor sees the index as it is in this turn; so the overlay of this turn is what it lacks.
    const cursor = this.#index.cursor({ gte, lt, reverse });
    try {
      const found = await mergeScan(cursor, this.#overlayIn(nameOf(gte), nameOf(lt), reverse), limit, reverse);
      const entries: { key: Uint8Array; value: Uint8Array }[] = [];
      for (let at = 0; at < found.length; at += VALUE_READS) {
        const part = found.slice(at, at + VALUE_READS);
        const isInline = part.every(([, live]) => live.value !== undefined);
        const values = isInline
          ? part.map(([, live]) => live.value)
          : await Promise.all(part.map(async ([key, live]) => live.value ?? this.#readValue(key, live)));
        for (const [index, value] of values.entries()) {
          const key = part[index]?.[0];
          if (key !== undefined && value !== undefined) entries.push({ key, value });
        }
      }
      return entries;
    } finally {
      await cursor.close();
    }
  }

  #overlayIn(low: string, high: string, reverse: boolean): Pending[] {
    const found: Pending[] = [];
    for (const pending of this.#overlay.values()) if (pending.name >= low && pending.name < high) found.push(pending);
    const sign = reverse ? -1 : 1;
    return found.toSorted((left, right) => (left.name < right.name ? -sign : sign));
  }

  /** A value that is too long for the index; undefined when its key was deleted meanwhile. */
  async #readValue(key: Uint8Array, live: LiveEntry): Promise<Uint8Array | undefined> {
    const segment = this.#segments.segments.get(live.segment);
    const bytes = Buffer.allocUnsafe(RECORD_HEAD_BYTES + live.keyLength + live.valueLength);
    if (segment !== undefined && (await this.#segments.read(segment, bytes, live.offset))) {
      return this.#checkedValue(live, bytes, bytes.length);
    }
    // Superseded or moved since the cursor was made.
    return this.get(key)?.value;
  }

  /** Makes the index durable up to here, so that recovery begins here. One at a time. */
  checkpoint(): Promise<void> {
    this.#checkpointing ??= this.#runCheckpoint().finally(() => {
      this.#checkpointing = undefined;
      if (this.#sinceCheckpoint >= this.#checkpointBytes && !this.#isClosed) void this.checkpoint();
    });
    return this.#checkpointing;
  }

  async #runCheckpoint(): Promise<void> {
    if (this.#writer.failure !== undefined) return;
    try {
      const { segment, offset, nextSequence } = this.#writer.position;
      this.#sinceCheckpoint = 0;
      const segments = [...this.#segments.segments.values()].map(({ number, used, live, deletes }) => ({
        number,
        used,
        live,
        deletes,
      }));
      const looseFiles = this.#bodies.looseFiles();
      const { nextFileId } = this.#bodies;
      await this.#writer.sync();
      while (this.#indexedBefore < nextSequence && this.#writer.failure === undefined) {
        await (this.#indexing ?? new Promise(setImmediate));
      }
      if (this.#writer.failure !== undefined) return;
      const checkpoint = { segment: segment.number, offset, nextSequence, nextFileId, segments, looseFiles };
      await this.#index.checkpoint(encodeCheckpoint(checkpoint, this.#deviceSeed));
      this.#checkpointSegment = segment.number;
    } catch (error) {
      this.#writer.fail(new RingsteadError("device-failed", `the index cannot be written: ${messageOf(error)}`));
    }
    this.onCheckpoint();
  }

  /** For compaction: whether a segment is in no replay any more. */
  isCheckpointed(segment: Segment): boolean {
    return segment.number < this.#checkpointSegment;
  }

  /** For compaction: the present entry of a key. */
  liveEntry(key: Uint8Array): LiveEntry | undefined {
    return this.#live(key, nameOf(key));
  }

  /**
   * For compaction: writes the key's present entry anew at the head of the log, with `body` as its body where that is to move too.
   * Requires: `live` was got in this turn. Errors (thrown): those of `apply`.
   */
  move(key: Uint8Array, live: LiveEntry, body: Uint8Array | undefined): void {
    const value = live.value ?? this.#readValueNow(live);
    const size = recordSize(key.length, value.length, body === undefined ? BODY_NONE : BODY_HERE, live.bodyLength);
    const batch = this.#writer.reserve(size, true);
    const fields = this.#fields;
    fields.kind = KIND_PUT;
    fields.flags = FLAG_COMMIT_END | FLAG_CARRIED;
    this.#keepBody(live);
    if (body !== undefined) {
      fields.bodyKind = BODY_HERE;
      fields.bodySegment = 0;
      fields.bodyOffset = 0;
    }
    this.#supersede(batch, live, body === undefined);
    this.#encode(batch, nameOf(key), key, value, body);
    this.#writer.schedule();
  }

  /** For compaction: takes a delete along. Requires: the key is absent in this turn. */
  carryDelete(key: Uint8Array, firstSequence: number): void {
    const batch = this.#writer.reserve(recordSize(key.length, 0, BODY_NONE, 0), true);
    const fields = this.#fields;
    fields.kind = KIND_DELETE;
    fields.flags = FLAG_COMMIT_END | FLAG_CARRIED;
    fields.bodyKind = BODY_NONE;
    fields.bodySegment = 0;
    fields.bodyOffset = firstSequence;
    fields.bodyLength = 0;
    this.#supersede(batch, undefined, false);
    this.#encode(batch, nameOf(key), key, EMPTY, undefined);
    this.#writer.schedule();
  }

  figures(): Readonly<Record<string, number>> {
    const recovered = this.#recovered;
    return {
      ...this.#segments.figures(),
      ...this.compactionFigures(),
      records: this.#recordCount,
      batches: this.#writer.batchCount,
      overlayEntries: this.#overlay.size,
      damagedReads: this.#damagedReads,
      recoveredRecords: recovered.replayedRecords,
      recoveredBytes: recovered.replayedBytes,
      quarantinedRanges: recovered.quarantinedRanges,
      quarantinedBytes: recovered.quarantinedBytes,
      cutRecords: recovered.cutRecords,
      removedFiles: recovered.removedFiles,
    };
  }

  /** Closes in order: what was applied is synced, and the next opening has nothing to replay. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.onClose();
    await this.#checkpointing;
    await this.#writer.sync().catch(() => {});
    await this.#indexing;
    await Promise.all(this.#removals);
    await this.checkpoint();
    await this.#resources[Symbol.asyncDispose]();
  }
}
