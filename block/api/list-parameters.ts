import { sql, type SqlBool } from "kysely";
import type { HttpRequest } from "../../common/http/route.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { baseUrl, type BlockContext, type Caller } from "./block-route.ts";

type Query = Readonly<Record<string, unknown>>;

/** Sort keys that clients may combine; more make no sense and cost a query its index. */
const SORT_KEYS_MAX = 8;

/** How a column is compared: a null counts as an empty text, or as 0. */
export type SortColumn = { readonly column: string; readonly kind: "text" | "number" };

export type SortOrder = SortColumn & { readonly descending: boolean };

/** One page of a list. */
export type Page = {
  readonly limit: number;
  readonly offset: number;
  readonly marker: string | undefined;
  readonly order: readonly SortOrder[];
};

/** The first value of a query parameter that may have been given twice. */
export const parameter = (query: Query, name: string): string | undefined => {
  const value = Object.hasOwn(query, name) ? query[name] : undefined;
  const first: unknown = Array.isArray(value) ? value[0] : value;
  return typeof first === "string" ? first : undefined;
};

export const queryOf = (query: unknown): Query => (typeof query === "object" && query !== null ? (query as Query) : {});

const count = (query: Query, name: string): number | undefined => {
  const text = parameter(query, name);
  if (text === undefined) return undefined;
  if (!/^\d{1,10}$/.test(text)) throw blockError("bad-request", `${name} param must be an integer and not negative.`);
  return Number(text);
};

const sortTexts = (query: Query): readonly (readonly [key: string, direction: string])[] => {
  const sort = parameter(query, "sort");
  const key = parameter(query, "sort_key");
  const direction = parameter(query, "sort_dir");
  if (sort !== undefined && (key !== undefined || direction !== undefined))
    throw blockError(
      "bad-request",
      "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter.",
    );
  if (sort === undefined) return [[key ?? "created_at", direction ?? "desc"]];
  return sort.split(",").map((part) => {
    const [name = "", way = "desc"] = part.trim().split(":");
    return [name, way];
  });
};

/** Reads limit, offset, marker and sort. `columns`: what may be sorted by, by the API's names. Throws `bad-request`. */
export const pageOf = (query: Query, columns: Readonly<Record<string, SortColumn>>, limitMax: number): Page => {
  const texts = sortTexts(query);
  if (texts.length > SORT_KEYS_MAX) throw blockError("bad-request", `More than ${SORT_KEYS_MAX} sort keys.`);
  const order = texts.map(([key, direction]): SortOrder => {
    const column = Object.hasOwn(columns, key) ? columns[key] : undefined;
    if (column === undefined) throw blockError("bad-request", `Sort key '${key}' is invalid.`);
    if (direction !== "asc" && direction !== "desc")
      throw blockError("bad-request", "Unknown sort direction, must be one of: asc, desc.");
    return { ...column, descending: direction === "desc" };
  });
  const last = { column: "id", kind: "text", descending: order[0]?.descending ?? true } as const;
  return {
    limit: Math.min(count(query, "limit") ?? limitMax, limitMax),
    offset: count(query, "offset") ?? 0,
    marker: parameter(query, "marker"),
    order: order.some(({ column }) => column === "id") ? order : [...order, last],
  };
};

const valueOf = ({ column, kind }: SortColumn) =>
  kind === "text" ? sql`COALESCE(${sql.ref(column)}, '')` : sql`COALESCE(${sql.ref(column)}, 0)`;

/** For `orderBy`, one after the other. */
export const orderOf = (order: readonly SortOrder[]) =>
  order.map((one) => ({ value: valueOf(one), direction: one.descending ? ("desc" as const) : ("asc" as const) }));

const markerValue = ({ column, kind }: SortColumn, marker: Readonly<Record<string, unknown>>): string | number => {
  const value = marker[column];
  if (kind === "number") return Number(value ?? 0);
  return typeof value === "string" ? value : "";
};

/** Rows behind the marker's row in this order: further in one column, and equal in those before it. */
export const behindMarker = (order: readonly SortOrder[], marker: Readonly<Record<string, unknown>>) => {
  const ways = order.map((one, index) => {
    const equal = order.slice(0, index).map((before) => sql`${valueOf(before)} = ${markerValue(before, marker)}`);
    const further = sql`${valueOf(one)} ${sql.raw(one.descending ? "<" : ">")} ${markerValue(one, marker)}`;
    return sql`(${sql.join([...equal, further], sql` AND `)})`;
  });
  return sql<SqlBool>`(${sql.join(ways, sql` OR `)})`;
};

/** What a marker names that is not there. */
export const markerNotFound = (marker: string): Error => notFound("Marker", marker);

/** `volumes_links` of a page that is full, as Cinder has them: what follows may be empty. */
export const nextLinks = (
  name: string,
  request: Pick<HttpRequest, "origin" | "path" | "query">,
  context: BlockContext,
  caller: Caller,
  lastId: string | undefined,
): Readonly<Record<string, unknown>> => {
  if (lastId === undefined) return {};
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries(queryOf(request.query))) {
    if (key === "marker" || key === "offset") continue;
    for (const one of [value].flat()) if (typeof one === "string") parameters.append(key, one);
  }
  parameters.append("marker", lastId);
  const path = request.path.replace(/^\/v3(\/[0-9a-f-]+(?=\/))?/, "");
  return {
    [`${name}_links`]: [{ rel: "next", href: `${baseUrl(request, context, caller)}${path}?${parameters.toString()}` }],
  };
};
