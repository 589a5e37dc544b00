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
import type { Disk, DiskFile } from "../../common/disk.ts";
import { type Region, regionOf } from "./format.ts";
import { type DevicePaths, fileIdOfName, nameOfFileId } from "./paths.ts";

/** Blocks that collect before they are written at once; two such buffers per body being staged. */
const BLOCKS_PER_WRITE = 16;
/** Files kept open for the next read. */
const MAX_OPEN_FILES = 128;
/** Bytes staged between two looks at the free space. */
const PROBE_BYTES = 64 * 1024 * 1024;
/** Staging stops while less than this is free, so that the log can go on. */
const RESERVED_BYTES = 128 * 1024 * 1024;

type OpenFile = { readonly file: Promise<DiskFile>; readers: number; isDoomed: boolean };

/**
 * The large bodies of a device, a file each.
 *
 * Staging copies each byte once (into a block beside its checksum) and writes 1 MiB at a time while the next one fills; reading is
 * one `preadv` that parts blocks from checksums, without a copy where the range is whole blocks.
 */
export class BodyFiles {
  readonly #disk: Disk;
  readonly #paths: DevicePaths;
  readonly #deviceSeed: bigint;
  readonly #reservedBytes: number;
  readonly #open = new Map<number, OpenFile>();
  /** Sealed and not yet named in a commit. */
  readonly #sealed = new Map<number, number>();
  /** Staged and not committed, or superseded and not yet unlinked. */
  readonly #loose = new Set<number>();
  #nextFileId: number;
  #bytesToProbe = 0;
  #folderSync: Promise<void> | undefined;
  #nextFolderSync: Promise<void> | undefined;

