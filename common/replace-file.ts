import { closeSync, fchmodSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

/** Syncs a folder, so that entries made, renamed or unlinked in it survive a power cut. */
export const syncFolder = (path: string): void => {
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
};

/**
 * Puts `data` in place of the file at `path` with mode `mode`: temporary file beside it, fsync, rename, fsync of the folder.
 * After a power cut at any instant the old or the new file is there, whole. Throws Node's system errors.
 */
export const replaceFile = (path: string, data: string | Uint8Array, mode: number): void => {
  const temporaryPath = `${path}.tmp-${process.pid}`;
  try {
    const file = openSync(temporaryPath, "w", mode);
    try {
      // `open` masks the mode with the umask and keeps the mode of a file that a killed process left.
      fchmodSync(file, mode);
      writeFileSync(file, data);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporaryPath, path);
  } catch (thrown) {
    rmSync(temporaryPath, { force: true });
    throw thrown;
  }
  syncFolder(dirname(path));
};
