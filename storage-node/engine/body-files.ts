import assert from "node:assert/strict";
import { RingsteadError, codeOf, messageOf } from "../../common/errors.ts";
import {
  BLOCK_BYTES,
  BLOCK_STRIDE,
  BLOCK_SUM_BYTES,
  BODY_HEADER_BYTES,
  blockSum,
  encodeBodyHeader,
} from "./body-format.ts";
import type { StagedBody } from "./device-engine.ts";
import { DIRECT_UNIT_BYTES, type Disk, type DiskFile } from "../../common/disk.ts";
import { DirectSlots, upToUnit } from "./direct-slots.ts";
import type { Region } from "./format.ts";
import type { DamagedPiece } from "./quarantine.ts";
import { type EngineTimer, systemTimer } from "./engine-timer.ts";
import { type DevicePaths, fileIdOfName, nameOfFileId } from "./paths.ts";

/** Blocks that go to the disk or come from it at once. */
const BLOCKS_PER_SLOT = 4;
/** Room for the blocks of one transfer, and at its ends for what shares a unit with them. */
const SLOT_BYTES = upToUnit(BLOCKS_PER_SLOT * BLOCK_STRIDE + DIRECT_UNIT_BYTES - 1);
/** 4 MiB of memory per device, and more transfers than the thread pool makes at once. */
const SLOTS = 16;
/** What a body keeps between two writes: the end of a unit, and a block that is not full. */
const REST_BYTES = DIRECT_UNIT_BYTES + BLOCK_BYTES;
/** Half of the slots: the check of large bodies went at 500 to 670 MB/s with 8 of them, at 330 to 430 with 4. */
const CHECKED_AT_ONCE = 8;
/** More than so many damaged blocks of a body are not told apart. */
const MAX_DAMAGED_BLOCKS = 64;
/** Files kept open for the next read. */
const MAX_OPEN_FILES = 128;
/** A superseded body that was read within this time stays open, for whoever is in the middle of it, until nobody has read it for so long. */
const LEASE_MS = 30_000;
/** Beyond either the one whose last read is longest ago goes, but for the last. Their space is not free before. */
const LEASES_LIMIT = 64;
const LEASED_LIMIT_BYTES = 16 * 1024 * 1024 * 1024;
/** A body is synced piece by piece while it arrives: at its end little is left to wait for. */
const SYNC_BYTES = 8 * 1024 * 1024;
/** Bytes staged between two looks at the free space. */
const PROBE_BYTES = 64 * 1024 * 1024;
/** Staging stops while less than this is free, so that the log can go on. */
const RESERVED_BYTES = 128 * 1024 * 1024;

/** Blocks of a body of `total` bytes, from `first` up to and without `end`. */
type BlockRange = { readonly fileId: number; readonly total: number; readonly first: number; readonly end: number };

type OpenFile = {
  readonly file: Promise<DiskFile>;
  readonly total: number;
  readers: number;
  lastReadMs: number;
  isDoomed: boolean;
};

/**
 * The large bodies of a device, a file each, written and read past the page cache.
 *
 * Staging copies each byte once, into a slot with the checksums between the blocks, and writes 256 KiB while the next slot fills; a
 * body holds no slot while its client sends. A read is one `pread` into a slot for each 256 KiB, all at once; the blocks are checked
 * there and what was asked for is copied out.
 *
 * Through the page cache a byte costs more than all the rest of its way: a page that is new to the cache is a page that a virtual
 * machine may have handed back to its host, and 1 MiB of those took 3.7 to 4.8 ms of system time to write, against 0.15 ms past it.
 * What is this large is seldom read again before it is pushed out, and pushes out the log, whose small reads do come from the cache.
 */
export class BodyFiles {
  readonly #disk: Disk;
  readonly #paths: DevicePaths;
  readonly #deviceSeed: bigint;
  readonly #reservedBytes: number;
  readonly #slots: DirectSlots;
  readonly #timer: EngineTimer;
  readonly #open = new Map<number, OpenFile>();
  /** Unlinked, and open still. */
  readonly #leased = new Map<number, OpenFile>();
  #areEndsAwaited = false;
  /** Sealed and not yet named in a commit. */
  readonly #sealed = new Map<number, number>();
  /** Staged and not committed, or superseded and not yet unlinked. */
  readonly #loose = new Set<number>();
  #nextFileId: number;
  #bytesToProbe = 0;
  #folderSync: Promise<void> | undefined;
  #nextFolderSync: Promise<void> | undefined;

