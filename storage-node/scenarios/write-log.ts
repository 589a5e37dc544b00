import { closeSync, openSync, readSync, writeSync } from "node:fs";

/** QEMU's `blklogwrites` and Linux' dm-log-writes share this layout: Documentation/admin-guide/device-mapper/log-writes.rst. */
const MAGIC = 0x6a_736677_736872n;
const VERSION = 1n;
const COUNT_OFFSET = 16;
const SECTOR_SIZE_OFFSET = 24;
const SUPER_BYTES = 28;
const ENTRY_BYTES = 32;
const FLAG_FLUSH = 1;
const FLAG_DISCARD = 4;

/** One request that reached the disk; offsets and lengths in bytes. */
type LoggedWrite = {
  readonly offset: number;
  readonly length: number;
  readonly isFlush: boolean;
  readonly isDiscard: boolean;
  /** Where in the log its data stands. */
  readonly dataOffset: number;
};

/**
 * How many requests the log held at its last flush: what was flushed before this is called lies among the first so many of them.
 * `descriptor` is the log's.
 */
export const loggedCount = (descriptor: number): number => {
  const bytes = Buffer.alloc(8);
  readSync(descriptor, bytes, 0, 8, COUNT_OFFSET);
  return Number(bytes.readBigUInt64LE());
};

/** Every write a disk got, in order, and the disk as it was after any number of them. */
export class WriteLog implements Disposable {
  readonly writes: readonly LoggedWrite[];
  readonly sectorBytes: number;
  readonly #descriptor: number;

  constructor(path: string) {
    this.#descriptor = openSync(path, "r");
    const head = this.#read(0, SUPER_BYTES);
    if (head.readBigUInt64LE(0) !== MAGIC || head.readBigUInt64LE(8) !== VERSION) {
      throw new Error(`${path} is no log of writes`);
    }
    this.sectorBytes = head.readUInt32LE(SECTOR_SIZE_OFFSET);
    const writes: LoggedWrite[] = [];
    let at = this.sectorBytes;
    for (let count = loggedCount(this.#descriptor); count > 0; count--) {
      const entry = this.#read(at, ENTRY_BYTES);
      const flags = Number(entry.readBigUInt64LE(16));
      const isDiscard = (flags & FLAG_DISCARD) !== 0;
      const length = Number(entry.readBigUInt64LE(8)) * this.sectorBytes;
      writes.push({
        offset: Number(entry.readBigUInt64LE(0)) * this.sectorBytes,
        length,
        isFlush: (flags & FLAG_FLUSH) !== 0,
        isDiscard,
        dataOffset: at + this.sectorBytes,
      });
      at += this.sectorBytes + (isDiscard ? 0 : length);
    }
    this.writes = writes;
  }

  /** Does write `index` again on the disk image open as `image`, its first `sectors` only where given. */
  redo(index: number, image: number, sectors?: number): void {
    const write = this.writes[index];
    if (write === undefined) throw new Error(`the log has no write ${index}`);
    const length = sectors === undefined ? write.length : Math.min(write.length, sectors * this.sectorBytes);
    if (length === 0) return;
    writeSync(
      image,
      write.isDiscard ? Buffer.alloc(length) : this.#read(write.dataOffset, length),
      0,
      length,
      write.offset,
    );
  }

  #read(offset: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    const count = readSync(this.#descriptor, bytes, 0, length, offset);
    if (count !== length) throw new Error(`the log of writes ends at ${offset + count}`);
    return bytes;
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }
}