  constructor(disk: Disk, paths: DevicePaths, deviceSeed: bigint, nextFileId: number, reservedBytes = RESERVED_BYTES) {
    this.#disk = disk;
    this.#paths = paths;
    this.#deviceSeed = deviceSeed;
    this.#nextFileId = nextFileId;
    this.#reservedBytes = reservedBytes;
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

  /** Unlinks a superseded file; reads under way go on. */
  async remove(fileId: number): Promise<void> {
    const open = this.#open.get(fileId);
    if (open !== undefined) await this.#doom(fileId, open);
    await this.#disk.unlink(this.#paths.body(fileId));
    this.#loose.delete(fileId);
  }

  async stage(): Promise<StagedBody> {
    await this.#checkSpace(0);
    const fileId = this.#nextFileId++;
    this.#loose.add(fileId);
    try {
      const file = await this.#disk.open(this.#paths.body(fileId), "create");
      await file.write(encodeBodyHeader(fileId, this.#deviceSeed), 0);
      return new Staging(this, fileId, file, this.#deviceSeed);
    } catch (error) {
      throw asDeviceError(error);
    }
  }

  /** Errors: "device-full". */
  async #checkSpace(bytes: number): Promise<void> {
    this.#bytesToProbe -= bytes;
    if (this.#bytesToProbe > 0) return;
    if ((await this.#disk.freeBytes(this.#paths.root)) < this.#reservedBytes) {
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
    const open = this.#acquire(fileId);
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

  async #readBlocks(
    file: DiskFile,
    fileId: number,
    total: number,
    offset: number,
    length: number,
  ): Promise<Uint8Array> {
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((offset + length - 1) / BLOCK_BYTES);
    const start = first * BLOCK_BYTES;
    const end = Math.min((last + 1) * BLOCK_BYTES, total);
    const data = Buffer.allocUnsafeSlow(end - start);
    const sums = regionOf(new Uint8Array((last - first + 1) * BLOCK_SUM_BYTES));
    const buffers: Uint8Array[] = [];
    for (let block = first; block <= last; block++) {
      const at = (block - first) * BLOCK_BYTES;
      const sumAt = (block - first) * BLOCK_SUM_BYTES;
      buffers.push(data.subarray(at, Math.min(at + BLOCK_BYTES, data.length)), sums.bytes.subarray(sumAt, sumAt + 8));
    }
    const count = await file.read(buffers, BODY_HEADER_BYTES + first * BLOCK_STRIDE);
    const isComplete = count === data.length + sums.bytes.length;
    for (let block = first; block <= last; block++) {
      const at = (block - first) * BLOCK_BYTES;
      const part = data.subarray(at, Math.min(at + BLOCK_BYTES, data.length));
      const sum = sums.view.getBigUint64((block - first) * BLOCK_SUM_BYTES, true);
      if (!isComplete || sum !== blockSum(part, fileId, block, this.#deviceSeed)) {
        throw new RingsteadError("body-damaged", "a block of the body is damaged", { fileId, block });
      }
    }
    return data.subarray(offset - start, offset - start + length);
  }

  #acquire(fileId: number): OpenFile {
    let open = this.#open.get(fileId);
    if (open === undefined) {
      open = { file: this.#disk.open(this.#paths.body(fileId), "existing"), readers: 0, isDoomed: false };
    } else this.#open.delete(fileId);
    this.#open.set(fileId, open);
    open.readers++;
    return open;
  }

  async #release(fileId: number, open: OpenFile): Promise<void> {
    open.readers--;
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
    for (const open of this.#open.values()) await closeQuietly(open);
    this.#open.clear();
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
  #buffer = regionOf(Buffer.allocUnsafeSlow(BLOCKS_PER_WRITE * BLOCK_STRIDE));
  #other: Region | undefined;
  /** Bytes of data in the buffer's last, open block. */
  #blockFill = 0;
  #blocksInBuffer = 0;
  #blocksBefore = 0;
  #fileOffset = BODY_HEADER_BYTES;
  #length = 0;
  #isEnded = false;
  #write: Promise<void> = Promise.resolve();

  constructor(files: BodyFiles, fileId: number, handle: DiskFile, deviceSeed: bigint) {
    this.file = nameOfFileId(fileId);
    this.#files = files;
    this.#fileId = fileId;
    this.#handle = handle;
    this.#deviceSeed = deviceSeed;
  }

  async write(bytes: Uint8Array): Promise<void> {
    assert(!this.#isEnded, "a sealed or abandoned body takes no more bytes");
    let at = 0;
    while (at < bytes.length) {
      const start = this.#blocksInBuffer * BLOCK_STRIDE + this.#blockFill;
      const count = Math.min(bytes.length - at, BLOCK_BYTES - this.#blockFill);
      this.#buffer.bytes.set(bytes.subarray(at, at + count), start);
      at += count;
      this.#blockFill += count;
      this.#length += count;
      if (this.#blockFill === BLOCK_BYTES) this.#closeBlock();
      if (this.#blocksInBuffer === BLOCKS_PER_WRITE) await this.#flush();
    }
  }

  #closeBlock(): void {
    const start = this.#blocksInBuffer * BLOCK_STRIDE;
    const { bytes, view } = this.#buffer;
    const data = bytes.subarray(start, start + this.#blockFill);
    const sum = blockSum(data, this.#fileId, this.#blocksBefore + this.#blocksInBuffer, this.#deviceSeed);
    view.setBigUint64(start + this.#blockFill, sum, true);
    this.#blocksInBuffer++;
    this.#blockFill = 0;
  }

  /** Waits for the write before this one, then starts this one and turns to the other buffer. */
  async #flush(lastBlockBytes = BLOCK_BYTES): Promise<void> {
    try {
      await this.#write;
      const length = this.#blocksInBuffer * BLOCK_STRIDE - (BLOCK_BYTES - lastBlockBytes);
      await this.#files.writing(length);
      const full = this.#buffer;
      this.#write = this.#handle.write(full.bytes.subarray(0, length), this.#fileOffset);
      this.#write.catch(() => {});
      this.#buffer = this.#other ?? regionOf(Buffer.allocUnsafeSlow(BLOCKS_PER_WRITE * BLOCK_STRIDE));
      this.#other = full;
      this.#fileOffset += length;
      this.#blocksBefore += this.#blocksInBuffer;
      this.#blocksInBuffer = 0;
    } catch (error) {
      throw asDeviceError(error);
    }
  }

  async seal(): Promise<number> {
    assert(!this.#isEnded, "a body is sealed once");
    this.#isEnded = true;
    const fill = this.#blockFill;
    if (fill > 0) this.#closeBlock();
    if (this.#blocksInBuffer > 0) await this.#flush(fill > 0 ? fill : BLOCK_BYTES);
    try {
      await this.#write;
      await this.#handle.sync();
      await this.#handle.close();
      await this.#files.sealed(this.#fileId, this.#length);
    } catch (error) {
      throw asDeviceError(error);
    }
    return this.#length;
  }

  async abandon(): Promise<void> {
    if (!this.#isEnded) {
      this.#isEnded = true;
      await this.#write.catch(() => {});
      await this.#handle.close();
    }
    await this.#files.abandoned(this.#fileId);
  }
}
