import { join } from "node:path";
import type { RuntimePaths } from "../../common/runtime-paths.ts";

/** Every path of a block host. Ids in them are UUIDs: what comes from outside has been checked for that (wire.ts). */
export type HostPaths = {
  readonly folder: string;
  /** Layers, volumes, changes that were begun (store/FORMAT.md). */
  readonly records: string;
  /** Which attachments are to be served, and by which daemons they are. */
  readonly exportRecords: string;
  /** What volumes may do in a second. */
  readonly limitRecords: string;
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
  /** Where tgtd works, and finds each volume as the file `VOLUME/disk`. */
  readonly disksFolder: string;
  /** The processes that iSCSI takes beside the volumes' own. */
  readonly iscsiProcesses: string;
  readonly targetLog: string;
  readonly targetSocketBase: string;
  /** Where the process that shows a volume as a file is asked. */
  frontSocket(volumeId: string): string;
  /** What runs to read snapshots for backups, a folder for each. */
  readonly readersFolder: string;
  /** Where backups are read that volumes are filled from. */
  readonly backupsSocket: string;
  readerSocket(snapshotId: string): string;
};

export const hostPaths = (paths: RuntimePaths): HostPaths => {
  const folder = join(paths.dataDir, "block-host");
  const daemonFolder = (volumeId: string): string => join(folder, "daemons", volumeId);
  return {
    folder,
    records: join(folder, "volumes.json"),
    exportRecords: join(folder, "exports.json"),
    limitRecords: join(folder, "limits.json"),
    poolFile: join(folder, "pool.img"),
    poolFolder: join(folder, "pool"),
    daemonFolder,
    credentialFolder: (attachmentId) => join(folder, "credentials", attachmentId),
    pidFile: (volumeId) => join(daemonFolder(volumeId), "pid"),
    nbdSocket: (volumeId) => join(paths.socketDir, `nbd-${volumeId}`),
    qmpSocket: (volumeId) => join(paths.socketDir, `qmp-${volumeId}`),
    daemonLog: (volumeId) => join(daemonFolder(volumeId), "log"),
    disksFolder: join(folder, "disks"),
    iscsiProcesses: join(folder, "iscsi.json"),
    targetLog: join(folder, "tgtd.log"),
    targetSocketBase: join(paths.socketDir, "tgtd"),
    frontSocket: (volumeId) => join(paths.socketDir, `frt-${volumeId}`),
    readersFolder: join(folder, "readers"),
    backupsSocket: join(paths.socketDir, "nbd-backups"),
    readerSocket: (snapshotId) => join(paths.socketDir, `nbr-${snapshotId}`),
  };
};
