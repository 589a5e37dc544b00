import { existsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { codeOf, RingsteadError } from "../common/errors.ts";
import { replaceFile } from "../common/replace-file.ts";

/** Whether a file system of its own is mounted at `path`; what is not there is none. */
const isMountPoint = (path: string): boolean => {
  try {
    return statSync(path).dev !== statSync(dirname(path)).dev;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
};

/**
 * Remembers in the file `marker` that a disk is mounted at a device's path, and refuses the path once it is not: the folder beneath is empty
 * then, would be taken for a new device, and would fill the wrong file system. Errors: "disk-not-mounted".
 */
export const requireMountedDisk = (device: string, path: string, marker: string): void => {
  const isMarked = existsSync(marker);
  const isMounted = isMountPoint(path);
  if (isMounted && !isMarked) replaceFile(marker, `${path}\n`, 0o600);
  if (isMounted || !isMarked) return;
  throw new RingsteadError(
    "disk-not-mounted",
    `no disk is mounted at ${path}, where device ${device} had one: mount it, or remove ${marker} if the folder itself is to be the device`,
    { device, path },
  );
};
