import {
  BODY_ELSEWHERE,
  BODY_HERE,
  KIND_DELETE,
  RECORD_HEAD_BYTES,
  SEGMENT_DATA_START,
  bodyStartOf,
} from "./format.ts";
import type { LiveEntry } from "./index-format.ts";
import { SegmentReader } from "./segment-reader.ts";
import type { Segment, SegmentStore } from "./segment-store.ts";

/** Log bytes per live byte above which the segment with the least live share is emptied. */
const COMPACT_ABOVE = 1.3;
/** Deletes may make up this share of the log before the oldest segment, whose deletes can be dropped, is emptied for them. */
const DELETE_SHARE = 0.1;
/** Segments emptied before they are recycled together. */
const MAX_EMPTIED = 8;
/** A segment with more living in it is not worth its moving. */
const MAX_VICTIM_SHARE = 0.8;
/** Moved between two waits for the disk: the pace, one such piece sharing each batch with the foreground. */
const PIECE_BYTES = 256 * 1024;
/** The piece where space runs away: emptying must win against any foreground before MUST_WIN_ABOVE log bytes per live byte. */
const MAX_PIECE_BYTES = 4 * 1024 * 1024;
const MUST_WIN_ABOVE = 1.36;
const RECORDS_PER_TURN = 128;

/** Figures of compaction since the device was opened. */
export type CompactorFigures = { readonly movedBytes: number; readonly recycledSegments: number };

/** What compaction needs of the device. */
export type CompactionTarget = {
  /** Whether a segment is in no replay any more. */
  isCheckpointed(segment: Segment): boolean;
  liveEntry(key: Uint8Array): LiveEntry | undefined;
  move(key: Uint8Array, live: LiveEntry, body: Uint8Array | undefined): void;
  carryDelete(key: Uint8Array, firstSequence: number): void;
  sync(): Promise<void>;
};

/**
 * Keeps space amplification bounded: takes the segment with the least live share, writes what lives anew at the head of the log,
 * and recycles it. Runs after each checkpoint; segments that recovery would still replay are left alone.
 *
 * Rejected: emptying in order of age (a log as a ring), which moves cold data again and again.
 */
export class Compactor {
  readonly #device: CompactionTarget;
  readonly #store: SegmentStore;
  #running: Promise<void> | undefined;
  #isStopped = false;
  /** Moved away from, and to be recycled after the next sync. */
  readonly #emptied = new Set<Segment>();
  #unsyncedBytes = 0;
  #movedBytes = 0;
  #recycledSegments = 0;

  constructor(device: CompactionTarget, store: SegmentStore) {
    this.#device = device;
    this.#store = store;
  }

