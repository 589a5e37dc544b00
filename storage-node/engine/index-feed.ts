import type { EngineTimer } from "./engine-timer.ts";
import type { EntryTable } from "./entry-table.ts";
import type { Index, IndexOperation } from "./index-port.ts";
import { encodeLiveEntries } from "./index-format.ts";
import type { Batch, Pending } from "./log-writer.ts";

/** Operations per write of the index: they are encoded in one go, so this bounds how long the process does nothing else. */
const MAX_INDEX_OPERATIONS = 64;
/** Entries that may wait for the index before the log waits too: LevelDB stalls writers when its compaction lags. */
const MAX_UNINDEXED_ENTRIES = 50_000;
/** Values may be long: the same limits in bytes of them. */
const FLUSH_VALUE_BYTES = 1024 * 1024;
const MAX_UNINDEXED_VALUE_BYTES = 32 * 1024 * 1024;

/** When what is synced goes to the index. */
export type IndexPace = {
  /** At once when so many keys wait. */
  readonly keys: number;
  /** Otherwise this long after the first. */
  readonly delayMs: number;
};

/**
 * So late that a version comes with its confirmation, which follows it by some 110 ms at most: else LevelDB takes each twice. Measured, PUT of
 * 4 KiB: 512 keys or 30 ms and confirmations by the way, 438 µs of CPU; this, 366.
 */
export const defaultIndexPace: IndexPace = {
  keys: 4096,
  delayMs: 500,
};

/**
 * Brings synced changes into the index, which no acknowledgement waits for: collected by count and age, of each key only the
 * newest. Keys are written anew from their names, so that no batch's buffer is kept meanwhile.
 */
export class IndexFeed {
  readonly #index: Index;
  readonly #table: EntryTable;
  readonly #pace: IndexPace;
  readonly #timer: EngineTimer;
  readonly #onFailed: (error: unknown) => void;
  /** Called before each write of the index, which waits for it. */
  beforeWrite: () => Promise<void> = () => Promise.resolve();
  #waiting = new Map<string, Pending>();
  #waitingValueBytes = 0;
  #isTimerSet = false;
  #running: Promise<void> | undefined;
  /** Everything before this sequence number is synced. */
  #syncedBefore: number;
  /** Everything before this sequence number is in the index. */
  #indexedBefore: number;

  constructor(
    index: Index,
    table: EntryTable,
    nextSequence: number,
    pace: IndexPace,
    timer: EngineTimer,
    onFailed: (error: unknown) => void,
  ) {
    this.#index = index;
    this.#table = table;
    this.#pace = pace;
    this.#timer = timer;
    this.#onFailed = onFailed;
    this.#syncedBefore = nextSequence;
    this.#indexedBefore = nextSequence;
  }

  /** Everything before this sequence number is in the index. */
  get indexedBefore(): number {
    return this.#indexedBefore;
  }

  /** Takes a synced batch. A promise where the log is to wait: the index lags behind. */
  take(batch: Batch): Promise<void> | undefined {
    for (const pending of batch.pendings) {
      this.#waiting.set(pending.name, pending);
      this.#waitingValueBytes += pending.live?.valueLength ?? 0;
    }
    this.#syncedBefore = batch.firstSequence + batch.pendings.length;
    if (this.#waiting.size >= this.#pace.keys || this.#waitingValueBytes >= FLUSH_VALUE_BYTES) {
      const flushed = this.flush();
      const lags = this.#table.unindexedCount > MAX_UNINDEXED_ENTRIES;
      if (lags || this.#waitingValueBytes > MAX_UNINDEXED_VALUE_BYTES) return flushed;
    } else this.#setTimer();
    return undefined;
  }

  #setTimer(): void {
    if (this.#isTimerSet || this.#running !== undefined) return;
    this.#isTimerSet = true;
    this.#timer.after(this.#pace.delayMs, () => {
      this.#isTimerSet = false;
      if (this.#waiting.size > 0) void this.flush();
    });
  }

  /** Resolves when everything that was synced before the call, or all but the newest, is in the index: see `indexedBefore`. */
  flush(): Promise<void> {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      if (this.#waiting.size > 0) this.#setTimer();
    });
    return this.#running;
  }

  async #run(): Promise<void> {
    try {
      do {
        const changes = this.#waiting;
        const before = this.#syncedBefore;
        this.#waiting = new Map();
        this.#waitingValueBytes = 0;
        await this.beforeWrite();
        await this.#write(changes);
        this.#table.indexed(changes.values());
        this.#indexedBefore = before;
      } while (this.#waiting.size >= this.#pace.keys);
    } catch (error) {
      this.#onFailed(error);
    }
  }

  async #write(changes: ReadonlyMap<string, Pending>): Promise<void> {
    let part: Pending[] = [];
    for (const pending of changes.values()) {
      part.push(pending);
      if (part.length < MAX_INDEX_OPERATIONS) continue;
      await this.#index.write(operationsOf(part));
      part = [];
    }
    if (part.length > 0) await this.#index.write(operationsOf(part));
  }
}

const operationsOf = (changes: readonly Pending[]): IndexOperation[] => {
  const values = encodeLiveEntries(changes.map(({ live }) => live));
  return changes.map(({ name }, at): IndexOperation => {
    const key = Buffer.from(name, "latin1");
    const value = values[at];
    return value === undefined ? { type: "del", key } : { type: "put", key, value };
  });
};
