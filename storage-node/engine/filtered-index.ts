import { AssertionError } from "node:assert/strict";
import { codeOf } from "../../common/errors.ts";
import type { Disk } from "../../common/disk.ts";
import { BackgroundPause } from "./background-pause.ts";
import type { EngineTimer } from "./engine-timer.ts";
import { FilterFiles } from "./filter-files.ts";
import { BEFORE_ALL, BEHIND_ALL, type Index, type IndexOperation, type OpenIndex } from "./index-port.ts";
import { type FilterLayer, type FilterSize, KeyFilter } from "./key-filter.ts";
import { type FilterStamp, readStamp, stampCheckpoint } from "./key-filter-format.ts";
import type { DevicePaths } from "./paths.ts";

/** A scan goes on with so many entries at once. */
const SCAN_ENTRIES = 1000;
/** Between two of those, so that requests come first. */
const SCAN_PAUSE_MS = 2;
/** After a scan that failed: doubles from the first to the last. */
const RETRY_FIRST_MS = 1000;
const RETRY_LAST_MS = 60_000;
/** More layers than that hold 270 million keys, take 512 MiB, and cost more to ask than LevelDB: then there is no filter. */
const MAX_LAYERS = 72;

/** `isKeyFilterReady`: 0 while every question is asked, 1 while the filter answers. */
export type KeyFilterFigures = {
  readonly isKeyFilterReady: number;
  readonly keyFilterKeys: number;
  /** By the scan under way. */
  readonly keyFilterScannedKeys: number;
  /** Since the device was opened. */
  readonly keyFilterFailedScans: number;
};

export type FilterParts = {
  readonly disk: Disk;
  readonly paths: DevicePaths;
  readonly deviceSeed: bigint;
  readonly timer: EngineTimer;
  readonly size: FilterSize;
  /** A number of 32 bits. */
  readonly random: () => number;
  /** Free space that the filter leaves alone. */
  readonly reservedBytes: number | undefined;
};

/**
 * An index that is not asked for keys it never had.
 *
 * LevelDB answers for an absent key from its bloom filters too, but counts the question: a table that was asked in vain once per
 * 16 KiB is compacted into the next level, some ten times as much. Two million new keys, each looked up before its put, had it
 * write 5.1 GB instead of 2.1 and go at 31,000 keys a second instead of 81,000.
 *
 * The filter is saved before each checkpoint, which names it: so it knows every key that the index had then. What came later is
 * replayed from the log; where the log has lost something, `distrust` is called. A filter that is missing, damaged or distrusted is
 * made anew by a scan of the index, and until that is done every question is asked. So is one that has to grow while it remembers more
 * deleted keys than others.
 */
export class FilteredIndex implements Index {
  readonly #inner: Index;
  readonly #files: FilterFiles;
  readonly #pauses: BackgroundPause;
  readonly #size: FilterSize;
  readonly #random: () => number;
  /** Undefined while nothing is known. */
  #filter: KeyFilter | undefined;
  /** The one that a scan is filling. */
  #next: KeyFilter | undefined;
  #refilling: Promise<void> | undefined;
  /** Settles when every write so far has. */
  #written: Promise<unknown> = Promise.resolve();
  #removedCount = 0;
  #scannedKeys = 0;
  #failedScans = 0;
  #isClosed = false;

  private constructor(inner: Index, files: FilterFiles, { timer, size, random }: FilterParts) {
    this.#inner = inner;
    this.#files = files;
    this.#pauses = new BackgroundPause(timer);
    this.#size = size;
    this.#random = random;
  }

  /** Opens an index with its filter. Errors: those of `openInner`, and of the disk. */
  static async open(openInner: OpenIndex, parts: FilterParts, fresh: boolean): Promise<FilteredIndex> {
    const { disk, paths, deviceSeed, reservedBytes } = parts;
    const files = new FilterFiles(disk, paths, deviceSeed, reservedBytes);
    const inner = await openInner(paths.index, fresh);
    try {
      const index = new FilteredIndex(inner, files, parts);
      const stored = inner.readCheckpoint();
      const stamp = stored === undefined ? undefined : readStamp(stored).stamp;
      const layers = stamp === undefined ? undefined : await files.load(stamp);
      if (fresh) index.#begin(parts.random(), []);
      else if (stamp === undefined || layers === undefined) index.refill();
      else index.#begin(stamp.life, layers);
      return index;
    } catch (error) {
      await inner.close();
      throw error;
    }
  }

