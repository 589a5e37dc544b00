import { closeSync, fdatasync, fsyncSync, openSync, readFileSync, constants, writeSync } from "node:fs";
import { dirname } from "node:path";
import { messageOf } from "../../../common/errors.ts";
import { encodeMark, UnflushedMark } from "./unflushed-mark.ts";

const BOOT_ID = "/proc/sys/kernel/random/boot_id";

const syncFolder = (path: string): void => {
  const folder = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
};

/**
 * The mark of a front in the file at `path`, which is made where there is none. A mark that cannot be written is said once, and the front serves on: it
 * is for the case that two processes die at once. Throws where the file cannot be opened.
 */
export const openMark = (path: string, say: (message: string) => void): UnflushedMark => {
  const bootId = readFileSync(BOOT_ID, "utf8").trim();
  const file = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  const text = readFileSync(path, "utf8");
  if (text === "") {
    writeSync(file, encodeMark({ kind: "clean" }, false, bootId), 0);
    fsyncSync(file);
    syncFolder(dirname(path));
  }
  let isSaid = false;
  const failed = (error: unknown): void => {
    if (!isSaid) say(`what is not flushed cannot be written down, its loss would not be noticed: ${messageOf(error)}`);
    isSaid = true;
  };
  const write = (line: string): void => {
    try {
      writeSync(file, line, 0);
    } catch (error) {
      failed(error);
    }
  };
  const sync = (): Promise<void> =>
    new Promise((resolve) => {
      fdatasync(file, (error) => {
        if (error !== null) failed(error);
        resolve();
      });
    });
  return new UnflushedMark({ write, sync }, text, bootId);
};
