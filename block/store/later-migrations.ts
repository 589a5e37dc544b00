import type { Kysely } from "kysely";
import type { Migration } from "../../common/sql/migrations.ts";
import { BACKUP_MIGRATIONS } from "./backup-migrations.ts";
import { CONSISTENCY_MIGRATIONS } from "./consistency-migration.ts";
import { createPairs, needs, part, primaryKey, required, unique } from "./columns.ts";

const snapshotsMessages = async (database: Kysely<unknown>): Promise<void> => {
  const { schema } = database;
  await schema.alterTable("volumes").addColumn("snapshot_id", "text").execute();
  await schema
    .createTable("snapshots")
    .addColumn("id", "text", primaryKey)
    .addColumn("project_id", "text", required)
    .addColumn("user_id", "text", required)
    .addColumn("volume_id", "text", part("volumes.id"))
    .addColumn("name", "text")
    .addColumn("description", "text")
    .addColumn("size_gib", "bigint", required)
    .addColumn("status", "text", required)
    .addColumn("progress", "text")
    .addColumn("group_snapshot_id", "text")
    .addColumn("failure", "text")
    .addColumn("created_at_ms", "bigint", required)
    .addColumn("updated_at_ms", "bigint")
    .execute();
  await schema
    .createIndex("snapshots_project")
    .on("snapshots")
    .columns(["project_id", "created_at_ms", "id"])
    .execute();
  await schema.createIndex("snapshots_volume").on("snapshots").columns(["volume_id", "created_at_ms"]).execute();
  await schema.createIndex("snapshots_group").on("snapshots").columns(["group_snapshot_id"]).execute();
  await createPairs(database, "snapshot_metadata", "snapshot_id", "snapshots.id");
  await schema
    .createTable("messages")
    .addColumn("id", "text", primaryKey)
    .addColumn("project_id", "text", required)
    .addColumn("resource_type", "text", required)
    .addColumn("resource_uuid", "text", required)
    .addColumn("event_id", "text", required)
    .addColumn("message_level", "text", required)
    .addColumn("request_id", "text")
    .addColumn("user_message", "text", required)
    .addColumn("created_at_ms", "bigint", required)
    .addColumn("guaranteed_until_ms", "bigint", required)
    .execute();
  await schema.createIndex("messages_project").on("messages").columns(["project_id", "created_at_ms"]).execute();
  await schema.createIndex("messages_until").on("messages").columns(["guaranteed_until_ms"]).execute();
};

const partsOfTypes = async (database: Kysely<unknown>): Promise<void> => {
  const { schema } = database;
  await schema
    .createTable("qos_specs")
    .addColumn("id", "text", primaryKey)
    .addColumn("name", "text", unique)
    .addColumn("consumer", "text", required)
    .addColumn("created_at_ms", "bigint", required)
    .execute();
  await createPairs(database, "qos_spec_pairs", "qos_specs_id", "qos_specs.id");
  await schema.alterTable("volume_types").addColumn("qos_specs_id", "text").execute();
  await schema
    .createTable("type_encryption")
    .addColumn("volume_type_id", "text", (column) =>
      column.primaryKey().references("volume_types.id").onDelete("cascade"),
    )
    .addColumn("encryption_id", "text", required)
    .addColumn("provider", "text", required)
    .addColumn("cipher", "text")
    .addColumn("key_size", "integer")
    .addColumn("control_location", "text", required)
    .addColumn("created_at_ms", "bigint", required)
    .execute();
  await schema
    .createTable("default_types")
    .addColumn("project_id", "text", primaryKey)
    .addColumn("volume_type_id", "text", needs("volume_types.id"))
    .execute();
  await createPairs(database, "volume_image_metadata", "volume_id", "volumes.id");
  await schema.alterTable("attachments").addColumn("qos_json", "text").execute();
};

const transfersGroups = async (database: Kysely<unknown>): Promise<void> => {
  const { schema } = database;
  await schema
    .createTable("transfers")
    .addColumn("id", "text", primaryKey)
    .addColumn("volume_id", "text", part("volumes.id"))
    .addColumn("name", "text")
    .addColumn("salt", "text", required)
    .addColumn("key_hash", "text", required)
    .addColumn("no_snapshots", "integer", required)
    .addColumn("project_id", "text", required)
    .addColumn("created_at_ms", "bigint", required)
    .execute();
  await schema.createIndex("transfers_volume").unique().on("transfers").columns(["volume_id"]).execute();
  await schema
    .createTable("group_types")
    .addColumn("id", "text", primaryKey)
    .addColumn("name", "text", unique)
    .addColumn("description", "text")
    .addColumn("is_public", "integer", required)
    .addColumn("created_at_ms", "bigint", required)
    .execute();
  await createPairs(database, "group_specs", "group_type_id", "group_types.id");
  await schema
    .createTable("volume_groups")
    .addColumn("id", "text", primaryKey)
    .addColumn("project_id", "text", required)
    .addColumn("user_id", "text", required)
    .addColumn("name", "text")
    .addColumn("description", "text")
    .addColumn("status", "text", required)
    .addColumn("availability_zone", "text", required)
    .addColumn("group_type_id", "text", needs("group_types.id"))
    .addColumn("group_snapshot_id", "text")
    .addColumn("source_group_id", "text")
    .addColumn("created_at_ms", "bigint", required)
    .execute();
  await schema.createIndex("volume_groups_project").on("volume_groups").columns(["project_id", "id"]).execute();
  await schema
    .createTable("group_volume_types")
    .addColumn("group_id", "text", part("volume_groups.id"))
    .addColumn("volume_type_id", "text", needs("volume_types.id"))
    .addPrimaryKeyConstraint("group_volume_types_whole", ["group_id", "volume_type_id"])
    .execute();
  await schema
    .createTable("group_snapshots")
    .addColumn("id", "text", primaryKey)
    .addColumn("project_id", "text", required)
    .addColumn("user_id", "text", required)
    .addColumn("group_id", "text", needs("volume_groups.id"))
    .addColumn("group_type_id", "text", required)
    .addColumn("name", "text")
    .addColumn("description", "text")
    .addColumn("status", "text", required)
    .addColumn("created_at_ms", "bigint", required)
    .execute();
  await schema.alterTable("volumes").addColumn("group_id", "text").execute();
  await schema.createIndex("volumes_group").on("volumes").columns(["group_id"]).execute();
};

const unmanaged = ({ schema }: Kysely<unknown>): Promise<void> =>
  schema
    .createTable("unmanaged")
    .addColumn("id", "text", primaryKey)
    .addColumn("kind", "text", required)
    .addColumn("volume_id", "text")
    .addColumn("backend", "text", required)
    .addColumn("size_gib", "bigint", required)
    .addColumn("created_at_ms", "bigint", required)
    .execute();

/** What came after volumes, types and attachments; part of `BLOCK_MIGRATIONS`. */
export const LATER_MIGRATIONS: readonly Migration[] = [
  { name: "0004-snapshots-messages", up: snapshotsMessages },
  { name: "0005-parts-of-types", up: partsOfTypes },
  { name: "0006-transfers-groups", up: transfersGroups },
  { name: "0007-unmanaged", up: unmanaged },
  ...BACKUP_MIGRATIONS,
  ...CONSISTENCY_MIGRATIONS,
];
