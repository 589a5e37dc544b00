import type { RpcClient } from "../common/rpc/client.ts";
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
  exportVolume: EXPORT_TIMEOUT_MS,
  unexportVolume: EXPORT_TIMEOUT_MS,
  exports: QUESTION_TIMEOUT_MS,
};

/**
 * The block host behind a connection. Calls reject with the host's errors, or with RingsteadError `rpc-unreachable`, `rpc-timeout`,
 * `rpc-overloaded`: then whether the call was done is not known, and it is made again.
 */
export const createVolumeHostClient = (rpc: RpcClient): VolumeHost => {
  const call = <Method extends HostMethod>(
    method: Method,
    argument: HostArgument<Method>,
  ): Promise<HostResult<Method>> =>
    new Promise((resolve, reject) => {
      rpc.call(encodeHostRequest(method, argument), undefined, TIMEOUT_MS[method], (error, header) => {
        if (error !== undefined) return reject(error);
        try {
          resolve(decodeHostResult(method, header));
        } catch (thrown) {
          reject(thrown instanceof Error ? thrown : new Error(String(thrown)));
        }
      });
    });
  return {
    pools: async () => (await call("pools", {})).map((pool) => ({ ...pool, failure: pool.failure })),
    createVolume: async (volume) => void (await call("createVolume", volume)),
    deleteVolume: async (volumeId) => void (await call("deleteVolume", { volumeId })),
    extendVolume: async (volumeId, sizeBytes) => void (await call("extendVolume", { volumeId, sizeBytes })),
    createSnapshot: async (volumeId, snapshotId) => void (await call("createSnapshot", { volumeId, snapshotId })),
    deleteSnapshot: async (volumeId, snapshotId) => void (await call("deleteSnapshot", { volumeId, snapshotId })),
    revertVolume: async (volumeId, snapshotId) => void (await call("revertVolume", { volumeId, snapshotId })),
    exportVolume: (wanted) => call("exportVolume", wanted),
    unexportVolume: async (volumeId, attachmentId) => void (await call("unexportVolume", { volumeId, attachmentId })),
    exports: () => call("exports", {}),
  };
};
