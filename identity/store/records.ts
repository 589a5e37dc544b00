import { randomUUID } from "node:crypto";
import { type Kysely, type RawBuilder, type Selectable, sql, type Transaction } from "kysely";
import { isPostgres } from "../../common/sql/dialect.ts";
import { likePattern } from "../../common/sql/like.ts";
import type { IdentitySchema } from "./schema.ts";

export type IdentityDatabase = Kysely<IdentitySchema>;
export type IdentityTransaction = Transaction<IdentitySchema>;

/** A list never has more; its answer says `truncated` then. */
export const LIST_MAX = 10_000;

/** An id as Keystone makes them: 32 hexadecimal digits. */
export const newId = (): string => randomUUID().replaceAll("-", "");

export type Comparison = "equals" | "contains" | "startswith" | "endswith" | "lt" | "lte" | "gt" | "gte" | "neq";

/** A column and what it must be. Column names are the program's own, never a client's. */
export type Condition = {
  readonly column: string;
  readonly comparison: Comparison;
  /** Letters compare without case. For texts only. */
  readonly ignoresCase?: boolean;
  readonly value: string | number | null;
};

/** A part of a list: what fits `conditions`, in the order of `sortColumn` and then of the id, after the row with id `marker`. */
export type ListQuery = {
  readonly conditions: readonly Condition[];
  readonly sortColumn: string;
  /** Where `sortColumn` has numbers; else it has texts, which are sorted by their bytes. */
  readonly sortsNumbers?: boolean;
  readonly descending: boolean;
  readonly limit: number;
  readonly marker: string | undefined;
};

/** Everything, by id. */
export const WHOLE_LIST: ListQuery = {
  conditions: [],
  sortColumn: "id",
  descending: false,
  limit: LIST_MAX + 1,
  marker: undefined,
};

/** The tables whose key is the one column `id`. */
export type RecordTable = {
  [Name in keyof IdentitySchema]: Selectable<IdentitySchema[Name]> extends { id: string } ? Name : never;
}[keyof IdentitySchema];

export type RecordOf<Name extends RecordTable> = Selectable<IdentitySchema[Name]> & { readonly id: string };

const SIGNS = { equals: "=", lt: "<", lte: "<=", gt: ">", gte: ">=", neq: "<>" } as const;

const patternOf = (comparison: "contains" | "startswith" | "endswith", text: string): string => {
  const escaped = likePattern(text);
  if (comparison === "startswith") return `${escaped}%`;
  return comparison === "endswith" ? `%${escaped}` : `%${escaped}%`;
};

/** SQL of one condition. */
export const conditionSql = ({ column, comparison, ignoresCase, value }: Condition): RawBuilder<boolean> => {
  const reference = sql.ref(column);
  if (value === null) return comparison === "neq" ? sql`${reference} IS NOT NULL` : sql`${reference} IS NULL`;
  const left = ignoresCase === true ? sql`LOWER(${reference})` : reference;
  const right = ignoresCase === true && typeof value === "string" ? value.toLowerCase() : value;
  if (comparison === "contains" || comparison === "startswith" || comparison === "endswith") {
    return sql`${left} LIKE ${patternOf(comparison, String(right))} ESCAPE '\\'`;
  }
  return sql`${left} ${sql.raw(SIGNS[comparison])} ${right}`;
};

/** On PostgreSQL `Anton` would come after `anna` with one locale and before it with another. Ids look the same in all. */
const sortedBy = (database: IdentityDatabase, { sortColumn, sortsNumbers }: ListQuery): RawBuilder<unknown> => {
  const column = sql.ref(sortColumn);
  return sortsNumbers !== true && sortColumn !== "id" && isPostgres(database) ? sql`${column} COLLATE "C"` : column;
};

