import { RingsteadError } from "../../common/errors.ts";
import type { BackupStore } from "./backup-store.ts";
import { GRAIN_BYTES, type Page, PAGE_BYTES } from "./core/page.ts";
import type { PageList } from "./format.ts";
import { inParallel } from "./in-parallel.ts";

type RestoreTarget = {
  write(offset: number, bytes: Buffer): Promise<void>;
  zero(offset: number, length: number): Promise<void>;
};

export type RestoreOptions = {
  readonly store: BackupStore;
  readonly list: PageList;
  readonly target: RestoreTarget;
  /** All of it reads as zeros: these need not be written. */
  readonly isBlank: boolean;
  /** Pages before this one were written already. */
  readonly firstPage: number;
  /** Told from time to time how many pages, from the first on, are written; resolves once they stay so. */
  save(this: void, pages: number): Promise<void>;
  /** In the place of the number below, for tests. */
  readonly pagesBetweenSaves?: number;
  readonly signal: AbortSignal;
};

/** Chunks in memory at once. */
const CHUNKS_AT_ONCE = 4;
const QUESTIONS_AT_ONCE = 8;
/** A GiB: what is written again after a hiccup is no more, and a flush costs little beside it. */
const PAGES_BETWEEN_SAVES = 16;

/** Resolves where all pages are sound and no chunk is missing. Errors: "backup-damaged", which names what is. */
export const checkBackup = async (store: BackupStore, list: PageList, signal: AbortSignal): Promise<void> => {
  const seen = new Set<string>();
  for (const name of list.pages) {
    if (name === undefined || seen.has(name)) continue;
    seen.add(name);
    const page = await store.getPage(name);
    await inParallel(new Set(page.map(({ chunk }) => chunk)), QUESTIONS_AT_ONCE, async (chunk) => {
      signal.throwIfAborted();
      if (!(await store.hasChunk(chunk)))
        throw new RingsteadError(
          "backup-damaged",
          `chunk ${chunk} of backup ${list.backupId} is missing in the object store`,
        );
    });
  }
};

/** Writes the volume as it was. Every chunk is checked before a byte of it is written. Errors: "backup-damaged". */
export const restoreVolume = async (options: RestoreOptions): Promise<void> => {
  const { store, list, isBlank, firstPage, save, pagesBetweenSaves = PAGES_BETWEEN_SAVES } = options;
  for (const [index, name] of list.pages.entries()) {
    options.signal.throwIfAborted();
    if (index < firstPage) continue;
    if (index > firstPage && index % pagesBetweenSaves === 0) await save(index);
    if (name !== undefined) await restorePage(options, index, await store.getPage(name));
    else if (!isBlank) await zero(options, index * PAGE_BYTES, PAGE_BYTES);
  }
};

/** Within the volume. */
const zero = async ({ target, list }: RestoreOptions, offset: number, length: number): Promise<void> => {
  const end = Math.min(list.sizeBytes, offset + length);
  if (end > offset) await target.zero(offset, end - offset);
};

const restorePage = async (options: RestoreOptions, index: number, page: Page): Promise<void> => {
  const { store, list, target, isBlank, signal } = options;
  const offset = index * PAGE_BYTES;
  let end = 0;
  for (const { first, count } of isBlank ? [] : page) {
    if (first > end) await zero(options, offset + end * GRAIN_BYTES, (first - end) * GRAIN_BYTES);
    end = first + count;
  }
  if (!isBlank) await zero(options, offset + end * GRAIN_BYTES, PAGE_BYTES - end * GRAIN_BYTES);
  await inParallel(page, CHUNKS_AT_ONCE, async ({ first, count, chunk, chunkFirst }) => {
    signal.throwIfAborted();
    const bytes = await store.getChunk(chunk);
    const from = chunkFirst * GRAIN_BYTES;
    if (bytes.length < from + count * GRAIN_BYTES)
      throw new RingsteadError(
        "backup-damaged",
        `chunk ${chunk} of backup ${list.backupId} is shorter than what is in it`,
      );
    const at = offset + first * GRAIN_BYTES;
    const length = Math.min(count * GRAIN_BYTES, list.sizeBytes - at);
    await target.write(at, bytes.subarray(from, from + length));
  });
};
