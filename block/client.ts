import type { RpcClient } from "../common/rpc/client.ts";
import { RingsteadError } from "../common/errors.ts";
import type { VolumeData } from "./volume-data.ts";
import type { VolumeHost } from "./volume-host.ts";
import { decodeHostResult, encodeHostRequest, type HostArgument, type HostMethod, type HostResult } from "./wire.ts";

/** Questions are answered from memory or by one command. */
const QUESTION_TIMEOUT_MS = 10_000;
/** Exports are opened and closed by starting or asking one process. */
const EXPORT_TIMEOUT_MS = 60_000;
/** Copies, and space that is zeroed before its next owner: as long as a disk takes for some hundred GiB. Whoever gives up asks again. */
const WORK_TIMEOUT_MS = 3_600_000;

const TIMEOUT_MS: Readonly<Record<HostMethod, number>> = {
  pools: QUESTION_TIMEOUT_MS,
  createVolume: WORK_TIMEOUT_MS,
  deleteVolume: WORK_TIMEOUT_MS,
  extendVolume: WORK_TIMEOUT_MS,
  createSnapshot: EXPORT_TIMEOUT_MS,
  deleteSnapshot: WORK_TIMEOUT_MS,
  revertVolume: WORK_TIMEOUT_MS,
  flattenVolume: EXPORT_TIMEOUT_MS,
  exportVolume: EXPORT_TIMEOUT_MS,
  unexportVolume: EXPORT_TIMEOUT_MS,
  limitVolumes: EXPORT_TIMEOUT_MS,
  exports: QUESTION_TIMEOUT_MS,
  snapshotChanges: EXPORT_TIMEOUT_MS,
  readSnapshot: EXPORT_TIMEOUT_MS,
  releaseSnapshot: EXPORT_TIMEOUT_MS,
  beginWriting: EXPORT_TIMEOUT_MS,
  writeVolume: EXPORT_TIMEOUT_MS,
  zeroVolume: WORK_TIMEOUT_MS,
  flushVolume: WORK_TIMEOUT_MS,
  endWriting: EXPORT_TIMEOUT_MS,
  restoreVolume: WORK_TIMEOUT_MS,
  restoration: EXPORT_TIMEOUT_MS,
};

type Called<Method extends HostMethod> = { readonly result: HostResult<Method>; readonly body: Buffer };

const callTo =
  (rpc: RpcClient) =>
  <Method extends HostMethod>(
    method: Method,
    argument: HostArgument<Method>,
    bytes?: Buffer,
  ): Promise<Called<Method>> =>
    new Promise((resolve, reject) => {
      rpc.call(encodeHostRequest(method, argument), bytes, TIMEOUT_MS[method], (error, header, body) => {
        if (error !== undefined) return reject(error);
        try {
          resolve({ result: decodeHostResult(method, header), body });
        } catch (thrown) {
          reject(thrown instanceof Error ? thrown : new Error(String(thrown)));
        }
      });
    });

/**
 * The block host behind a connection. Calls reject with the host's errors, or with RingsteadError `rpc-unreachable`, `rpc-timeout`,
 * `rpc-overloaded`: then whether the call was done is not known, and it is made again.
 */
export const createVolumeHostClient = (rpc: RpcClient): VolumeHost => {
  const ask = callTo(rpc);
  const call = async <Method extends HostMethod>(
    method: Method,
    argument: HostArgument<Method>,
  ): Promise<HostResult<Method>> => (await ask(method, argument)).result;
  return {
    pools: async () => (await call("pools", {})).map((pool) => ({ ...pool, failure: pool.failure })),
    createVolume: async (volume) => void (await call("createVolume", volume)),
    deleteVolume: async (volumeId) => void (await call("deleteVolume", { volumeId })),
    extendVolume: async (volumeId, sizeBytes) => void (await call("extendVolume", { volumeId, sizeBytes })),
    createSnapshot: async (volumeId, snapshotId) => void (await call("createSnapshot", { volumeId, snapshotId })),
    deleteSnapshot: async (volumeId, snapshotId) => void (await call("deleteSnapshot", { volumeId, snapshotId })),
    revertVolume: async (volumeId, snapshotId) => void (await call("revertVolume", { volumeId, snapshotId })),
    flattenVolume: async (volumeId) => {
      const progress = await call("flattenVolume", { volumeId });
      return { ...progress, failure: progress.failure };
    },
    exportVolume: (wanted) => call("exportVolume", wanted),
    unexportVolume: async (volumeId, attachmentId) =>
      void (await call("unexportVolume", { volumeId, ...(attachmentId === undefined ? {} : { attachmentId }) })),
    limitVolumes: async (limits) =>
      void (await call("limitVolumes", { limits: [...limits].map(([volumeId, one]) => [volumeId, { ...one }]) })),
    exports: () => call("exports", {}),
  };
};

/** What the block host behind a connection does for backups; calls reject as those of `createVolumeHostClient` do. */
export const createVolumeDataClient = (rpc: RpcClient): VolumeData => {
  const call = callTo(rpc);
  return {
    changes: async (asked) => {
      const { extents, ...about } = (await call("snapshotChanges", asked)).result;
      return { ...about, extents: extents.map(([offset, length, isZero]) => ({ offset, length, isZero })) };
    },
    read: async (asked) => {
      const { body } = await call("readSnapshot", asked);
      if (body.length === asked.length) return body;
      throw new RingsteadError("bad-message", `the block host gave ${body.length} bytes of ${asked.length}`);
    },
    release: async (volumeId, snapshotId) => void (await call("releaseSnapshot", { volumeId, snapshotId })),
    begin: async (writer) => void (await call("beginWriting", writer)),
    write: async (writer, offset, bytes) => void (await call("writeVolume", { ...writer, offset }, bytes)),
    zero: async (writer, offset, length) => void (await call("zeroVolume", { ...writer, offset, length })),
    flush: async (writer) => void (await call("flushVolume", writer)),
    end: async (writer) => void (await call("endWriting", writer)),
    restore: async (restoration) => void (await call("restoreVolume", restoration)),
    restoration: async (backupId) => {
      const { result } = await call("restoration", { backupId });
      return { ...result, damage: result.damage };
    },
  };
};
