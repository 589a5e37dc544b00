import { messageOf, RingsteadError } from "../../common/errors.ts";
import { type BackupStore, nameIn } from "./backup-store.ts";
import { inParallel } from "./in-parallel.ts";

export type SweepOptions = {
  readonly store: BackupStore;
  readonly nowMs: number;
  /** What was stored within this time stays. */
  readonly graceMs: number;
  /**
   * Resolves while no backup may begin to copy; rejects where that is not certain any more. Asked before each few removals, and before whatever
   * else may take long: who forgets to say that he goes on loses what he marked.
   */
  hold(this: void): Promise<void>;
};

export type SweepFigures = {
  removed: number;
  removedBytes: number;
  /** Needed by nobody, and within the grace time. */
  young: number;
  kept: number;
};

/** Names that are remembered as needed: some 200 MiB. A project with more keeps its garbage, and its operator is told. */
const MARKS_LIMIT = 2_000_000;
const REMOVALS_AT_ONCE = 8;
/** As many as go at once: none of them takes longer than what `hold` promises. */
const REMOVALS_BETWEEN_LOOKS = REMOVALS_AT_ONCE;

/**
 * Marks what the project's backups need, by what is in the store and not by what the database says, and removes the rest. Requires: from before
 * this is called until it ends no backup of the project copies, since it may count on a chunk that is here and that nobody needs. Errors:
 * "sweep-refused" where it cannot be known what is needed.
 */
export const sweepStore = async ({ store, nowMs, graceMs, hold }: SweepOptions): Promise<SweepFigures> => {
  const { pages, chunks } = await marksOf(store, hold);
  const figures: SweepFigures = { removed: 0, removedBytes: 0, young: 0, kept: 0 };
  for (const [kind, marks] of [
    ["chunk", chunks],
    ["page", pages],
  ] as const) {
    for await (const found of store.list(kind)) {
      await hold();
      const garbage = found.filter(({ name }) => !marks.has(nameIn(name)));
      figures.kept += found.length - garbage.length;
      const old = garbage.filter(({ modifiedAtMs }) => modifiedAtMs + graceMs <= nowMs);
      figures.young += garbage.length - old.length;
      for (let at = 0; at < old.length; at += REMOVALS_BETWEEN_LOOKS) {
        await hold();
        await inParallel(old.slice(at, at + REMOVALS_BETWEEN_LOOKS), REMOVALS_AT_ONCE, async ({ name, sizeBytes }) => {
          await store.removeObject(name);
          figures.removed += 1;
          figures.removedBytes += sizeBytes;
        });
      }
    }
  }
  return figures;
};

const marksOf = async (store: BackupStore, hold: SweepOptions["hold"]) => {
  const pages = new Set<string>();
  const chunks = new Set<string>();
  for await (const lists of store.list("backup")) {
    for (const { name: path } of lists) {
      await hold();
      try {
        const list = await store.getList(nameIn(path));
        for (const name of list.pages) {
          if (name === undefined || pages.has(name)) continue;
          await hold();
          for (const { chunk } of await store.getPage(name)) chunks.add(chunk);
          pages.add(name);
          if (pages.size + chunks.size > MARKS_LIMIT)
            throw new RingsteadError("backup-damaged", `more than ${MARKS_LIMIT} chunks are needed`);
        }
      } catch (error) {
        if (!(error instanceof RingsteadError) || !error.code.startsWith("backup-")) throw error;
        // To go on would remove what that backup may still need.
        throw new RingsteadError(
          "sweep-refused",
          `nothing is swept as long as ${nameIn(path)} is there: ${messageOf(error)}`,
        );
      }
    }
  }
  return { pages, chunks };
};
