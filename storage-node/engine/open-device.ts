import { randomBytes } from "node:crypto";
import { RingsteadError, codeOf, messageOf } from "../../common/errors.ts";
import { BodyFiles } from "./body-files.ts";
import { Compactor } from "./compactor.ts";
import type { DeviceEngine, OpenDeviceOptions } from "./device-engine.ts";
import { claimDeviceFolder, makeDeviceFolder } from "./device-folder.ts";
import { lockDevice } from "./device-lock.ts";
import type { Disk } from "../../common/disk.ts";
import { SEGMENT_BYTES, deviceSeedOf } from "./format.ts";
import { type EngineTimer, systemTimer } from "./engine-timer.ts";
import { FilteredIndex, type FilterParts } from "./filtered-index.ts";
import { type IndexPace, defaultIndexPace } from "./index-feed.ts";
import { type RunSize, defaultRunSize } from "./index-loader.ts";
import type { OpenIndex } from "./index-port.ts";
import { type Checkpoint, decodeCheckpoint } from "./index-format.ts";
import { type FilterSize, defaultFilterSize } from "./key-filter.ts";
import { openLevelIndex } from "./level-index.ts";
import { LogDevice } from "./log-device.ts";
import { DIRECT_BATCH_BYTES } from "./log-writer.ts";
import { DigestFiles } from "./digest-files.ts";
import { type DevicePaths, devicePaths } from "./paths.ts";
import { Quarantine } from "./quarantine.ts";
import { realDisk } from "./real-disk.ts";
import { Recovery } from "./recovery.ts";
import { SegmentStore } from "./segment-store.ts";

/** What tests and simulations choose; production takes the defaults. */
export type DeviceParts = {
  readonly disk: Disk;
  readonly openIndex: OpenIndex;
  readonly lock: (paths: DevicePaths) => Promise<AsyncDisposable>;
  readonly segmentBytes: number;
  readonly checkpointBytes: number;
  /** From this size on batches of the log pass by the page cache. */
  readonly directBatchBytes: number;
  readonly indexPace: IndexPace;
  readonly filterSize: FilterSize;
  readonly runSize: RunSize;
  readonly timer: EngineTimer;
  /** A number of 32 bits. */
  readonly random: () => number;
  /** Free space that staging large bodies leaves alone. */
  readonly reservedBytes?: number;
};

const production: DeviceParts = {
  disk: realDisk,
  openIndex: openLevelIndex,
  lock: lockDevice,
  segmentBytes: SEGMENT_BYTES,
  checkpointBytes: SEGMENT_BYTES,
  directBatchBytes: DIRECT_BATCH_BYTES,
  indexPace: defaultIndexPace,
  filterSize: defaultFilterSize,
  runSize: defaultRunSize,
  timer: systemTimer,
  random: () => randomBytes(4).readUInt32LE(),
};

/**
 * Opens a device folder, made where it is absent, and recovers it. Resolves when everything acknowledged before is visible.
 * Errors: "device-busy", "device-foreign", "format-newer", "device-path-not-folder", "device-full",
 * "device-read-only", "device-failed" (what the file system said).
 */
export const openDevice = async (
  options: OpenDeviceOptions,
  parts: Partial<DeviceParts> = {},
): Promise<DeviceEngine> => {
  try {
    return await open(options, { ...production, ...parts });
  } catch (error) {
    if (error instanceof RingsteadError) throw error;
    const { path } = options;
    const code = codeOf(error) === "EROFS" ? "device-read-only" : "device-failed";
    throw new RingsteadError(code, `${path} cannot be opened: ${messageOf(error)}`, { path });
  }
};

const open = async (options: OpenDeviceOptions, parts: DeviceParts): Promise<DeviceEngine> => {
  const { disk, lock, segmentBytes, checkpointBytes, directBatchBytes, indexPace, timer, reservedBytes } = parts;
  const paths = devicePaths(options.path);
  const deviceSeed = deviceSeedOf(options.identity);
  await makeDeviceFolder(disk, paths);
  await using opened = new AsyncDisposableStack();
  opened.use(await lock(paths));
  await claimDeviceFolder(disk, paths, options.identity);

  const segments = opened.adopt(new SegmentStore(disk, paths, deviceSeed, segmentBytes, timer), (store) =>
    store.close(),
  );
  await segments.load();
  const { filterSize: size, random } = parts;
  const filterParts: FilterParts = { disk, paths, deviceSeed, timer, size, random, reservedBytes };
  const { index, checkpoint } = await openUsableIndex(
    parts.openIndex,
    filterParts,
    segments,
    deviceSeed,
    options.digests.id,
  );
  opened.defer(() => index.close());
  const digestFiles = new DigestFiles(disk, paths, deviceSeed, reservedBytes);
  const digests =
    checkpoint === undefined ? undefined : await digestFiles.load(options.digests, checkpoint.nextSequence);
  const recovery = new Recovery(disk, paths, segments, index, checkpoint, parts.runSize, options.digests, digests);
  const recovered = await recovery.run();
  // What the log has lost the index may still have.
  if (recovered.hasHoles) index.distrust();
  await segments.prepare();
  const head = recovered.head?.segment ?? segments.claim(1, recovered.nextSequence);
  const blockStart = await segments.blockBefore(head, recovered.head?.offset ?? head.used);
  const bodies = opened.adopt(new BodyFiles(disk, paths, deviceSeed, recovered.nextFileId, reservedBytes), (files) =>
    files.close(),
  );
  const resources = opened.move();
  const device = new LogDevice({
    disk,
    quarantine: new Quarantine(disk, paths, reservedBytes),
    deviceSeed,
    segments,
    index,
    indexFigures: () => index.figures(),
    indexPace,
    timer,
    bodies,
    digests: recovery.digests(),
    digestFiles,
    recovered,
    head,
    blockStart,
    directBatchBytes,
    resources,
    checkpointBytes,
  });
  device.attach(new Compactor(device, segments));
  // What was replayed is not replayed again, and compaction knows what it may touch. But where there was a hole, whoever owns the device has to
  // write first that there was one ([M4]): behind a checkpoint no later start would find it, and the device would vote on what it lost.
  if (recovered.quarantinedRanges === 0) void device.checkpoint();
  return device;
};

/** The index with its checkpoint, or an empty one where there is none that fits the log. */
const openUsableIndex = async (
  openIndex: OpenIndex,
  filterParts: FilterParts,
  segments: SegmentStore,
  deviceSeed: bigint,
  digestScheme: bigint,
): Promise<{ index: FilteredIndex; checkpoint: Checkpoint | undefined }> => {
  const index = await FilteredIndex.open(openIndex, filterParts, false).catch(() => undefined);
  if (index !== undefined) {
    const checkpoint = decodeCheckpoint(index.readCheckpoint(), deviceSeed);
    const isUsable = checkpoint?.digestScheme === digestScheme && segments.segments.has(checkpoint.segment);
    if (isUsable) return { index, checkpoint };
    await index.close();
  }
  return { index: await FilteredIndex.open(openIndex, filterParts, true), checkpoint: undefined };
};