/** What comes after the marker; nothing where there is no such row. */
const afterMarker = async (
  database: IdentityDatabase,
  source: RawBuilder<unknown>,
  query: ListQuery,
  marker: string,
): Promise<RawBuilder<boolean>> => {
  const sign = sql.raw(query.descending ? "<" : ">");
  if (query.sortColumn === "id") return sql`id ${sign} ${marker}`;
  const column = sql.ref(query.sortColumn);
  const marked = sql<{
    value: string | number | null;
  }>`SELECT ${column} AS value FROM ${source} AS marked WHERE id = ${marker}`;
  const row = (await marked.execute(database)).rows[0];
  if (row === undefined) return sql`1 = 0`;
  // Null is neither more nor less than anything; the order below has it before everything.
  if (row.value === null) {
    const others = sql`${column} IS NULL AND id ${sign} ${marker}`;
    return query.descending ? sql`(${others})` : sql`(${others} OR ${column} IS NOT NULL)`;
  }
  const beyond = sql<boolean>`(${sortedBy(database, query)}, id) ${sign} (${row.value}, ${marker})`;
  return query.descending ? sql`(${beyond} OR ${column} IS NULL)` : beyond;
};

/**
 * Rows of `source`, a table or a query in parentheses, as `query` asks for them, of those for which `conditions` hold (`query.conditions` is the
 * caller's). In the same order on both databases: nulls first, or last where it descends.
 */
export const listRows = async <Row>(
  database: IdentityDatabase,
  source: RawBuilder<unknown>,
  query: ListQuery,
  conditions: readonly RawBuilder<unknown>[],
): Promise<Row[]> => {
  const after = query.marker === undefined ? [] : [await afterMarker(database, source, query, query.marker)];
  const all = [...conditions, ...after];
  const where = all.length === 0 ? sql`` : sql` WHERE ${sql.join(all, sql` AND `)}`;
  const ids = sql.raw(query.descending ? "id DESC" : "id ASC");
  const order = sql.raw(query.descending ? "DESC NULLS LAST" : "ASC NULLS FIRST");
  const sorted = query.sortColumn === "id" ? ids : sql`${sortedBy(database, query)} ${order}, ${ids}`;
  const rows = sql<Row>`SELECT * FROM ${source} AS listed${where} ORDER BY ${sorted} LIMIT ${query.limit}`;
  return (await rows.execute(database)).rows;
};

/** Rows of `table` as `query` asks for them. An unknown marker is the list's end. */
export const listRecords = <Name extends RecordTable>(
  database: IdentityDatabase,
  table: Name,
  query: ListQuery,
): Promise<RecordOf<Name>[]> => listRows(database, sql.table(table), query, query.conditions.map(conditionSql));

/** The row with this id. */
export const findRecord = async <Name extends RecordTable>(
  database: IdentityDatabase,
  table: Name,
  id: string,
): Promise<RecordOf<Name> | undefined> => {
  const rows = sql<RecordOf<Name>>`SELECT * FROM ${sql.table(table)} WHERE id = ${id}`;
  return (await rows.execute(database)).rows[0];
};

/** Rows with these ids, in no order; an id that is not there has none. In slices, since databases bound the parameters of a query. */
export const findRecords = async <Name extends RecordTable>(
  database: IdentityDatabase,
  table: Name,
  ids: readonly string[],
): Promise<RecordOf<Name>[]> => {
  const found: RecordOf<Name>[] = [];
  for (let start = 0; start < ids.length; start += IDS_PER_QUERY) {
    const slice = ids.slice(start, start + IDS_PER_QUERY);
    const rows = sql<RecordOf<Name>>`SELECT * FROM ${sql.table(table)} WHERE id IN (${sql.join(slice)})`;
    found.push(...(await rows.execute(database)).rows);
  }
  return found;
};

const IDS_PER_QUERY = 500;

/** The members of `extra` or `options`, which this service wrote as an object. */
export const parsed = (text: string): Record<string, unknown> =>
  text === "{}" ? {} : (JSON.parse(text) as Record<string, unknown>);
