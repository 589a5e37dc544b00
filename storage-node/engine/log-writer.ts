import { RingsteadError, codeOf, messageOf } from "../../common/errors.ts";
import { type Region, SEGMENT_DATA_START, regionOf } from "./format.ts";
import type { LiveEntry } from "./index-format.ts";
import type { Segment, SegmentStore, SpaceUse } from "./segment-store.ts";

/** A batch is closed when it is this large; a larger one syncs no faster. */
const MAX_BATCH_BYTES = 4 * 1024 * 1024;
const FIRST_BUFFER_BYTES = 256 * 1024;
const POOLED_BUFFERS = 4;
/** What may wait for the disk; beyond it `apply` is refused with "device-overloaded". */
const MAX_PENDING_BYTES = 128 * 1024 * 1024;

/** One key's change from `apply` until the index has it. */
export type Pending = {
  /** The key as latin1 string, in whose order strings compare like bytes. */
  readonly name: string;
  /** Undefined: deleted. */
  readonly live: LiveEntry | undefined;
  readonly batch: Batch;
};

/** A record that is encoded when its batch is closed. */
export type LateRecord = {
  readonly key: Uint8Array;
  readonly maxBytes: number;
  /** Its size in the log, at most. */
  readonly space: number;
  /** That of whoever asked last. */
  value: () => Uint8Array;
};

/** What one write and one sync make durable. */
export class Batch {
  region: Region;
  length = 0;
  readonly segment: Segment;
  /** Where in the segment it begins. */
  readonly offset: number;
  readonly firstSequence: number;
  readonly pendings: Pending[] = [];
  /** Large bodies that it supersedes. */
  readonly freedFiles: number[] = [];
  /** By key name. From the first one on the batch is one commit: its only end is its last record. */
  readonly lates = new Map<string, LateRecord>();
  /** Room kept for them. */
  lateBytes = 0;
  isSynced = false;
  readonly synced: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (reason: RingsteadError) => void;

  constructor(region: Region, segment: Segment, offset: number, firstSequence: number) {
    this.region = region;
    this.segment = segment;
    this.offset = offset;
    this.firstSequence = firstSequence;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    // Each applier handles its own; a batch that nobody waits for must not end the process.
    promise.catch(() => {});
    this.synced = promise;
    this.resolve = resolve;
    this.reject = reject;
  }

  get isEmpty(): boolean {
    return this.length === 0 && this.lates.size === 0;
  }
}

/** What the log's owner does about batches. */
export type BatchHooks = {
  /** Encodes the late records of a batch that gets nothing else any more; in this turn. */
  close(batch: Batch): void;
  /** The batch is durable. A promise where the log is to wait. */
  synced(batch: Batch): Promise<void> | undefined;
};

export type LogPosition = { readonly segment: Segment; readonly offset: number; readonly nextSequence: number };

/**
 * The head of the log, with group commit: while one write and fdatasync run, the next batch collects.
 *
 * Per record: one copy into the batch's buffer. Per batch: one promise, one write that syncs (one wake of a pool thread; measured
 * against write and fdatasync: a fifth less time and CPU), two event loop turns. Where a record will lie is known when it is encoded,
 * before its segment has a file.
 */
export class LogWriter {
  readonly #segments: SegmentStore;
  readonly #hooks: BatchHooks;
  readonly #queue: Batch[] = [];
  readonly #buffers: Region[] = [];
  #head: Segment;
  #headOffset: number;
  #nextSequence: number;
  #open: Batch | undefined;
  #writing: Batch | undefined;
  #isRunning = false;
  #pendingBytes = 0;
  #failure: RingsteadError | undefined;
  batchCount = 0;

  constructor(segments: SegmentStore, position: LogPosition, hooks: BatchHooks) {
    this.#segments = segments;
    this.#head = position.segment;
    this.#headOffset = position.offset;
    this.#nextSequence = position.nextSequence;
    this.#hooks = hooks;
  }

  get failure(): RingsteadError | undefined {
    return this.#failure;
  }

