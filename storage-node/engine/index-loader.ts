import assert from "node:assert/strict";
import type { Disk, DiskFile } from "../../common/disk.ts";
import { codeOf } from "../../common/errors.ts";
import { releaseMemory } from "../../common/release-memory.ts";
import type { Index, IndexOperation } from "./index-port.ts";
import { type Run, mergeRuns } from "./run-merge.ts";
import { MAX_RUN_KEYS, RunSort, packPlace } from "./run-sort.ts";
import { RUN_HEAD_BYTES, isDeletionAt, keyAt, keyPrefixAt, sizeAt, valueAt, writeRunEntry } from "./run-format.ts";

/** How much is sorted in memory at once: bytes, and keys, below 2^20. */
export type RunSize = { readonly bytes: number; readonly keys: number };

/** Some 30 MB with the numbers that are sorted; 100 runs for 20 million keys. */
export const defaultRunSize: RunSize = { bytes: 24 * 1024 * 1024, keys: 200_000 };

/** Of key and value of the longest entry, and more. */
const MIN_RUN_BYTES = 8192;
const OPERATIONS_PER_WRITE = 4096;
const WRITE_BYTES = 1024 * 1024;
/** Left free when runs are written, beside what the merge of them will take. */
const RESERVED_BYTES = 256 * 1024 * 1024;
/** What the index takes of the disk for each byte in runs. */
const INDEX_SHARE = 1.5;

type Seen = (key: Uint8Array, value: Uint8Array) => void;

/** What the loader needs of the device: a disk, the folder whose space counts, and a path for what does not fit into memory. */
export type LoaderPlace = { readonly disk: Disk; readonly root: string; readonly runs: string };

/**
 * Fills an empty index in the order of its keys, whatever the order in which they come; of each key the newest operation counts.
 *
 *     write ──▶ arena ──full: sorted──▶ run, run, run … in one file ──finish: merged──▶ index
 *
 * LevelDB takes keys in order at the price of one write; in random order it compacts them level by level, the more often the more there
 * are. Where the disk has no room for runs beside the index, what there is is merged, and the rest goes to the index as it comes.
 *
 * An entry costs two copies on its way into its run and one out of it, a place in a sort of doubles and a step of the merge, without a
 * string or an object of its own. Measured by `bench/device-at-size.ts`.
 */
export class IndexLoader implements AsyncDisposable {
  readonly #place: LoaderPlace;
  readonly #size: RunSize;
  readonly #index: Index;
  /** Made with the first entry, since most devices that are opened without an index are new, and given back with the last. */
  #arena: Buffer = Buffer.alloc(0);
  #offsets = new Uint32Array(0);
  #order = new Float64Array(0);
  #length = 0;
  #count = 0;
  #file: DiskFile | undefined;
  #fileLength = 0;
  readonly #runs: Run[] = [];
  #isDirect = false;

  /** Requires: the index is empty. */
  constructor(place: LoaderPlace, index: Index, size: RunSize) {
    assert(
      size.keys <= MAX_RUN_KEYS && size.bytes >= MIN_RUN_BYTES,
      "the longest entry fits into a run, its number into 20 bits",
    );
    this.#place = place;
    this.#index = index;
    this.#size = size;
  }

