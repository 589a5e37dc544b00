import { mkdir, open, readdir, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, RingsteadError } from "../../../common/errors.ts";
import { syncFolder } from "../../../common/replace-file.ts";
import type { LayerId } from "../core/chains.ts";
import type { Capacity, Driver, Place } from "./driver.ts";

/** The pool's share of its file system that nobody may fill: other things of DIR live there too. */
const RESERVED_BYTES = 256 * 1024 * 1024;
const FILE_NAME = /^layer-([0-9a-f]{20})$/;

/** A file for each layer, in a folder: where there is no LVM, or no root. Its holes take no space. */
export class FileDriver implements Driver {
  readonly kind = "file";
  readonly growsByItself = true;
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** Makes the folder where it is not there, for this user alone. */
  static async opened(folder: string): Promise<FileDriver> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    return new FileDriver(folder);
  }

  async capacity(): Promise<Capacity> {
    const { blocks, bavail, bsize } = await statfs(this.#folder);
    return { totalBytes: blocks * bsize, freeBytes: Math.max(0, bavail * bsize - RESERVED_BYTES), isThin: true };
  }

  async create(layer: LayerId, sizeBytes: number): Promise<void> {
    const { freeBytes } = await this.capacity();
    if (freeBytes === 0) throw new RingsteadError("pool-full", "the file system of the pool is full");
    await this.#resize(layer, sizeBytes, "a");
    syncFolder(this.#folder);
  }

  async grow(layer: LayerId, sizeBytes: number): Promise<boolean> {
    await this.#resize(layer, sizeBytes, "r+");
    return true;
  }

  /** A new file has none of the blocks of an old one: file systems see to that. */
  async remove(layer: LayerId): Promise<void> {
    await rm(this.#path(layer), { force: true });
    syncFolder(this.#folder);
  }

  async place(layer: LayerId): Promise<Place | undefined> {
    const path = this.#path(layer);
    const isThere = await stat(path).then(
      () => true,
      (error: unknown) => {
        if (codeOf(error) !== "ENOENT") throw error;
        return false;
      },
    );
    return isThere ? { path, kind: "file", offset: 0, sizeBytes: undefined, isShared: false } : undefined;
  }

  async layers(): Promise<readonly LayerId[]> {
    return (await readdir(this.#folder)).flatMap((name) => FILE_NAME.exec(name)?.[1] ?? []);
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #path(layer: LayerId): string {
    return join(this.#folder, `layer-${layer}`);
  }

  async #resize(layer: LayerId, sizeBytes: number, flags: "a" | "r+"): Promise<void> {
    const file = await open(this.#path(layer), flags, 0o600);
    try {
      if ((await file.stat()).size < sizeBytes) await file.truncate(sizeBytes);
      await file.sync();
    } finally {
      await file.close();
    }
  }
}
