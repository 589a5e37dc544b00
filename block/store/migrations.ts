import { type Kysely, sql } from "kysely";
import { columnTypes } from "../../common/sql/dialect.ts";
import type { Migration } from "../../common/sql/migrations.ts";
import { needs, part, primaryKey, required, unique } from "./columns.ts";
import { LATER_MIGRATIONS } from "./later-migrations.ts";

const types = async ({ schema }: Kysely<unknown>): Promise<void> => {
  await schema
    .createTable("volume_types")
    .addColumn("id", "text", primaryKey)
    .addColumn("name", "text", unique)
    .addColumn("description", "text")
    .addColumn("is_public", "integer", required)
    .addColumn("created_at_ms", "bigint", required)
    .execute();
  await schema
    .createTable("type_extra_specs")
    .addColumn("volume_type_id", "text", part("volume_types.id"))
    .addColumn("key", "text", required)
    .addColumn("value", "text", required)
    .addPrimaryKeyConstraint("type_extra_specs_key", ["volume_type_id", "key"])
    .execute();
  await schema
    .createTable("type_access")
    .addColumn("volume_type_id", "text", part("volume_types.id"))
    .addColumn("project_id", "text", required)
    .addPrimaryKeyConstraint("type_access_whole", ["volume_type_id", "project_id"])
    .execute();
};

const volumes = async ({ schema }: Kysely<unknown>): Promise<void> => {
  await schema
    .createTable("volumes")
    .addColumn("id", "text", primaryKey)
    .addColumn("project_id", "text", required)
    .addColumn("user_id", "text", required)
    .addColumn("name", "text")
    .addColumn("description", "text")
    .addColumn("size_gib", "bigint", required)
    .addColumn("wanted_size_gib", "bigint")
    .addColumn("status", "text", required)
    .addColumn("previous_status", "text")
    .addColumn("availability_zone", "text", required)
    // No cascade: a type goes only after its volumes.
    .addColumn("volume_type_id", "text", needs("volume_types.id"))
    .addColumn("backend", "text")
    .addColumn("source_volume_id", "text")
    .addColumn("bootable", "integer", required)
    .addColumn("readonly", "integer")
    .addColumn("multiattach", "integer", required)
    .addColumn("failure", "text")
    .addColumn("created_at_ms", "bigint", required)
    .addColumn("updated_at_ms", "bigint")
    .execute();
  await schema.createIndex("volumes_project").on("volumes").columns(["project_id", "created_at_ms", "id"]).execute();
  await schema.createIndex("volumes_status").on("volumes").columns(["status"]).execute();
  await schema.createIndex("volumes_type").on("volumes").columns(["volume_type_id"]).execute();
  await schema
    .createTable("volume_metadata")
    .addColumn("volume_id", "text", part("volumes.id"))
    .addColumn("key", "text", required)
    .addColumn("value", "text", required)
    .addPrimaryKeyConstraint("volume_metadata_key", ["volume_id", "key"])
    .execute();
  await schema
    .createTable("attachments")
    .addColumn("id", "text", primaryKey)
    .addColumn("volume_id", "text", part("volumes.id"))
    .addColumn("project_id", "text", required)
    .addColumn("instance_uuid", "text")
    .addColumn("attached_host", "text")
    .addColumn("mountpoint", "text")
    .addColumn("attach_mode", "text")
    .addColumn("attach_status", "text", required)
    .addColumn("is_connection", "integer", required)
    .addColumn("connector_json", "text")
    .addColumn("connection_json", "text")
    .addColumn("created_at_ms", "bigint", required)
    .addColumn("attached_at_ms", "bigint")
    .execute();
  await schema.createIndex("attachments_volume").on("attachments").columns(["volume_id"]).execute();
  await schema.createIndex("attachments_project").on("attachments").columns(["project_id", "id"]).execute();
};

const tasksQuotasServices = async (database: Kysely<unknown>): Promise<void> => {
  const { schema } = database;
  await schema
    .createTable("tasks")
    .addColumn("id", sql.raw(columnTypes(database).serial))
    .addColumn("volume_id", "text", part("volumes.id"))
    .addColumn("task_json", "text", required)
    .addColumn("attempts", "integer", required)
    .addColumn("failing_since_ms", "bigint")
    .addColumn("not_before_ms", "bigint", required)
    .addColumn("owner", "text")
    .addColumn("owned_until_ms", "bigint", required)
    .execute();
  await schema.createIndex("tasks_volume").on("tasks").columns(["volume_id", "id"]).execute();
  await schema
    .createTable("quota_limits")
    .addColumn("project_id", "text", required)
    .addColumn("resource", "text", required)
    .addColumn("hard_limit", "bigint", required)
    .addPrimaryKeyConstraint("quota_limits_whole", ["project_id", "resource"])
    .execute();
  await schema
    .createTable("services")
    .addColumn("node", "text", primaryKey)
    .addColumn("disabled", "integer", required)
    .addColumn("disabled_reason", "text")
    .addColumn("updated_at_ms", "bigint", required)
    .execute();
};

/** In order and for ever. */
export const BLOCK_MIGRATIONS: readonly Migration[] = [
  { name: "0001-types", up: types },
  { name: "0002-volumes", up: volumes },
  { name: "0003-tasks-quotas-services", up: tasksQuotasServices },
  ...LATER_MIGRATIONS,
];
