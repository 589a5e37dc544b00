import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { codeOf, messageOf, RingsteadError } from "../common/errors.ts";
import { replaceFile } from "../common/replace-file.ts";

/** A ring or builder file of partition power 24 with 16 replicas stays below. */
const FILE_BYTES_MAX = 1024 * 1024 * 1024;
/** Where data lies is no secret, and operators look at it as themselves. */
const FILE_MODE = 0o644;

/** Puts `bytes` in place of the file at `path`, whole or not at all. @throws RingsteadError `ring-file-unwritable` */
export const writeWholeFile = (path: string, bytes: Uint8Array): void => {
  try {
    replaceFile(path, bytes, FILE_MODE);
  } catch (cause) {
    const reason = messageOf(cause);
    throw new RingsteadError("ring-file-unwritable", `cannot write ${path}: ${reason}`, { path, reason });
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
