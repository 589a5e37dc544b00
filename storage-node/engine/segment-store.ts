import assert from "node:assert/strict";
import { basename } from "node:path";
import { RingsteadError, codeOf, messageOf } from "../../common/errors.ts";
import type { EngineTimer } from "./engine-timer.ts";
import { DIRECT_UNIT_BYTES, type Disk, type DiskFile } from "../../common/disk.ts";
import {
  SEGMENT_DATA_START,
  SEGMENT_HEADER_BYTES,
  SEGMENT_HEADER_COPIES,
  type SegmentHeader,
  decodeSegmentHeader,
  encodeSegmentHeader,
  segmentSeedOf,
} from "./format.ts";
import { type DevicePaths, slotOfName } from "./paths.ts";

/**
 * Free segments kept allocated ahead of need, so that no write waits for an allocation; and two of them so that a full device has its
 * reserve, whoever used the space up since it was last looked at: a large body, or another program.
 */
const SPARES = 3;
/**
 * Free space, in segments, below which it is getting short: what grows then gets only what is allocated already. More than large bodies
 * and other programs take until it is looked at again, before the next write of the index.
 */
const AMPLE_SEGMENTS = 8;
/** Free segments beyond this are given back to the file system. */
const MAX_SPARES = 4;
/** Spares that must be left when the log goes on to another segment. */
const SPARES_LEFT: Readonly<Record<SpaceUse, number>> = { growing: 2, freeing: 1, moving: 0 };
/** Share of a segment that the index finds free before each of its writes, as long as there is a spare to give for it. */
const INDEX_ROOM_SHARE = 0.25;
/** How often a full device looks for space again. */
const PROBE_INTERVAL_MS = 500;
/** Written and synced at once while a segment is allocated, which is how long a commit may wait behind it. */
const FILL_BYTES = 1024 * 1024;
/** After a piece allocation leaves the disk to commits for as long as the piece took, at most this long. */
const MAX_REST_MS = 20;

/**
 * What space is wanted for. On a full device "growing" gets none; commits that free some ("freeing") and, behind them, compaction
 * ("moving") still do, from spares kept back for them: otherwise nobody could delete a way out.
 */
export type SpaceUse = "growing" | "freeing" | "moving";

/** A segment in use. The figures count what was applied, synced or not. */
export type Segment = {
  readonly number: number;
  /** Seed of its records' checksums. */
  readonly seed: bigint;
  readonly firstSequence: number;
  /** Undefined from the claim until the first write. */
  slot: Slot | undefined;
  /** Where its records end. */
  used: number;
  /** Bytes of records and bodies that entries refer to. */
  live: number;
  /** Bytes of deletes. */
  deletes: number;
  /** Compaction could not move everything away (damage): left alone until nothing in it lives. */
  held: boolean;
};

/** Of all segments together. */
export type StoreFigures = {
  readonly segments: number;
  readonly spares: number;
  /** Files in the log's folder without a valid header. */
  readonly unreadableSegments: number;
  readonly usedBytes: number;
  readonly liveBytes: number;
  readonly deleteBytes: number;
  /** What the file system has left. */
  readonly freeBytes: number;
};

type Slot = { readonly number: number; readonly file: DiskFile; readers: number };

/**
 * The segment files of a device: allocated full of zeros, used under ascending numbers, recycled.
 *
 * The log claims a segment when it reaches it (`mayClaim`, `claim`) and activates it when it first writes there. A write into space
 * that was never written costs a commit of the file system's journal with each sync (measured: 1.5 to 2 times the latency), so
 * segments are filled with zeros ahead of need, in pieces that leave the disk to commits in between.
 */
export class SegmentStore {
  readonly segments = new Map<number, Segment>();
  readonly segmentBytes: number;
  readonly #disk: Disk;
  readonly #paths: DevicePaths;
  readonly #deviceSeed: bigint;
  readonly #spares: Slot[] = [];
  /** The head of the log, opened to pass by the page cache. */
  #direct: { readonly slot: Slot; readonly file: DiskFile } | undefined;
  #zeros: Uint8Array | undefined;
  #claimed = 0;
  #nextSlot = 1;
  #freeBytes = 0;
  #probedAtMs = Number.NEGATIVE_INFINITY;
  readonly #timer: EngineTimer;
  #allocating: Promise<void> | undefined;
  #closed = false;
  #unreadable = 0;
  /** Writes wait for an allocation. */
  #isUrgent = false;
  #spareArrived: () => void = () => {};
  /** Called when the file system turned out to be read-only. */
  onReadOnly: (reason: RingsteadError) => void = () => {};

