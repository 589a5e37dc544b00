import { DIRECT_UNIT_BYTES } from "../../common/disk.ts";
import { RingsteadError, codeOf, messageOf } from "../../common/errors.ts";
import { upToUnit } from "./direct-slots.ts";
import { type Region, SEGMENT_DATA_START, regionOf } from "./format.ts";
import type { EngineTimer } from "./engine-timer.ts";
import type { LiveEntry } from "./index-format.ts";
import type { Segment, SegmentStore, SpaceUse } from "./segment-store.ts";

/** A batch is closed when it is this large; a larger one syncs no faster. */
const MAX_BATCH_BYTES = 2 * 1024 * 1024;
/** A batch's memory: it begins and ends with blocks that it shares with its neighbours. */
const REGION_BYTES = MAX_BATCH_BYTES + 2 * DIRECT_UNIT_BYTES;
/** Memory for batches that may pass by the page cache: one that is written, one that collects, and those that wait between. */
const REGIONS = 4;
/** The first size of memory beyond those. */
const FIRST_SPARE_BYTES = 256 * 1024;
/** From this size on a batch passes by the page cache; smaller ones are likely to be read soon, and are cached for it. */
export const DIRECT_BATCH_BYTES = 128 * 1024;
/** After a batch of at least so many records another one waits for company: many clients write, and each sync costs some 150 µs of CPU. */
const BUSY_RECORDS = 8;
const COMPANY_MS = 1;
/** Of the batch that collects: with so much in it, it has company enough. */
const COMPANY_BYTES = 64 * 1024;
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
  readonly segment: Segment;
  /** Where in the segment its region begins: a whole block, up to `lead` with the end of the batch before. */
  readonly base: number;
  readonly lead: number;
  /** Of what is in the region. */
  length: number;
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

  /** Requires: `region` begins with what the block of `offset` holds before it. */
  constructor(region: Region, segment: Segment, offset: number, firstSequence: number) {
    this.region = region;
    this.segment = segment;
    this.lead = offset % DIRECT_UNIT_BYTES;
    this.base = offset - this.lead;
    this.length = this.lead;
    this.firstSequence = firstSequence;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    // Each applier handles its own; a batch that nobody waits for must not end the process.
    promise.catch(() => {});
    this.synced = promise;
    this.resolve = resolve;
    this.reject = reject;
  }

  get isEmpty(): boolean {
    return this.length === this.lead && this.lates.size === 0;
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

/** Where the log goes on, what the block of `offset` holds before it, and from which size on batches pass by the page cache. */
export type LogStart = LogPosition & { readonly blockStart: Uint8Array; readonly directBatchBytes: number };

/**
 * The head of the log, with group commit: while one write and fdatasync run, the next batch collects.
 *
 * Per record: one copy into the batch's buffer. Per batch: one promise, one write that syncs (one wake of a pool thread; measured
 * against write and fdatasync: a fifth less time and CPU), two event loop turns. Where a record will lie is known when it is encoded,
 * before its segment has a file.
 *
 * Whole blocks are written, with the same bytes again where a batch begins within one, and zeros where it ends: so no block has to be
 * read first, and a large batch may pass by the page cache, whose fresh pages cost more than anything else about it.
 */
export class LogWriter {
  readonly #segments: SegmentStore;
  readonly #hooks: BatchHooks;
  readonly #queue: Batch[] = [];
  readonly #regions: RegionPool;
  readonly #directBatchBytes: number;
  readonly #timer: EngineTimer;
  /** Somebody waits for what is applied: the batch that has it waits for no company. */
  #isAwaited = false;
  /** Ends the wait for company. */
  #goOn: () => void = () => {};
  /** What was written of the block that the next batch begins in. */
  readonly #blockStart = new Uint8Array(DIRECT_UNIT_BYTES);
  #head: Segment;
  #headOffset: number;
  #nextSequence: number;
  #open: Batch | undefined;
  #writing: Batch | undefined;
  /** The write that the disk has to do now or did last. */
  #inFlight: Promise<unknown> = Promise.resolve();
  #isRunning = false;
  #pendingBytes = 0;
  #failure: RingsteadError | undefined;
  batchCount = 0;

  constructor(segments: SegmentStore, start: LogStart, timer: EngineTimer, hooks: BatchHooks) {
    this.#segments = segments;
    this.#timer = timer;
    this.#regions = new RegionPool(segments, start.directBatchBytes <= MAX_BATCH_BYTES);
    this.#head = start.segment;
    this.#headOffset = start.offset;
    this.#blockStart.set(start.blockStart);
    this.#directBatchBytes = start.directBatchBytes;
    this.#nextSequence = start.nextSequence;
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
      if (this.#open.length - this.#open.lead + this.#open.lateBytes + wanted > MAX_BATCH_BYTES) this.closeBatch();
    }
    // Closing a batch encodes, and that may have failed.
    if (this.#failure !== undefined) throw this.#failure;
    const open = this.#open ?? this.#newBatch();
    const needed = upToUnit(open.length + open.lateBytes + wanted);
    if (needed > open.region.bytes.length) {
      const grown = new Uint8Array(Math.max(needed, Math.min(2 * open.region.bytes.length, REGION_BYTES)));
      grown.set(open.region.bytes.subarray(0, open.length));
      this.#regions.give(open.region);
      open.region = regionOf(grown);
    }
    return open;
  }

  /** Errors (thrown): "device-failed" and its like, "device-full" where `reserve` would not take `bytes` more of what grows. */
  requireRoom(bytes: number): void {
    if (this.#failure !== undefined) throw this.#failure;
    const fits = this.#headOffset + (this.#open?.lateBytes ?? 0) + bytes <= this.#segments.segmentBytes;
    if (!fits && !this.#segments.mayClaim("growing")) throw new RingsteadError("device-full", "the device is full");
  }

  #newBatch(): Batch {
    const batch = new Batch(this.#regions.take(), this.#head, this.#headOffset, this.#nextSequence);
    batch.region.bytes.set(this.#blockStart.subarray(0, batch.lead));
    this.#open = batch;
    return batch;
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
    try {
      if (batch.lates.size > 0) this.#hooks.close(batch);
      const { bytes } = batch.region;
      const lastBlock = batch.length - (batch.length % DIRECT_UNIT_BYTES);
      this.#blockStart.set(bytes.subarray(lastBlock, batch.length));
      bytes.fill(0, batch.length, upToUnit(batch.length));
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
        const blocks = batch.region.bytes.subarray(0, upToUnit(batch.length));
        const isDirect = blocks.length >= this.#directBatchBytes && this.#regions.has(batch.region);
        const file =
          this.#segments.fileOf(batch.segment, isDirect) ?? (await this.#segments.activate(batch.segment, isDirect));
        const written = file.write(blocks, batch.base);
        this.#inFlight = written;
        await written;
        this.#writing = undefined;
        this.#pendingBytes -= batch.length - batch.lead;
        this.batchCount++;
        batch.isSynced = true;
        batch.resolve();
        const wait = this.#hooks.synced(batch);
        if (wait !== undefined) await wait;
        // Those who waited may apply again, and share the next sync.
        await this.#company(batch);
      }
      this.#isRunning = false;
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Resolves when the next batch is to be written: a turn later, or some more where that makes fewer syncs. */
  #company(last: Batch): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const open = this.#open;
    const isEnough = this.#queue.length > 0 || (open !== undefined && open.length - open.lead >= COMPANY_BYTES);
    const isAwaited = this.#isAwaited;
    this.#isAwaited = false;
    if (last.pendings.length < BUSY_RECORDS || isEnough || isAwaited) setImmediate(resolve);
    else {
      this.#goOn = resolve;
      this.#timer.after(COMPANY_MS, resolve, true);
    }
    return promise;
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

  /**
   * Resolves when the disk is done with the write that it was given last, whatever came of it. A writer that failed for another reason does not wait for it; whoever gives the device
   * away has to: it would land in the log of who opens it next.
   */
  async settled(): Promise<void> {
    await this.#inFlight.catch(() => {});
  }

  *#unsynced(): Iterable<Batch> {
    if (this.#writing !== undefined) yield this.#writing;
    yield* this.#queue;
    if (this.#open !== undefined) yield this.#open;
  }

  /** The promise of everything applied so far, which waits for no company. */
  sync(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#isAwaited = true;
    this.#goOn();
    const open = this.#open?.isEmpty === false ? this.#open : undefined;
    return (open ?? this.#queue.at(-1) ?? this.#writing)?.synced ?? Promise.resolve();
  }

  /**
   * Log bytes that may not be in the file yet; undefined where they are. What a batch begins with, to be whole blocks, may be what the file had when the
   * device was opened: nobody has checked that, and it is read from there. A view: copy before the next await.
   */
  inMemory(segment: number, offset: number, length: number): Uint8Array | undefined {
    for (const batch of this.#unsynced()) {
      const at = offset - batch.base;
      if (batch.segment.number === segment && at >= batch.lead && at + length <= batch.length) {
        return batch.region.bytes.subarray(at, at + length);
      }
    }
    return undefined;
  }

  /** Takes a batch's memory back. Requires: nobody looks at it any more. */
  recycle(batch: Batch): void {
    this.#regions.give(batch.region);
  }
}

/** A few regions that direct transfers may use, and others where they do not suffice. What came back last is lent first. */
class RegionPool {
  readonly #segments: SegmentStore;
  #own: ReadonlySet<Region> | undefined;
  readonly #free: Region[] = [];
  #spare: Region | undefined;

  /** @param isDirect whether any batch may pass by the page cache */
  constructor(segments: SegmentStore, isDirect: boolean) {
    this.#segments = segments;
    if (!isDirect) this.#own = new Set();
  }

  take(): Region {
    if (this.#own === undefined) {
      const memory = this.#segments.directMemory(REGIONS * REGION_BYTES);
      const regions = Array.from({ length: REGIONS }, (_, index) =>
        regionOf(memory.subarray(index * REGION_BYTES, (index + 1) * REGION_BYTES)),
      );
      this.#own = new Set(regions);
      this.#free.push(...regions.toReversed());
    }
    const region = this.#free.pop() ?? this.#spare ?? regionOf(new Uint8Array(FIRST_SPARE_BYTES));
    if (region === this.#spare) this.#spare = undefined;
    return region;
  }

  /** Whether direct transfers may use it. */
  has(region: Region): boolean {
    return this.#own?.has(region) === true;
  }

  give(region: Region): void {
    if (this.has(region)) this.#free.push(region);
    else this.#spare = region;
  }
}
