import { setImmediate as turn } from "node:timers/promises";
import { compareKeys } from "./run-format.ts";

/** An entry's number in its run beside the first 32 bits of its key, in one double: they sort as numbers do. */
const NUMBER_SPAN = 2 ** 20;

export const MAX_RUN_KEYS = NUMBER_SPAN - 1;

/** Entries that are sorted at once, and that are merged before the next turn: some 10 ms where all keys begin alike. */
const PIECE_ENTRIES = 8192;
const TURN_ENTRIES = 32_768;

/** Requires: `prefix` is of 32 bits, `number` at most MAX_RUN_KEYS. */
export const packPlace = (prefix: number, number: number): number => prefix * NUMBER_SPAN + number;

const prefixOf = (packed: number): number => Math.floor(packed / NUMBER_SPAN);
const numberOf = (packed: number): number => packed % NUMBER_SPAN;

/**
 * Where the entries of an arena begin, in the order of their keys, of equal ones only the newest.
 *
 * Keys whose first 32 bits differ are sorted as doubles, without a look at them. Those of one container all begin alike: to sort
 * 200,000 of them took 0.4 s in one piece, in which nothing else was done. So small pieces are sorted, each in a turn of its own, and
 * merged until one is left.
 */
export class RunSort {
  readonly #arena: Buffer;
  readonly #offsets: Uint32Array;
  #from: Float64Array;
  #to: Float64Array;
  #sinceTurn = 0;

  /** `places`: of all entries, as `packPlace` gives them; they are sorted there. `offsets`: where each begins, by number. */
  constructor(arena: Buffer, offsets: Uint32Array, places: Float64Array) {
    this.#arena = arena;
    this.#offsets = offsets;
    this.#from = places;
    this.#to = new Float64Array(places.length > PIECE_ENTRIES ? places.length : 0);
  }

  /** Requires: the arena stays as it is meanwhile. */
  async sorted(): Promise<Uint32Array> {
    const count = this.#from.length;
    for (let start = 0; start < count; start += PIECE_ENTRIES) {
      this.#sortPiece(this.#from.subarray(start, start + PIECE_ENTRIES));
      if (count > PIECE_ENTRIES) await turn();
    }
    for (let size = PIECE_ENTRIES; size < count; size *= 2) {
      for (let start = 0; start < count; start += 2 * size)
        await this.#merge(start, Math.min(start + size, count), Math.min(start + 2 * size, count));
      [this.#from, this.#to] = [this.#to, this.#from];
    }
    return this.#newest();
  }

  /** As numbers first; then by their keys those that begin alike. */
  #sortPiece(piece: Float64Array): void {
    piece.sort();
    for (let first = 0, end = 0; first < piece.length; first = end) {
      const prefix = prefixOf(piece[first] ?? 0);
      do end++;
      while (end < piece.length && prefixOf(piece[end] ?? 0) === prefix);
      if (end > first + 1) piece.subarray(first, end).sort((left, right) => this.#compareAlike(left, right));
    }
  }

  #offsetOf(packed = 0): number {
    return this.#offsets[numberOf(packed)] ?? 0;
  }

  #compareKeys(left: number, right: number): number {
    return compareKeys(this.#arena, this.#offsetOf(left), this.#arena, this.#offsetOf(right));
  }

  /** Of equal keys newer ones come first. Requires: the first 32 bits are the same. */
  #compareAlike(left: number, right: number): number {
    return this.#compareKeys(left, right) || right - left;
  }

  /** Two sorted neighbours, [start, middle) and [middle, end), into one. */
  async #merge(start: number, middle: number, end: number): Promise<void> {
    let left = start;
    for (let at = start; at < end; ) {
      const stop = Math.min(end, at + TURN_ENTRIES - this.#sinceTurn);
      left = this.#mergePart(at, stop, left, middle, end);
      await this.#took(stop - at);
      at = stop;
    }
  }

  /** The part of a merge that fills [at, stop); `left` is how far the left one is used up. Gives how far it is then. */
  #mergePart(at: number, stop: number, left: number, middle: number, end: number): number {
    const from = this.#from;
    const to = this.#to;
    let nextLeft = left;
    let nextRight = middle + at - left;
    for (let place = at; place < stop; place++) {
      const isLeft =
        nextRight >= end || (nextLeft < middle && this.#isBefore(from[nextLeft] ?? 0, from[nextRight] ?? 0));
      to[place] = (isLeft ? from[nextLeft++] : from[nextRight++]) ?? 0;
    }
    return nextLeft;
  }

  #isBefore(left: number, right: number): boolean {
    return prefixOf(left) === prefixOf(right) ? this.#compareAlike(left, right) < 0 : left < right;
  }

  async #newest(): Promise<Uint32Array> {
    const sorted = this.#from;
    const offsets = new Uint32Array(sorted.length);
    let count = 0;
    for (let at = 0; at < sorted.length; ) {
      const stop = Math.min(sorted.length, at + TURN_ENTRIES - this.#sinceTurn);
      for (let place = at; place < stop; place++) {
        const packed = sorted[place] ?? 0;
        const before = sorted[place - 1] ?? Number.NaN;
        if (prefixOf(before) === prefixOf(packed) && this.#compareKeys(before, packed) === 0) continue;
        offsets[count++] = this.#offsetOf(packed);
      }
      await this.#took(stop - at);
      at = stop;
    }
    return offsets.subarray(0, count);
  }

  /** Lets others have a turn now and then. */
  async #took(entries: number): Promise<void> {
    this.#sinceTurn += entries;
    if (this.#sinceTurn < TURN_ENTRIES) return;
    this.#sinceTurn = 0;
    await turn();
  }
}
