import { type RawBuilder, sql, type SqlBool } from "kysely";
import type { HttpRequest } from "../../common/http/route.ts";
import { likePattern } from "../../common/sql/like.ts";
import { type BlockContext, type Caller, truthOf } from "./block-route.ts";
import {
  behindMarker,
  markerNotFound,
  nextLinks,
  orderOf,
  pageOf,
  parameter,
  queryOf,
  type SortColumn,
} from "./list-parameters.ts";
import { dictionaryOf } from "./volume-lists.ts";

const LIKE_SINCE = 31;
const COUNT_SINCE = 45;

type Condition = RawBuilder<SqlBool>;

/** A table whose rows belong to projects, as a list of the API. */
export type ListSource = {
  readonly table: "snapshots" | "messages" | "transfers" | "volume_groups" | "group_snapshots" | "backups";
  /** Of the links of a page. */
  readonly name: string;
  readonly sortColumns: Readonly<Record<string, SortColumn>>;
  /** Texts that are equal to a column's; with `~` behind the name a part of it (3.31). */
  readonly filters: Readonly<Record<string, string>>;
};

export type Listed<Row> = {
  readonly rows: readonly Row[];
  /** What the answer has beside the rows: links to the next page, the count. */
  readonly more: Readonly<Record<string, unknown>>;
};

/** The caller's project's; administrators ask for another one's, or for all. */
const scopeOf = (query: Readonly<Record<string, unknown>>, { isAdmin, token }: Caller): Condition => {
  const project = isAdmin ? (parameter(query, "project_id") ?? parameter(query, "tenant_id")) : undefined;
  const everywhere = isAdmin && truthOf(parameter(query, "all_tenants") ?? "false") === true;
  if (project === undefined && everywhere) return sql<SqlBool>`1 = 1`;
  return sql<SqlBool>`project_id = ${project ?? token.projectId ?? ""}`;
};

/** Rows whose metadata have all pairs that the parameter `metadata` asks for. `owner`: `snapshot` for `snapshot_metadata.snapshot_id`. */
export const metadataConditions = (
  request: HttpRequest,
  table: ListSource["table"],
  owner: "snapshot" | "backup",
): readonly Condition[] => {
  const text = parameter(queryOf(request.query), "metadata");
  const pairs = sql.table(`${owner}_metadata`);
  const isOwn = sql`${sql.ref(`pair.${owner}_id`)} = ${sql.ref(`${table}.id`)}`;
  return Object.entries(text === undefined ? {} : dictionaryOf(text)).map(
    ([key, value]) =>
      sql<SqlBool>`EXISTS (SELECT 1 FROM ${pairs} AS pair WHERE ${isOwn} AND pair.key = ${key} AND pair.value = ${value})`,
  );
};

/**
 * One page of what the caller may see and the query asks for. Filters that are unknown are ignored. `Row` is that of the table, which the
 * caller knows. Throws `bad-request`, and `not-found` for a marker that is not there.
 */
export const listRows = async <Row extends { readonly id: string }>(
  request: HttpRequest,
  context: BlockContext,
  caller: Caller,
  source: ListSource,
  further: readonly Condition[] = [],
): Promise<Listed<Row>> => {
  const { database } = context;
  const query = queryOf(request.query);
  const page = pageOf(query, source.sortColumns, context.config.listLimit);
  const scope = scopeOf(query, caller);
  const conditions: Condition[] = [scope, ...further];
  for (const [name, column] of Object.entries(source.filters)) {
    const exact = parameter(query, name);
    if (exact !== undefined) conditions.push(sql<SqlBool>`${sql.ref(column)} = ${exact}`);
    const like = caller.version >= LIKE_SINCE ? parameter(query, `${name}~`) : undefined;
    if (like !== undefined)
      conditions.push(sql<SqlBool>`${sql.ref(column)} LIKE ${`%${likePattern(like)}%`} ESCAPE ${"\\"}`);
  }
  const table = sql.table(source.table);
  const asked = sql.join(conditions, sql` AND `);
  const isCounted = caller.version >= COUNT_SINCE && truthOf(parameter(query, "with_count") ?? "false") === true;
  const counted = isCounted
    ? (await sql<{ count: number }>`SELECT COUNT(*) AS count FROM ${table} WHERE ${asked}`.execute(database)).rows[0]
    : undefined;
  const behind: Condition[] = [];
  if (page.marker !== undefined) {
    const found = await sql<
      Record<string, unknown>
    >`SELECT * FROM ${table} WHERE id = ${page.marker} AND ${scope}`.execute(database);
    const [marker] = found.rows;
    if (marker === undefined) throw markerNotFound(page.marker);
    behind.push(behindMarker(page.order, marker));
  }
  const order = orderOf(page.order).map(({ value, direction }) => sql`${value} ${sql.raw(direction)}`);
  const { rows: shown } = await sql<Row>`
    SELECT * FROM ${table} WHERE ${sql.join([asked, ...behind], sql` AND `)}
    ORDER BY ${sql.join(order)} LIMIT ${page.limit} OFFSET ${page.offset}`.execute(database);
  const lastId = shown.length === page.limit ? shown.at(-1)?.id : undefined;
  return {
    rows: shown,
    more: {
      ...nextLinks(source.name, request, context, caller, lastId),
      ...(counted === undefined ? {} : { count: Number(counted.count) }),
    },
  };
};
