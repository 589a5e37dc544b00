import type { BackupStore } from "./backup-store.ts";
import { type Change, changedPage, GRAIN_BYTES, PAGE_BYTES, pageCountOf } from "./core/page.ts";
import { type Extent, type Run, runsOf } from "./core/runs.ts";
import type { PageList } from "./format.ts";
import { inParallel } from "./in-parallel.ts";

/** A volume as it was at one moment. */
export type BackupSource = {
  /**
   * What of `length` bytes from `offset` on is to be looked at: for an increment what may differ from the backup before, else what is not
   * known to be zeros. `coveredBytes`: how far the answer reaches, more than nothing.
   */
  changes(
    offset: number,
    length: number,
  ): Promise<{ readonly coveredBytes: number; readonly extents: readonly Extent[] }>;
  read(offset: number, length: number): Promise<Buffer>;
};

export type CopyOptions = {
  readonly source: BackupSource;
  readonly store: BackupStore;
  readonly sizeBytes: number;
  /** What the backup is an increment of. */
  readonly parent: PageList | undefined;
  /** Pages before this one were copied already. */
  readonly firstPage: number;
  /** Told of each page that is not as the parent has it, in order, once it is stored. Undefined: all zeros. `chunks`: so far. */
  save(this: void, page: number, name: string | undefined, chunks: number): Promise<void>;
  readonly signal: AbortSignal;
};

export type CopyFigures = { readBytes: number; sentBytes: number; chunks: number };

/** Asked about at once: most of a volume is as it was, or was never written. */
const LOOK_BYTES = 1024 * 1024 * 1024;
/** Chunks in memory at once: each is read, compressed and sent. */
const CHUNKS_AT_ONCE = 4;

/** Copies what has to be copied, page after page. What was stored before is found there, and not sent again. */
export const copyVolume = async (options: CopyOptions): Promise<CopyFigures> => {
  const { source, sizeBytes, parent, signal } = options;
  const figures: CopyFigures = { readBytes: 0, sentBytes: 0, chunks: 0 };
  let known: Extent[] = [];
  let coveredTo = options.firstPage * PAGE_BYTES;
  for (let page = options.firstPage; page < pageCountOf(sizeBytes); page++) {
    signal.throwIfAborted();
    const offset = page * PAGE_BYTES;
    const end = Math.min(sizeBytes, offset + PAGE_BYTES);
    while (coveredTo < end) {
      const { coveredBytes, extents } = await source.changes(coveredTo, Math.min(LOOK_BYTES, sizeBytes - coveredTo));
      if (coveredBytes <= 0) throw new Error("a source answered about nothing");
      known.push(...extents);
      coveredTo += coveredBytes;
    }
    const runs = runsOf(
      known.filter((one) => one.offset < end && one.offset + one.length > offset),
      offset,
      end - offset,
    );
    known = known.filter((one) => one.offset + one.length > end);
    const before = parent?.pages[page];
    if (runs.length === 0 || (before === undefined && runs.every(({ kind }) => kind === "zero"))) continue;
    await copyPage(options, page, before, runs, figures);
  }
  return figures;
};

const copyPage = async (
  { source, store, sizeBytes, save, signal }: CopyOptions,
  page: number,
  before: string | undefined,
  runs: readonly Run[],
  figures: CopyFigures,
): Promise<void> => {
  const offset = page * PAGE_BYTES;
  const changes: Change[] = [];
  await inParallel(runs, CHUNKS_AT_ONCE, async ({ kind, first, count }) => {
    signal.throwIfAborted();
    if (kind === "zero") return void changes.push({ first, count, chunk: undefined });
    const from = offset + first * GRAIN_BYTES;
    const wanted = Math.min(count * GRAIN_BYTES, sizeBytes - from);
    const read = await source.read(from, wanted);
    if (read.length !== wanted) throw new Error(`a source gave ${read.length} bytes of ${wanted}`);
    figures.readBytes += read.length;
    // Chunks are whole grains, also where the volume ends within one.
    const bytes =
      wanted === count * GRAIN_BYTES ? read : Buffer.concat([read, Buffer.alloc(count * GRAIN_BYTES - wanted)]);
    if (isZero(bytes)) return void changes.push({ first, count, chunk: undefined });
    const { name, sentBytes } = await store.putChunk(bytes);
    figures.sentBytes += sentBytes;
    figures.chunks += 1;
    changes.push({ first, count, chunk: name });
  });
  const next = changedPage(before === undefined ? [] : await store.getPage(before), changes);
  if (next.length === 0) return save(page, undefined, figures.chunks);
  const { name, sentBytes } = await store.putPage(next);
  figures.sentBytes += sentBytes;
  await save(page, name, figures.chunks);
};

const ZEROS = Buffer.alloc(GRAIN_BYTES);

const isZero = (bytes: Buffer): boolean => {
  for (let at = 0; at < bytes.length; at += GRAIN_BYTES)
    if (!ZEROS.equals(bytes.subarray(at, at + GRAIN_BYTES))) return false;
  return true;
};