  /** Requires: `layers` know every key of the index, but for those that recovery is about to replay. */
  #begin(life: number, layers: readonly FilterLayer[]): void {
    this.#filter = new KeyFilter(this.#size, life, layers);
  }

  /** The index may have keys that neither the filter nor the log tells of: every question is asked until a scan has made it anew. */
  distrust(): void {
    this.#filter = undefined;
    this.refill();
  }

  /** Makes the filter anew from a scan of the index, in the background. */
  refill(): void {
    this.#refilling ??= this.#runRefill().finally(() => {
      this.#refilling = undefined;
    });
  }

  /** An index that cannot be read says so to those who need what is in it; here the scan is tried again, since without the filter new keys cost much. */
  async #runRefill(): Promise<void> {
    for (let waitMs = RETRY_FIRST_MS; !this.#isClosed; waitMs = Math.min(RETRY_LAST_MS, waitMs * 2)) {
      try {
        return await this.#scanOnce();
      } catch (error) {
        if (error instanceof AssertionError) throw error;
        this.#failedScans++;
      }
      await this.#pauses.pause(waitMs);
    }
  }

  async #scanOnce(): Promise<void> {
    const next = new KeyFilter(this.#size, this.#random());
    this.#removedCount = 0;
    this.#scannedKeys = 0;
    // What is written from here on is added to it as well; what is on its way is in the index when the scan begins.
    this.#next = next;
    try {
      await this.#written;
      if (await this.#addAll(next)) this.#filter = next;
    } finally {
      this.#next = undefined;
    }
  }

  /** False where it was cut short. */
  async #addAll(filter: KeyFilter): Promise<boolean> {
    const cursor = this.#inner.cursor({ gte: BEFORE_ALL, lt: BEHIND_ALL, reverse: false });
    try {
      while (!this.#isClosed && filter.layers.length <= MAX_LAYERS) {
        const page = await cursor.next(SCAN_ENTRIES);
        if (page.length === 0) return true;
        for (const [key] of page) filter.add(key);
        this.#scannedKeys += page.length;
        await this.#pauses.pause(SCAN_PAUSE_MS);
      }
      return false;
    } finally {
      await cursor.close();
    }
  }

  get(key: Uint8Array): Uint8Array | undefined {
    return this.#filter?.mayHave(key) === false ? undefined : this.#inner.get(key);
  }

  write(operations: IndexOperation[]): Promise<void> {
    const layersBefore = this.#filter?.layers.length ?? 0;
    for (const operation of operations) {
      if (operation.type === "del") {
        this.#removedCount++;
        continue;
      }
      this.#filter?.add(operation.key);
      this.#next?.add(operation.key);
    }
    const written = this.#inner.write(operations);
    this.#written = Promise.allSettled([this.#written, written]);
    const layers = this.#filter?.layers.length ?? 0;
    if (layers > MAX_LAYERS) this.#filter = undefined;
    else if (layers > layersBefore && this.#removedCount * 2 > (this.#filter?.count ?? 0)) this.refill();
    return written;
  }

  async checkpoint(checkpoint: Uint8Array): Promise<void> {
    const filter = this.#filter;
    let stamp: FilterStamp | undefined;
    try {
      stamp = filter === undefined ? undefined : await this.#files.save(filter.life, filter.layers);
    } catch (error) {
      // A full device goes without: its next opening scans the index.
      if (codeOf(error) !== "ENOSPC" && codeOf(error) !== "EDQUOT") throw error;
    }
    await this.#inner.checkpoint(stamp === undefined ? checkpoint : stampCheckpoint(stamp, checkpoint));
    // Those of an earlier filter, which no durable checkpoint names any more.
    if (stamp !== undefined) await this.#files.removeOthers(stamp);
  }

  readCheckpoint(): Uint8Array | undefined {
    const stored = this.#inner.readCheckpoint();
    return stored === undefined ? undefined : readStamp(stored).checkpoint;
  }

  cursor(range: Parameters<Index["cursor"]>[0]): ReturnType<Index["cursor"]> {
    return this.#inner.cursor(range);
  }

  /** Of the filter; how many keys are left to scan LevelDB cannot tell. */
  figures(): KeyFilterFigures {
    return {
      isKeyFilterReady: this.#filter === undefined ? 0 : 1,
      keyFilterKeys: this.#filter?.count ?? 0,
      keyFilterScannedKeys: this.#refilling === undefined ? 0 : this.#scannedKeys,
      keyFilterFailedScans: this.#failedScans,
    };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#pauses.end();
    await this.#refilling;
    await this.#inner.close();
  }
}
