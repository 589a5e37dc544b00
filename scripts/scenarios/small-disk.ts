import { execFile } from "node:child_process";
import {
  closeSync,
  existsSync,
  openSync,
  realpathSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { codeOf } from "../../common/errors.ts";
import { mountFile } from "../../storage-node/scenarios/logged-disk.ts";

const run = promisify(execFile);
const BALLAST = "somebody-elses-file";
const BALLAST_PIECES_BYTES = [8 * 1024 * 1024, 64 * 1024, 4096];

const NEEDED = ["/dev/loop-control", "/usr/sbin/losetup", "/usr/sbin/mkfs.ext4", "/usr/sbin/e2fsck"];

/** Why this machine gives no device a file system of its own; undefined where it does. */
export const whyNoSmallDisk = (): string | undefined => {
  if (process.getuid?.() !== 0) return "mounting needs root";
  const missing = NEEDED.filter((path) => !existsSync(path));
  return missing.length === 0 ? undefined : `there is no ${missing.join(", ")}`;
};

/** A file with an empty ext4 of so many bytes, not one block of it reserved. */
export const makeImage = async (path: string, bytes: number): Promise<void> => {
  closeSync(openSync(path, "wx"));
  truncateSync(path, bytes);
  const layout = ["-b", "4096", "-m", "0", "-O", "has_journal", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
  await run("mkfs.ext4", ["-q", ...layout, path]);
  // As distributions install it: after an error the file system turns read-only.
  await run("tune2fs", ["-e", "remount-ro", path]);
};

/** What an administrator does before mounting a file system anew. Exit code 1 is an error that was put right. */
export const checkImage = async (path: string): Promise<void> => {
  await run("e2fsck", ["-p", path]).catch((error: unknown) => {
    if (!(error instanceof Error && "code" in error && error.code === 1)) throw error;
  });
};

/** Mounts a file with an ext4 in it; gives up waiting for those who still use it when it is to go. */
export const mountImage = async (image: string, folder: string): Promise<AsyncDisposable> => {
  const mounted = await mountFile(image, folder, "flushed");
  return {
    [Symbol.asyncDispose]: async () => {
      try {
        await mounted[Symbol.asyncDispose]();
      } catch {
        // The loop device goes with its last user.
        await run("umount", ["--lazy", folder]);
      }
    },
  };
};

/** A small ext4 on a loop device, mounted at `folder` until disposed. */
export class SmallDisk implements AsyncDisposable {
  readonly folder: string;
  readonly #image: string;
  #mounted: AsyncDisposable;

  private constructor(image: string, folder: string, mounted: AsyncDisposable) {
    this.#image = image;
    this.folder = folder;
    this.#mounted = mounted;
  }

  static async make(parent: string, name: string, bytes: number): Promise<SmallDisk> {
    const image = join(parent, `${name}.image`);
    await makeImage(image, bytes);
    const folder = join(parent, name);
    return new SmallDisk(image, folder, await mountImage(image, folder));
  }

  /**
   * Lets the kernel find an error, after which the file system is read-only. An administrator's `mount -o remount,ro` is refused as long
   * as files are open for writing.
   */
  turnReadOnly(): void {
    const { dev } = statSync(this.folder);
    const loop = basename(realpathSync(`/sys/dev/block/${dev >> 8}:${dev & 255}`));
    writeFileSync(`/sys/fs/ext4/${loop}/trigger_fs_error`, "a test of read-only disks");
  }

  /** Checks the file system and mounts it anew. Requires: nobody uses it. */
  async repair(): Promise<void> {
    await this.#mounted[Symbol.asyncDispose]();
    await checkImage(this.#image);
    this.#mounted = await mountImage(this.#image, this.folder);
  }

  /** Writes a file that is no business of the device's until not a block is left. */
  fillWithForeignFile(): void {
    const file = openSync(join(this.folder, BALLAST), "a");
    try {
      // In ever smaller pieces: the last block is taken too.
      for (const bytes of BALLAST_PIECES_BYTES) writeUntilFull(file, Buffer.alloc(bytes, "x"));
    } finally {
      closeSync(file);
    }
  }

  removeForeignFile(): void {
    rmSync(join(this.folder, BALLAST), { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#mounted[Symbol.asyncDispose]();
  }
}

const writeUntilFull = (file: number, piece: Uint8Array): void => {
  try {
    for (;;) if (writeSync(file, piece) < piece.length) return;
  } catch (error) {
    if (codeOf(error) !== "ENOSPC") throw error;
  }
};