  /** Where the next record goes. */
  get position(): LogPosition {
    return { segment: this.#head, offset: this.#headOffset, nextSequence: this.#nextSequence };
  }

  /** The batch that collects, if there is one. */
  get open(): Batch | undefined {
    return this.#open;
  }

  /**
   * The batch that the next `size` bytes go to, with room for them and for `lateBytes` at its end. The caller encodes at `region`,
   * `length`, then calls `advance`. Errors (thrown, nothing changed): "device-failed", "device-full", "device-overloaded".
   * Requires: size + lateBytes ≤ what a segment takes; no await until `advance`.
   */
  reserve(size: number, lateBytes: number, use: SpaceUse): Batch {
    if (this.#failure !== undefined) throw this.#failure;
    const wanted = size + lateBytes;
    if (this.#pendingBytes + wanted > MAX_PENDING_BYTES) {
      throw new RingsteadError("device-overloaded", "more writes wait for the device than it may keep");
    }
    if (this.#headOffset + (this.#open?.lateBytes ?? 0) + wanted > this.#segments.segmentBytes) {
      if (!this.#segments.mayClaim(use)) throw new RingsteadError("device-full", "the device is full");
      this.closeBatch();
      this.#head = this.#segments.claim(this.#head.number + 1, this.#nextSequence);
      this.#headOffset = SEGMENT_DATA_START;
    } else if (this.#open !== undefined && !this.#open.isEmpty) {
      if (this.#open.length + this.#open.lateBytes + wanted > MAX_BATCH_BYTES) this.closeBatch();
    }
    // Closing a batch encodes, and that may have failed.
    if (this.#failure !== undefined) throw this.#failure;
    const open = this.#open ?? this.#newBatch();
    const { length } = open.region.bytes;
    const needed = open.length + open.lateBytes + wanted;
    if (needed > length) {
      const grown = new Uint8Array(Math.max(needed, Math.min(2 * length, MAX_BATCH_BYTES)));
      grown.set(open.region.bytes.subarray(0, open.length));
      open.region = regionOf(grown);
    }
    return open;
  }

  #newBatch(): Batch {
    const region = this.#buffers.pop() ?? regionOf(new Uint8Array(FIRST_BUFFER_BYTES));
    this.#open = new Batch(region, this.#head, this.#headOffset, this.#nextSequence);
    return this.#open;
  }

  /** Room at the batch's end for a late record. Requires: reserved in this turn. */
  promise(batch: Batch, name: string, late: LateRecord): void {
    const earlier = batch.lates.get(name);
    if (earlier === undefined || late.space > earlier.space) {
      batch.lateBytes += late.space - (earlier?.space ?? 0);
      batch.lates.set(name, late);
    } else earlier.value = late.value;
  }

  /** One record was encoded. */
  advance(batch: Batch, size: number): void {
    batch.length += size;
    this.#headOffset += size;
    this.#head.used = this.#headOffset;
    this.#nextSequence++;
    this.#pendingBytes += size;
  }

  /** A commit is complete: sees to it that it gets written. */
  schedule(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    // A turn later, so that everything that arrives in this turn shares the sync.
    setImmediate(() => void this.#run());
  }

  /** What was applied so far gets no company any more; what comes next begins another batch. */
  closeBatch(): void {
    const batch = this.#open;
    this.#open = undefined;
    // An empty batch would begin at the wrong place.
    if (batch === undefined || batch.isEmpty) return;
    this.#queue.push(batch);
    if (batch.lates.size === 0) return;
    try {
      this.#hooks.close(batch);
    } catch (error) {
      // The commits in it lack their end, and must not get it from the next batch.
      this.fail(new RingsteadError("device-failed", `a batch could not be encoded: ${messageOf(error)}`));
    }
  }

  async #run(): Promise<void> {
    try {
      for (;;) {
        if (this.#queue.length === 0) this.closeBatch();
        const batch = this.#queue.shift();
        if (batch === undefined || this.#failure !== undefined) break;
        this.#writing = batch;
        const file = batch.segment.slot?.file ?? (await this.#segments.activate(batch.segment));
        await file.write(batch.region.bytes.subarray(0, batch.length), batch.offset);
        this.#writing = undefined;
        this.#pendingBytes -= batch.length;
        this.batchCount++;
        batch.isSynced = true;
        batch.resolve();
        const wait = this.#hooks.synced(batch);
        if (wait !== undefined) await wait;
        // Those who waited may apply again, and share the next sync.
        await new Promise(setImmediate);
      }
      this.#isRunning = false;
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    const code = codeOf(error) === "EROFS" ? "device-read-only" : "device-failed";
    const cause = messageOf(error);
    this.fail(new RingsteadError(code, `a write to the device failed: ${cause}`, { cause }));
  }

  /** Stops for good: nothing after this is acknowledged. */
  fail(reason: RingsteadError): void {
    if (this.#failure !== undefined) return;
    this.#failure = reason;
    for (const batch of this.#unsynced()) batch.reject(reason);
  }

  *#unsynced(): Iterable<Batch> {
    if (this.#writing !== undefined) yield this.#writing;
    yield* this.#queue;
    if (this.#open !== undefined) yield this.#open;
  }

  /** The promise of everything applied so far. */
  sync(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const open = this.#open?.isEmpty === false ? this.#open : undefined;
    return (open ?? this.#queue.at(-1) ?? this.#writing)?.synced ?? Promise.resolve();
  }

  /** Log bytes that may not be in the file yet; undefined where they are. A view: copy before the next await. */
  inMemory(segment: number, offset: number, length: number): Uint8Array | undefined {
    for (const batch of this.#unsynced()) {
      const at = offset - batch.offset;
      if (batch.segment.number === segment && at >= 0 && at + length <= batch.length) {
        return batch.region.bytes.subarray(at, at + length);
      }
    }
    return undefined;
  }

  /** Takes a batch's buffer back. Requires: nobody looks at it any more. */
  recycle(batch: Batch): void {
    if (this.#buffers.length < POOLED_BUFFERS && batch.region.bytes.length <= MAX_BATCH_BYTES) {
      this.#buffers.push(batch.region);
    }
  }
}
