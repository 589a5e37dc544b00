import type { LiveEntry } from "./index-format.ts";

/** Entries per generation; two generations with values of at most MAX_VALUE_BYTES bound the cache to some 20 MiB. */
const GENERATION_ENTRIES = 8192;
const MAX_VALUE_BYTES = 1024;

/**
 * Entries used lately. Two generations instead of a linked list: a hit in the older one moves the entry to the younger, and when
 * that is full the older is dropped whole.
 */
export class EntryCache {
  #young = new Map<string, LiveEntry | null>();
  #old = new Map<string, LiveEntry | null>();

  /** Null: known to be absent. Undefined: not known here. */
  get(name: string): LiveEntry | null | undefined {
    const young = this.#young.get(name);
    if (young !== undefined) return young;
    const old = this.#old.get(name);
    if (old !== undefined) this.set(name, old);
    return old;
  }

  set(name: string, entry: LiveEntry | null): void {
    const isLong = entry?.value !== undefined && entry.value.length > MAX_VALUE_BYTES;
    const kept = isLong ? { ...entry, value: undefined } : entry;
    if (this.#young.size >= GENERATION_ENTRIES) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(name, kept);
  }
}
