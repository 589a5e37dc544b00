import assert from "node:assert/strict";
import type { Disk } from "../../common/disk.ts";
import { RingsteadError, codeOf, messageOf } from "../../common/errors.ts";
import type { BodyFiles } from "./body-files.ts";
import type { CompactorFigures } from "./compactor.ts";
import type {
  BodyReference,
  DeviceEngine,
  DeviceFigures,
  DeviceState,
  Entry,
  Mutation,
  ScanRange,
  ScannedEntry,
  StagedBody,
} from "./device-engine.ts";
import type { EngineTimer } from "./engine-timer.ts";
import { DigestCount } from "./digest-count.ts";
import type { DigestFiles } from "./digest-files.ts";
import type { DigestTable } from "./digest-table.ts";
import { LogScrub, type ScrubbedDevice } from "./device-scrub.ts";
import { EntryTable } from "./entry-table.ts";
import { type Checkpoint, type LiveEntry, encodeCheckpoint } from "./index-format.ts";
import { IndexFeed, type IndexPace } from "./index-feed.ts";
import type { Index } from "./index-port.ts";
import { LogAppender } from "./log-appender.ts";
import { LogReader, bodyReference } from "./log-reader.ts";
import { LogSearch } from "./log-search.ts";
import { type Batch, LogWriter, type Pending } from "./log-writer.ts";
import { Pushback } from "./pushback.ts";
import type { Quarantine } from "./quarantine.ts";
import type { RecoveryReport } from "./recovery.ts";
import { DamagedEntryError, type Found, lateEntry, mergeScan, nameOf } from "./scan-merge.ts";
import type { Segment, SegmentStore } from "./segment-store.ts";

/** How often a full device makes a checkpoint, so that compaction may look at its newest segments too. */
const FULL_CHECKPOINT_INTERVAL_MS = 1000;
/** Written since the last checkpoint, in shares of a segment, before another one is worth making for compaction's sake. */
const CHECKPOINT_SHARE = 4;
/** Values of a scan read from the log at once. */
const VALUE_READS = 16;
const MAX_SCAN_LIMIT = 10_000;

const hasValue = (found: Found): found is Found & { readonly value: Uint8Array } => found.value !== undefined;

/** What the device is made of; `open-device.ts` puts it together. */
export type LogDeviceParts = {
  readonly disk: Disk;
  readonly quarantine: Quarantine;
  readonly deviceSeed: bigint;
  readonly segments: SegmentStore;
  readonly index: Index;
  /** Further figures of the index. */
  readonly indexFigures: () => Readonly<Record<string, number>>;
  readonly indexPace: IndexPace;
  readonly timer: EngineTimer;
  readonly bodies: BodyFiles;
  readonly digests: DigestTable;
  readonly digestFiles: DigestFiles;
  readonly recovered: RecoveryReport;
  readonly head: Segment;
  /** What the block at the head of the log holds before it. */
  readonly blockStart: Uint8Array;
  readonly directBatchBytes: number;
  /** Closed last, when the device is. */
  readonly resources: AsyncDisposable;
  /** Log between two checkpoints. */
  readonly checkpointBytes: number;
};

/** What the device wants of its compactor. */
export type CompactorPort = {
  readonly isRunning: boolean;
  /** Looks for work, if it does not work already. */
  kick(): void;
  figures(): CompactorFigures;
  stop(): Promise<void>;
};

