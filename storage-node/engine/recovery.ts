import type { Disk } from "../../common/disk.ts";
import {
  BODY_ELSEWHERE,
  BODY_FILE,
  BODY_HERE,
  FLAG_COMMIT_END,
  KIND_DELETE,
  RECORD_HEAD_BYTES,
  type RecordFields,
  SEGMENT_DATA_START,
  bodySpace,
  bodyStartOf,
} from "./format.ts";
import { IndexLoader, type RunSize } from "./index-loader.ts";
import { BEFORE_ALL, BEHIND_ALL, type Index, type IndexOperation } from "./index-port.ts";
import {
  type Checkpoint,
  type LiveEntry,
  MAX_INLINE_VALUE_BYTES,
  decodeLiveEntry,
  encodeLiveEntry,
} from "./index-format.ts";
import { type DigestScheme, DigestTable } from "./digest-table.ts";
import { type DevicePaths, fileIdOfName } from "./paths.ts";
import { SegmentReader } from "./segment-reader.ts";
import type { Segment, SegmentStore } from "./segment-store.ts";

const OPERATIONS_PER_WRITE = 4096;
const PAGE_ENTRIES = 4096;
const ZEROS = new Uint8Array(1024 * 1024);
const freedDigest = new BigUint64Array(1);
const freedDigestHalves = new Uint32Array(freedDigest.buffer);

/** What recovery found, for the figures and the log. */
export type RecoveryReport = {
  /** Undefined on an empty device. */
  head: { segment: Segment; offset: number } | undefined;
  nextSequence: number;
  nextFileId: number;
  replayedRecords: number;
  replayedBytes: number;
  /** Something behind the checkpoint was not replayed: a damaged range, a cut, a segment. */
  hasHoles: boolean;
  /** Damaged ranges in the middle of the log. */
  quarantinedRanges: number;
  quarantinedBytes: number;
  /** Bytes of torn tail with valid records in them that were wiped. */
  cutRecords: number;
  removedFiles: number;
};

type Place = { segment: Segment; offset: number };

/**
 * Brings the index up to the end of the log, and finds that end.
 *
 *     read ──valid, next in sequence──▶ collect ──last of its commit──▶ index
 *      │ invalid
 *      ├─ nothing valid behind ─────────────────────────▶ the end
 *      ├─ a later batch behind (so this was synced) ────▶ quarantine, go on behind the hole
 *      └─ only records of the same batch behind ────────▶ torn: cut here, wipe what is behind
 */
export class Recovery {
  readonly #disk: Disk;
  readonly #paths: DevicePaths;
  readonly #store: SegmentStore;
  readonly #index: Index;
  readonly #checkpoint: Checkpoint | undefined;
  /** Of an index that is made anew. */
  readonly #loader: IndexLoader | undefined;
  readonly #report: RecoveryReport;
  readonly #scheme: DigestScheme;
  #digests: DigestTable | undefined;
  #operations: IndexOperation[] = [];
  /** Of the operations before those: the index is written while the log is read on. */
  #writing: Promise<void> = Promise.resolve();
  readonly #committedFiles = new Set<number>();
  readonly #condemnedFiles = new Set<number>();
  /** Records of a commit whose end has not come yet. */
  #partial: (() => void)[] = [];
  #partialStart: Place | undefined;
  #expected: number | undefined;

