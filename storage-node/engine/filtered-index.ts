import { codeOf } from "../../common/errors.ts";
import type { Disk } from "../../common/disk.ts";
import type { EngineTimer } from "./engine-timer.ts";
import { FilterFiles } from "./filter-files.ts";
import type { Index, IndexOperation, OpenIndex } from "./index-port.ts";
import { type FilterSize, KeyFilter } from "./key-filter.ts";
import { readStamp, stampCheckpoint } from "./key-filter-format.ts";
import type { DevicePaths } from "./paths.ts";

const PAGE_ENTRIES = 1000;
/** Between two pages of a scan, so that requests come first. */
const PAGE_PAUSE_MS = 2;
const BEFORE_ALL = new Uint8Array(0);
const BEHIND_ALL = new Uint8Array(4200).fill(0xff);

export type FilterParts = {
  readonly disk: Disk;
  readonly paths: DevicePaths;
  readonly deviceSeed: bigint;
  readonly timer: EngineTimer;
  readonly size: FilterSize;
};

/**
 * An index that is not asked for keys it never had.
 *
 * LevelDB answers for an absent key from its bloom filters too, but counts the question: a table that was asked in vain once per
 * 16 KiB is compacted into the next level, some ten times as much. Two million new keys, each looked up before its put, had it
 * write 5.1 GB instead of 2.1 and go at 31,000 keys a second instead of 81,000.
 *
 * The filter is saved before each checkpoint, so that it knows every key that the index may have before it; what came later is
 * replayed from the log. Where it is missing or damaged the index is scanned once; until then every question is asked. It is made anew
 * in the same way when more than half of its keys are gone.
 */
export const filteredIndex =
  (openInner: OpenIndex, parts: FilterParts): OpenIndex =>
  async (path, fresh) => {
    const files = new FilterFiles(parts.disk, parts.paths, parts.deviceSeed);
    // An index made anew numbers its layers anew.
    if (fresh) await files.removeOthers(new Set());
    const inner = await openInner(path, fresh);
    try {
      const stored = inner.readCheckpoint();
      const stamps = stored === undefined ? [] : readStamp(stored).layers;
      const layers = await files.load(stamps);
      const index = new FilteredIndex(inner, files, parts, await files.unusedNumber());
      if (layers === undefined || (layers.length === 0 && !fresh)) index.refill();
      else index.begin(layers);
      return index;
    } catch (error) {
      await inner.close();
      throw error;
    }
  };

class FilteredIndex implements Index {
  readonly #inner: Index;
  readonly #files: FilterFiles;
  readonly #timer: EngineTimer;
  readonly #size: FilterSize;
  readonly #takeNumber: () => number;
  /** Undefined while nothing is known. */
  #filter: KeyFilter | undefined;
  /** The one that a scan is filling. */
  #next: KeyFilter | undefined;
  #refilling: Promise<void> | undefined;
  #endPause: () => void = () => {};
  /** Settles when every write so far has. */
  #written: Promise<unknown> = Promise.resolve();
  #removedCount = 0;
  #isClosed = false;

  constructor(inner: Index, files: FilterFiles, { timer, size }: FilterParts, firstNumber: number) {
    this.#inner = inner;
    this.#files = files;
    this.#timer = timer;
    this.#size = size;
    let number = firstNumber;
    this.#takeNumber = () => number++;
  }

  /** Requires: `layers` know every key of the index, but for those that recovery is about to replay. */
  begin(layers: ConstructorParameters<typeof KeyFilter>[1]): void {
    this.#filter = new KeyFilter(this.#size, layers, this.#takeNumber);
  }

  /** Makes the filter anew from a scan of the index, in the background. */
  refill(): void {
    this.#refilling ??= this.#runRefill().finally(() => {
      this.#refilling = undefined;
    });
  }

  async #runRefill(): Promise<void> {
    const next = new KeyFilter(this.#size, [], this.#takeNumber);
    this.#removedCount = 0;
    // What is written from here on is added to it as well; what is on its way is in the index when the scan begins.
    this.#next = next;
    await this.#written;
    const cursor = this.#inner.cursor({ gte: BEFORE_ALL, lt: BEHIND_ALL, reverse: false });
    try {
      while (!this.#isClosed) {
        const page = await cursor.next(PAGE_ENTRIES);
        for (const [key] of page) next.add(key);
        if (page.length === 0) {
          this.#filter = next;
          return;
        }
        await this.#pause();
      }
    } catch {
      // An index that cannot be read says so to those who need what is in it.
    } finally {
      this.#next = undefined;
      await cursor.close();
    }
  }

  /** Ends with the index as well: the timer keeps no process alive. */
  #pause(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#endPause = resolve;
    if (this.#isClosed) resolve();
    else this.#timer.after(PAGE_PAUSE_MS, resolve);
    return promise;
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
    const filter = this.#filter;
    if (filter !== undefined && filter.layers.length > layersBefore && this.#removedCount * 2 > filter.count)
      this.refill();
    return written;
  }

  async checkpoint(checkpoint: Uint8Array): Promise<void> {
    const layers = this.#filter?.layers ?? [];
    let stamps: { number: number; count: number }[] = [];
    try {
      stamps = await this.#files.save(layers);
    } catch (error) {
      // A full device goes without: its next opening scans the index.
      if (codeOf(error) !== "ENOSPC" && codeOf(error) !== "EDQUOT") throw error;
    }
    await this.#inner.checkpoint(stampCheckpoint(stamps, checkpoint));
    // Those of an earlier filter, which no durable checkpoint names any more.
    if (stamps.length > 0) await this.#files.removeOthers(new Set(stamps.map(({ number }) => number)));
  }

  readCheckpoint(): Uint8Array | undefined {
    const stored = this.#inner.readCheckpoint();
    return stored === undefined ? undefined : readStamp(stored).checkpoint;
  }

  cursor(range: Parameters<Index["cursor"]>[0]): ReturnType<Index["cursor"]> {
    return this.#inner.cursor(range);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#endPause();
    await this.#refilling;
    await this.#inner.close();
  }
}
