import { closeSync, fsyncSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import { join } from "node:path";

const TOUCH_BYTES = 20 * 1024 ** 3;
/** What stays free beside it: the file must never fill the disk of others. */
const SPARE_BYTES = 10 * 1024 ** 3;
const BLOCK_BYTES = 8 * 1024 * 1024;

/**
 * Writes 20 GiB below `folder` and deletes them, so that no side of a comparison pays for blocks that a thinly provisioned disk has
 * never stored before (DESIGN section 9). Returns false, having written nothing, where the disk has no room for it.
 */
export const touchDisk = (folder: string): boolean => {
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize < TOUCH_BYTES + SPARE_BYTES) return false;
  const path = join(folder, "first-touch");
  const block = Buffer.alloc(BLOCK_BYTES, "Ringstead bench first touch ");
  const file = openSync(path, "wx");
  try {
    for (let written = 0; written < TOUCH_BYTES; written += BLOCK_BYTES) writeSync(file, block);
    fsyncSync(file);
  } finally {
    closeSync(file);
    rmSync(path);
  }
  return true;
};
