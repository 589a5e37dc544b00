import assert from "node:assert/strict";
import { xxh64 } from "../../common/hash.ts";

/** Of a full layer. */
const BITS_PER_KEY = 16;
const TESTS_PER_KEY = 6;
const BLOCK_BITS = 512;
const BLOCK_WORDS = BLOCK_BITS / 32;
const KEYS_PER_BLOCK = BLOCK_BITS / BITS_PER_KEY;

/** How many keys the layers of a filter hold: powers of two, at least 32. */
export type FilterSize = {
  /** The first; each further layer holds twice as many. */
  readonly firstKeys: number;
  /** None holds more: what a checkpoint writes of a filter that grew by less. */
  readonly maxKeys: number;
};

/** 32 KiB at first, 8 MiB at most; 20 million keys take 12 layers and 40 MB. */
export const defaultFilterSize: FilterSize = { firstKeys: 16_384, maxKeys: 4_194_304 };

/** One blocked Bloom filter: six bits for each key, in one block of 64 bytes. Bits are only ever set. */
export class FilterLayer {
  /** Of the filter it belongs to, a random number: layers of two filters are never taken for each other. */
  readonly life: number;
  /** Its place among the layers of its filter. */
  readonly number: number;
  /** Keys it is made for: a power of two. */
  readonly capacity: number;
  readonly words: Uint32Array<ArrayBuffer>;
  /** Keys that set a bit here. */
  count: number;

  constructor(life: number, number: number, capacity: number, words = new Uint32Array(wordsOf(capacity)), count = 0) {
    assert(words.length === wordsOf(capacity), "a layer's words are those of its capacity");
    this.life = life;
    this.number = number;
    this.capacity = capacity;
    this.words = words;
    this.count = count;
  }

  has(low: number, high: number): boolean {
    const { words } = this;
    const block = blockOf(low, words.length);
    const step = stepOf(high);
    for (let test = 0, bit = high; test < TESTS_PER_KEY; test++, bit += step) {
      if (((words[block + ((bit >>> 5) & (BLOCK_WORDS - 1))] ?? 0) & (1 << (bit & 31))) === 0) return false;
    }
    return true;
  }

  add(low: number, high: number): void {
    const { words } = this;
    const block = blockOf(low, words.length);
    const step = stepOf(high);
    for (let test = 0, bit = high; test < TESTS_PER_KEY; test++, bit += step) {
      const word = block + ((bit >>> 5) & (BLOCK_WORDS - 1));
      words[word] = (words[word] ?? 0) | (1 << (bit & 31));
    }
    this.count++;
  }
}

/** Words of a layer for `capacity` keys. */
export const wordsOf = (capacity: number): number => (capacity / KEYS_PER_BLOCK) * BLOCK_WORDS;

const blockOf = (low: number, words: number): number => (low & (words / BLOCK_WORDS - 1)) * BLOCK_WORDS;

/** Odd, so that the tests of a key are of different bits. */
const stepOf = (high: number): number => (high >>> 20) | 1;

const hash = new BigUint64Array(1);
const halves = new Uint32Array(hash.buffer);

/**
 * Which keys were ever put: "no" is certain, "perhaps" is wrong now and then. Layers of growing capacity; only the last one changes.
 * No I/O. `key-filter.test.ts` holds it to its rate of errors.
 */
export class KeyFilter {
  readonly #layers: FilterLayer[];
  readonly #size: FilterSize;
  readonly life: number;

  /** `layers` of this life in the order of their numbers, the last one still open; without any it begins with its first. */
  constructor(size: FilterSize, life: number, layers: readonly FilterLayer[] = []) {
    this.#size = size;
    this.life = life;
    this.#layers = layers.length > 0 ? [...layers] : [new FilterLayer(life, 0, size.firstKeys)];
  }

  get layers(): readonly FilterLayer[] {
    return this.#layers;
  }

  /** Keys that were added, those not counted that seemed to be there already. */
  get count(): number {
    return this.#layers.reduce((sum, { count }) => sum + count, 0);
  }

  mayHave(key: Uint8Array): boolean {
    hash[0] = xxh64(key);
    return this.#has(halves[0] ?? 0, halves[1] ?? 0);
  }

  add(key: Uint8Array): void {
    hash[0] = xxh64(key);
    const low = halves[0] ?? 0;
    const high = halves[1] ?? 0;
    if (this.#has(low, high)) return;
    let last = this.#layers.at(-1);
    assert(last !== undefined, "a filter has a layer");
    if (last.count >= last.capacity) {
      last = new FilterLayer(this.life, last.number + 1, Math.min(last.capacity * 2, this.#size.maxKeys));
      this.#layers.push(last);
    }
    last.add(low, high);
  }

  /** Newest first: it holds the most, and what is used lately. */
  #has(low: number, high: number): boolean {
    for (let at = this.#layers.length - 1; at >= 0; at--) if (this.#layers[at]?.has(low, high) === true) return true;
    return false;
  }
}
