import { mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { codeOf } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { type DecodedRecord, decodeFile, encodeFile } from "./format.ts";

const FILE_MAX_BYTES = 64 * 1024 * 1024;

/** The whole records of the file at `path`; none where it is absent or not to be read, which `log` is told of. */
export const readAccessKeyFile = async (path: string, key: Buffer, log: Log): Promise<DecodedRecord[]> => {
  try {
    const { size } = await stat(path);
    const records = size > FILE_MAX_BYTES ? undefined : decodeFile(key, await readFile(path));
    const damaged = records?.filter(({ opened }) => opened === undefined).length;
    if (damaged !== 0) log.warn("kept S3 keys cannot be read; they are asked for again", { path, damaged });
    return records ?? [];
  } catch (thrown) {
    if (codeOf(thrown) !== "ENOENT") log.warn("kept S3 keys cannot be read", { path, error: thrown });
    return [];
  }
};

/**
 * Puts a file of these records at `path`. Asynchronous throughout: the process that keeps it serves objects meanwhile. A power cut leaves the
 * old file or the new one.
 */
export const writeAccessKeyFile = async (path: string, records: readonly Buffer[]): Promise<void> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const temporaryPath = `${path}.tmp`;
  // A file that a killed process left may have another mode.
  await rm(temporaryPath, { force: true });
  const file = await open(temporaryPath, "wx", 0o600);
  try {
    await file.writeFile(encodeFile(records));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporaryPath, path);
};
