import { hash } from "node:crypto";
import { RingsteadError } from "../common/errors.ts";
import type { FakeContent, FakeVolumeHost } from "./fake-volume-host.ts";
import type { BackupContents } from "./backup/backup-contents.ts";
import type { BackupPart } from "./backup/backup-reader.ts";
import type { Restoration, VolumeData } from "./volume-data.ts";

/** The bytes of a fake host's volumes, for tests; its promises are those of the real one (`volume-data.contract.ts`). */
export type FakeVolumeData = VolumeData & {
  /** Called at the beginning of each call, and with `after` when it was done; what it throws, or waits for, the caller sees. */
  intercept: (method: keyof VolumeData, moment: "before" | "after") => Promise<void> | void;
  /** Bytes that were read of snapshots. */
  readBytes: number;
  /** As a client of the volume would: whole blocks. */
  put(volumeId: string, offset: number, bytes: Buffer): void;
  /** All that the volume has: where, and what. */
  content(volumeId: string): Readonly<Record<number, string>>;
  bytes(volumeId: string, offset: number, length: number): Buffer;
  /** What hosts fill volumes from; backups that were restored so, until they are filled. */
  contents: BackupContents | undefined;
  readonly filling: Set<string>;
  /** Whether what is being filled gets on. */
  isFilling: boolean;
  /** What is wrong with backups, by their ids. */
  readonly damages: Map<string, string>;
  /** What a host that ends forgets. */
  loseWriters(): void;
};

const BLOCK_BYTES = 64 * 1024;
const PART_BYTES = 64 * 1024 * 1024;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

const refuse = (code: string, message: string): never => {
  throw new RingsteadError(code, message);
};

/** What a layer upon the base would have: a block that was written with what it held is not told from one that was not. */
const differs = (one: Buffer | undefined, other: Buffer | undefined): boolean =>
  one === undefined || other === undefined ? one !== other : !one.equals(other);

