/** Entries at most; beyond it everything goes, which costs one look-up each. */
const ENTRIES_MAX = 50_000;

/**
 * What was read lately, until anything is written. One write empties it whole: writes are rare here, and no rule about which
 * write touches which reading can be forgotten.
 */
export class ReadCache {
  #entries = new Map<string, unknown>();
  #generation = 0;

  clear(): void {
    this.#generation += 1;
    if (this.#entries.size > 0) this.#entries = new Map();
  }

  /** The value under `key`, read by `load` where it is not known. `key` begins with what it is, so that two kinds never meet. */
  async get<Value>(key: string, load: () => Promise<Value>): Promise<Value> {
    const known = this.#entries.get(key);
    if (known !== undefined) return known as Value;
    const generation = this.#generation;
    const value = await load();
    // What was read before a write must not be found after it.
    if (generation === this.#generation && value !== undefined) {
      if (this.#entries.size >= ENTRIES_MAX) this.#entries = new Map();
      this.#entries.set(key, value);
    }
    return value;
  }

  /** The value under `key` where it is known, without a promise. */
  peek<Value>(key: string): Value | undefined {
    return this.#entries.get(key) as Value | undefined;
  }
}
