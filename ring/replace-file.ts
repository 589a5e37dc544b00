import { closeSync, fstatSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { codeOf, messageOf, RingsteadError } from "../common/errors.ts";

/** A ring or builder file of partition power 24 with 16 replicas stays below. */
const FILE_BYTES_MAX = 1024 * 1024 * 1024;

/**
 * Puts `bytes` in place of the file at `path`: temporary file beside it, fsync, rename, fsync of the folder. After a
 * power cut at any instant the old or the new file is there, whole.
 */
export const replaceFile = (path: string, bytes: Uint8Array): void => {
  const temporaryPath = `${path}.tmp-${process.pid}`;
  let temporaryExists = false;
  try {
    const file = openSync(temporaryPath, "w", 0o644);
    temporaryExists = true;
    syncAndClose(file, () => writeFileSync(file, bytes));
    renameSync(temporaryPath, path);
    temporaryExists = false;
    syncAndClose(openSync(dirname(path), "r"));
  } catch (cause) {
    if (temporaryExists) rmSync(temporaryPath, { force: true });
    const reason = messageOf(cause);
    throw new RingsteadError("ring-file-unwritable", `cannot write ${path}: ${reason}`, { path, reason });
  }
};

const syncAndClose = (file: number, write?: () => void): void => {
  try {
    write?.();
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
};

/** Reads the file at `path` through `decode`; what either throws names the path. */
export const readWholeFile = <T>(path: string, decode: (bytes: Uint8Array) => T): T => {
  const bytes = readBounded(path);
  try {
    return decode(bytes);
  } catch (error) {
    if (!(error instanceof RingsteadError)) throw error;
    throw new RingsteadError(error.code, `${path}: ${error.message}`, { ...error.fields, path });
  }
};

const readBounded = (path: string): Uint8Array => {
  let file: number | undefined;
  try {
    file = openSync(path, "r");
    const { size } = fstatSync(file);
    if (size > FILE_BYTES_MAX)
      throw new RingsteadError("ring-file-damaged", `${path} is too big for a ring: ${size} bytes`, { path, size });
    return readFileSync(file);
  } catch (cause) {
    if (cause instanceof RingsteadError) throw cause;
    const reason = messageOf(cause);
    const code = codeOf(cause) === "ENOENT" ? "ring-file-missing" : "ring-file-unreadable";
    throw new RingsteadError(code, `cannot read ${path}: ${reason}`, { path, reason });
  } finally {
    if (file !== undefined) closeSync(file);
  }
};