  /** Looks for work, if it does not work already. */
  kick(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  figures(): CompactorFigures {
    return { movedBytes: this.#movedBytes, recycledSegments: this.#recycledSegments };
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    try {
      while (!this.#isStopped) {
        const victim = this.#choose();
        if (victim !== undefined) await this.#empty(victim);
        else if (this.#emptied.size === 0) break;
        // Several nearly empty segments share a sync.
        const isEnough = this.#unsyncedBytes >= this.#pieceBytes() || this.#emptied.size >= MAX_EMPTIED;
        // On a full device the moved bytes must not use up what is kept back for commits that free space.
        const isDue = isEnough || this.#store.isShort || victim === undefined;
        if (!this.#isStopped && isDue) await this.#recycle();
      }
    } catch {
      // The device is full or failed; its state says so, and the next checkpoint tries again.
    } finally {
      this.#emptied.clear();
    }
  }

  #choose(): Segment | undefined {
    const figures = this.#store.figures();
    const { liveBytes, deleteBytes } = figures;
    let { usedBytes } = figures;
    for (const segment of this.#emptied) usedBytes -= segment.used - SEGMENT_DATA_START;
    let oldest: Segment | undefined;
    let emptiest: Segment | undefined;
    let share = 1;
    for (const segment of this.#store.segments.values()) {
      if (oldest === undefined || segment.number < oldest.number) oldest = segment;
    }
    for (const segment of this.#store.segments.values()) {
      if (!this.#mayEmpty(segment)) continue;
      const kept = segment.live + (segment === oldest ? 0 : segment.deletes);
      const used = segment.used - SEGMENT_DATA_START;
      const own = used <= 0 ? 0 : kept / used;
      if (own < share) {
        share = own;
        emptiest = segment;
      }
    }
    if (share === 0) return emptiest;
    const isDeleteHeavy = deleteBytes > DELETE_SHARE * usedBytes + this.#store.segmentBytes;
    if (isDeleteHeavy && oldest !== undefined && this.#mayEmpty(oldest)) return oldest;
    const isWasteful = usedBytes > COMPACT_ABOVE * (liveBytes + deleteBytes) + this.#store.segmentBytes;
    return (isWasteful || this.#store.isShort) && share <= MAX_VICTIM_SHARE ? emptiest : undefined;
  }

  #mayEmpty(segment: Segment): boolean {
    if (this.#emptied.has(segment) || !this.#device.isCheckpointed(segment)) return false;
    return !segment.held || segment.live <= 0;
  }

  #pieceBytes(): number {
    const { usedBytes, liveBytes, deleteBytes } = this.#store.figures();
    const waste = usedBytes / Math.max(1, liveBytes + deleteBytes + this.#store.segmentBytes);
    const urgency = Math.max(0, Math.min(1, (waste - COMPACT_ABOVE) / (MUST_WIN_ABOVE - COMPACT_ABOVE)));
    return PIECE_BYTES + urgency * (MAX_PIECE_BYTES - PIECE_BYTES);
  }

  /** Moves away what lives in a segment. */
  async #empty(segment: Segment): Promise<void> {
    const file = segment.slot?.file;
    if (file === undefined) return;
    this.#emptied.add(segment);
    if (segment.live <= 0 && segment.deletes === 0) return;
    const reader = new SegmentReader(file, segment.seed, segment.used);
    const pieceBytes = this.#pieceBytes();
    let records = 0;
    for (let offset: number | undefined = SEGMENT_DATA_START; offset !== undefined && !this.#isStopped; ) {
      const size: number = await reader.read(offset);
      if (size === 0) {
        offset = await reader.find(offset + 8);
        continue;
      }
      this.#unsyncedBytes += this.#move(reader, segment, offset);
      offset += size;
      if (this.#unsyncedBytes >= pieceBytes) await this.#sync();
      else if (++records % RECORDS_PER_TURN === 0) await new Promise(setImmediate);
    }
  }

  async #sync(): Promise<void> {
    this.#movedBytes += this.#unsyncedBytes;
    this.#unsyncedBytes = 0;
    await this.#device.sync();
  }

  /** Recycles what was emptied; where something damaged has to stay, the segment is held. */
  async #recycle(): Promise<void> {
    const emptied = [...this.#emptied];
    // Also what the foreground superseded is to be durable before the old copies go.
    await this.#sync();
    await Promise.all(
      emptied.map(async (segment) => {
        if (segment.live > 0) segment.held = true;
        else {
          await this.#store.release(segment);
          this.#recycledSegments++;
        }
        this.#emptied.delete(segment);
      }),
    );
  }

  /** Writes anew what of the record at `offset` is still needed; returns about how many bytes that took. */
  #move(reader: SegmentReader, segment: Segment, offset: number): number {
    const { fields, region, at } = reader;
    const keyAt = at + RECORD_HEAD_BYTES;
    const key = region.bytes.subarray(keyAt, keyAt + fields.keyLength);
    const live = this.#device.liveEntry(key);
    if (fields.kind === KIND_DELETE) {
      if (live !== undefined || !this.#isNeeded(segment, fields.bodyOffset)) return 0;
      this.#device.carryDelete(key, fields.bodyOffset);
      return RECORD_HEAD_BYTES + key.length;
    }
    if (live === undefined) return 0;
    const bodyAt = bodyStartOf(fields.keyLength, fields.valueLength);
    const isBody =
      fields.bodyKind === BODY_HERE &&
      live.bodyKind === BODY_ELSEWHERE &&
      live.bodySegment === segment.number &&
      live.bodyOffset === offset + bodyAt;
    if (!isBody && (live.segment !== segment.number || live.offset !== offset)) return 0;
    const body = isBody ? region.bytes.subarray(at + bodyAt, at + bodyAt + fields.bodyLength) : undefined;
    this.#device.move(key, live, body);
    return live.size;
  }

  /** A delete is needed while another segment may hold an older put of its key. */
  #isNeeded(own: Segment, firstSequence: number): boolean {
    for (const segment of this.#store.segments.values()) {
      if (segment !== own && segment.firstSequence < firstSequence) return true;
    }
    return false;
  }
}
