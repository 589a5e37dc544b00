import type { Disk } from "../../common/disk.ts";
import { RingsteadError, codeOf, messageOf } from "../../common/errors.ts";
import type { BodyFiles } from "./body-files.ts";
import type {
  Allow,
  DamagedEntry,
  DamagedRange,
  DeviceScrub,
  Mended,
  Mutation,
  ScrubbedPage,
  SegmentExtent,
} from "./device-engine.ts";
import { DirectReader } from "./direct-reader.ts";
import type { EntryTable } from "./entry-table.ts";
import { BODY_ELSEWHERE, BODY_FILE, SEGMENT_DATA_START } from "./format.ts";
import { type IntactValue, type LiveEntry, decodeLiveEntry, readIntact } from "./index-format.ts";
import { BEHIND_ALL, type Index } from "./index-port.ts";
import type { LogSearch } from "./log-search.ts";
import { type LogReader, bodyReference } from "./log-reader.ts";
import type { DamagedPiece, Quarantine } from "./quarantine.ts";
import { bodyIsInside } from "./recovery.ts";
import { nameOf } from "./scan-merge.ts";
import { SegmentReader } from "./segment-reader.ts";
import type { Segment, SegmentStore } from "./segment-store.ts";

/** Asked for and checked before the foreground has its turn: a tenth of a millisecond. */
const TURN_BYTES = 256 * 1024;
const ALLOWED_AT_ONCE_BYTES = 1024 * 1024;
const PAGE_ENTRIES = 1000;
const MEND_ATTEMPTS = 4;
/** Blocks of a large body that are set aside. */
const SET_ASIDE_BLOCKS = 16;

/** What the check needs of the device. */
export type ScrubbedDevice = {
  sync(): Promise<void>;
  /** Resolves when the index has everything that was applied before the call, or will never have it. */
  indexed(): Promise<void>;
  apply(mutations: readonly Mutation[]): Promise<void>;
  move(key: Uint8Array, live: LiveEntry, body: Uint8Array | undefined): void;
  recount(): Promise<number | undefined>;
};

export type ScrubParts = {
  readonly disk: Disk;
  readonly segments: SegmentStore;
  readonly bodies: BodyFiles;
  readonly index: Index;
  readonly table: EntryTable;
  readonly reader: LogReader;
  readonly quarantine: Quarantine;
  readonly search: LogSearch;
};

/** The checks of a device over its log, its index and its large bodies. One MiB of log costs one read, one copy and the xxh64 of its records. */
export class LogScrub implements DeviceScrub {
  readonly #device: ScrubbedDevice;
  readonly #parts: ScrubParts;
  /** Memory of the log's check, as long as a round is in the log. */
  #direct: DirectReader | undefined;
  #records: SegmentReader | undefined;
  onDamaged: DeviceScrub["onDamaged"] = () => {};

  constructor(device: ScrubbedDevice, parts: ScrubParts) {
    this.#device = device;
    this.#parts = parts;
  }

  segments(): readonly SegmentExtent[] {
    return [...this.#parts.segments.segments.values()]
      .filter(({ slot }) => slot !== undefined)
      .map(({ number, used }) => ({ number, bytes: used }))
      .toSorted((left, right) => left.number - right.number);
  }

  async checkSegment(number: number, allow: Allow): Promise<readonly DamagedRange[]> {
    const { segments } = this.#parts.segments;
    const segment = segments.get(number);
    if (segment === undefined) return [];
    const end = segment.used;
    // What was applied before is in the file then.
    await this.#device.sync();
    const found = await this.#parts.segments.whileDirect(segment, async (file) => {
      const direct = (this.#direct ??= new DirectReader(this.#parts.disk));
      await direct.turnTo(file, end);
      try {
        return await this.#checkRecords(direct, segment, end, allow);
      } finally {
        await direct.stop();
      }
    });
    return segments.get(number) === segment ? (found ?? []) : [];
  }