export const createFakeVolumeData = (host: FakeVolumeHost): FakeVolumeData => {
  const writers = new Map<string, string>();

  const volumeOf = (volumeId: string) =>
    host.volumes.get(volumeId) ?? refuse("no-such-volume", `there is no volume ${volumeId}`);
  const frozen = (volumeId: string, snapshotId: string): FakeContent =>
    volumeOf(volumeId).frozen.get(snapshotId) ?? refuse("no-such-snapshot", `there is no snapshot ${snapshotId}`);
  const bytesOf = (content: FakeContent, offset: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    for (let at = 0; at < length; ) {
      const block = Math.floor((offset + at) / BLOCK_BYTES);
      const within = offset + at - block * BLOCK_BYTES;
      const count = Math.min(BLOCK_BYTES - within, length - at);
      content.get(block)?.copy(bytes, at, within, within + count);
      at += count;
    }
    return bytes;
  };
  const put = (volumeId: string, offset: number, bytes: Buffer): void => {
    const { content } = volumeOf(volumeId);
    for (let at = 0; at < bytes.length; ) {
      const block = Math.floor((offset + at) / BLOCK_BYTES);
      const within = offset + at - block * BLOCK_BYTES;
      const count = Math.min(BLOCK_BYTES - within, bytes.length - at);
      const next = Buffer.from(content.get(block) ?? Buffer.alloc(BLOCK_BYTES));
      bytes.copy(next, within, at, at + count);
      if (next.equals(ZEROS)) content.delete(block);
      else content.set(block, next);
      at += count;
    }
  };
  const assertWriter = (volumeId: string, writerId: string): void => {
    if (writers.get(writerId) !== volumeId || !volumeOf(volumeId).writers.has(writerId))
      refuse("writer-lost", "the volume is not open");
  };
  const closed = (volumeId: string, writerId: string): void => {
    host.volumes.get(volumeId)?.exports.delete(writerId);
    host.volumes.get(volumeId)?.writers.delete(writerId);
  };

  const around = async <Result>(method: keyof VolumeData, work: () => Result): Promise<Result> => {
    await data.intercept(method, "before");
    const result = work();
    await data.intercept(method, "after");
    return result;
  };
  /** All at once, where the real one reads what it is asked for. */
  const restore = async ({ volumeId, restorationId, ...place }: Restoration): Promise<void> => {
    const volume = volumeOf(volumeId);
    if (volume.restorationId === restorationId) return;
    if (volume.exports.size > 0) refuse("volume-in-use", "it is exported");
    if (place.sizeBytes > volume.sizeBytes) refuse("volume-shrinks", "the backup is larger");
    const { contents = refuse("backups-unavailable", "there are no backups") } = data;
    if ((await contents.size(place)) !== place.sizeBytes) refuse("backup-damaged", "it has another size");
    const parts: BackupPart[] = [];
    for (let at = 0; at < place.sizeBytes; at += PART_BYTES)
      parts.push(...(await contents.read(place, at, Math.min(PART_BYTES, place.sizeBytes - at))));
    host.restored(volumeId, restorationId);
    for (const part of parts) if ("bytes" in part) put(volumeId, part.offset, part.bytes);
    data.filling.add(place.backupId);
  };
  const data: FakeVolumeData = {
    contents: undefined,
    filling: new Set(),
    isFilling: true,
    damages: new Map(),
    restore: async (restoration) => {
      await data.intercept("restore", "before");
      await restore(restoration);
      await data.intercept("restore", "after");
    },
    restoration: (backupId) =>
      around("restoration", () => {
        const isFilled = !data.filling.has(backupId);
        if (data.isFilling) data.filling.delete(backupId);
        return { isFilled, copiedShare: isFilled ? 1 : 0, damage: data.damages.get(backupId) };
      }),
    intercept: () => {},
    readBytes: 0,
    put,
    content: (volumeId) =>
      Object.fromEntries([...volumeOf(volumeId).content].map(([block, bytes]) => [block, hash("sha256", bytes)])),
    bytes: (volumeId, offset, length) => bytesOf(volumeOf(volumeId).content, offset, length),
    loseWriters: () => {
      for (const [writerId, volumeId] of writers) closed(volumeId, writerId);
      writers.clear();
    },
    changes: ({ volumeId, snapshotId, baseId, offset, length }) =>
      around("changes", () => {
        const content = frozen(volumeId, snapshotId);
        const base = baseId === undefined ? undefined : volumeOf(volumeId).frozen.get(baseId);
        if (baseId !== undefined && base === undefined)
          return { isRecorded: false, coveredBytes: length, extents: [{ offset, length, isZero: false }] };
        const blocks = new Set([...content.keys(), ...(base?.keys() ?? [])]);
        const extents = [...blocks]
          .filter((block) => differs(content.get(block), base?.get(block)))
          .map((block) => ({ offset: block * BLOCK_BYTES, length: BLOCK_BYTES, isZero: !content.has(block) }))
          .filter((extent) => extent.offset < offset + length && extent.offset + BLOCK_BYTES > offset);
        return { isRecorded: base !== undefined, coveredBytes: length, extents };
      }),
    read: ({ volumeId, snapshotId, offset, length }) =>
      around("read", () => {
        data.readBytes += length;
        return bytesOf(frozen(volumeId, snapshotId), offset, length);
      }),
    release: () => around("release", () => undefined),
    begin: ({ volumeId, writerId }) =>
      around("begin", () => {
        const { exports, writers: own } = volumeOf(volumeId);
        if ([...exports.keys()].some((id) => id !== writerId)) refuse("volume-in-use", "it is exported");
        const opened = { kind: "nbd-unix", socketPath: `/run/${volumeId}.sock`, exportName: writerId } as const;
        exports.set(writerId, opened);
        own.add(writerId);
        writers.set(writerId, volumeId);
      }),
    write: ({ volumeId, writerId }, offset, bytes) =>
      around("write", () => {
        assertWriter(volumeId, writerId);
        put(volumeId, offset, bytes);
      }),
    zero: ({ volumeId, writerId }, offset, length) =>
      around("zero", () => {
        assertWriter(volumeId, writerId);
        const { content } = volumeOf(volumeId);
        for (const block of content.keys()) {
          const from = Math.max(offset, block * BLOCK_BYTES);
          const to = Math.min(offset + length, (block + 1) * BLOCK_BYTES);
          if (to > from) put(volumeId, from, Buffer.alloc(to - from));
        }
      }),
    flush: ({ volumeId, writerId }) => around("flush", () => assertWriter(volumeId, writerId)),
    end: ({ volumeId, writerId }) =>
      around("end", () => {
        writers.delete(writerId);
        closed(volumeId, writerId);
      }),
  };
  return data;
};
