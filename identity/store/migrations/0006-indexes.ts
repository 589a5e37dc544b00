import { type Kysely, sql } from "kysely";

/** Columns by which things are found that go together with something else: without an index each deletion reads whole tables. */
const COLUMNS = [
  ["projects", "domain_id"],
  ["application_credentials", "project_id"],
  ["application_credential_rules", "access_rule_id"],
  ["limits", "project_id"],
  ["limits", "domain_id"],
  ["assignments", "actor_id"],
] as const;

export const indexes = async (database: Kysely<unknown>): Promise<void> => {
  for (const [table, column] of COLUMNS) {
    await sql`CREATE INDEX ${sql.ref(`${table}_by_${column}`)} ON ${sql.table(table)} (${sql.ref(column)})`.execute(
      database,
    );
  }
};
