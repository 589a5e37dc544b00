import { type Clock, systemClock } from "../../common/clock.ts";

/** Entries at most; beyond it everything goes, which costs one look-up each. */
const ENTRIES_MAX = 50_000;
/** What other processes write to the database or to a directory, and what time itself ends, is seen this late at most. */
const LIFETIME_MS = 1_000;

type Entry = { readonly value: unknown; readonly readAtMs: number };

/**
 * What was read lately, until anything is written. One write empties it whole: writes are rare here, and no rule about which
 * write touches which reading can be forgotten.
 */
export class ReadCache {
  readonly #clock: Clock;
  #entries = new Map<string, Entry>();
  #generation = 0;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  clear(): void {
    this.#generation += 1;
    if (this.#entries.size > 0) this.#entries = new Map();
  }

  /** The value under `key`, read by `load` where it is not known. `key` begins with what it is, so that two kinds never meet. */
  async get<Value>(key: string, load: () => Promise<Value>): Promise<Value> {
    const readAtMs = this.#clock.nowMs();
    const known = this.#entries.get(key);
    if (known !== undefined && Math.abs(readAtMs - known.readAtMs) < LIFETIME_MS) return known.value as Value;
    const generation = this.#generation;
    const value = await load();
    // What was read before a write must not be found after it.
    if (generation === this.#generation && value !== undefined) {
      if (this.#entries.size >= ENTRIES_MAX) this.#entries = new Map();
      this.#entries.set(key, { value, readAtMs });
    }
    return value;
  }
}
