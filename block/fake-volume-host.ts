import { RingsteadError } from "../common/errors.ts";
import type { NewVolume, PoolReport, RunningExport, VolumeExport, VolumeHost } from "./volume-host.ts";

type FakeVolume = {
  pool: string;
  sizeBytes: number;
  readonly exports: Map<string, VolumeExport>;
  readonly snapshots: Set<string>;
  reversions: number;
};

/** A block host that keeps its volumes in memory, for tests; its promises are those of the real one (`volume-host.contract.ts`). */
export type FakeVolumeHost = VolumeHost & {
  readonly volumes: ReadonlyMap<string, Readonly<FakeVolume>>;
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
    volumes.set(volumeId, { pool, sizeBytes, exports: new Map(), snapshots: new Set(), reversions: 0 });
  };

  const host: FakeVolumeHost = {
    volumes,
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
      around("createSnapshot", () => void existing(volumeId).snapshots.add(snapshotId)),
    deleteSnapshot: (volumeId, snapshotId) =>
      around("deleteSnapshot", () => void volumes.get(volumeId)?.snapshots.delete(snapshotId)),
    revertVolume: (volumeId, snapshotId) =>
      around("revertVolume", () => {
        const volume = existing(volumeId);
        if (volume.exports.size > 0) refuse("volume-in-use", "it is exported");
        if ([...volume.snapshots].at(-1) !== snapshotId) refuse("no-such-snapshot", "there is no such snapshot");
        volume.reversions += 1;
      }),
    exportVolume: ({ volumeId, attachmentId, transport }) =>
      around("exportVolume", () => {
        const volume = existing(volumeId);
        const opened: VolumeExport =
          volume.exports.get(attachmentId) ??
          (transport === "unix"
            ? { kind: "nbd-unix", socketPath: `/run/${volumeId}.sock`, exportName: attachmentId }
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
      around("unexportVolume", () => void volumes.get(volumeId)?.exports.delete(attachmentId)),
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
