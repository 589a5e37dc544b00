import type { Generated } from "kysely";
import type { BackupStatus } from "../backup/core/backup-state.ts";

/* The tables of FORMAT.md that backups have. Times are milliseconds since 1970, sizes GiB. */

export type BackupsTable = {
  id: string;
  project_id: string;
  user_id: string;
  /** Whose chunks they are in the object store: another project's where a record was imported. */
  store_project_id: string;
  volume_id: string;
  snapshot_id: string | null;
  /** The snapshot at the host that is as the backup is: what changed since then is what the next increment holds. */
  base_id: string | null;
  parent_id: string | null;
  name: string | null;
  description: string | null;
  /** As its maker called it. */
  container: string | null;
  availability_zone: string | null;
  /** What the volume was called and its metadata, as JSON; null: nobody knows, since a record of it was imported or it is older than this column. */
  volume_notes: string | null;
  size_gib: number;
  object_count: number;
  status: BackupStatus;
  fail_reason: string | null;
  /** When the volume was as the backup is. */
  data_timestamp_ms: number;
  created_at_ms: number;
  updated_at_ms: number | null;
};

type BackupMetadataTable = { backup_id: string; key: string; value: string };

/** What a backup that is being made has stored already. */
type BackupPagesTable = {
  backup_id: string;
  page: number;
  /** Null: zeros. */
  name: string | null;
  object_count: number;
};

type BackupTasksTable = {
  id: Generated<number>;
  backup_id: string;
  store_project_id: string;
  /** That is read, or written. */
  volume_id: string;
  step: string;
  task_json: string;
  attempts: number;
  failing_since_ms: number | null;
  not_before_ms: number;
  owner: string | null;
  owned_until_ms: number;
};

/** Snapshots at hosts that nobody made but backups. */
type BackupBasesTable = { id: string; volume_id: string };

export type BackupStoresTable = {
  project_id: string;
  /** Something may be there that nobody needs, since then. */
  garbage_since_ms: number | null;
  /** Until then no backup begins to copy. */
  sweep_until_ms: number;
  swept_at_ms: number | null;
  failure: string | null;
};

export type BackupSchedulesTable = {
  volume_id: string;
  /** Whose the volume was when it was asked for, and who asked. */
  project_id: string;
  user_id: string;
  every_ms: number;
  keep_count: number;
  next_due_ms: number;
  /** Why the last one was not begun. */
  failure: string | null;
};

/** Backups that a schedule made, and that it removes. */
type ScheduledBackupsTable = { backup_id: string };

export type BackupTables = {
  backup_schedules: BackupSchedulesTable;
  scheduled_backups: ScheduledBackupsTable;
  backups: BackupsTable;
  backup_metadata: BackupMetadataTable;
  backup_pages: BackupPagesTable;
  backup_tasks: BackupTasksTable;
  backup_bases: BackupBasesTable;
  backup_stores: BackupStoresTable;
};
