import { type Kysely, type Selectable, sql } from "kysely";
import type { IdentitySchema } from "./schema.ts";

export type IdentityDatabase = Kysely<IdentitySchema>;

/** A list never has more; its answer says `truncated` then. */
export const LIST_MAX = 10_000;

/** Columns and the values that they must have. Column names are the program's own, never a client's. */
export type RowFilter = Readonly<Record<string, string | number>>;

/** The tables whose key is the one column `id`. */
export type IdentifiedTable = "domains" | "projects" | "users" | "roles" | "regions" | "services" | "endpoints";

export type IdentifiedRow<Table extends IdentifiedTable> = Selectable<IdentitySchema[Table]> & { readonly id: string };

/** Rows of `table` that match, ordered by id, at most LIST_MAX + 1. */
export const selectRows = async <Table extends IdentifiedTable>(
  database: IdentityDatabase,
  table: Table,
  filter: RowFilter,
): Promise<IdentifiedRow<Table>[]> => {
  const conditions = Object.entries(filter).map(([column, value]) => sql`${sql.ref(column)} = ${value}`);
  const where = conditions.length === 0 ? sql`` : sql` WHERE ${sql.join(conditions, sql` AND `)}`;
  const query = sql<IdentifiedRow<Table>>`SELECT * FROM ${sql.table(table)}${where} ORDER BY id LIMIT ${LIST_MAX + 1}`;
  return (await query.execute(database)).rows;
};
