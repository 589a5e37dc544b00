import { type ColumnDefinitionBuilder, type Kysely, sql } from "kysely";
import { columnTypes } from "../../common/sql/dialect.ts";
import type { Migration } from "../../common/sql/migrations.ts";
import { wholeService } from "./migrations/0004-whole-service.ts";
import { spentCodes } from "./migrations/0005-spent-codes.ts";
import { indexes } from "./migrations/0006-indexes.ts";

type Column = (column: ColumnDefinitionBuilder) => ColumnDefinitionBuilder;

const primaryKey: Column = (column) => column.primaryKey();
const required: Column = (column) => column.notNull();
const requiredReference =
  (target: string): Column =>
  (column) =>
    column.notNull().references(target).onDelete("cascade");

const domainsProjectsUsers = async (database: Kysely<unknown>): Promise<void> => {
  const { schema } = database;
  await schema
    .createTable("domains")
    .addColumn("id", "text", primaryKey)
    .addColumn("name", "text", (column) => column.notNull().unique())
    .addColumn("description", "text", required)
    .addColumn("enabled", "integer", required)
    .execute();
  await schema
    .createTable("projects")
    .addColumn("id", "text", primaryKey)
    // No cascade: a domain goes only after what is in it.
    .addColumn("domain_id", "text", (column) => column.notNull().references("domains.id"))
    .addColumn("parent_id", "text", (column) => column.references("projects.id"))
    .addColumn("name", "text", required)
    .addColumn("description", "text", required)
    .addColumn("enabled", "integer", required)
    .addUniqueConstraint("projects_name", ["domain_id", "name"])
    .execute();
  await schema
    .createTable("users")
    .addColumn("id", "text", primaryKey)
    .addColumn("domain_id", "text", (column) => column.notNull().references("domains.id"))
    .addColumn("name", "text", required)
    .addColumn("description", "text")
    .addColumn("email", "text")
    .addColumn("default_project_id", "text", (column) => column.references("projects.id").onDelete("set null"))
    .addColumn("enabled", "integer", required)
    .addColumn("created_at_ms", "bigint", required)
    .addUniqueConstraint("users_name", ["domain_id", "name"])
    .execute();
  await schema
    .createTable("passwords")
    .addColumn("id", sql.raw(columnTypes(database).serial))
    .addColumn("user_id", "text", requiredReference("users.id"))
    .addColumn("hash", "text", required)
    .addColumn("created_at_ms", "bigint", required)
    .execute();
  await schema.createIndex("passwords_user").on("passwords").columns(["user_id", "id"]).execute();
};

const rolesAssignmentsCredentials = async (database: Kysely<unknown>): Promise<void> => {
  const { schema } = database;
  await schema
    .createTable("roles")
    .addColumn("id", "text", primaryKey)
    .addColumn("name", "text", (column) => column.notNull().unique())
    .addColumn("description", "text")
    .execute();
  await schema
    .createTable("role_implications")
    .addColumn("prior_role_id", "text", requiredReference("roles.id"))
    .addColumn("implied_role_id", "text", requiredReference("roles.id"))
    .addPrimaryKeyConstraint("role_implications_pair", ["prior_role_id", "implied_role_id"])
    .execute();
  await schema
    .createTable("assignments")
    .addColumn("actor_kind", "text", required)
    .addColumn("actor_id", "text", required)
    .addColumn("target_kind", "text", required)
    .addColumn("target_id", "text", required)
    .addColumn("role_id", "text", requiredReference("roles.id"))
    .addPrimaryKeyConstraint("assignments_whole", ["actor_kind", "actor_id", "target_kind", "target_id", "role_id"])
    .execute();
  await schema.createIndex("assignments_target").on("assignments").columns(["target_kind", "target_id"]).execute();
  await schema
    .createTable("credentials")
    .addColumn("id", "text", primaryKey)
    .addColumn("type", "text", required)
    .addColumn("user_id", "text", requiredReference("users.id"))
    .addColumn("project_id", "text", requiredReference("projects.id"))
    .addColumn("access", "text", (column) => column.notNull().unique())
    .addColumn("blob", sql.raw(columnTypes(database).blob), required)
    .execute();
};

const catalogRevocationsSettings = async (database: Kysely<unknown>): Promise<void> => {
  const { schema } = database;
  await schema
    .createTable("regions")
    .addColumn("id", "text", primaryKey)
    .addColumn("description", "text", required)
    .addColumn("parent_region_id", "text", (column) => column.references("regions.id"))
    .execute();
  await schema
    .createTable("services")
    .addColumn("id", "text", primaryKey)
    .addColumn("type", "text", required)
    .addColumn("name", "text", required)
    .addColumn("description", "text", required)
    .addColumn("enabled", "integer", required)
    .execute();
  await schema
    .createTable("endpoints")
    .addColumn("id", "text", primaryKey)
    .addColumn("service_id", "text", requiredReference("services.id"))
    .addColumn("region_id", "text", (column) => column.notNull().references("regions.id"))
    .addColumn("interface", "text", required)
    .addColumn("url", "text", required)
    .addColumn("enabled", "integer", required)
    .addColumn("managed", "integer", required)
    .execute();
  await schema
    .createTable("revoked_tokens")
    .addColumn("audit_id", "text", primaryKey)
    .addColumn("expires_at_ms", "bigint", required)
    .execute();
  await schema.createIndex("revoked_tokens_expiry").on("revoked_tokens").column("expires_at_ms").execute();
  await schema
    .createTable("settings")
    .addColumn("key", "text", primaryKey)
    .addColumn("value", "text", required)
    .execute();
};

/** Only ever appended to: an installation has run what stands here. */
export const IDENTITY_MIGRATIONS: readonly Migration[] = [
  { name: "0001-domains-projects-users", up: domainsProjectsUsers },
  { name: "0002-roles-assignments-credentials", up: rolesAssignmentsCredentials },
  { name: "0003-catalog-revocations-settings", up: catalogRevocationsSettings },
  { name: "0004-whole-service", up: wholeService },
  { name: "0005-spent-codes", up: spentCodes },
  { name: "0006-indexes", up: indexes },
];
