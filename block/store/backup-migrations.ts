import { type Kysely, sql } from "kysely";
import { columnTypes } from "../../common/sql/dialect.ts";
import type { Migration } from "../../common/sql/migrations.ts";
import { createPairs, part, primaryKey, required } from "./columns.ts";

const ofBackup = part("backups.id");

const backups = async (database: Kysely<unknown>): Promise<void> => {
  const { schema } = database;
  await schema
    .createTable("backups")
    .addColumn("id", "text", primaryKey)
    .addColumn("project_id", "text", required)
    .addColumn("user_id", "text", required)
    .addColumn("store_project_id", "text", required)
    .addColumn("volume_id", "text", required)
    .addColumn("snapshot_id", "text")
    .addColumn("base_id", "text")
    .addColumn("parent_id", "text")
    .addColumn("name", "text")
    .addColumn("description", "text")
    .addColumn("container", "text")
    .addColumn("availability_zone", "text")
    .addColumn("size_gib", "bigint", required)
    .addColumn("object_count", "bigint", required)
    .addColumn("status", "text", required)
    .addColumn("fail_reason", "text")
    .addColumn("data_timestamp_ms", "bigint", required)
    .addColumn("created_at_ms", "bigint", required)
    .addColumn("updated_at_ms", "bigint")
    .execute();
  await schema.createIndex("backups_project").on("backups").columns(["project_id", "created_at_ms", "id"]).execute();
  await schema.createIndex("backups_volume").on("backups").columns(["volume_id", "data_timestamp_ms"]).execute();
  await createPairs(database, "backup_metadata", "backup_id", "backups.id");
  await schema
    .createTable("backup_pages")
    .addColumn("backup_id", "text", ofBackup)
    .addColumn("page", "integer", required)
    .addColumn("name", "text")
    .addColumn("object_count", "integer", required)
    .addPrimaryKeyConstraint("backup_pages_whole", ["backup_id", "page"])
    .execute();
};

const backupWork = async (database: Kysely<unknown>): Promise<void> => {
  const { schema } = database;
  await schema
    .createTable("backup_tasks")
    .addColumn("id", sql.raw(columnTypes(database).serial))
    .addColumn("backup_id", "text", ofBackup)
    .addColumn("store_project_id", "text", required)
    .addColumn("volume_id", "text", required)
    .addColumn("step", "text", required)
    .addColumn("task_json", "text", required)
    .addColumn("attempts", "integer", required)
    .addColumn("failing_since_ms", "bigint")
    .addColumn("not_before_ms", "bigint", required)
    .addColumn("owner", "text")
    .addColumn("owned_until_ms", "bigint", required)
    .execute();
  await schema.createIndex("backup_tasks_backup").on("backup_tasks").columns(["backup_id", "id"]).execute();
  await schema.createIndex("backup_tasks_volume").on("backup_tasks").columns(["volume_id"]).execute();
  // Without a reference: the host has them also of a volume that the API was told to forget.
  await schema
    .createTable("backup_bases")
    .addColumn("id", "text", primaryKey)
    .addColumn("volume_id", "text", required)
    .execute();
  await schema.createIndex("backup_bases_volume").on("backup_bases").columns(["volume_id"]).execute();
  await schema
    .createTable("backup_stores")
    .addColumn("project_id", "text", primaryKey)
    .addColumn("garbage_since_ms", "bigint")
    .addColumn("sweep_until_ms", "bigint", required)
    .addColumn("swept_at_ms", "bigint")
    .addColumn("failure", "text")
    .execute();
};

const backupSchedules = async ({ schema }: Kysely<unknown>): Promise<void> => {
  await schema
    .createTable("backup_schedules")
    .addColumn("volume_id", "text", (column) => column.primaryKey().references("volumes.id").onDelete("cascade"))
    .addColumn("project_id", "text", required)
    .addColumn("user_id", "text", required)
    .addColumn("every_ms", "bigint", required)
    .addColumn("keep_count", "integer", required)
    .addColumn("next_due_ms", "bigint", required)
    .addColumn("failure", "text")
    .execute();
  await schema.createIndex("backup_schedules_due").on("backup_schedules").columns(["next_due_ms"]).execute();
  await schema
    .createTable("scheduled_backups")
    .addColumn("backup_id", "text", (column) => column.primaryKey().references("backups.id").onDelete("cascade"))
    .execute();
};

const backupVolumeNotes = ({ schema }: Kysely<unknown>): Promise<void> =>
  schema.alterTable("backups").addColumn("volume_notes", "text").execute();

/** Backups; part of `BLOCK_MIGRATIONS`. */
export const BACKUP_MIGRATIONS: readonly Migration[] = [
  { name: "0008-backups", up: backups },
  { name: "0009-backup-work", up: backupWork },
  { name: "0010-backup-schedules", up: backupSchedules },
  { name: "0011-backup-volume-notes", up: backupVolumeNotes },
];
