import { ClassicLevel } from "classic-level";
import { BEHIND_ALL, type OpenIndex } from "./index-port.ts";
import { TableLinks } from "./table-links.ts";

const WRITE_BUFFER_BYTES = 16 * 1024 * 1024;
const CACHE_BYTES = 32 * 1024 * 1024;
const MAX_TABLE_BYTES = 32 * 1024 * 1024;
/** Of a page of a scan; LevelDB's default of 16 KiB makes a page of 1,000 rows twelve trips to the thread pool. */
const PAGE_BYTES = 1024 * 1024;
/** Pages of at most so many entries are not worth a trip to be freed early. */
const SMALL_PAGE_ENTRIES = 64;
/** What a closed iterator keeps for each entry of its largest page. */
const NATIVE_ENTRY_BYTES = 64;
const RESIDUE_STEP_BYTES = 4 * 1024 * 1024;
/** Holds the checkpoint; entries' keys have at least one byte. */
const CHECKPOINT_KEY = new Uint8Array(0);

/** The index in LevelDB. Never synced but at checkpoints. Errors: whatever LevelDB says of a damaged database; the caller rebuilds. */
export const openLevelIndex: OpenIndex = async (path, fresh) => {
  if (fresh) await ClassicLevel.destroy(path);
  const level = new ClassicLevel<Uint8Array, Uint8Array>(path, {
    keyEncoding: "view",
    valueEncoding: "view",
    compression: false,
    writeBufferSize: WRITE_BUFFER_BYTES,
    cacheSize: CACHE_BYTES,
    maxFileSize: MAX_TABLE_BYTES,
  });
  const links = await TableLinks.open(path);
  try {
    await level.open();
  } catch (error) {
    await links[Symbol.asyncDispose]();
    throw error;
  }
  const residue = new NativeResidue();
  return {
    get: (key) => level.getSync(key),
    // A chained batch costs 2.8 µs an operation on the main thread, an array of operations 3.7 µs.
    write: (operations) => {
      const batch = level.batch();
      for (const operation of operations) {
        if (operation.type === "put") batch.put(operation.key, operation.value);
        else batch.del(operation.key);
      }
      return batch.write();
    },
    checkpoint: async (checkpoint) => {
      // LevelDB closes an old write-ahead file without syncing it, so the memtable is written out first. Compacting nothing rewrites no table.
      await level.compactRange(BEHIND_ALL, BEHIND_ALL);
      await level.batch([{ type: "put", key: CHECKPOINT_KEY, value: checkpoint }], { sync: true });
    },
    readCheckpoint: () => level.getSync(CHECKPOINT_KEY),
    cursor: ({ gte, lt, reverse }) => {
      const iterator = level.iterator({ gte, lt, reverse, highWaterMarkBytes: PAGE_BYTES });
      let largest = 0;
      let last: Uint8Array | undefined;
      let isCut = false;
      return {
        next: async (count) => {
          largest = Math.max(largest, count);
          const page = await iterator.nextv(count);
          isCut = page.length < count;
          last = page.at(-1)?.[0] ?? last;
          return page;
        },
        close: async () => {
          try {
            if (largest > SMALL_PAGE_ENTRIES) {
              // It keeps copies of its last page until the next one is asked for, also when it is closed; at the end nobody may ask, but
              // where one goes back.
              if (isCut) iterator.seek(last ?? gte);
              await iterator.nextv(1);
            }
          } catch {
            // Whoever reads is told of what cannot be read; here only memory was at stake.
          } finally {
            await iterator.close();
            residue.add(largest * NATIVE_ENTRY_BYTES);
          }
        },
      };
    },
    close: async () => {
      await level.close();
      await links[Symbol.asyncDispose]();
    },
  };
};

/**
 * What closed iterators hold until a full garbage collection, which V8 sees no reason for: three thousand scans of a thousand entries
 * left 780 MB behind. As much untouched memory is set aside where V8 counts it, and let go when the next piece is: old by then, it
 * counts until that collection, and takes no memory itself.
 */
class NativeResidue {
  #bytes = 0;
  readonly #told: ArrayBuffer[] = [];

  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes < RESIDUE_STEP_BYTES) return;
    this.#told.push(new ArrayBuffer(this.#bytes));
    this.#bytes = 0;
    if (this.#told.length > 1) this.#told.shift();
  }
}