  constructor(
    disk: Disk,
    paths: DevicePaths,
    store: SegmentStore,
    index: Index,
    checkpoint: Checkpoint | undefined,
    runSize: RunSize,
    scheme: DigestScheme,
    /** As they were at the checkpoint; undefined where nobody knows. */
    digests: DigestTable | undefined,
  ) {
    this.#scheme = scheme;
    this.#digests = digests;
    this.#disk = disk;
    this.#paths = paths;
    this.#store = store;
    this.#index = index;
    this.#checkpoint = checkpoint;
    this.#expected = checkpoint?.nextSequence;
    if (checkpoint === undefined) this.#loader = new IndexLoader({ disk, ...paths }, index, runSize);
    this.#report = {
      head: undefined,
      nextSequence: checkpoint?.nextSequence ?? 1,
      nextFileId: checkpoint?.nextFileId ?? 1,
      replayedRecords: 0,
      replayedBytes: 0,
      hasHoles: false,
      quarantinedRanges: 0,
      quarantinedBytes: 0,
      cutRecords: 0,
      removedFiles: 0,
    };
  }

  /** The digests of what was recovered; in doubt where somebody has to count them. Requires: `run` has ended. */
  digests(): DigestTable {
    const digests = this.#digests ?? new DigestTable(this.#scheme);
    // What a hole has swallowed is in no account; an index made anew was counted as it is.
    if (this.#digests === undefined || (this.#loader === undefined && this.#report.hasHoles)) digests.doubt();
    return digests;
  }

  /** Requires: the store's headers are loaded; without a checkpoint the index is empty. */
  async run(): Promise<RecoveryReport> {
    for (const figures of this.#checkpoint?.segments ?? []) {
      const segment = this.#store.segments.get(figures.number);
      if (segment === undefined) continue;
      segment.used = figures.used;
      segment.live = figures.live;
      segment.deletes = figures.deletes;
    }
    // Runs of a rebuild that was killed would take the room of this one's.
    await this.#disk.unlink(this.#paths.runs);
    await using loader = this.#loader;
    try {
      await this.#replay();
      await this.#flush();
      await this.#writing;
    } finally {
      // Nothing is closed under a write.
      await this.#writing.catch(() => {});
    }
    this.#report.hasHoles ||= this.#report.quarantinedRanges > 0 || this.#report.cutRecords > 0;
    this.#report.nextSequence = this.#expected ?? 1;
    if (loader !== undefined) await this.#finishIndex(loader);
    await this.#removeFiles();
    return this.#report;
  }

  async #replay(): Promise<void> {
    const from = this.#checkpoint;
    const segments = [...this.#store.segments.values()]
      .filter((segment) => from === undefined || segment.number >= from.segment)
      .toSorted((left, right) => left.number - right.number);
    const reader = this.#readerOf(segments[0]);
    if (reader === undefined) return;
    for (let at = 0; at < segments.length; at++) {
      const segment = segments[at];
      if (segment?.slot === undefined) continue;
      reader.turnTo(segment.slot.file, segment.seed, this.#store.segmentBytes);
      // Segments between that compaction recycled took their sequence numbers along.
      // The first batch of all may be torn as well, so what is expected is known there too.
      if (segments[at - 1]?.number !== segment.number - 1 && (at > 0 || from === undefined)) {
        // Behind a checkpoint nothing is recycled.
        this.#report.hasHoles ||= from !== undefined;
        this.#commit();
        this.#expected = segment.firstSequence;
      }
      const start = segment.number === from?.segment ? from.offset : SEGMENT_DATA_START;
      const cut = await this.#replaySegment(reader, segment, start, segments.slice(at + 1));
      if (!cut) continue;
      // What was behind the cut was never acknowledged; nothing of it may ever be replayed.
      for (const later of segments.slice(at + 1)) await this.#store.release(later);
      break;
    }
    const partial = this.#partialStart;
    if (partial !== undefined) {
      this.#report.cutRecords += this.#partial.length;
      this.#expected = (this.#expected ?? 1) - this.#partial.length;
      partial.segment.used = partial.offset;
      for (const later of segments) {
        if (later.number > partial.segment.number && this.#store.segments.has(later.number))
          await this.#store.release(later);
      }
      this.#report.head = { segment: partial.segment, offset: partial.offset };
      await this.#wipe(partial.segment, partial.offset);
    }
  }

  #readerOf(segment: Segment | undefined): SegmentReader | undefined {
    if (segment?.slot === undefined) return undefined;
    return new SegmentReader(segment.slot.file, segment.seed, this.#store.segmentBytes);
  }

  /** True when the log was cut in this segment. */
  async #replaySegment(reader: SegmentReader, segment: Segment, start: number, later: Segment[]): Promise<boolean> {
    let offset = start;
    for (;;) {
      const size = await reader.read(offset);
      if (size > 0 && (this.#expected === undefined || reader.fields.sequence === this.#expected)) {
        this.#take(reader, segment, offset, size);
        offset += size;
        if (this.#operations.length >= OPERATIONS_PER_WRITE) await this.#flush();
        continue;
      }
      segment.used = offset;
      this.#report.head = { segment, offset };
      const expected = this.#expected ?? segment.firstSequence;
      const found = await reader.find(offset);
      if (found === undefined) return false;
      const next = reader.fields.sequence;
      if (!(await this.#isBehindSync(reader, found, expected, later))) {
        this.#report.cutRecords++;
        if (this.#partialStart === undefined) await this.#wipe(segment, offset);
        return true;
      }
      this.#report.quarantinedRanges++;
      this.#report.quarantinedBytes += found - offset;
      // What came before the hole of a commit that was acknowledged is kept: its missing part is healed from peers.
      this.#commit();
      this.#expected = next;
      offset = found;
    }
  }

  /** Whether a record at or behind `found` begins a batch behind the hole, which proves that the hole had been synced. */
  async #isBehindSync(reader: SegmentReader, found: number, expected: number, later: Segment[]): Promise<boolean> {
    let at: number | undefined = found;
    const file = reader;
    // `read` again, because looking further moves the reader's fields.
    while (at !== undefined) {
      const size = await file.read(at);
      if (size > 0 && file.fields.batchFirst > expected) return true;
      at = await file.find(at + Math.max(size, RECORD_HEAD_BYTES));
    }
    for (const segment of later) {
      const other = this.#readerOf(segment);
      const first = await other?.find(SEGMENT_DATA_START);
      if (first !== undefined && other !== undefined && other.fields.batchFirst > expected) return true;
    }
    return false;
  }

  #take(reader: SegmentReader, segment: Segment, offset: number, size: number): void {
    const { fields } = reader;
    const { bytes } = reader.region;
    const keyAt = reader.at + RECORD_HEAD_BYTES;
    const isInline = fields.valueLength <= MAX_INLINE_VALUE_BYTES;
    const keyEnd = keyAt + fields.keyLength;
    const digest = this.#digestOf(
      fields,
      bytes.subarray(keyAt, keyEnd),
      bytes.subarray(keyEnd, keyEnd + fields.valueLength),
    );
    // One piece of pooled memory for both: two slices cost a fifth of all that a rebuild costs.
    const kept = Buffer.allocUnsafe(fields.keyLength + (isInline ? fields.valueLength : 0));
    kept.set(bytes.subarray(keyAt, keyAt + kept.length));
    const key = kept.subarray(0, fields.keyLength);
    const value = isInline ? kept.subarray(fields.keyLength) : undefined;
    this.#expected = fields.sequence + 1;
    this.#report.replayedRecords++;
    this.#report.replayedBytes += size;
    segment.used = offset + size;
    this.#report.head = { segment, offset: offset + size };
    const isEnd = (fields.flags & FLAG_COMMIT_END) !== 0;
    if (isEnd && this.#partial.length === 0) {
      this.#perform(segment, offset, size, fields, key, value, digest);
      return;
    }
    const fieldsNow = { ...fields };
    this.#partialStart ??= { segment, offset };
    this.#partial.push(() => this.#perform(segment, offset, size, fieldsNow, key, value, digest));
    if (isEnd) this.#commit();
  }

  #commit(): void {
    for (const perform of this.#partial) perform();
    this.#partial = [];
    this.#partialStart = undefined;
  }

  #perform(
    segment: Segment,
    offset: number,
    size: number,
    fields: RecordFields,
    key: Uint8Array,
    value: Uint8Array | undefined,
    digest: bigint | undefined,
  ): void {
    this.#free(fields.freedRecordSegment, fields.freedRecordBytes);
    this.#free(fields.freedBodySegment, fields.freedBodyBytes);
    if (fields.freedFile !== 0) this.#condemnedFiles.add(fields.freedFile);
    // An id is never used twice: a record of its earlier file would condemn the later one.
    const fileId = Math.max(fields.freedFile, fields.bodyKind === BODY_FILE ? fields.bodyOffset : 0);
    this.#report.nextFileId = Math.max(this.#report.nextFileId, fileId + 1);
    this.#account(fields, key, digest);
    if (fields.kind === KIND_DELETE) {
      segment.deletes += size;
      this.#operations.push({ type: "del", key });
      return;
    }
    segment.live += size;
    if (fields.bodyKind === BODY_FILE) this.#committedFiles.add(fields.bodyOffset);
    const entry = entryOf(segment.number, offset, size, fields, value, digest ?? 0n);
    this.#operations.push({ type: "put", key, value: encodeLiveEntry(entry) });
  }

  /** Undefined for what is not counted, and for a delete. */
  #digestOf(fields: RecordFields, key: Uint8Array, value: Uint8Array): bigint | undefined {
    if (fields.kind === KIND_DELETE || this.#scheme.bucketOf(key) < 0) return undefined;
    return this.#scheme.digestOf(key, value);
  }

  /** As the writer of the record did; where the index is made anew all is counted at its end. */
  #account(fields: RecordFields, key: Uint8Array, digest: bigint | undefined): void {
    if (this.#loader !== undefined || this.#digests === undefined) return;
    freedDigestHalves[0] = fields.freedDigestLow;
    freedDigestHalves[1] = fields.freedDigestHigh;
    const freed = fields.freedRecordSegment === 0 ? undefined : freedDigest[0];
    this.#digests.replace(this.#scheme.bucketOf(key), freed, digest);
  }

  #free(number: number, bytes: number): void {
    const segment = this.#store.segments.get(number);
    if (segment !== undefined) segment.live -= bytes;
  }

  /** Hands what was collected to the index; waits for what was handed over before. */
  async #flush(): Promise<void> {
    if (this.#operations.length === 0) return;
    const operations = this.#operations;
    this.#operations = [];
    await this.#writing;
    this.#writing = (this.#loader ?? this.#index).write(operations);
    // Its failure shows with the next one.
    this.#writing.catch(() => {});
  }

  /** Zeroes a segment from `offset` on. */
  async #wipe(segment: Segment, offset: number): Promise<void> {
    const file = segment.slot?.file;
    if (file === undefined) return;
    for (let at = offset; at < this.#store.segmentBytes; at += ZEROS.length) {
      await file.write(ZEROS.subarray(0, Math.min(ZEROS.length, this.#store.segmentBytes - at)), at);
    }
    await file.sync();
  }

  /** Counts what lives from the index itself: after a rebuild the records' own accounts may name segments that are gone. */
  async #finishIndex(loader: IndexLoader): Promise<void> {
    for (const segment of this.#store.segments.values()) segment.live = 0;
    this.#committedFiles.clear();
    let digests = new DigestTable(this.#scheme);
    const countValue = (key: Uint8Array, value: Uint8Array): void => {
      const entry = decodeLiveEntry(value);
      if (entry === undefined) return;
      this.#count(entry);
      digests.replace(this.#scheme.bucketOf(key), undefined, entry.digest);
    };
    this.#digests = digests;
    if (await loader.finish(countValue)) return;
    digests = new DigestTable(this.#scheme);
    this.#digests = digests;
    const cursor = this.#index.cursor({ gte: BEFORE_ALL, lt: BEHIND_ALL, reverse: false });
    try {
      for (let page = await cursor.next(PAGE_ENTRIES); page.length > 0; page = await cursor.next(PAGE_ENTRIES))
        for (const [key, value] of page) if (key.length > 0) countValue(key, value);
    } finally {
      await cursor.close();
    }
  }

  #count(entry: LiveEntry): void {
    this.#free(entry.segment, -entry.size);
    if (entry.bodyKind === BODY_ELSEWHERE && !bodyIsInside(entry))
      this.#free(entry.bodySegment, -bodySpace(entry.bodyLength));
    if (entry.bodyKind === BODY_FILE) this.#committedFiles.add(entry.bodyOffset);
  }

  /** Removes staged files that no commit names, and superseded ones. */
  async #removeFiles(): Promise<void> {
    const report = this.#report;
    const loose = new Set(this.#checkpoint?.looseFiles);
    const firstNew = this.#checkpoint?.nextFileId ?? 0;
    for (const name of await this.#disk.list(this.#paths.large)) {
      const fileId = fileIdOfName(name);
      if (fileId === undefined) continue;
      report.nextFileId = Math.max(report.nextFileId, fileId + 1);
      const isCandidate = loose.has(fileId) || fileId >= firstNew;
      const isOrphan = isCandidate && !this.#committedFiles.has(fileId);
      // Where records are missing, one of them may have named the file: leave it to the scrubber.
      if ((isOrphan && report.quarantinedRanges > 0) || !(isOrphan || this.#condemnedFiles.has(fileId))) continue;
      await this.#disk.unlink(this.#paths.body(fileId));
      report.removedFiles++;
    }
  }
}

/** Whether an entry's body lies in its own record. */
export const bodyIsInside = (entry: LiveEntry): boolean =>
  entry.bodySegment === entry.segment &&
  entry.bodyOffset > entry.offset &&
  entry.bodyOffset < entry.offset + entry.size;

/** The entry that a put record makes. */
export const entryOf = (
  segment: number,
  offset: number,
  size: number,
  fields: RecordFields,
  value: Uint8Array | undefined,
  digest: bigint,
): LiveEntry => {
  const isHere = fields.bodyKind === BODY_HERE;
  return {
    segment,
    offset,
    size,
    keyLength: fields.keyLength,
    valueLength: fields.valueLength,
    value,
    bodyKind: isHere ? BODY_ELSEWHERE : fields.bodyKind,
    bodySegment: isHere ? segment : fields.bodySegment,
    bodyOffset: isHere ? offset + bodyStartOf(fields.keyLength, fields.valueLength) : fields.bodyOffset,
    bodyLength: fields.bodyLength,
    digest,
  };
};