  constructor(disk: Disk, paths: DevicePaths, deviceSeed: bigint, segmentBytes: number, timer: EngineTimer) {
    this.#timer = timer;
    assert(segmentBytes % DIRECT_UNIT_BYTES === 0, "segments are whole blocks");
    this.#disk = disk;
    this.#paths = paths;
    this.#deviceSeed = deviceSeed;
    this.segmentBytes = segmentBytes;
  }

  /** Reads all headers. Files that are no valid segment of this device are counted and left alone. */
  async load(): Promise<void> {
    for (const name of await this.#disk.list(this.#paths.log)) {
      const slotNumber = slotOfName(name);
      if (slotNumber === undefined) {
        if (name.endsWith(".new")) await this.#disk.unlink(`${this.#paths.log}/${name}`);
        continue;
      }
      this.#nextSlot = Math.max(this.#nextSlot, slotNumber + 1);
      const file = await this.#disk.open(this.#paths.segment(slotNumber), "write-through");
      const header = await this.#readHeader(file);
      if (header === undefined || header.sizeBytes !== this.segmentBytes || this.segments.has(header.number)) {
        this.#unreadable++;
        await file.close();
        continue;
      }
      const slot: Slot = { number: slotNumber, file, readers: 0 };
      if (!header.inUse) this.#spares.push(slot);
      else this.#add(header.number, header.firstSequence, slot);
    }
    await this.#probe();
  }

  async #readHeader(file: DiskFile): Promise<SegmentHeader | undefined> {
    for (const at of SEGMENT_HEADER_COPIES) {
      const bytes = new Uint8Array(SEGMENT_HEADER_BYTES);
      await file.read([bytes], at);
      const header = decodeSegmentHeader(bytes, this.#deviceSeed);
      if (header !== undefined) return header;
    }
    return undefined;
  }

  #add(number: number, firstSequence: number, slot: Slot | undefined): Segment {
    const segment: Segment = {
      number,
      seed: segmentSeedOf(this.#deviceSeed, number),
      firstSequence,
      slot,
      used: SEGMENT_DATA_START,
      live: 0,
      deletes: 0,
      held: false,
    };
    this.segments.set(number, segment);
    return segment;
  }

  /** Whether the log may go on to another segment; false on a full device, which then looks for space in the background. */
  mayClaim(use: SpaceUse): boolean {
    if (this.#hasSpaceFor(use)) return true;
    this.lookForSpace();
    return false;
  }

  #hasSpaceFor(use: SpaceUse): boolean {
    const missing = SPARES_LEFT[use] - (this.#spares.length - this.#claimed - 1);
    if (missing <= 0) return true;
    return use !== "moving" && this.#isAmple;
  }

  get #isAmple(): boolean {
    return this.#freeBytes >= AMPLE_SEGMENTS * this.segmentBytes;
  }

  /** Bytes of records that fit a segment. */
  get capacity(): number {
    return this.segmentBytes - SEGMENT_DATA_START;
  }

  /** Whether the foreground would get no further segment. */
  get isShort(): boolean {
    if (this.#hasSpaceFor("growing")) return false;
    // Not while the missing ones are being allocated, and there is space for them.
    return this.#allocating === undefined || this.#freeBytes < (SPARES + 1) * this.segmentBytes;
  }

  /** Takes the next number. Requires: `mayClaim` said yes in the same turn. */
  claim(number: number, firstSequence: number): Segment {
    this.#claimed++;
    void this.replenish();
    return this.#add(number, firstSequence, undefined);
  }

  /** A segment's file for writing, past the page cache or not; undefined where `activate` must see to it first. */
  fileOf({ slot }: Segment, isDirect: boolean): DiskFile | undefined {
    if (!isDirect) return slot?.file;
    return this.#direct?.slot === slot ? this.#direct?.file : undefined;
  }

  /** Gives a claimed segment its file, header synced, and `fileOf` what it gives then. Errors: "device-full"; what the disk says. */
  async activate(segment: Segment, isDirect: boolean): Promise<DiskFile> {
    const slot = segment.slot ?? (await this.#giveSlot(segment));
    if (!isDirect) return slot.file;
    await this.#closeDirect();
    const file = await this.#disk.open(this.#paths.segment(slot.number), "direct-write-through");
    this.#direct = { slot, file };
    return file;
  }

  async #closeDirect(): Promise<void> {
    const direct = this.#direct;
    this.#direct = undefined;
    await direct?.file.close();
  }

  async #giveSlot(segment: Segment): Promise<Slot> {
    await this.prepare();
    const slot = this.#spares.shift();
    if (slot === undefined) throw new RingsteadError("device-full", "no space for the log");
    this.#claimed--;
    await this.#writeHeader(slot.file, true, segment.number, segment.firstSequence);
    segment.slot = slot;
    void this.replenish();
    return slot;
  }

