import { link, readdir, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { codeOf } from "../../common/errors.ts";

const SWEEP_MS = 500;
/** LevelDB takes no notice of names that are not its own. */
const SUFFIX = ".kept";
/** Its tables and write-ahead files. */
const TABLE = /^\d+\.(?:ldb|sst|log)$/;

/**
 * A second name for each file of a LevelDB, so that LevelDB's removal of one takes a name away and no more; the file goes with its second name,
 * by a thread that nobody waits for.
 *
 * LevelDB 1.20 removes what a compaction has replaced with its lock held, and every read asks for that lock: on a file system that tells its disk
 * of freed blocks (`discard`) a table of 32 MiB takes 6 to 19 ms to remove, a compaction replaces some eleven, and meanwhile the process stood still.
 *
 * A file that comes and goes between two looks is removed as it was. Where there are no hard links there are none of these either. Names left by a
 * process that was killed are found at the next start.
 */
export class TableLinks implements AsyncDisposable {
  readonly #path: string;
  readonly #timer: NodeJS.Timeout;
  #sweeping: Promise<void> | undefined;
  #changedMs = Number.NaN;
  #isSettled = false;
  /** The file system has no hard links, or these are to go. */
  #isOff = false;

  private constructor(path: string) {
    this.#path = path;
    this.#timer = setInterval(() => void this.sweep(), SWEEP_MS).unref();
  }

  /** For the LevelDB in `path`, which is not open yet. */
  static async open(path: string): Promise<TableLinks> {
    await removeSecondNames(path, () => true);
    return new TableLinks(path);
  }

  /** Gives new files their second name, and removes those that LevelDB has removed. One at a time. */
  sweep(): Promise<void> {
    this.#sweeping ??= this.#sweep()
      // It will be said to whoever reads or writes there, or is better the next time.
      .catch(() => {})
      .finally(() => (this.#sweeping = undefined));
    return this.#sweeping;
  }

  async #sweep(): Promise<void> {
    const { mtimeMs } = await stat(this.#path);
    // Looked at once more after it stayed the same: times have steps of some milliseconds.
    if (mtimeMs === this.#changedMs && this.#isSettled) return;
    this.#isSettled = mtimeMs === this.#changedMs;
    this.#changedMs = mtimeMs;
    const names = new Set(await readdir(this.#path));
    // First: on a full device that is the space for the others.
    await removeSecondNames(this.#path, (name) => !names.has(name));
    for (const name of names) if (TABLE.test(name) && !names.has(name + SUFFIX) && !(await this.#link(name))) return;
  }

  /** Whether more may be linked. */
  async #link(name: string): Promise<boolean> {
    if (this.#isOff) return false;
    try {
      await link(join(this.#path, name), join(this.#path, name + SUFFIX));
      return true;
    } catch (error) {
      const code = codeOf(error);
      // Otherwise it may be better the next time.
      this.#isOff = code === "EPERM" || code === "ENOTSUP" || code === "EOPNOTSUPP" || code === "ENOSYS";
      return code === "ENOENT" || code === "EEXIST";
    }
  }

  /** Requires: the LevelDB is closed. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.#isOff = true;
    await this.#sweeping;
    await removeSecondNames(this.#path, () => true).catch(() => {});
  }
}

/** Removes the second names of the files that `isGone`. */
const removeSecondNames = async (path: string, isGone: (name: string) => boolean): Promise<void> => {
  const names = await readdir(path).catch((error: unknown): string[] => {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  });
  for (const name of names) {
    if (!name.endsWith(SUFFIX) || !isGone(name.slice(0, -SUFFIX.length))) continue;
    await unlink(join(path, name)).catch((error: unknown) => {
      if (codeOf(error) !== "ENOENT") throw error;
    });
  }
};
