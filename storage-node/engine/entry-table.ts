import { RingsteadError, codeOf, messageOf } from "../../common/errors.ts";
import { EntryCache } from "./entry-cache.ts";
import { type LiveEntry, decodeLiveEntry } from "./index-format.ts";
import type { Index } from "./index-port.ts";
import type { Pending } from "./log-writer.ts";

/**
 * The present entry of every key: what was applied and is not in the index yet (the overlay), what was used lately, the index.
 *
 * A key that is new to the device costs one question to the key filter.
 */
export class EntryTable {
  readonly #index: Index;
  readonly #overlay = new Map<string, Pending>();
  readonly #cache = new EntryCache();
  readonly #onLost: () => void;
  damagedReads = 0;

  /** @param onLost an entry is superseded that nobody knows any more: what was counted of it is unknown too */
  constructor(index: Index, onLost: () => void) {
    this.#index = index;
    this.#onLost = onLost;
  }

  /** Keys whose newest change is not in the index. */
  get unindexedCount(): number {
    return this.#overlay.size;
  }

  /** Errors (thrown): "entry-damaged". */
  live(key: Uint8Array, name: string): LiveEntry | undefined {
    const pending = this.#overlay.get(name);
    if (pending !== undefined) return pending.live;
    const cached = this.#cache.get(name);
    if (cached !== undefined) return cached ?? undefined;
    const live = this.#indexed(key);
    // Whoever asks is mostly about to put it, which asks again.
    this.#cache.set(name, live ?? null);
    return live;
  }

  /** What a mutation supersedes; a damaged entry is superseded like an absent one, which is how it is healed. */
  superseded(key: Uint8Array, name: string): LiveEntry | undefined {
    const pending = this.#overlay.get(name);
    if (pending !== undefined) return pending.live;
    const cached = this.#cache.get(name);
    if (cached !== undefined) return cached ?? undefined;
    try {
      return this.#indexed(key);
    } catch (error) {
      if (codeOf(error) !== "entry-damaged") throw error;
      this.#onLost();
      return undefined;
    }
  }

  #indexed(key: Uint8Array): LiveEntry | undefined {
    let bytes: Uint8Array | undefined;
    try {
      bytes = this.#index.get(key);
    } catch (error) {
      this.damagedReads++;
      throw new RingsteadError("entry-damaged", `the index cannot be read: ${messageOf(error)}`);
    }
    if (bytes === undefined) return undefined;
    const live = decodeLiveEntry(bytes);
    if (live !== undefined) return live;
    this.damagedReads++;
    throw new RingsteadError("entry-damaged", "the index holds a damaged entry");
  }

  /** An applied change is what everyone sees from now on. */
  show(pending: Pending): void {
    this.#overlay.set(pending.name, pending);
  }

  /** These changes are in the index now. */
  indexed(changes: Iterable<Pending>): void {
    for (const pending of changes) {
      if (this.#overlay.get(pending.name) !== pending) continue;
      this.#overlay.delete(pending.name);
      this.#cache.set(pending.name, pending.live ?? null);
    }
  }

  /** The key's change that the index lacks. */
  pending(name: string): Pending | undefined {
    return this.#overlay.get(name);
  }

  /** Changes that the index lacks, of keys from `low` to before `high`, not sorted. */
  pendingIn(low: string, high: string): Pending[] {
    const found: Pending[] = [];
    for (const pending of this.#overlay.values()) if (pending.name >= low && pending.name < high) found.push(pending);
    return found;
  }
}