  /** Memory for what is written past the page cache. */
  directMemory(bytes: number): Uint8Array {
    return this.#disk.directMemory(bytes);
  }

  /** Durable when it resolves where the file is open for writing through, else with the next sync. */
  async #writeHeader(file: DiskFile, inUse: boolean, number: number, firstSequence: number): Promise<void> {
    const header = encodeSegmentHeader(
      { inUse, number, sizeBytes: this.segmentBytes, firstSequence },
      this.#deviceSeed,
    );
    for (const at of SEGMENT_HEADER_COPIES) await file.write(header, at);
  }

  /** Frees a segment for the next use; its records are gone for good when this resolves. Requires: nothing durable depends on it. */
  async release(segment: Segment): Promise<void> {
    const { slot } = segment;
    this.segments.delete(segment.number);
    if (slot === undefined) return;
    if (this.#direct?.slot === slot) await this.#closeDirect();
    await this.#writeHeader(slot.file, false, 0, 0);
    if (this.#spares.length < MAX_SPARES || slot.readers > 0) this.#spares.push(slot);
    else {
      await slot.file.close();
      await this.#disk.unlink(this.#paths.segment(slot.number));
    }
    await this.#probe();
  }

  /** Allocates until there are enough spares or no space. One at a time; never rejects but for a disk that fails. */
  replenish(): Promise<void> {
    this.#allocating ??= this.#allocateSpares().finally(() => {
      this.#allocating = undefined;
    });
    return this.#allocating;
  }

  /**
   * Gives a spare back to the file system where the index would not find room: somebody else may have filled the disk, and an index that
   * could not be written once is written no more.
   */
  async keepRoom(): Promise<void> {
    await this.#probe();
    if (this.#freeBytes >= INDEX_ROOM_SHARE * this.segmentBytes || this.#spares.length <= this.#claimed) return;
    const at = this.#spares.findIndex(({ readers }) => readers === 0);
    const [spare] = at < 0 ? [] : this.#spares.splice(at, 1);
    if (spare === undefined) return;
    await spare.file.close();
    await this.#disk.unlink(this.#paths.segment(spare.number));
    await this.#probe();
  }

  /** Resolves when a spare is there, or none can be had; the other spares are allocated in the background. One call at a time. */
  async prepare(): Promise<void> {
    const allocating = this.replenish();
    if (this.#spares.length > 0) return;
    this.#isUrgent = true;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#spareArrived = resolve;
    await Promise.race([promise, allocating]);
    this.#isUrgent = false;
  }

  /** Looks, at most every PROBE_INTERVAL_MS, whether a full device has space again. */
  lookForSpace(): void {
    if (this.#timer.nowMs() - this.#probedAtMs < PROBE_INTERVAL_MS) return;
    this.#probedAtMs = this.#timer.nowMs();
    void this.#probe().then(() => this.replenish());
  }

  /** Whether a segment may be allocated. */
  async #probe(): Promise<boolean> {
    // A device that cannot even tell its free space gets no further segments; what is wrong with it shows at the next write.
    this.#freeBytes = await this.#disk.freeBytes(this.#paths.root).catch(() => 0);
    // As much again stays free: LevelDB and large bodies in flight need room to end in order.
    return this.#freeBytes >= 2 * this.segmentBytes;
  }

  async #allocateSpares(): Promise<void> {
    while (!this.#closed && this.#spares.length - this.#claimed < SPARES) {
      const isFirst = this.segments.size + this.#spares.length === 0;
      if (!(await this.#probe()) && !isFirst) return;
      try {
        await this.#allocate();
      } catch (error) {
        // Full, or failing; if it is failing, the next write finds out, finally.
        this.#freeBytes = 0;
        if (codeOf(error) === "EROFS") {
          this.onReadOnly(new RingsteadError("device-read-only", `no space can be allocated: ${messageOf(error)}`));
        }
        return;
      }
    }
  }

  async #allocate(): Promise<void> {
    const number = this.#nextSlot++;
    const path = this.#paths.newSegment(number);
    try {
      await this.#fill(path);
      await this.#disk.rename(path, this.#paths.segment(number));
      await this.#disk.syncFolder(this.#paths.log);
    } catch (error) {
      await this.#disk.unlink(path).catch(() => {});
      throw error;
    }
    this.#freeBytes -= this.segmentBytes;
    const file = await this.#disk.open(this.#paths.segment(number), "write-through");
    if (this.#closed) await file.close();
    else this.#spares.push({ number, file, readers: 0 });
    this.#spareArrived();
  }

  /** A free segment, synced. */
  async #fill(path: string): Promise<void> {
    const zeros = (this.#zeros ??= this.directMemory(Math.min(FILL_BYTES, this.segmentBytes)));
    const file = await this.#disk.open(path, "create-direct");
    try {
      for (let at = 0; at < this.segmentBytes; at += FILL_BYTES) {
        const beganMs = this.#timer.nowMs();
        await file.write(zeros.subarray(0, Math.min(FILL_BYTES, this.segmentBytes - at)), at);
        if (this.#isUrgent || !this.#isAmple || at + FILL_BYTES >= this.segmentBytes || this.#closed) continue;
        await file.sync();
        const restMs = Math.min(MAX_REST_MS, this.#timer.nowMs() - beganMs);
        await new Promise<void>((resolve) => this.#timer.after(restMs, resolve));
      }
    } finally {
      await file.close();
    }
    const written = await this.#disk.open(path, "existing");
    try {
      await this.#writeHeader(written, false, 0, 0);
      await written.sync();
    } finally {
      await written.close();
    }
  }

  /** Reads from a segment. Resolves with false when it was recycled meanwhile or ends before the buffer is full. */
  async read(segment: Segment, bytes: Uint8Array, offset: number): Promise<boolean> {
    const { slot } = segment;
    if (slot === undefined) return false;
    slot.readers++;
    try {
      const count = await slot.file.read([bytes], offset);
      return count === bytes.length && this.segments.get(segment.number) === segment;
    } finally {
      slot.readers--;
    }
  }

  /**
   * Opens a segment for reading past the page cache and lends it to `use`; undefined where it has no file. It may be recycled meanwhile:
   * what was read counts only while `segments` still has it.
   */
  async whileDirect<T>({ slot }: Segment, use: (file: DiskFile) => Promise<T>): Promise<T | undefined> {
    if (slot === undefined) return undefined;
    slot.readers++;
    try {
      const file = await this.#disk.open(this.#paths.segment(slot.number), "direct");
      try {
        return await use(file);
      } finally {
        await file.close();
      }
    } finally {
      slot.readers--;
    }
  }

  /** The name of a segment's file, for people. */
  fileName({ slot }: Segment): string {
    return slot === undefined ? "" : basename(this.#paths.segment(slot.number));
  }

  /** The bytes before `offset` of the block that it lies in. Errors: what the disk says. */
  async blockBefore({ slot }: Segment, offset: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(offset % DIRECT_UNIT_BYTES);
    if (bytes.length === 0) return bytes;
    const count = await slot?.file.read([bytes], offset - bytes.length);
    if (count !== bytes.length) throw new RingsteadError("device-failed", "the head of the log cannot be read");
    return bytes;
  }

  figures(): StoreFigures {
    let usedBytes = 0;
    let liveBytes = 0;
    let deleteBytes = 0;
    for (const segment of this.segments.values()) {
      usedBytes += segment.used - SEGMENT_DATA_START;
      liveBytes += segment.live;
      deleteBytes += segment.deletes;
    }
    return {
      segments: this.segments.size,
      spares: this.#spares.length,
      unreadableSegments: this.#unreadable,
      usedBytes,
      liveBytes,
      deleteBytes,
      freeBytes: this.#freeBytes,
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#allocating;
    await this.#closeDirect();
    for (const slot of this.#spares) await slot.file.close();
    for (const segment of this.segments.values()) await segment.slot?.file.close();
  }
}
