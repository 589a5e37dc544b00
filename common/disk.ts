import assert from "node:assert/strict";

/** What a device engine needs of a file system. Implementations: `storage-node/engine/real-disk.ts`, and `simulation/disk.ts`, which loses power. */
export type Disk = {
  /** What stands at a path. */
  kindOf(path: string): Promise<"absent" | "folder" | "file">;
  /** Makes a folder whose parent exists; nothing where it exists already. */
  makeFolder(path: string): Promise<void>;
  /** Names in a folder, sorted. */
  list(path: string): Promise<string[]>;
  /** Opens for reading and writing. */
  open(path: string, mode: OpenMode): Promise<DiskFile>;
  rename(from: string, to: string): Promise<void>;
  /** Nothing where the file is absent. */
  unlink(path: string): Promise<void>;
  /** After it, what was created, renamed or unlinked in the folder survives power loss. */
  syncFolder(path: string): Promise<void>;
  /** Bytes that can still be written under a path. */
  freeBytes(path: string): Promise<number>;
  /** Zeroed memory for transfers of "direct" files, of which it takes at most this many bytes. It goes back when nobody refers to it. */
  directMemory(bytes: number): Uint8Array;
};

/**
 * "create" refuses what exists. "write-through" opens what exists, and each of its writes resolves only after the sync of its own
 * bytes: one system call instead of two. What other openings of the file wrote is not synced by it.
 *
 * "direct" opens what exists and "create-direct" refuses it; both pass by the page cache where the file system can, and are synced as
 * any other. "direct-write-through" is both. Requires of each transfer what `assertDirect` checks, and memory of `directMemory`.
 */
export type OpenMode = "existing" | "create" | "write-through" | "direct" | "create-direct" | "direct-write-through";

/** Direct transfers begin and end at multiples of it, in the file and in memory: no disk has larger sectors. */
export const DIRECT_UNIT_BYTES = 4096;

/** For implementations: a misplaced direct transfer is a programmer's error, also where a file system would let it pass. */
export const assertDirect = (bytes: Uint8Array, offset: number): void => {
  const isPlaced = [bytes.byteOffset, bytes.length, offset].every((place) => place % DIRECT_UNIT_BYTES === 0);
  assert(isPlaced, `a direct transfer of ${bytes.length} bytes at ${offset}, in memory at ${bytes.byteOffset}`);
};

/** An open file. All offsets count from the file's beginning. */
export type DiskFile = {
  readonly size: () => Promise<number>;
  /** Reads until the buffers are full or the file ends; resolves with the count of bytes. */
  read(buffers: readonly Uint8Array[], offset: number): Promise<number>;
  readSync(buffer: Uint8Array, offset: number): number;
  /** Writes everything. */
  write(bytes: Uint8Array, offset: number): Promise<void>;
  /** `fdatasync`: after it what was written survives power loss. */
  sync(): Promise<void>;
  close(): Promise<void>;
};
