import { type ColumnDefinitionBuilder, type Kysely, sql } from "kysely";
import { columnTypes } from "../../common/sql/dialect.ts";
import type { Migration } from "../../common/sql/migrations.ts";

const required = (column: ColumnDefinitionBuilder): ColumnDefinitionBuilder => column.notNull();
const primaryKey = (column: ColumnDefinitionBuilder): ColumnDefinitionBuilder => column.primaryKey();
/** Goes with its backup. */
const ofBackup = (column: ColumnDefinitionBuilder): ColumnDefinitionBuilder =>
  column.notNull().references("backups.id").onDelete("cascade");

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
  await schema
    .createTable("backup_metadata")
    .addColumn("backup_id", "text", ofBackup)
    .addColumn("key", "text", required)
    .addColumn("value", "text", required)
    .addPrimaryKeyConstraint("backup_metadata_key", ["backup_id", "key"])
    .execute();
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

/** Backups; part of `BLOCK_MIGRATIONS`. */
export const BACKUP_MIGRATIONS: readonly Migration[] = [
  { name: "0008-backups", up: backups },
  { name: "0009-backup-work", up: backupWork },
];
