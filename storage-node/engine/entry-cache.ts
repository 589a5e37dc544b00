import type { LiveEntry } from "./index-format.ts";

/** Entries per generation; two generations with values of at most MAX_VALUE_BYTES bound the cache to some 20 MiB. */
const GENERATION_ENTRIES = 8192;
const MAX_VALUE_BYTES = 1024;

/**
 * Entries used lately. Two generations instead of a linked list: a hit in the older one moves the entry to the younger, and when
 * that is full the older is dropped whole.
 */
export class EntryCache {
  #young = new Map<string, LiveEntry>();
  #old = new Map<string, LiveEntry>();

  get(name: string): LiveEntry | undefined {
    const young = this.#young.get(name);
    if (young !== undefined) return young;
    const old = this.#old.get(name);
    if (old !== undefined) this.set(name, old);
    return old;
  }

  set(name: string, entry: LiveEntry): void {
    const { value } = entry;
    const kept = value !== undefined && value.length > MAX_VALUE_BYTES ? { ...entry, value: undefined } : entry;
    if (this.#young.size >= GENERATION_ENTRIES) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(name, kept);
  }

  delete(name: string): void {
    this.#young.delete(name);
    this.#old.delete(name);
  }
}
