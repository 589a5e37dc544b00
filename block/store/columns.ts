import type { ColumnDefinitionBuilder, Kysely } from "kysely";

/* What migrations say of columns. Old migrations go by these too: a change of what one means would be another database for new installations. */

type Column = (column: ColumnDefinitionBuilder) => ColumnDefinitionBuilder;

export const primaryKey: Column = (column) => column.primaryKey();
export const required: Column = (column) => column.notNull();
export const unique: Column = (column) => column.notNull().unique();

/** Goes with what it is part of. */
export const part =
  (target: string): Column =>
  (column) =>
    column.notNull().references(target).onDelete("cascade");

/** What it names cannot go before it. */
export const needs =
  (target: string): Column =>
  (column) =>
    column.notNull().references(target);

/** A table of pairs of something: its metadata, its specs. */
export const createPairs = ({ schema }: Kysely<unknown>, table: string, owner: string, target: string): Promise<void> =>
  schema
    .createTable(table)
    .addColumn(owner, "text", part(target))
    .addColumn("key", "text", required)
    .addColumn("value", "text", required)
    .addPrimaryKeyConstraint(`${table}_key`, [owner, "key"])
    .execute();
