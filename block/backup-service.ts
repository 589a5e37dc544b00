import type { Clock } from "../common/clock.ts";
import type { Log } from "../common/log.ts";
import type { Metrics } from "../common/metrics.ts";
import type { Worker } from "../common/worker.ts";
import { openBackupSecret } from "./backup/keys.ts";
import type { ObjectStore } from "./backup/object-store.ts";
import { backupStoreOf } from "./backup-access.ts";
import { createBackupWork } from "./backup-work.ts";
import type { BackupConfig } from "./config.ts";
import { createBackupRunner } from "./daemons/backup-runner.ts";
import { createBackupScheduler } from "./daemons/backup-scheduler.ts";
import { createBackupSweeper } from "./daemons/backup-sweeper.ts";
import type { Hosts } from "./hosts.ts";
import type { BlockDatabase } from "./store/schema.ts";

/** What the API needs of it. */
export type Backups = {
  /** There may be something to do. */
  wake(): void;
};

export type BackupServiceOptions = {
  readonly database: BlockDatabase;
  readonly hosts: Hosts;
  readonly objects: ObjectStore;
  readonly keyFile: string;
  readonly clusterKey: Buffer;
  readonly config: BackupConfig;
  /** Where volumes are whose backups are made by themselves. */
  readonly zone: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly giveUpMs?: number;
};

/** Disposal ends the steps under way. Requires: the workers are stopped. */
export type BackupService = AsyncDisposable & { readonly backups: Backups; readonly workers: readonly Worker[] };

/** Makes, deletes and restores backups, and sweeps what they leave. Errors: "backup-key-damaged". */
export const openBackups = (options: BackupServiceOptions): BackupService => {
  const { database, config, clock, log, metrics, giveUpMs } = options;
  const secret = openBackupSecret(options.keyFile, options.clusterKey);
  const read = metrics.counter("ringstead_block_backup_read_bytes_total", "Bytes of volumes that backups read.");
  const sent = metrics.counter(
    "ringstead_block_backup_sent_bytes_total",
    "Bytes that backups sent to the object store.",
  );
  const work = createBackupWork({
    ...options,
    secret,
    onCopied: (backup, figures) => {
      read.inc(figures.readBytes);
      sent.inc(figures.sentBytes);
      log.info("a volume was copied", { backup, ...figures });
    },
  });
  const limit = giveUpMs === undefined ? {} : { giveUpMs };
  const runner = createBackupRunner({ database, work, clock, log, ...limit });
  const storeOf = (projectId: string) => backupStoreOf({ ...options, secret }, projectId);
  const sweeper = createBackupSweeper({ database, storeOf, graceMs: config.graceMs, clock, log });
  const scheduler = createBackupScheduler({ database, zone: options.zone, clock, log, wake: () => runner.wake() });
  return {
    backups: runner,
    workers: [runner.worker, sweeper, scheduler],
    [Symbol.asyncDispose]: () => runner[Symbol.asyncDispose](),
  };
};