/**
 * The device engine over a segmented log and a derived index.
 *
 *     apply ─LogAppender─▶ batch ─LogWriter: one synced write─▶ acknowledged ─IndexFeed, some time later─▶ index
 *                     └──▶ EntryTable (what get and scan see) ───────────────────────────────────────────────┘
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
  readonly #indexFigures: LogDeviceParts["indexFigures"];
  readonly #resources: AsyncDisposable;
  readonly #timer: EngineTimer;
  readonly #writer: LogWriter;
  readonly #table: EntryTable;
  readonly #feed: IndexFeed;
  readonly #reader: LogReader;
  readonly #appender: LogAppender;
  readonly #pushback: Pushback;
  readonly digests: DigestTable;
  readonly scrub: LogScrub;
  readonly #digestFiles: DigestFiles;
  readonly #digestCount: DigestCount;
  readonly #checkpointBytes: number;
  readonly #removals = new Set<Promise<void>>();
  #compactor: CompactorPort | undefined;
  #checkpointedBytes = 0;
  #checkpointing: Promise<void> | undefined;
  /** Segments before this one are in no replay any more. */
  #checkpointSegment = 0;
  #fullCheckpointAtMs = Number.NEGATIVE_INFINITY;
  #isClosed = false;

  constructor(parts: LogDeviceParts) {
    const { segments, index, bodies, recovered, head } = parts;
    this.#deviceSeed = parts.deviceSeed;
    this.#segments = segments;
    this.#index = index;
    this.#bodies = bodies;
    this.#recovered = recovered;
    this.#resources = parts.resources;
    this.#timer = parts.timer;
    this.#indexFigures = parts.indexFigures;
    this.#checkpointBytes = parts.checkpointBytes;
    const { nextSequence } = recovered;
    const offset = recovered.head?.offset ?? head.used;
    this.#writer = new LogWriter(
      segments,
      { segment: head, offset, nextSequence, blockStart: parts.blockStart, directBatchBytes: parts.directBatchBytes },
      parts.timer,
      { close: (batch) => this.#appender.closeBatch(batch), synced: (batch) => this.#synced(batch) },
    );
    this.digests = parts.digests;
    this.#digestFiles = parts.digestFiles;
    this.#table = new EntryTable(index, () => this.#recount());
    const pendingIn = (low: string, high: string): Pending[] => this.#table.pendingIn(low, high);
    this.#digestCount = new DigestCount(index, pendingIn, this.digests, parts.timer);
    this.#feed = new IndexFeed(index, this.#table, nextSequence, parts.indexPace, parts.timer, (error) =>
      this.#indexFailed(error),
    );
    this.#feed.beforeWrite = () => segments.keepRoom();
    this.#reader = new LogReader(segments, bodies, this.#writer, this.#table);
    const search = new LogSearch(segments, this.digests.scheme);
    const { disk, quarantine } = parts;
    const scrubbed = { disk, segments, bodies, index, table: this.#table, reader: this.#reader, quarantine, search };
    const device: ScrubbedDevice = {
      sync: () => this.sync(),
      indexed: () => this.#indexed(),
      apply: (mutations) => this.apply(mutations),
      move: (key, live, body) => this.move(key, live, body),
      recount: () => this.#digestCount.recount(),
    };
    this.scrub = new LogScrub(device, scrubbed);
    this.#appender = new LogAppender(segments, bodies, this.#table, this.#writer, this.digests);
    this.#pushback = new Pushback(
      segments,
      {
        isWorking: () => this.#compactor?.isRunning === true || this.#checkpointing !== undefined,
        start: () => this.#startCompaction(),
      },
      parts.timer,
    );
    segments.onReadOnly = (reason) => this.#writer.fail(reason);
  }

  /** Requires: called once, before the first `apply`. */
  attach(compactor: CompactorPort): void {
    this.#compactor = compactor;
    if (!this.digests.isCertain) this.#digestCount.start();
  }

  /** Says of whose entry a read failed, before its reader is told. Errors (thrown): the given one. */
  #tellDamage(key: Uint8Array, error: unknown): never {
    if (codeOf(error) === "entry-damaged") this.scrub.onDamaged(key, messageOf(error));
    throw error;
  }

  /** Something was lost that the digests count. */
  #recount(): void {
    this.digests.doubt();
    this.#digestCount.start();
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
      this.#pushback.admit();
      batch = this.#appender.apply(mutations);
    } catch (error) {
      this.#compactWhenFull();
      return Promise.reject(error);
    }
    this.#compactWhenFull();
    return this.#pushback.acknowledge(batch.synced, this.#appender.appendedBytes);
  }

  /** A full device may have something to compact. */
  #compactWhenFull(): void {
    if (!this.#segments.isShort || this.#writer.failure !== undefined) return;
    if (this.#timer.nowMs() - this.#fullCheckpointAtMs < FULL_CHECKPOINT_INTERVAL_MS) return;
    this.#fullCheckpointAtMs = this.#timer.nowMs();
    void this.checkpoint();
  }

  /** Compaction looks at what is behind the last checkpoint, so where it finds nothing more another one is made first. */
  #startCompaction(): boolean {
    if (this.#isClosed || this.#writer.failure !== undefined) return false;
    if (this.#sinceCheckpoint < this.#segments.segmentBytes / CHECKPOINT_SHARE) return false;
    void this.checkpoint();
    return true;
  }

  get #sinceCheckpoint(): number {
    return this.#appender.appendedBytes - this.#checkpointedBytes;
  }

  /** A promise where the log is to wait: the index lags behind. */
  #synced(batch: Batch): Promise<void> | undefined {
    for (const fileId of batch.freedFiles) {
      // A file left behind by a failing unlink stays among the loose files and goes at the next recovery.
      const removal: Promise<void> = this.#bodies
        .remove(fileId)
        .catch(() => {})
        .finally(() => this.#removals.delete(removal));
      this.#removals.add(removal);
    }
    const wait = this.#feed.take(batch);
    this.#writer.recycle(batch);
    if (this.#sinceCheckpoint >= this.#checkpointBytes) void this.checkpoint();
    return wait;
  }

  #indexFailed(error: unknown): void {
    const cause = messageOf(error);
    // LevelDB says it in words only.
    const code = cause.includes("Read-only file system") ? "device-read-only" : "device-failed";
    this.#writer.fail(new RingsteadError(code, `the index cannot be written: ${cause}`));
  }

  requireRoom(bytes: number): void {
    this.#writer.requireRoom(bytes);
  }

  get(key: Uint8Array): Entry | undefined {
    const name = nameOf(key);
    const late = this.#writer.open?.lates.get(name);
    if (late !== undefined) return { value: late.value(), body: { kind: "none" } };
    try {
      const live = this.#table.live(key, name);
      if (live === undefined) return undefined;
      return { value: this.#reader.valueNow(live), body: bodyReference(live) };
    } catch (error) {
      return this.#tellDamage(key, error);
    }
  }

  durable(key: Uint8Array): Promise<void> | undefined {
    const name = nameOf(key);
    const { open } = this.#writer;
    if (open?.lates.has(name) === true) return open.synced;
    const pending = this.#table.pending(name);
    return pending === undefined || pending.batch.isSynced ? undefined : pending.batch.synced;
  }

  sync(): Promise<void> {
    return this.#writer.sync();
  }

  readBody(body: BodyReference, offset: number, length: number): Promise<Uint8Array> {
    return this.#reader.body(body, offset, length);
  }

  async stage(): Promise<StagedBody> {
    const state = this.state();
    if (state.kind === "failed") throw state.reason;
    if (state.kind === "full") throw new RingsteadError("device-full", "the device is full");
    return this.#bodies.stage();
  }

  async scan(range: ScanRange): Promise<ScannedEntry[]> {
    const entries: ScannedEntry[] = [];
    for await (const page of this.scanPages(range)) entries.push(...page);
    return entries;
  }

  async *scanPages({ gte, lt, limit, reverse = false }: ScanRange): AsyncGenerator<ScannedEntry[]> {
    assert(limit <= MAX_SCAN_LIMIT, "a scan has at most 10,000 entries");
    if (limit <= 0) return;
    // The cursor sees the index as it is in this turn; so the overlay of this turn is what it lacks.
    const overlay = this.#unindexedIn(nameOf(gte), nameOf(lt), reverse);
    const cursor = this.#index.cursor({ gte, lt, reverse });
    try {
      for await (const found of mergeScan(cursor, overlay, limit, reverse)) {
        const entries = found.every(hasValue) ? found : await this.#withValues(found);
        if (entries.length > 0) yield entries;
      }
    } catch (error) {
      if (error instanceof DamagedEntryError) this.#tellDamage(error.key, error);
      throw error;
    }
  }

  /** Reads from the log what the index has not got. */
  async #withValues(found: readonly Found[]): Promise<ScannedEntry[]> {
    const entries: ScannedEntry[] = [];
    for (let at = 0; at < found.length; at += VALUE_READS) {
      const part = found.slice(at, at + VALUE_READS);
      const values = await Promise.all(
        part.map(async ({ key, value, live }) => {
          if (value !== undefined || live === undefined) return value;
          try {
            // Superseded or moved since the cursor was made.
            return (await this.#reader.value(live)) ?? this.get(key)?.value;
          } catch (error) {
            return this.#tellDamage(key, error);
          }
        }),
      );
      for (const [index, value] of values.entries()) {
        const key = part[index]?.key;
        if (key !== undefined && value !== undefined) entries.push({ key, value });
      }
    }
    return entries;
  }

  /** What the index lacks of a range, in order; late changes as they would be written now. */
  #unindexedIn(low: string, high: string, reverse: boolean): Pending[] {
    let found = this.#table.pendingIn(low, high);
    const { open } = this.#writer;
    if (open !== undefined && open.lates.size > 0) {
      found = found.filter(({ name }) => !open.lates.has(name));
      for (const [name, late] of open.lates) {
        if (name >= low && name < high) found.push({ name, live: lateEntry(late), batch: open });
      }
    }
    const sign = reverse ? -1 : 1;
    return found.toSorted((left, right) => (left.name < right.name ? -sign : sign));
  }

  /** Makes the index durable up to here, so that recovery begins here. One at a time. */
  checkpoint(): Promise<void> {
    this.#checkpointing ??= this.#runCheckpoint().finally(() => {
      this.#checkpointing = undefined;
      const goesOn = !this.#isClosed && this.#writer.failure === undefined;
      if (goesOn && this.#sinceCheckpoint >= this.#checkpointBytes) void this.checkpoint();
    });
    return this.#checkpointing;
  }

  async #runCheckpoint(): Promise<void> {
    if (this.#writer.failure !== undefined) return;
    try {
      const checkpoint = this.#checkpointHere();
      const digests = this.#digestFiles.snapshot(this.digests, checkpoint.nextSequence);
      await this.#writer.sync();
      while (this.#feed.indexedBefore < checkpoint.nextSequence && this.#writer.failure === undefined) {
        await this.#feed.flush();
      }
      if (this.#writer.failure !== undefined) return;
      if (digests !== undefined) await this.#digestFiles.save(digests);
      await this.#index.checkpoint(encodeCheckpoint(checkpoint, this.#deviceSeed));
      this.#checkpointSegment = checkpoint.segment;
    } catch (error) {
      this.#indexFailed(error);
    }
    this.#compactor?.kick();
  }

  async #indexed(): Promise<void> {
    const { nextSequence } = this.#writer.position;
    await this.#writer.sync();
    while (this.#feed.indexedBefore < nextSequence && this.#writer.failure === undefined) await this.#feed.flush();
  }

  #checkpointHere(): Checkpoint {
    // Between batches, so that no late record is counted before it is there.
    this.#writer.closeBatch();
    const { segment, offset, nextSequence } = this.#writer.position;
    this.#checkpointedBytes = this.#appender.appendedBytes;
    const segments = [...this.#segments.segments.values()].map(({ number, used, live, deletes }) => ({
      number,
      used,
      live,
      deletes,
    }));
    const { nextFileId } = this.#bodies;
    return {
      segment: segment.number,
      offset,
      nextSequence,
      nextFileId,
      digestScheme: this.digests.scheme.id,
      segments,
      looseFiles: this.#bodies.looseFiles(),
    };
  }

  /** For compaction: whether a segment is in no replay any more. */
  isCheckpointed(segment: Segment): boolean {
    return segment.number < this.#checkpointSegment;
  }

  /** For compaction: the present entry of a key, late changes not counted. */
  liveEntry(key: Uint8Array): LiveEntry | undefined {
    return this.#table.live(key, nameOf(key));
  }

  /** For compaction: writes the key's present entry anew, see LogAppender. */
  move(key: Uint8Array, live: LiveEntry, body: Uint8Array | undefined): void {
    this.#appender.move(key, live, this.#reader.valueNow(live), body);
  }

  /** For compaction: takes a delete along. Requires: the key is absent in this turn. */
  carryDelete(key: Uint8Array, firstSequence: number): void {
    this.#appender.carryDelete(key, firstSequence);
  }

  figures(): DeviceFigures {
    const recovered = this.#recovered;
    const store = this.#segments.figures();
    const { failure } = this.#writer;
    return {
      ...store,
      ...(this.#compactor?.figures() ?? { movedBytes: 0, recycledSegments: 0 }),
      isFull: this.#segments.isShort ? 1 : 0,
      isFailed: failure === undefined ? 0 : 1,
      isReadOnly: failure?.code === "device-read-only" ? 1 : 0,
      amplification: store.usedBytes / Math.max(1, store.liveBytes + store.deleteBytes),
      records: this.#appender.recordCount,
      batches: this.#writer.batchCount,
      overlayEntries: this.#table.unindexedCount,
      heldCommits: this.#pushback.heldCount,
      damagedReads: this.#table.damagedReads,
      ...this.#indexFigures(),
      areDigestsCertain: this.digests.isCertain ? 1 : 0,
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
    this.#pushback.close();
    await this.#compactor?.stop();
    await this.#digestCount.close();
    await this.#checkpointing;
    await this.#writer.sync().catch(() => {});
    await this.#writer.settled();
    await this.#feed.flush();
    await Promise.all(this.#removals);
    await this.checkpoint();
    await this.#resources[Symbol.asyncDispose]();
  }
}
