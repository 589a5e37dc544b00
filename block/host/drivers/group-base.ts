import { statfs } from "node:fs/promises";
import { allocatedBytesOf, attachLoop, detachLoop, ensureSparseFile } from "./loop-device.ts";

/** Of the file system below a sparse pool, kept for what else lives there. */
const RESERVED_BYTES = 256 * 1024 * 1024;

/** What a volume group lies on. */
export type GroupBase = {
  /** Where the bytes of its one device are, for who opens them without device-mapper. */
  readonly path: string;
  readonly kind: "file" | "device";
  /** The device that LVM is told; undefined where the group has whatever devices LVM finds. */
  readonly device: string | undefined;
  /** Bytes that can still be promised, beyond these, as far as what is below can tell; Infinity where it has them all. */
  roomBytes(promisedBytes: number): Promise<number>;
  /** Bytes that can be written now, as far as what is below can tell. */
  writableBytes(): Promise<number>;
  /** Takes down what was set up to reach it. Requires: nobody has a volume of the group open. */
  release(): Promise<void>;
};

/** A sparse file on a loop device; both are made where they are not there. Errors: "command-missing", "command-failed", "pool-full". */
export const loopBase = async (file: string, sizeLimitBytes?: number): Promise<GroupBase> => {
  await ensureSparseFile(file, sizeLimitBytes);
  const device = await attachLoop(file);
  const writableBytes = async (): Promise<number> => {
    const { bavail, bsize } = await statfs(file);
    return Math.max(0, bavail * bsize - RESERVED_BYTES);
  };
  return {
    path: file,
    kind: "file",
    device,
    writableBytes,
    // What layers were promised and did not write to yet has to fit into the file system too.
    roomBytes: async (promisedBytes) => {
      const unwritten = Math.max(0, promisedBytes - (await allocatedBytesOf(file)));
      return Math.max(0, (await writableBytes()) - unwritten);
    },
    release: () => detachLoop(device),
  };
};

/** Disks of the machine. `path` is that of the only one, where it is to be opened as it is. */
export const diskBase = (path: string): GroupBase => ({
  path,
  kind: "device",
  device: undefined,
  roomBytes: () => Promise.resolve(Number.POSITIVE_INFINITY),
  writableBytes: () => Promise.resolve(Number.POSITIVE_INFINITY),
  release: () => Promise.resolve(),
});
