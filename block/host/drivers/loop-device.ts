import { mkdir, open, stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { codeOf, RingsteadError } from "../../../common/errors.ts";
import { syncFolder } from "../../../common/replace-file.ts";
import { runCommand } from "../run-command.ts";

/** A whole number of extents and of anything that a file system or device counts in. */
const GRAIN_BYTES = 64 * 1024 * 1024;
const SMALLEST_BYTES = 16 * GRAIN_BYTES;

/**
 * A sparse file that is as long as its file system has room now, and no longer than `limitBytes`; one that is there stays as it is.
 * Errors: "pool-full".
 */
export const ensureSparseFile = async (path: string, limitBytes = Number.POSITIVE_INFINITY): Promise<void> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const file = await open(path, "a", 0o600);
  try {
    if ((await file.stat()).size > 0) return;
    const { bavail, bsize } = await statfs(dirname(path));
    const sizeBytes = Math.floor(Math.min(limitBytes, bavail * bsize) / GRAIN_BYTES) * GRAIN_BYTES;
    if (sizeBytes < SMALLEST_BYTES)
      throw new RingsteadError("pool-full", `there is no room for a pool of ${SMALLEST_BYTES} bytes at ${path}`);
    await file.truncate(sizeBytes);
    await file.sync();
  } finally {
    await file.close();
  }
  syncFolder(dirname(path));
};

/** Bytes of the file that have space on their file system. */
export const allocatedBytesOf = async (path: string): Promise<number> => (await stat(path)).blocks * 512;

/** `losetup` looks at every loop device of the machine, and one of somebody else's that is just being torn down may hold it up: then it is asked again. */
const LOSETUP_TIMEOUT_MS = 10_000;
const ATTEMPTS = 3;

const losetup = async (...parameters: readonly string[]): Promise<string> => {
  for (let attempt = 1; ; attempt++) {
    try {
      return (await runCommand("losetup", parameters, LOSETUP_TIMEOUT_MS)).trim();
    } catch (error) {
      if (codeOf(error) !== "command-timeout" || attempt === ATTEMPTS) throw error;
    }
  }
};

/** The loop device upon this file; undefined where it has none. */
export const loopDeviceOf = async (path: string): Promise<string | undefined> => {
  const [name = ""] = (await losetup("--noheadings", "--output", "NAME", "--associated", path)).split(/\s+/);
  return name === "" ? undefined : name;
};

/** The loop device upon this file, a new one where it has none. */
export const attachLoop = async (path: string): Promise<string> =>
  (await loopDeviceOf(path)) ?? losetup("--find", "--show", path);

export const detachLoop = async (device: string): Promise<void> => {
  await losetup("--detach", device);
};
