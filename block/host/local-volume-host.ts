import { randomBytes } from "node:crypto";
import { open } from "node:fs/promises";
import { messageOf, RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type {
  FlattenProgress,
  NewVolume,
  PoolReport,
  RunningExport,
  VolumeExport,
  VolumeHost,
  WantedExport,
} from "../volume-host.ts";
import {
  beginClone,
  beginCreate,
  beginCreateFromSnapshot,
  beginExtend,
  beginRestore,
  beginRevert,
  beginSnapshot,
  type Chains,
  chainOf,
  type Layer,
  type LayerId,
  volumeOf,
  type WantedRestoration,
  withoutSnapshot,
  withoutVolume,
} from "./core/chains.ts";
import { askFlatten, isFlat, isReadFrom, readersOf } from "./core/layer-copies.ts";
import { emptyImage, emptyImageBytes, imageBytesLimit } from "./core/qcow2-image.ts";
import type { Driver } from "./drivers/driver.ts";
import type { PlacedLayer } from "./exports/block-graph.ts";
import { LocalVolumeData } from "./backup-source.ts";
import { Exports } from "./exports/exports.ts";
import type { BackupContents } from "../backup/backup-contents.ts";
import type { RestorationProgress } from "../volume-data.ts";
import { ServedBackups } from "./filling/served-backups.ts";
import { LimitedVolumes } from "./limited-volumes.ts";
import { Merger } from "./merger.ts";
import type { HostPaths } from "./paths.ts";
import type { VolumeLimits } from "../core/qos-limits.ts";
import { ChainRecords } from "./store/chain-records.ts";
import { LimitRecords } from "./store/limit-records.ts";
import { Turns } from "./turns.ts";
import { endStrayReaders } from "./snapshot-reader.ts";
import { type Space, VolumeChanges } from "./volume-changes.ts";

/** Disks count in sectors: a volume that ends within one has the whole of it. */
const SECTOR_BYTES = 512;
/** How often daemons are looked at where nothing says that one is gone. */
const WATCH_INTERVAL_MS = 2000;
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export type LocalVolumeHostOptions = {
  readonly paths: HostPaths;
  readonly pools: ReadonlyMap<string, Driver>;
  /** Where exports over TCP listen, and what clients are told to connect to. */
  readonly host: string;
  readonly publicHost: string;
  readonly firstPort: number;
  readonly iscsiPort: number;
  readonly log: Log;
  /** What backups hold; undefined where there are none. */
  readonly backups?: BackupContents | undefined;
  /** In the place of the limit for who restores a volume and says nothing more; for tests. */
  readonly writerIdleMs?: number;
  /** In the place of the limit for reads of backups; for tests. */
  readonly backupPatienceMs?: number;
};

const newLayerId = (): LayerId => randomBytes(10).toString("hex");

/** Ids become names on disks and in daemons: only what has the form of one gets that far. */
const checked = (id: string): string => {
  if (!ID.test(id)) throw new RingsteadError("bad-message", "volumes, snapshots and attachments are named by UUIDs");
  return id;
};

/** Volumes of this machine's pools. Disposal leaves daemons running: the next one finds them. */
export class LocalVolumeHost implements VolumeHost, AsyncDisposable {
  readonly #options: LocalVolumeHostOptions;
  readonly #records: ChainRecords;
  readonly #changes: VolumeChanges;
  readonly #exports: Exports;
  readonly #limits: LimitedVolumes;
  readonly #turns = new Turns();
  readonly #lost = new Set<string>();
  /** Snapshots that are read for backups, and volumes that are restored. */
  readonly data: LocalVolumeData;
  readonly #merger: Merger;
  readonly #backups: ServedBackups;
  #wake: () => void = () => {};

  private constructor(options: LocalVolumeHostOptions) {
    this.#options = options;
    this.#records = ChainRecords.opened(options.paths.records);
    this.#limits = new LimitedVolumes(new LimitRecords(options.paths.limitRecords), (volumeId) =>
      this.#inTurn(volumeId, () => this.#exports.limit(volumeId)),
    );
    this.#exports = new Exports({
      ...options,
      limitsOf: (volumeId) => this.#limits.of(volumeId),
      chainOf: (volumeId, top, sizeBytes) => this.#placedChain(volumeId, top, sizeBytes),
      onLost: (volumeId) => {
        this.#lost.add(volumeId);
        this.#wake();
      },
    });
    this.#backups = new ServedBackups({
      socketPath: options.paths.backupsSocket,
      layer: (id) => this.#records.chains.layers.get(id),
      contents: options.backups,
      log: options.log,
      ...(options.backupPatienceMs === undefined ? {} : { patienceMs: options.backupPatienceMs }),
    });
    const space: Space = {
      make: (layer) => this.#make(layer),
      grow: (layer, sizeBytes) => this.#pool(layer.pool).grow(layer.id, this.#spaceOf(layer, sectors(sizeBytes))),
      remove: async (layer) => {
        if (layer.format === "backup") this.#backups.close(layer.id);
        else await this.#pool(layer.pool).remove(layer.id);
      },
    };
    this.#changes = new VolumeChanges(this.#records, space, this.#exports, newLayerId);
    this.data = new LocalVolumeData({
      paths: options.paths,
      log: options.log,
      chains: () => this.#records.chains,
      placed: (volumeId, layer) => this.#placedChain(volumeId, layer),
      inTurn: (volumeId, action) => this.#inTurn(volumeId, action),
      stopCopy: (volumeId) => this.#exports.stopCopy(volumeId),
      exportAlone: (wanted) => this.#export(wanted, true),
      unexportVolume: (volumeId, attachmentId) => this.unexportVolume(volumeId, attachmentId),
      restore: (wanted) => this.#restore(wanted),
      restoration: (backupId) => this.#restoration(backupId),
      ...(options.writerIdleMs === undefined ? {} : { writerIdleMs: options.writerIdleMs }),
    });
    this.#merger = new Merger({
      chains: () => this.#records.chains,
      exports: this.#exports,
      finish: (volumeId, copy) => this.#changes.finishCopy(volumeId, copy),
      isHeld: (volumeId) => this.data.isHeld(volumeId),
      inTurn: (volumeId, action) => this.#inTurn(volumeId, action),
      log: options.log,
    });
  }

  /**
   * Opens the host as it was left: adopts daemons that run, finishes changes that were begun, starts daemons that are missing.
   * Errors: "records-damaged".
   */
  static async opened(options: LocalVolumeHostOptions): Promise<LocalVolumeHost> {
    const host = new LocalVolumeHost(options);
    // Before any daemon is asked for anything: some wait for it.
    await host.#backups.listen();
    await host.#recover();
    return host;
  }

  async pools(): Promise<readonly PoolReport[]> {
    const volumes = [...this.#records.chains.volumes.values()];
    return Promise.all(
      [...this.#options.pools].map(async ([pool, driver]): Promise<PoolReport> => {
        const own = volumes.filter((volume) => volume.pool === pool);
        const about = {
          pool,
          driver: driver.kind,
          provisionedBytes: own.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
          volumeCount: own.length,
        };
        try {
          return { ...about, ...(await driver.capacity()), failure: undefined };
        } catch (error) {
          return { ...about, totalBytes: 0, freeBytes: 0, isThin: false, failure: messageOf(error) };
        }
      }),
    );
  }

  createVolume(volume: NewVolume): Promise<void> {
    const { volumeId, source } = volume;
    const sourceId = source.kind === "none" ? undefined : checked(source.volumeId);
    const ids = [checked(volumeId), ...(sourceId === undefined ? [] : [sourceId])];
    return this.#turns.run(ids, async () => {
      for (const id of ids) await this.#changes.resume(id);
      // Whoever reads a source's layers from now on must find them at rest.
      if (sourceId !== undefined) await this.#exports.stopCopy(sourceId);
      const there = this.#records.chains.volumes.get(volumeId);
      if (there !== undefined) {
        if (there.sizeBytes === volume.sizeBytes) return;
        throw new RingsteadError("volume-exists", `volume ${volumeId} has ${there.sizeBytes} bytes here already`);
      }
      await this.#changes.carryOut(volumeId, this.#beginCreate(volume));
    });
  }

  deleteVolume(volumeId: string): Promise<void> {
    return this.#inTurn(volumeId, async () => {
      if (this.#exports.isExported(volumeId))
        throw new RingsteadError("volume-in-use", `volume ${volumeId} is exported`);
      await this.#exports.stopCopy(volumeId);
      const { chains } = this.#records;
      if (chains.volumes.has(volumeId)) this.#records.change(withoutVolume(chains, volumeId));
      await this.#changes.collect();
    });
  }

  extendVolume(volumeId: string, sizeBytes: number): Promise<void> {
    return this.#inTurn(volumeId, async () => {
      const { chains } = this.#records;
      if (volumeOf(chains, volumeId).sizeBytes === sizeBytes) return;
      await this.#changes.carryOut(volumeId, beginExtend(chains, volumeId, sizeBytes));
    });
  }

  createSnapshot(volumeId: string, snapshotId: string): Promise<void> {
    checked(snapshotId);
    return this.#inTurn(volumeId, async () => {
      const { chains } = this.#records;
      if (volumeOf(chains, volumeId).snapshots.some(({ id }) => id === snapshotId)) return;
      await this.#changes.carryOut(volumeId, beginSnapshot(chains, volumeId, snapshotId, newLayerId()));
    });
  }

  deleteSnapshot(volumeId: string, snapshotId: string): Promise<void> {
    return this.#inTurn(volumeId, async () => {
      await this.data.close(checked(snapshotId));
      const { chains } = this.#records;
      if (chains.volumes.has(volumeId)) this.#records.change(withoutSnapshot(chains, volumeId, snapshotId));
      await this.#changes.collect();
    });
  }

  revertVolume(volumeId: string, snapshotId: string): Promise<void> {
    return this.#inTurn(volumeId, async () => {
      if (this.#exports.isExported(volumeId))
        throw new RingsteadError("volume-in-use", `volume ${volumeId} is exported`);
      await this.#exports.stopCopy(volumeId);
      const begun = beginRevert(this.#records.chains, volumeId, snapshotId, newLayerId());
      await this.#changes.carryOut(volumeId, begun);
    });
  }

  flattenVolume(volumeId: string): Promise<FlattenProgress> {
    return this.#inTurn(volumeId, async () => {
      const { chains } = this.#records;
      const asked = askFlatten(chains, volumeId);
      if (asked !== chains) {
        this.#records.change(asked);
        this.#merger.hurry(volumeId);
      }
      if (isFlat(asked, volumeId)) return { isFlat: true, copiedShare: 1, failure: undefined };
      const { share = 0 } = await this.#exports.copyProgress(volumeId);
      return { isFlat: false, copiedShare: share, failure: this.#merger.failureOf(volumeId) };
    });
  }

  exportVolume(wanted: WantedExport): Promise<VolumeExport> {
    return this.#export(wanted, false);
  }

  unexportVolume(volumeId: string, attachmentId?: string): Promise<void> {
    if (attachmentId === undefined) this.data.closeSessionsOf(volumeId);
    else checked(attachmentId);
    return this.#inTurn(volumeId, () => this.#exports.unexport(volumeId, attachmentId));
  }

  limitVolumes(limits: ReadonlyMap<string, VolumeLimits>): Promise<void> {
    return this.#limits.replace(limits);
  }

  async exports(): Promise<readonly RunningExport[]> {
    return this.#exports.running();
  }

  /** Starts daemons that ended, and looks after those that run. */
  watcher(): Worker {
    let restarts = 0;
    return {
      name: "exports",
      status: () => ({ exported: this.#exports.volumeIds.length, restarts }),
      work: async () => {
        this.#lost.clear();
        const missing = this.#exports.volumeIds.filter((volumeId) => !this.#exports.isServed(volumeId));
        for (const volumeId of missing) {
          restarts += 1;
          try {
            await this.#inTurn(volumeId, () => this.#exports.ensure(volumeId));
            this.#options.log.info("an export is served again", { volumeId });
          } catch (error) {
            // The others are served all the same; this one is tried again with the next look.
            this.#options.log.error("an export cannot be served", { volumeId, error });
          }
        }
        return "idle";
      },
      waitForWork: async (signal) => {
        if (this.#lost.size > 0) return;
        const woken = new Promise<void>((resolve) => (this.#wake = resolve));
        const stop = new AbortController();
        await Promise.race([woken, sleep(WATCH_INTERVAL_MS, AbortSignal.any([signal, stop.signal]))]);
        stop.abort();
      },
    };
  }

  /** Merges layers that nobody needs apart any more, and makes volumes independent, while they are served or not. */
  merger(): Worker {
    return this.#merger;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turns.quiet();
    await this.data[Symbol.asyncDispose]();
    this.#exports.release();
    await this.#backups[Symbol.asyncDispose]();
  }

  #export(wanted: WantedExport, isWriter: boolean): Promise<VolumeExport> {
    checked(wanted.attachmentId);
    return this.#inTurn(wanted.volumeId, () => {
      volumeOf(this.#records.chains, wanted.volumeId);
      return this.#exports.export(wanted, isWriter);
    });
  }

  #restore(wanted: WantedRestoration): Promise<void> {
    const { volumeId, restorationId, backupId } = wanted;
    for (const id of [restorationId, backupId]) checked(id);
    return this.#inTurn(volumeId, async () => {
      const { chains } = this.#records;
      if (volumeOf(chains, volumeId).restorationId === restorationId) return;
      if (this.#exports.isExported(volumeId))
        throw new RingsteadError("volume-in-use", `volume ${volumeId} is exported`);
      // Who could not read a byte of it says so before what the volume holds is gone.
      await this.#backups.check(wanted);
      await this.#exports.stopCopy(volumeId);
      const begun = beginRestore(this.#records.chains, wanted, [newLayerId(), newLayerId()]);
      await this.#changes.carryOut(volumeId, begun);
    });
  }

  async #restoration(backupId: string): Promise<RestorationProgress> {
    const { chains } = this.#records;
    if (!isReadFrom(chains, backupId)) return { isFilled: true, copiedShare: 1, damage: undefined };
    const [volumeId] = readersOf(chains, backupId);
    const copy =
      volumeId === undefined ? undefined : await this.#inTurn(volumeId, () => this.#exports.copyProgress(volumeId));
    return { isFilled: false, copiedShare: copy?.share ?? 0, damage: this.#backups.damageOf(backupId) };
  }

  #beginCreate(volume: NewVolume): Chains {
    const { volumeId, pool, source } = volume;
    const { chains } = this.#records;
    if (!this.#options.pools.has(pool)) throw new RingsteadError("pool-full", `this host has no pool called "${pool}"`);
    const wanted = { volumeId, pool, sizeBytes: volume.sizeBytes };
    switch (source.kind) {
      case "none":
        return beginCreate(chains, wanted, newLayerId());
      case "snapshot":
        return beginCreateFromSnapshot(chains, wanted, source.volumeId, checked(source.snapshotId), newLayerId());
      case "volume":
        return beginClone(chains, wanted, source.volumeId, [newLayerId(), newLayerId()]);
    }
  }

  /** Runs the action when no other one of the volume runs, and none is half done. */
  #inTurn<Result>(volumeId: string, action: () => Promise<Result>): Promise<Result> {
    return this.#turns.run([checked(volumeId)], async () => {
      await this.#changes.resume(volumeId);
      return action();
    });
  }

  async #recover(): Promise<void> {
    const { log } = this.#options;
    await endStrayReaders(this.#options.paths);
    for (const volumeId of this.#exports.volumeIds) await this.#exports.adopt(volumeId);
    for (const { volumeId, kind } of this.#records.chains.pending) {
      log.info("a change of a volume goes on where it was interrupted", { volumeId, kind });
      await this.#changes
        .resume(volumeId)
        .catch((error: unknown) => log.error("a change of a volume failed", { volumeId, kind, error }));
    }
    await this.#changes.collect().catch((error: unknown) => log.error("space cannot be given back yet", { error }));
    for (const volumeId of this.#exports.volumeIds) {
      const ensure = async (): Promise<void> => {
        // What the process before this one had copied is copied again.
        await this.#exports.stopCopy(volumeId);
        await this.#exports.endSessions(volumeId);
        await this.#exports.ensure(volumeId);
      };
      await this.#inTurn(volumeId, ensure).catch((error: unknown) =>
        log.error("an export cannot be served yet", { volumeId, error }),
      );
    }
  }

  #pool(name: string): Driver {
    const driver = this.#options.pools.get(name);
    if (driver === undefined) throw new RingsteadError("pool-missing", `the pool "${name}" is not there`);
    return driver;
  }

  /** Bytes that a layer needs in its pool. */
  #spaceOf({ format, pool }: Layer, virtualBytes: number): number {
    if (format === "raw") return virtualBytes;
    return this.#pool(pool).growsByItself ? emptyImageBytes(virtualBytes) : imageBytesLimit(virtualBytes);
  }

  async #placeOf({ id, pool, format }: Layer): Promise<PlacedLayer["place"] | undefined> {
    if (format === "backup") return { kind: "backup", socketPath: this.#options.paths.backupsSocket };
    return this.#pool(pool).place(id);
  }

  async #make(layer: Layer): Promise<void> {
    if (layer.format === "backup") return;
    const driver = this.#pool(layer.pool);
    const virtualBytes = sectors(layer.virtualBytes);
    await driver.create(layer.id, this.#spaceOf(layer, virtualBytes));
    if (layer.format === "raw") return;
    const place = await driver.place(layer.id);
    if (place === undefined) throw new RingsteadError("pool-damaged", `layer ${layer.id} is gone`);
    const file = await open(place.path, "r+");
    try {
      for (const { offset, bytes } of emptyImage(virtualBytes).toReversed()) {
        await file.write(bytes, 0, bytes.length, place.offset + offset);
      }
      await file.sync();
    } finally {
      await file.close();
    }
  }

  /** The chain from `top`, which has `sizeBytes` whatever its record says yet. */
  async #placedChain(volumeId: string, top?: LayerId, sizeBytes?: number): Promise<readonly PlacedLayer[]> {
    const { chains } = this.#records;
    const layers = chainOf(chains, top ?? volumeOf(chains, volumeId).top);
    return Promise.all(
      layers.map(async (layer, index) => {
        const place = await this.#placeOf(layer);
        if (place === undefined) throw new RingsteadError("pool-damaged", `layer ${layer.id} of ${volumeId} is gone`);
        const virtualBytes = sectors((index === 0 ? sizeBytes : undefined) ?? layer.virtualBytes);
        return { layer: { ...layer, virtualBytes }, place };
      }),
    );
  }
}

const sectors = (bytes: number): number => Math.ceil(bytes / SECTOR_BYTES) * SECTOR_BYTES;
