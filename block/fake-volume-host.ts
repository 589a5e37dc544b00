import { RingsteadError } from "../common/errors.ts";
import type { VolumeLimits } from "./core/qos-limits.ts";
import type { NewVolume, PoolReport, RunningExport, VolumeExport, VolumeHost } from "./volume-host.ts";

/** Bytes by the number of their 64 KiB; what is not there is zeros. */
export type FakeContent = Map<number, Buffer>;

type FakeVolume = {
  pool: string;
  sizeBytes: number;
  readonly exports: Map<string, VolumeExport>;
  /** Which of these are sessions that replace its content. */
  readonly writers: Set<string>;
  readonly snapshots: Set<string>;
  content: FakeContent;
  restorationId: string | undefined;
  readonly frozen: Map<string, FakeContent>;
  reversions: number;
};

/** A block host that keeps its volumes in memory, for tests; its promises are those of the real one (`volume-host.contract.ts`). */
export type FakeVolumeHost = VolumeHost & {
  readonly volumes: ReadonlyMap<string, Readonly<FakeVolume>>;
  /** Its content is replaced by nothing, once for each restoration. */
  restored(volumeId: string, restorationId: string): void;
  /** What it was told last. */
  readonly limits: ReadonlyMap<string, VolumeLimits>;
  /** Called at the beginning of each call, and with `after` when it was done; what it throws, or waits for, the caller sees. */
  intercept: (method: keyof VolumeHost, moment: "before" | "after") => Promise<void> | void;
};

const GIB = 1024 ** 3;

const refuse = (code: string, message: string): never => {
  throw new RingsteadError(code, message);
};