  constructor(
    disk: Disk,
    paths: DevicePaths,
    deviceSeed: bigint,
    nextFileId: number,
    reservedBytes = RESERVED_BYTES,
    timer = systemTimer,
  ) {
    this.#disk = disk;
    this.#timer = timer;
    this.#paths = paths;
    this.#deviceSeed = deviceSeed;
    this.#nextFileId = nextFileId;
    this.#reservedBytes = reservedBytes;
    this.#slots = new DirectSlots(disk, SLOT_BYTES, SLOTS);
  }

  get nextFileId(): number {
    return this.#nextFileId;
  }

  looseFiles(): number[] {
    return [...this.#loose];
  }

  /** A commit names the file: from now on it belongs to an entry. Requires: sealed with this length, not named before. */
  adopt(name: string, length: number): number {
    const fileId = fileIdOfName(name);
    assert(fileId !== undefined && this.#sealed.get(fileId) === length, `${name} is no sealed body of ${length} bytes`);
    this.#sealed.delete(fileId);
    this.#loose.delete(fileId);
    return fileId;
  }

  /** Whether `adopt` would take it. */
  isSealed(name: string, length: number): boolean {
    const fileId = fileIdOfName(name);
    return fileId !== undefined && this.#sealed.get(fileId) === length;
  }

  /** A commit superseded the file: it is to be unlinked once that is durable. */
  supersede(fileId: number): void {
    this.#loose.add(fileId);
  }

  /** Unlinks a superseded file. Reads under way go on, and for a time those who have read of it lately may read more. */
  async remove(fileId: number): Promise<void> {
    const open = this.#open.get(fileId);
    if (open !== undefined) {
      if (this.#isFresh(open)) this.#lease(fileId, open);
      else await this.#doom(fileId, open);
    }
    await this.#disk.unlink(this.#paths.body(fileId));
    this.#loose.delete(fileId);
  }

  #isFresh({ lastReadMs, readers }: OpenFile): boolean {
    return readers > 0 || this.#timer.nowMs() - lastReadMs < LEASE_MS;
  }

  #lease(fileId: number, open: OpenFile): void {
    this.#open.delete(fileId);
    this.#leased.set(fileId, open);
    this.#awaitEnds();
    const byAge = [...this.#leased].toSorted(([, left], [, right]) => left.lastReadMs - right.lastReadMs);
    let bytes = byAge.reduce((sum, [, { total }]) => sum + total, 0);
    for (const [oldId, old] of byAge.slice(0, -1)) {
      if (this.#leased.size <= LEASES_LIMIT && bytes <= LEASED_LIMIT_BYTES) break;
      bytes -= old.total;
      void this.#endLease(oldId, old);
    }
  }

  #awaitEnds(): void {
    if (this.#areEndsAwaited || this.#leased.size === 0) return;
    this.#areEndsAwaited = true;
    this.#timer.after(LEASE_MS, () => {
      this.#areEndsAwaited = false;
      for (const [fileId, open] of this.#leased) if (!this.#isFresh(open)) void this.#endLease(fileId, open);
      this.#awaitEnds();
    });
  }

  /** Resolves once its space is free, or at once where somebody reads just now. */
  async #endLease(fileId: number, open: OpenFile): Promise<void> {
    this.#leased.delete(fileId);
    open.isDoomed = true;
    if (open.readers === 0) await closeQuietly(open);
  }

  async stage(): Promise<StagedBody> {
    await this.#checkSpace(0);
    const fileId = this.#nextFileId++;
    this.#loose.add(fileId);
    try {
      const file = await this.#disk.open(this.#paths.body(fileId), "create-direct");
      return new Staging(this, this.#slots, fileId, file, this.#deviceSeed);
    } catch (error) {
      throw asDeviceError(error);
    }
  }

  /** Errors: "device-full". */
  async #checkSpace(bytes: number): Promise<void> {
    this.#bytesToProbe -= bytes;
    if (this.#bytesToProbe > 0) return;
    if ((await this.#disk.freeBytes(this.#paths.root)) < this.#reservedBytes) {
      // What is new is worth more than who still reads what is old.
      await Promise.all([...this.#leased].map(([fileId, open]) => this.#endLease(fileId, open)));
      if ((await this.#disk.freeBytes(this.#paths.root)) < this.#reservedBytes)
        throw new RingsteadError("device-full", "the device has no space for large bodies");
    }
    this.#bytesToProbe = PROBE_BYTES;
  }

  /** For Staging. */
  writing(bytes: number): Promise<void> {
    return this.#checkSpace(bytes);
  }

  /** For Staging: the file's bytes are synced; makes its name durable. */
  async sealed(fileId: number, length: number): Promise<void> {
    await this.#syncFolder();
    this.#sealed.set(fileId, length);
  }

  /** For Staging. Nothing where a commit has the file already. */
  async abandoned(fileId: number): Promise<void> {
    if (!this.#loose.has(fileId)) return;
    this.#sealed.delete(fileId);
    await this.#disk.unlink(this.#paths.body(fileId));
    this.#loose.delete(fileId);
  }

  /** Syncs the folder after this call; those who call while a sync runs share the next one. */
  #syncFolder(): Promise<void> {
    if (this.#folderSync === undefined) {
      this.#folderSync = this.#disk.syncFolder(this.#paths.large).finally(() => {
        this.#folderSync = undefined;
      });
      return this.#folderSync;
    }
    this.#nextFolderSync ??= this.#folderSync.then(
      () => this.#takeNextFolderSync(),
      () => this.#takeNextFolderSync(),
    );
    return this.#nextFolderSync;
  }

  #takeNextFolderSync(): Promise<void> {
    this.#nextFolderSync = undefined;
    return this.#syncFolder();
  }

  /** Errors: "body-gone" (no such file), "body-damaged". Requires: 0 ≤ offset, offset + length ≤ total. */
  async read(fileId: number, total: number, offset: number, length: number): Promise<Uint8Array> {
    if (length === 0) return new Uint8Array(0);
    const open = this.#acquire(fileId, total);
    try {
      return await this.#readBlocks(await open.file, fileId, total, offset, length);
    } catch (error) {
      if (codeOf(error) === "ENOENT") throw new RingsteadError("body-gone", "the body was superseded", { fileId });
      if (error instanceof RingsteadError) throw error;
      throw new RingsteadError("body-damaged", `the body cannot be read: ${messageOf(error)}`, { fileId });
    } finally {
      await this.#release(fileId, open);
    }
  }

  /**
   * Reads a whole body and checks every block of it; the numbers of those that are damaged, at most MAX_DAMAGED_BLOCKS. `allow` is asked before
   * each piece. Errors: "body-gone" (no such file).
   */
  async check(fileId: number, total: number, allow: (bytes: number) => Promise<void>): Promise<number[]> {
    const damaged: number[] = [];
    const count = Math.ceil(total / BLOCK_BYTES);
    const pieces: Promise<void>[] = [];
    const open = this.#acquire(fileId, total);
    try {
      const file = await open.file;
      for (let first = 0; first < count; first += BLOCKS_PER_SLOT) {
        const blocks: BlockRange = { fileId, total, first, end: Math.min(first + BLOCKS_PER_SLOT, count) };
        await allow(Math.min(blocks.end * BLOCK_BYTES, total) - first * BLOCK_BYTES);
        pieces.push(this.#checkPiece(file, blocks, damaged));
        if (pieces.length >= CHECKED_AT_ONCE) await pieces.shift();
      }
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
      throw new RingsteadError("body-gone", "the body has no file", { fileId });
    } finally {
      await Promise.all(pieces);
      await this.#release(fileId, open);
    }
    return damaged.toSorted((left, right) => left - right);
  }

  /** Block by block where the disk cannot read the piece as one. Never rejects. */
  async #checkPiece(file: DiskFile, blocks: BlockRange, damaged: number[]): Promise<void> {
    const { first, end } = blocks;
    try {
      await this.#eachBlock(file, blocks, (block, bytes) => {
        if (bytes === undefined && damaged.length < MAX_DAMAGED_BLOCKS) damaged.push(block);
      });
    } catch {
      if (end - first > 1)
        for (let block = first; block < end; block++)
          await this.#checkPiece(file, { ...blocks, first: block, end: block + 1 }, damaged);
      else if (damaged.length < MAX_DAMAGED_BLOCKS) damaged.push(first);
    }
  }

  /** A block as it lies in its file, checksum included; undefined where the disk cannot read it. */
  async rawBlock(fileId: number, total: number, block: number): Promise<DamagedPiece> {
    const offset = BODY_HEADER_BYTES + block * BLOCK_STRIDE;
    const length = Math.min(BLOCK_BYTES, total - block * BLOCK_BYTES) + BLOCK_SUM_BYTES;
    const bytes = new Uint8Array(length);
    const open = this.#disk.open(this.#paths.body(fileId), "existing");
    const count = await open
      .then(async (file) => {
        try {
          return await file.read([bytes], offset);
        } finally {
          await file.close();
        }
      })
      .catch(() => undefined);
    return { file: nameOfFileId(fileId), offset, bytes: count === undefined ? undefined : bytes.subarray(0, count) };
  }

  /** Reads and checks all blocks that the range touches. */
  async #readBlocks(
    file: DiskFile,
    fileId: number,
    total: number,
    offset: number,
    length: number,
  ): Promise<Uint8Array> {
    const data = Buffer.allocUnsafeSlow(length);
    const first = Math.floor(offset / BLOCK_BYTES);
    const end = Math.ceil((offset + length) / BLOCK_BYTES);
    const pieces: Promise<void>[] = [];
    for (let block = first; block < end; block += BLOCKS_PER_SLOT) {
      const blocks: BlockRange = { fileId, total, first: block, end: Math.min(block + BLOCKS_PER_SLOT, end) };
      pieces.push(this.#readPiece(file, blocks, data, offset));
    }
    // All of them, so that none still reads when the file is closed.
    for (const piece of await Promise.allSettled(pieces)) if (piece.status === "rejected") throw piece.reason;
    return data;
  }

  /** Copies what `data`, which begins at `offset` of the body, has of the blocks. */
  #readPiece(file: DiskFile, blocks: BlockRange, data: Uint8Array, offset: number): Promise<void> {
    return this.#eachBlock(file, blocks, (block, bytes) => {
      const { fileId } = blocks;
      if (bytes === undefined)
        throw new RingsteadError("body-damaged", "a block of the body is damaged", { fileId, block });
      const blockStart = block * BLOCK_BYTES;
      const from = Math.max(blockStart, offset);
      const wanted = bytes.subarray(from - blockStart, offset + data.length - blockStart);
      data.set(wanted, from - offset);
    });
  }

  /** Reads blocks into a slot and shows each, undefined where it is damaged. Requires: as many as a slot has room for, at most. */
  async #eachBlock(
    file: DiskFile,
    { fileId, total, first, end }: BlockRange,
    see: (block: number, bytes: Uint8Array | undefined) => void,
  ): Promise<void> {
    const bodyEnd = Math.min(end * BLOCK_BYTES, total);
    const fileStart = BODY_HEADER_BYTES + first * BLOCK_STRIDE;
    const fileEnd = BODY_HEADER_BYTES + bodyEnd + end * BLOCK_SUM_BYTES;
    const unitStart = fileStart - (fileStart % DIRECT_UNIT_BYTES);
    const slot = await this.#slots.take();
    try {
      const count = await file.read([slot.bytes.subarray(0, upToUnit(fileEnd - unitStart))], unitStart);
      for (let block = first; block < end; block++) {
        const at = fileStart - unitStart + (block - first) * BLOCK_STRIDE;
        const bytes = slot.bytes.subarray(at, at + Math.min(BLOCK_BYTES, total - block * BLOCK_BYTES));
        const sumAt = at + bytes.length;
        const isValid =
          sumAt + BLOCK_SUM_BYTES <= count &&
          slot.view.getBigUint64(sumAt, true) === blockSum(bytes, fileId, block, this.#deviceSeed);
        see(block, isValid ? bytes : undefined);
      }
    } finally {
      this.#slots.give(slot);
    }
  }

  #acquire(fileId: number, total: number): OpenFile {
    const leased = this.#leased.get(fileId);
    if (leased !== undefined) {
      leased.readers++;
      return leased;
    }
    let open = this.#open.get(fileId);
    if (open === undefined) {
      const file = this.#disk.open(this.#paths.body(fileId), "direct");
      open = { file, total, readers: 0, lastReadMs: Number.NEGATIVE_INFINITY, isDoomed: false };
    } else this.#open.delete(fileId);
    this.#open.set(fileId, open);
    open.readers++;
    return open;
  }

  async #release(fileId: number, open: OpenFile): Promise<void> {
    open.readers--;
    open.lastReadMs = this.#timer.nowMs();
    const failed = await open.file.then(
      () => false,
      () => true,
    );
    if (failed && this.#open.get(fileId) === open) this.#open.delete(fileId);
    if (open.isDoomed && open.readers === 0) await closeQuietly(open);
    if (this.#open.size <= MAX_OPEN_FILES) return;
    for (const [oldId, old] of this.#open) {
      if (old.readers > 0) continue;
      await this.#doom(oldId, old);
      break;
    }
  }

  async #doom(fileId: number, open: OpenFile): Promise<void> {
    this.#open.delete(fileId);
    open.isDoomed = true;
    if (open.readers === 0) await closeQuietly(open);
  }

  async close(): Promise<void> {
    for (const open of [...this.#open.values(), ...this.#leased.values()]) await closeQuietly(open);
    this.#open.clear();
    this.#leased.clear();
  }
}

/** A file that was only read, or never opened, has nothing to lose by failing to close. */
const closeQuietly = async (open: OpenFile): Promise<void> => {
  await open.file.then((file) => file.close()).catch(() => {});
};

const asDeviceError = (error: unknown): RingsteadError => {
  if (error instanceof RingsteadError) return error;
  const code = codeOf(error);
  if (code === "ENOSPC" || code === "EDQUOT") return new RingsteadError("device-full", "the device is full");
  return new RingsteadError("device-failed", `a large body cannot be written: ${messageOf(error)}`);
};

class Staging implements StagedBody {
  readonly file: string;
  readonly #files: BodyFiles;
  readonly #fileId: number;
  readonly #handle: DiskFile;
  readonly #deviceSeed: bigint;
  readonly #slots: DirectSlots;
  /** What is not written yet: the beginning of a unit, and behind it the open block. */
  readonly #rest = Buffer.allocUnsafeSlow(REST_BYTES);
  #restBytes = 0;
  /** Bytes of data in the open block. */
  #blockFill = 0;
  #block = 0;
  #fileOffset = 0;
  #length = 0;
  #isEnded = false;
  #write: Promise<void> = Promise.resolve();
  #sync: Promise<void> | undefined;
  #syncFailure: { readonly error: unknown } | undefined;
  #unsyncedBytes = 0;

  constructor(files: BodyFiles, slots: DirectSlots, fileId: number, handle: DiskFile, deviceSeed: bigint) {
    this.file = nameOfFileId(fileId);
    this.#slots = slots;
    this.#files = files;
    this.#fileId = fileId;
    this.#handle = handle;
    this.#deviceSeed = deviceSeed;
    this.#keep(encodeBodyHeader(fileId, deviceSeed));
  }

  async write(bytes: Uint8Array): Promise<void> {
    assert(!this.#isEnded, "a sealed or abandoned body takes no more bytes");
    this.#length += bytes.length;
    let at = 0;
    while (this.#blockFill + bytes.length - at >= BLOCK_BYTES) {
      const slot = await this.#slots.take();
      let fill = this.#takeRest(slot);
      for (let count = 0; count < BLOCKS_PER_SLOT && this.#blockFill + bytes.length - at >= BLOCK_BYTES; count++) {
        const missing = BLOCK_BYTES - this.#blockFill;
        slot.bytes.set(bytes.subarray(at, at + missing), fill);
        this.#blockFill = BLOCK_BYTES;
        at += missing;
        fill = this.#closeBlock(slot, fill + missing);
      }
      const written = fill - (fill % DIRECT_UNIT_BYTES);
      this.#keep(slot.bytes.subarray(written, fill));
      await this.#flush(slot, written);
    }
    this.#blockFill += bytes.length - at;
    this.#keep(bytes.subarray(at));
  }

  #keep(bytes: Uint8Array): void {
    this.#rest.set(bytes, this.#restBytes);
    this.#restBytes += bytes.length;
  }

  /** Moves the rest to the slot's beginning; gives its end there. */
  #takeRest(slot: Region): number {
    const count = this.#restBytes;
    slot.bytes.set(this.#rest.subarray(0, count));
    this.#restBytes = 0;
    return count;
  }

  /** Puts the checksum behind the open block, which ends at `end` of the slot; gives the checksum's end. */
  #closeBlock(slot: Region, end: number): number {
    const data = slot.bytes.subarray(end - this.#blockFill, end);
    slot.view.setBigUint64(end, blockSum(data, this.#fileId, this.#block, this.#deviceSeed), true);
    this.#block++;
    this.#blockFill = 0;
    return end + BLOCK_SUM_BYTES;
  }

  /** Waits for the write before this one, then starts this one; the slot goes back at its end. A failure stays. */
  async #flush(slot: Region, length: number): Promise<void> {
    try {
      await this.#write;
      await this.#files.writing(length);
      this.#syncAhead(length);
    } catch (error) {
      this.#slots.give(slot);
      this.#write = Promise.reject(error);
      this.#write.catch(() => {});
      throw asDeviceError(error);
    }
    const offset = this.#fileOffset;
    this.#fileOffset += length;
    this.#write = this.#handle.write(slot.bytes.subarray(0, length), offset).finally(() => this.#slots.give(slot));
    this.#write.catch(() => {});
  }

  /** Starts a sync of what is written so far. A failed one is final: a later one would not tell of the pages that are gone. */
  #syncAhead(bytes: number): void {
    if (this.#syncFailure !== undefined) throw this.#syncFailure.error;
    this.#unsyncedBytes += bytes;
    if (this.#unsyncedBytes < SYNC_BYTES || this.#sync !== undefined) return;
    this.#unsyncedBytes = 0;
    this.#sync = this.#handle
      .sync()
      .catch((error: unknown) => {
        this.#syncFailure = { error };
      })
      .finally(() => {
        this.#sync = undefined;
      });
  }

  async seal(): Promise<number> {
    assert(!this.#isEnded, "a body is sealed once");
    this.#isEnded = true;
    try {
      try {
        if (this.#restBytes > 0) await this.#flushRest();
        await this.#write;
        await this.#sync;
        if (this.#syncFailure !== undefined) throw this.#syncFailure.error;
        await this.#handle.sync();
      } finally {
        await this.#close();
      }
      await this.#files.sealed(this.#fileId, this.#length);
    } catch (error) {
      throw asDeviceError(error);
    }
    return this.#length;
  }

  /** Writes what is left, padded to whole units. */
  async #flushRest(): Promise<void> {
    const slot = await this.#slots.take();
    let fill = this.#takeRest(slot);
    if (this.#blockFill > 0) fill = this.#closeBlock(slot, fill);
    const end = upToUnit(fill);
    slot.bytes.fill(0, fill, end);
    await this.#flush(slot, end);
  }

  /** Not before the disk is done with the file. */
  async #close(): Promise<void> {
    await this.#write.catch(() => {});
    await this.#sync;
    await this.#handle.close();
  }

  async abandon(): Promise<void> {
    if (!this.#isEnded) {
      this.#isEnded = true;
      await this.#close();
    }
    await this.#files.abandoned(this.#fileId);
  }
}
