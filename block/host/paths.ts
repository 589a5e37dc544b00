import { join } from "node:path";
import type { RuntimePaths } from "../../common/runtime-paths.ts";

/** Every path of a block host. Ids in them are UUIDs: what comes from outside has been checked for that (wire.ts). */
export type HostPaths = {
  readonly folder: string;
  /** Layers, volumes, changes that were begun (store/FORMAT.md). */
  readonly records: string;
  /** Which attachments are to be served, and by which daemons they are. */
  readonly exportRecords: string;
  readonly poolFile: string;
  readonly poolFolder: string;
  /** What a daemon checks its clients' keys with. */
  daemonFolder(volumeId: string): string;
  /** What a client of that attachment needs for TLS. */
  credentialFolder(attachmentId: string): string;
  pidFile(volumeId: string): string;
  nbdSocket(volumeId: string): string;
  qmpSocket(volumeId: string): string;
  daemonLog(volumeId: string): string;
};

export const hostPaths = (paths: RuntimePaths): HostPaths => {
  const folder = join(paths.dataDir, "block-host");
  const daemonFolder = (volumeId: string): string => join(folder, "daemons", volumeId);
  return {
    folder,
    records: join(folder, "volumes.json"),
    exportRecords: join(folder, "exports.json"),
    poolFile: join(folder, "pool.img"),
    poolFolder: join(folder, "pool"),
    daemonFolder,
    credentialFolder: (attachmentId) => join(folder, "credentials", attachmentId),
    pidFile: (volumeId) => join(daemonFolder(volumeId), "pid"),
    nbdSocket: (volumeId) => join(paths.socketDir, `nbd-${volumeId}`),
    qmpSocket: (volumeId) => join(paths.socketDir, `qmp-${volumeId}`),
    daemonLog: (volumeId) => join(daemonFolder(volumeId), "log"),
  };
};
