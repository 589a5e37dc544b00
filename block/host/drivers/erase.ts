import { type FileHandle, open } from "node:fs/promises";
import { runCommand } from "../run-command.ts";

/** Erasing by writing zeros takes as long as the disk takes: an hour for some hundred GiB. */
export const ERASE_TIMEOUT_MS = 3_600_000;

/**
 * Resolves once these bytes of a file or block device read as zeros, also after a power cut. Where the file system or the device can, they are
 * given back (a hole, a discard that is promised to read as zeros); else zeros are written.
 */
export const erase = async (path: string, offset: number, lengthBytes: number): Promise<void> => {
  if (lengthBytes === 0) return;
  const range = ["--offset", String(offset), "--length", String(lengthBytes)];
  try {
    await runCommand("fallocate", ["--punch-hole", ...range, path], ERASE_TIMEOUT_MS);
  } catch {
    await runCommand("fallocate", ["--zero-range", "--keep-size", ...range, path], ERASE_TIMEOUT_MS);
  }
  await using file = await opened(path);
  await file.handle.sync();
};

const opened = async (path: string): Promise<AsyncDisposable & { readonly handle: FileHandle }> => {
  const handle = await open(path, "r+");
  return { handle, [Symbol.asyncDispose]: () => handle.close() };
};
