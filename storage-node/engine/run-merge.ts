import assert from "node:assert/strict";
import type { DiskFile } from "../../common/disk.ts";
import type { IndexOperation } from "./index-port.ts";
import { RUN_HEAD_BYTES, compareKeys, isDeletionAt, keyAt, keyPrefixAt, sizeAt, valueAt } from "./run-format.ts";

/** Entries in the order of their keys, each key once, in a part of a file. */
export type Run = { readonly file: DiskFile; readonly start: number; readonly end: number };

/** What the windows of all runs take at most, and each at least and at most; the longest entry fits into the smallest. */
const WINDOWS_BYTES = 16 * 1024 * 1024;
const MIN_WINDOW_BYTES = 8 * 1024;
const MAX_WINDOW_BYTES = 256 * 1024;

/**
 * The puts of all runs in the order of their keys, in pages; of equal keys the entry of the last run counts, and where that is a
 * deletion there is none.
 */
export async function* mergeRuns(runs: readonly Run[], pageEntries: number): AsyncGenerator<IndexOperation[]> {
  const share = Math.floor(WINDOWS_BYTES / Math.max(1, runs.length));
  const windowBytes = Math.min(MAX_WINDOW_BYTES, Math.max(MIN_WINDOW_BYTES, share));
  const heap: RunCursor[] = [];
  for (const [age, run] of runs.entries()) {
    const cursor = new RunCursor(run, age, windowBytes);
    await cursor.load();
    if (!cursor.isEmpty) heap.push(cursor);
  }
  for (let at = (heap.length >> 1) - 1; at >= 0; at--) sink(heap, at);
  let page: IndexOperation[] = [];
  let last: { readonly window: Buffer; readonly offset: number; readonly prefix: number } | undefined;
  for (let first = heap[0]; first !== undefined; first = heap[0]) {
    const { window, offset, prefix } = first;
    if (last?.prefix !== prefix || compareKeys(last.window, last.offset, window, offset) !== 0) {
      last = { window, offset, prefix };
      if (!isDeletionAt(window, offset))
        page.push({ type: "put", key: keyAt(window, offset), value: valueAt(window, offset) });
      if (page.length >= pageEntries) {
        yield page;
        page = [];
      }
    }
    if (!first.step()) await first.load();
    if (first.isEmpty) {
      const end = heap.pop();
      if (end !== undefined && end !== first) heap[0] = end;
    }
    sink(heap, 0);
  }
  if (page.length > 0) yield page;
}

/** Where the merge stands in one run. */
class RunCursor {
  /** Never written to again once it is filled: what was emitted refers to it. */
  window: Buffer = Buffer.alloc(0);
  /** Of the present entry in the window. */
  offset = 0;
  prefix = 0;
  isEmpty = false;
  /** Later runs have a higher age. */
  readonly age: number;
  readonly #file: DiskFile;
  readonly #windowBytes: number;
  readonly #end: number;
  #next: number;

  constructor({ file, start, end }: Run, age: number, windowBytes: number) {
    this.#file = file;
    this.#next = start;
    this.#end = end;
    this.age = age;
    this.#windowBytes = windowBytes;
  }

  /** Goes to the next entry; false where the window does not hold it whole. */
  step(): boolean {
    this.offset += sizeAt(this.window, this.offset);
    return this.#look();
  }

  #look(): boolean {
    const { window, offset } = this;
    if (offset + RUN_HEAD_BYTES > window.length || offset + sizeAt(window, offset) > window.length) return false;
    this.prefix = keyPrefixAt(window, offset);
    return true;
  }

  /** Reads on from the present entry, or finds the end. */
  async load(): Promise<void> {
    const rest = this.window.subarray(this.offset);
    const count = Math.min(this.#windowBytes - rest.length, this.#end - this.#next);
    this.isEmpty = rest.length + count === 0;
    if (this.isEmpty) return;
    const window = Buffer.allocUnsafeSlow(rest.length + count);
    rest.copy(window);
    const read = await this.#file.read([window.subarray(rest.length)], this.#next);
    assert(read === count, "a run is as long as it was written");
    this.#next += count;
    this.window = window;
    this.offset = 0;
    assert(this.#look(), "an entry fits into a window");
  }
}

/** Whether the left one's entry comes first; of equal keys that of the later run. */
const isBefore = (left: RunCursor, right: RunCursor): boolean => {
  if (left.prefix !== right.prefix) return left.prefix < right.prefix;
  const order = compareKeys(left.window, left.offset, right.window, right.offset);
  return order < 0 || (order === 0 && left.age > right.age);
};

/** Moves an element down to its place in a binary heap. */
const sink = (heap: RunCursor[], start: number): void => {
  const moved = heap[start];
  if (moved === undefined) return;
  let at = start;
  for (;;) {
    let child = 2 * at + 1;
    let lower = heap[child];
    const right = heap[child + 1];
    if (lower !== undefined && right !== undefined && isBefore(right, lower)) {
      child++;
      lower = right;
    }
    if (lower === undefined || !isBefore(lower, moved)) break;
    heap[at] = lower;
    at = child;
  }
  heap[at] = moved;
};
