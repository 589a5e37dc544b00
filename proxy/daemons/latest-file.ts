import { open, rename, rm } from "node:fs/promises";

/**
 * A file that says how something stands now, for commands to read. What is put while it is being written is written next, and only the last of it: it is
 * never more than one write behind, and nothing waits for it. Nothing is synced, since after a power cut it is told anew.
 *
 *     nothing to write ──put──▶ writing ──done──▶ nothing to write
 *                                │  ▲ put: remembered instead of what was remembered before
 *                                └──┘ done, something remembered
 */
export class LatestFile implements AsyncDisposable {
  readonly #path: string;
  readonly #mode: number;
  readonly #onFailure: (error: unknown) => void;
  #next: string | undefined;
  #writing: Promise<void> | undefined;

  /** @param onFailure told of what kept the file from being written; the next text is tried again */
  constructor(path: string, mode: number, onFailure: (error: unknown) => void) {
    this.#path = path;
    this.#mode = mode;
    this.#onFailure = onFailure;
  }

  /** Returns at once. */
  put(text: string): void {
    this.#next = text;
    this.#writing ??= this.#writeAll();
  }

  async #writeAll(): Promise<void> {
    while (this.#next !== undefined) {
      const text = this.#next;
      this.#next = undefined;
      try {
        await this.#write(text);
      } catch (error) {
        this.#onFailure(error);
      }
    }
    this.#writing = undefined;
  }

  /** Readers find the text before or this one, whole. */
  async #write(text: string): Promise<void> {
    const temporaryPath = `${this.#path}.tmp-${process.pid}`;
    try {
      const file = await open(temporaryPath, "w", this.#mode);
      try {
        await file.chmod(this.#mode);
        await file.writeFile(text);
      } finally {
        await file.close();
      }
      await rename(temporaryPath, this.#path);
    } catch (error) {
      await rm(temporaryPath, { force: true });
      throw error;
    }
  }

  /** Resolves when what was put last is written, or could not be. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing;
  }
}
