import { RingsteadError, messageOf } from "../../common/errors.ts";
import { type Region, SEGMENT_DATA_START, regionOf } from "./format.ts";
import type { LiveEntry } from "./index-format.ts";
import type { Segment, SegmentStore } from "./segment-store.ts";

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
  readonly key: Uint8Array;
  /** Undefined: deleted. */
  readonly live: LiveEntry | undefined;
  readonly batch: Batch;
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
}

export type LogPosition = { readonly segment: Segment; readonly offset: number; readonly nextSequence: number };

/**
 * The head of the log, with group commit: while one write and fdatasync run, the next batch collects.
 *
 * Per record: one copy into the batch's buffer. Per batch: one promise, one write, one fdatasync, three event loop turns.
 * Where a record will lie is known when it is encoded, before its segment has a file.
 */
export class LogWriter {
  readonly #segments: SegmentStore;
  readonly #onSynced: (batch: Batch) => Promise<void> | undefined;
  readonly #onFailed: (reason: RingsteadError) => void;
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

  constructor(
    segments: SegmentStore,
    position: LogPosition,
    onSynced: (batch: Batch) => Promise<void> | undefined,
    onFailed: (reason: RingsteadError) => void,
  ) {
    this.#segments = segments;
    this.#head = position.segment;
    this.#headOffset = position.offset;
    this.#nextSequence = position.nextSequence;
    this.#onSynced = onSynced;
    this.#onFailed = onFailed;
  }

  get failure(): RingsteadError | undefined {
    return this.#failure;
  }

  /** Where the next record goes. */
  get position(): LogPosition {
    return { segment: this.#head, offset: this.#headOffset, nextSequence: this.#nextSequence };
  }

  /**
   * The batch that the next `size` bytes go to, with room for them. The caller encodes at `region`, `length`, then calls `advance`.
   * Errors (thrown, nothing changed): "device-failed", "device-full", "device-overloaded".
   * Requires: size ≤ what a segment takes; no await until `advance`.
   */
  reserve(size: number, forCompaction: boolean): Batch {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#pendingBytes + size > MAX_PENDING_BYTES) {
      throw new RingsteadError("device-overloaded", "more writes wait for the device than it may keep");
    }
    if (this.#headOffset + size > this.#segments.segmentBytes) {
      if (!this.#segments.mayClaim(forCompaction)) throw new RingsteadError("device-full", "the device is full");
      this.#closeOpen();
      this.#head = this.#segments.claim(this.#head.number + 1, this.#nextSequence);
      this.#headOffset = SEGMENT_DATA_START;
    }
    let open = this.#open;
    if (open !== undefined && open.length > 0 && open.length + size > MAX_BATCH_BYTES) {
      this.#closeOpen();
      open = undefined;
    }
    if (open === undefined) {
      const region = this.#buffers.pop() ?? regionOf(new Uint8Array(FIRST_BUFFER_BYTES));
      open = new Batch(region, this.#head, this.#headOffset, this.#nextSequence);
      this.#open = open;
    }
    if (open.length + size > open.region.bytes.length) {
      const grown = new Uint8Array(
        Math.max(open.length + size, Math.min(2 * open.region.bytes.length, MAX_BATCH_BYTES)),
      );
      grown.set(open.region.bytes.subarray(0, open.length));
      open.region = regionOf(grown);
    }
    return open;
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

  #closeOpen(): void {
    if (this.#open !== undefined && this.#open.length > 0) {
      this.#queue.push(this.#open);
      this.#open = undefined;
    }
    // An empty batch would begin at the wrong place.
    else this.#open = undefined;
  }

  async #run(): Promise<void> {
    try {
      for (;;) {
        if (this.#queue.length === 0) this.#closeOpen();
        const batch = this.#queue.shift();
        if (batch === undefined) break;
        this.#writing = batch;
        const file = batch.segment.slot?.file ?? (await this.#segments.activate(batch.segment));
        await file.write(batch.region.bytes.subarray(0, batch.length), batch.offset);
        await file.sync();
        this.#writing = undefined;
        this.#pendingBytes -= batch.length;
        this.batchCount++;
        batch.isSynced = true;
        batch.resolve();
        await this.#onSynced(batch);
        // Those who waited may apply again, and share the next sync.
        await new Promise(setImmediate);
      }
      this.#isRunning = false;
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.fail(
      new RingsteadError("device-failed", `a write to the device failed: ${messageOf(error)}`, {
        cause: messageOf(error),
      }),
    );
  }

  /** Stops for good: nothing after this is acknowledged. */
  fail(reason: RingsteadError): void {
    if (this.#failure !== undefined) return;
    this.#failure = reason;
    for (const batch of this.#unsynced()) batch.reject(reason);
    this.#onFailed(reason);
  }

  *#unsynced(): Iterable<Batch> {
    if (this.#writing !== undefined) yield this.#writing;
    yield* this.#queue;
    if (this.#open !== undefined) yield this.#open;
  }

  /** The promise of everything applied so far. */
  sync(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const open = this.#open !== undefined && this.#open.length > 0 ? this.#open : undefined;
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