  #makeArena(): void {
    this.#arena = Buffer.allocUnsafeSlow(this.#size.bytes);
    this.#offsets = new Uint32Array(this.#size.keys);
    this.#order = new Float64Array(this.#size.keys);
  }

  /** Resolves when more may come. Requires: called again only then. */
  async write(operations: IndexOperation[]): Promise<void> {
    for (let at = 0; at < operations.length; at++) {
      if (this.#isDirect) return this.#index.write(operations.slice(at));
      const operation = operations[at];
      if (operation === undefined) continue;
      const value = operation.type === "put" ? operation.value : undefined;
      const size = RUN_HEAD_BYTES + operation.key.length + (value?.length ?? 0);
      if (this.#length + size > this.#size.bytes || this.#count >= this.#size.keys) {
        if (!(await this.#hasRoom()) || !(await this.#spill())) await this.#goDirect();
        at--;
        continue;
      }
      if (this.#arena.length === 0) this.#makeArena();
      writeRunEntry(this.#arena, this.#length, operation.key, value);
      this.#offsets[this.#count] = this.#length;
      this.#order[this.#count] = packPlace(keyPrefixAt(this.#arena, this.#length), this.#count);
      this.#count++;
      this.#length += size;
    }
  }

  async #hasRoom(): Promise<boolean> {
    const { disk, root } = this.#place;
    const runs = this.#fileLength + this.#length;
    return (await disk.freeBytes(root)) > this.#length + runs * INDEX_SHARE + RESERVED_BYTES;
  }

  /** Where the entries of the arena begin, in the order of their keys, of equal ones only the newest. */
  #sorted(): Promise<Uint32Array> {
    return new RunSort(this.#arena, this.#offsets, this.#order.subarray(0, this.#count)).sorted();
  }

  /** Writes the arena as one more run; false where the disk is full after all: a quota, or somebody else. The arena is then as it was. */
  async #spill(): Promise<boolean> {
    try {
      await this.#writeRun();
    } catch (error) {
      if (codeOf(error) !== "ENOSPC" && codeOf(error) !== "EDQUOT") throw error;
      return false;
    }
    this.#clear();
    return true;
  }

  async #writeRun(): Promise<void> {
    const { disk, runs } = this.#place;
    if (this.#file === undefined) {
      await disk.unlink(runs);
      this.#file = await disk.open(runs, "create");
    }
    const start = this.#fileLength;
    const out = Buffer.allocUnsafeSlow(Math.min(WRITE_BYTES, this.#size.bytes));
    let length = 0;
    for (const offset of await this.#sorted()) {
      const size = sizeAt(this.#arena, offset);
      if (length + size > out.length) {
        await this.#file.write(out.subarray(0, length), this.#fileLength);
        this.#fileLength += length;
        length = 0;
      }
      this.#arena.copy(out, length, offset, offset + size);
      length += size;
    }
    await this.#file.write(out.subarray(0, length), this.#fileLength);
    this.#fileLength += length;
    this.#runs.push({ file: this.#file, start, end: this.#fileLength });
  }

  #clear(): void {
    this.#length = 0;
    this.#count = 0;
  }

  /** Nothing more comes into it. Requires: what was in it is in a run, or was given to the index, which may refer to it. */
  #dropArena(): void {
    assert(this.#count === 0, "nothing is lost with the arena");
    this.#arena = Buffer.alloc(0);
    this.#offsets = new Uint32Array(0);
    this.#order = new Float64Array(0);
  }

  async #goDirect(): Promise<void> {
    await this.#merge(() => {});
    await this.#removeRuns();
    await this.#writeArena(() => {});
    this.#dropArena();
    this.#isDirect = true;
  }

  /**
   * Brings everything into the index. `seen` is called with each entry that is put there; false where the index went other ways, and
   * what is in it has to be looked up.
   */
  async finish(seen: Seen): Promise<boolean> {
    if (this.#isDirect) return false;
    if (this.#runs.length === 0) {
      await this.#writeArena(seen);
      this.#dropArena();
      return true;
    }
    if (!(await this.#hasRoom()) || !(await this.#spill())) {
      await this.#goDirect();
      return false;
    }
    // The merge has windows of its own, and a run is a copy.
    releaseMemory(this.#arena);
    this.#dropArena();
    await this.#merge(seen);
    return true;
  }

  /** Everything in the arena, deletions too: the index may have older entries. */
  async #writeArena(seen: Seen): Promise<void> {
    const arena = this.#arena;
    let operations: IndexOperation[] = [];
    for (const offset of await this.#sorted()) {
      const key = keyAt(arena, offset);
      if (isDeletionAt(arena, offset)) operations.push({ type: "del", key });
      else {
        const value = valueAt(arena, offset);
        seen(key, value);
        operations.push({ type: "put", key, value });
      }
      if (operations.length < OPERATIONS_PER_WRITE) continue;
      await this.#index.write(operations);
      operations = [];
    }
    if (operations.length > 0) await this.#index.write(operations);
    this.#clear();
  }

  /** The index takes a page while the next one is merged. */
  async #merge(seen: Seen): Promise<void> {
    let writing = Promise.resolve();
    for await (const page of mergeRuns(this.#runs, OPERATIONS_PER_WRITE)) {
      for (const operation of page) if (operation.type === "put") seen(operation.key, operation.value);
      await writing;
      writing = this.#index.write(page);
      // Its failure shows with the next one.
      writing.catch(() => {});
    }
    await writing;
    this.#runs.length = 0;
  }

  async #removeRuns(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined) return;
    await file.close();
    await this.#place.disk.unlink(this.#place.runs);
  }

  /** Requires: nothing is being written. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#removeRuns();
  }
}