/** `pools`: names with their sizes in GiB. */
export const createFakeVolumeHost = (pools: Readonly<Record<string, number>> = { lvm: 100 }): FakeVolumeHost => {
  const volumes = new Map<string, FakeVolume>();
  let limits: ReadonlyMap<string, VolumeLimits> = new Map();

  const existing = (volumeId: string): FakeVolume =>
    volumes.get(volumeId) ?? refuse("no-such-volume", `there is no volume ${volumeId}`);
  const usedBytes = (pool: string): number =>
    [...volumes.values()].reduce((sum, one) => sum + (one.pool === pool ? one.sizeBytes : 0), 0);
  const assertRoom = (pool: string, sizeBytes: number): void => {
    const totalBytes = (pools[pool] ?? 0) * GIB;
    if (usedBytes(pool) + sizeBytes > totalBytes) refuse("pool-full", `pool ${pool} is full`);
  };

  const reports = (): readonly PoolReport[] =>
    Object.entries(pools).map(([pool, gib]) => ({
      pool,
      driver: "lvm",
      totalBytes: gib * GIB,
      freeBytes: gib * GIB - usedBytes(pool),
      provisionedBytes: usedBytes(pool),
      volumeCount: [...volumes.values()].filter((one) => one.pool === pool).length,
      isThin: false,
      failure: undefined,
    }));

  const createVolume = ({ volumeId, pool, sizeBytes, source }: NewVolume): void => {
    if (volumes.has(volumeId)) return;
    if (source.kind !== "none") {
      const from = volumes.get(source.volumeId) ?? refuse("no-such-source", "the source is gone");
      if (source.kind === "snapshot" && !from.snapshots.has(source.snapshotId))
        refuse("no-such-source", "the snapshot is gone");
      if (sizeBytes < from.sizeBytes && source.kind === "volume")
        refuse("volume-shrinks", "a copy is not smaller than its source");
    }
    assertRoom(pool, sizeBytes);
    const from = source.kind === "none" ? undefined : volumes.get(source.volumeId);
    const content = source.kind === "snapshot" ? from?.frozen.get(source.snapshotId) : from?.content;
    const empty = {
      exports: new Map(),
      writers: new Set<string>(),
      snapshots: new Set<string>(),
      frozen: new Map(),
      reversions: 0,
      restorationId: undefined,
    };
    volumes.set(volumeId, { pool, sizeBytes, content: new Map(content), ...empty });
  };

  const host: FakeVolumeHost = {
    volumes,
    get limits() {
      return limits;
    },
    restored: (volumeId, restorationId) => {
      const volume = existing(volumeId);
      volume.restorationId = restorationId;
      volume.content = new Map();
    },
    intercept: () => {},
    pools: () => around("pools", reports),
    createVolume: (volume) => around("createVolume", () => createVolume(volume)),
    deleteVolume: (volumeId) =>
      around("deleteVolume", () => {
        const volume = volumes.get(volumeId);
        if ((volume?.exports.size ?? 0) > 0) refuse("volume-in-use", "it is exported");
        if ((volume?.snapshots.size ?? 0) > 0) refuse("volume-in-use", "it has snapshots");
        volumes.delete(volumeId);
      }),
    extendVolume: (volumeId, sizeBytes) =>
      around("extendVolume", () => {
        const volume = existing(volumeId);
        if (sizeBytes < volume.sizeBytes) refuse("volume-shrinks", "volumes do not shrink");
        assertRoom(volume.pool, sizeBytes - volume.sizeBytes);
        volume.sizeBytes = sizeBytes;
      }),
    createSnapshot: (volumeId, snapshotId) =>
      around("createSnapshot", () => {
        const volume = existing(volumeId);
        if (volume.snapshots.has(snapshotId)) return;
        volume.snapshots.add(snapshotId);
        volume.frozen.set(snapshotId, new Map(volume.content));
      }),
    deleteSnapshot: (volumeId, snapshotId) =>
      around("deleteSnapshot", () => {
        volumes.get(volumeId)?.snapshots.delete(snapshotId);
        volumes.get(volumeId)?.frozen.delete(snapshotId);
      }),
    revertVolume: (volumeId, snapshotId) =>
      around("revertVolume", () => {
        const volume = existing(volumeId);
        if (volume.exports.size > 0) refuse("volume-in-use", "it is exported");
        if ([...volume.snapshots].at(-1) !== snapshotId) refuse("no-such-snapshot", "there is no such snapshot");
        volume.content = new Map(volume.frozen.get(snapshotId));
        volume.reversions += 1;
      }),
    // Content that two of them have is kept twice here.
    flattenVolume: (volumeId) =>
      around("flattenVolume", () => {
        existing(volumeId);
        return { isFlat: true, copiedShare: 1, failure: undefined };
      }),
    exportVolume: ({ volumeId, attachmentId, transport }) =>
      around("exportVolume", () => {
        const volume = existing(volumeId);
        if (volume.writers.size > 0 && !volume.writers.has(attachmentId)) refuse("volume-in-use", "it is restored");
        const opened: VolumeExport =
          volume.exports.get(attachmentId) ??
          (transport === "unix"
            ? { kind: "nbd-unix", socketPath: `/run/${volumeId}.sock`, exportName: attachmentId }
            : transport === "iscsi"
              ? {
                  kind: "iscsi",
                  host: "127.0.0.1",
                  port: 3260,
                  targetName: `iqn.2010-10.org.openstack:volume-${volumeId}`,
                  diskNumber: 1,
                  username: attachmentId,
                  secret: "secretsecretsecr",
                }
              : {
                  kind: "nbd-tls",
                  host: "127.0.0.1",
                  port: 10_809,
                  exportName: attachmentId,
                  credentialFolder: "/run/x",
                });
        volume.exports.set(attachmentId, opened);
        return opened;
      }),
    unexportVolume: (volumeId, attachmentId) =>
      around("unexportVolume", () => {
        const { exports, writers } = volumes.get(volumeId) ?? {};
        for (const id of attachmentId === undefined ? [...(exports?.keys() ?? [])] : [attachmentId]) {
          exports?.delete(id);
          writers?.delete(id);
        }
      }),
    limitVolumes: (wanted) => around("limitVolumes", () => void (limits = wanted)),
    exports: () =>
      around("exports", () =>
        [...volumes].flatMap(([volumeId, one]): readonly RunningExport[] =>
          one.exports.size === 0 ? [] : [{ volumeId, attachmentIds: [...one.exports.keys()], pid: 1, startTime: 1 }],
        ),
      ),
  };

  const around = async <Result>(method: keyof VolumeHost, work: () => Result): Promise<Result> => {
    await host.intercept(method, "before");
    const result = work();
    await host.intercept(method, "after");
    return result;
  };
  return host;
};