  async #checkRecords(direct: DirectReader, segment: Segment, end: number, allow: Allow): Promise<DamagedRange[]> {
    const file = {
      read: ([bytes]: readonly Uint8Array[], offset: number): Promise<number> =>
        direct.read(bytes ?? new Uint8Array(0), offset),
    };
    const reader = (this.#records ??= new SegmentReader(file, segment.seed, end));
    reader.turnTo(file, segment.seed, end);
    const ranges: DamagedRange[] = [];
    let allowed = 0;
    let turnedAt = 0;
    for (let offset = SEGMENT_DATA_START; offset < end; ) {
      if (offset >= allowed) {
        const piece = Math.min(ALLOWED_AT_ONCE_BYTES, end - allowed);
        await allow(piece);
        allowed += piece;
        if (this.#parts.segments.segments.get(segment.number) !== segment) return [];
      }
      if (offset - turnedAt >= TURN_BYTES) {
        await new Promise(setImmediate);
        turnedAt = offset;
      }
      const size = await reader.read(offset);
      if (size > 0) {
        offset += size;
        continue;
      }
      const to = Math.min((await reader.find(offset + 8)) ?? end, end);
      ranges.push({ segment: segment.number, from: offset, to });
      offset = to;
    }
    return ranges;
  }

  async settle(): Promise<void> {
    this.#direct = undefined;
    this.#records = undefined;
    await this.#device.indexed();
  }

  async checkEntries(from: Uint8Array, ranges: readonly DamagedRange[], allow: Allow): Promise<ScrubbedPage> {
    const { table, index } = this.#parts;
    const damaged: DamagedEntry[] = [];
    let page: [Uint8Array, Uint8Array][];
    const cursor = index.cursor({ gte: from.length === 0 ? Buffer.of(0) : from, lt: BEHIND_ALL, reverse: false });
    try {
      page = await cursor.next(PAGE_ENTRIES);
    } catch (error) {
      throw new RingsteadError("index-unreadable", `the index cannot be read: ${messageOf(error)}`);
    } finally {
      await cursor.close();
    }
    let bytes = 0;
    const intact: IntactValue = { bodyKind: 0, digest: 0n };
    for (const [key, value] of page) {
      const isIntact = readIntact(value, intact);
      // Most of them: what they say of the log was checked there.
      if (isIntact && intact.bodyKind !== BODY_FILE && ranges.length === 0) continue;
      const pending = table.pending(nameOf(key));
      const live = pending === undefined ? decodeLiveEntry(value) : pending.live;
      if (live === undefined) {
        if (pending === undefined) damaged.push({ key, damage: "index" });
        continue;
      }
      if (liesIn(live, ranges)) damaged.push({ key, damage: "record" });
      if (live.bodyKind !== BODY_FILE) continue;
      bytes += live.bodyLength;
      if (!(await this.#isBodyWhole(live, allow))) damaged.push({ key, damage: "body" });
    }
    const last = page.at(-1)?.[0];
    const next = last === undefined || page.length < PAGE_ENTRIES ? undefined : Buffer.concat([last, Buffer.of(0)]);
    return { entries: page.length, bytes, damaged, next };
  }

  async #isBodyWhole({ bodyOffset, bodyLength }: LiveEntry, allow: Allow): Promise<boolean> {
    try {
      return (await this.#parts.bodies.check(bodyOffset, bodyLength, allow)).length === 0;
    } catch (error) {
      // Superseded meanwhile, or lost: `mend` looks whether it is still the entry's.
      if (codeOf(error) === "body-gone") return false;
      throw error;
    }
  }

  recount(): Promise<number | undefined> {
    return this.#device.recount();
  }

  async mend(key: Uint8Array, cause: string, isSuspect: boolean): Promise<Mended> {
    for (let attempt = 1; ; attempt++) {
      const mended = await this.#mendOnce(key, cause, isSuspect);
      if (mended !== undefined) return mended;
      // It changes again and again: what is written now is not what was found damaged.
      if (attempt === MEND_ATTEMPTS) return { kind: "whole" };
    }
  }

  /** Undefined where the entry changed meanwhile. */
  async #mendOnce(key: Uint8Array, cause: string, isSuspect: boolean): Promise<Mended | undefined> {
    const { table } = this.#parts;
    const live = this.#liveOf(key);
    // Where the index has something of a key that there never was, only the log can tell.
    if (live === undefined)
      return { kind: isSuspect && table.pending(nameOf(key)) === undefined ? "place-lost" : "whole" };
    if (live === "damaged") return { kind: "place-lost" };
    const isSame = (): boolean => {
      const now = this.#liveOf(key);
      return now !== undefined && now !== "damaged" && isSamePlace(now, live);
    };
    if (table.pending(nameOf(key))?.batch.isSynced === false) return { kind: "whole" };
    const body = await this.#bodyOf(live);
    const isValueLost = !this.#isValueReadable(live);
    if (isValueLost || body.damagedBlocks !== undefined) {
      if (!isSame()) return undefined;
      await this.#setAside(key, cause, live, body.damagedBlocks ?? []);
      if (isValueLost) return { kind: "value-lost", digest: live.digest, body: bodyReference(live) };
      return { kind: "body-lost", body: bodyReference(live) };
    }
    if (!isSuspect) return { kind: "whole" };
    await this.#setAside(key, cause, live, []);
    if (!isSame()) return undefined;
    this.#device.move(key, live, body.bytes);
    await this.#device.sync();
    return { kind: "mended" };
  }

  #liveOf(key: Uint8Array): LiveEntry | "damaged" | undefined {
    try {
      return this.#parts.table.live(key, nameOf(key));
    } catch (error) {
      if (codeOf(error) === "entry-damaged") return "damaged";
      throw error;
    }
  }

  #isValueReadable(live: LiveEntry): boolean {
    try {
      this.#parts.reader.valueNow(live);
      return true;
    } catch (error) {
      if (codeOf(error) === "entry-damaged") return false;
      throw error;
    }
  }

  /** What can be read of an entry's body: the bytes of one in the log; for one that cannot be read whole its damaged blocks, which of one that is gone nobody knows. */
  async #bodyOf(live: LiveEntry): Promise<{ readonly bytes?: Uint8Array; readonly damagedBlocks?: readonly number[] }> {
    try {
      if (live.bodyKind === BODY_ELSEWHERE)
        return { bytes: await this.#parts.reader.body(bodyReference(live), 0, live.bodyLength) };
      if (live.bodyKind !== BODY_FILE) return {};
      const damagedBlocks = await this.#parts.bodies.check(live.bodyOffset, live.bodyLength, async () => {});
      return damagedBlocks.length === 0 ? {} : { damagedBlocks };
    } catch (error) {
      if (codeOf(error) === "body-gone" || codeOf(error) === "body-damaged") return { damagedBlocks: [] };
      throw error;
    }
  }

  /** Copies what is damaged of an entry, or may be. */
  async #setAside(key: Uint8Array, cause: string, live: LiveEntry, blocks: readonly number[]): Promise<void> {
    const pieces: DamagedPiece[] = [await this.#raw(live.segment, live.offset, live.size)];
    if (live.bodyKind === BODY_ELSEWHERE && !bodyIsInside(live))
      pieces.push(await this.#raw(live.bodySegment, live.bodyOffset - 8, live.bodyLength + 8));
    for (const block of blocks.slice(0, SET_ASIDE_BLOCKS))
      pieces.push(await this.#parts.bodies.rawBlock(live.bodyOffset, live.bodyLength, block));
    const finding = { key: Buffer.from(key).toString("latin1"), cause, atMs: Date.now() };
    await this.#parts.quarantine.setAside(finding, pieces);
  }

  async #raw(number: number, offset: number, length: number): Promise<DamagedPiece> {
    const segment = this.#parts.segments.segments.get(number);
    const bytes = new Uint8Array(length);
    const file = segment === undefined ? "" : this.#parts.segments.fileName(segment);
    const isRead =
      segment !== undefined && (await this.#parts.segments.read(segment, bytes, offset).catch(() => false));
    return { file, offset, bytes: isRead ? bytes : undefined };
  }

  async mendFromLog(keys: readonly Uint8Array[]): Promise<readonly Uint8Array[]> {
    const lost: Uint8Array[] = [];
    const found = await this.#parts.search.find(keys, () => this.#device.sync());
    for (const key of keys) {
      const place = found.get(nameOf(key));
      const live = this.#liveOf(key);
      // Somebody wrote it meanwhile, or it can be read after all. One that there never was stands in the way of scans.
      if (live !== "damaged" && (live !== undefined || place?.kind !== "absent")) continue;
      if (place === undefined || place.kind === "unknown") lost.push(key);
      else if (place.kind === "absent") await this.#device.apply([{ kind: "delete", key }]);
      else if (this.#parts.segments.segments.get(place.live.segment)?.number === place.live.segment)
        this.#device.move(key, place.live, undefined);
      else lost.push(key);
    }
    await this.#device.sync();
    return lost;
  }
}

const isSamePlace = (one: LiveEntry, other: LiveEntry): boolean =>
  one.segment === other.segment &&
  one.offset === other.offset &&
  one.bodyKind === other.bodyKind &&
  one.bodySegment === other.bodySegment &&
  one.bodyOffset === other.bodyOffset;

/** Whether an entry's record or body touches one of the ranges. */
const liesIn = (live: LiveEntry, ranges: readonly DamagedRange[]): boolean =>
  ranges.some(({ segment, from, to }) => {
    const isRecord = live.segment === segment && live.offset < to && live.offset + live.size > from;
    if (isRecord || live.bodyKind !== BODY_ELSEWHERE) return isRecord;
    return live.bodySegment === segment && live.bodyOffset - 8 < to && live.bodyOffset + live.bodyLength > from;
  });

/** For engines without a disk. */
export const nothingToScrub = (): DeviceScrub => ({
  onDamaged: () => {},
  segments: () => [],
  checkSegment: async () => [],
  settle: async () => {},
  checkEntries: async () => ({ entries: 0, bytes: 0, damaged: [], next: undefined }),
  recount: async () => 0,
  mend: async () => ({ kind: "whole" }),
  mendFromLog: async () => [],
});
