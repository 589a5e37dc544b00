import { type TSchema, Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { identityError } from "../core/identity-error.ts";
import { type Comparison, type Condition, LIST_MAX, type ListQuery } from "../store/records.ts";

/** How a query parameter is compared. `flag`: a truth value kept as 0 or 1. `time`: `lt:2026-01-01T00:00:00Z` and the like, kept in ms. */
export type Filter = {
  readonly column: string;
  readonly kind: "text" | "flag" | "time" | "integer";
  /** The column is another table's: lists cannot be sorted by it. */
  readonly isForeign?: true;
};
export type Filters = Readonly<Record<string, Filter>>;

export const text = (column: string): Filter => ({ column, kind: "text" });
export const foreign = (column: string): Filter => ({ column, kind: "text", isForeign: true });
export const flag = (column: string): Filter => ({ column, kind: "flag" });

type Query = Readonly<Record<string, unknown>>;

const PARAMETER_MAX = 1_024;

/** A truth value as Keystone's query strings have it: everything but these is true, also the bare name. */
const isFalse = (value: string): boolean => ["false", "0", "no", "off"].includes(value.toLowerCase());

/** Keystone's comparators of texts, with `i` before it for those that ignore case. */
const TEXT_COMPARISONS: Readonly<Record<string, Pick<Condition, "comparison" | "ignoresCase">>> = {
  equals: { comparison: "equals" },
  iequals: { comparison: "equals", ignoresCase: true },
  contains: { comparison: "contains" },
  icontains: { comparison: "contains", ignoresCase: true },
  startswith: { comparison: "startswith" },
  istartswith: { comparison: "startswith", ignoresCase: true },
  endswith: { comparison: "endswith" },
  iendswith: { comparison: "endswith", ignoresCase: true },
};

const TIME_COMPARISONS: Readonly<Record<string, Comparison>> = {
  lt: "lt",
  lte: "lte",
  gt: "gt",
  gte: "gte",
  eq: "equals",
  neq: "neq",
};

const timeCondition = (column: string, value: string): Condition => {
  const [, operator, moment] = /^(?:(lte?|gte?|eq|neq):)?(.+)$/.exec(value) ?? [];
  const atMs = Date.parse(moment ?? "");
  if (Number.isNaN(atMs)) throw identityError("bad-request", `Invalid time in ${column}: ${value}`);
  return { column, comparison: TIME_COMPARISONS[operator ?? "eq"] ?? "equals", value: atMs };
};

const conditionOf = (filter: Filter, comparator: string | undefined, value: string): Condition | undefined => {
  const { column, kind } = filter;
  if (kind === "time") return comparator === undefined ? timeCondition(column, value) : undefined;
  if (kind === "flag") {
    return comparator === undefined ? { column, comparison: "equals", value: Number(!isFalse(value)) } : undefined;
  }
  if (kind === "integer") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? { column, comparison: "equals", value: number } : undefined;
  }
  const known = comparator ?? "equals";
  const comparison = Object.hasOwn(TEXT_COMPARISONS, known) ? TEXT_COMPARISONS[known] : undefined;
  return comparison && { column, ...comparison, value };
};

/** Conditions of the query's parameters that `filters` knows; others are ignored, as Keystone does. An empty text stands for null. */
const conditionsOf = (filters: Filters, query: Query): Condition[] => {
  const conditions: Condition[] = [];
  for (const [name, value] of Object.entries(query)) {
    if (typeof value !== "string") continue;
    const [attribute = "", comparator] = name.split("__", 2);
    if (!Object.hasOwn(filters, attribute)) continue;
    const filter = filters[attribute];
    const condition = filter && conditionOf(filter, comparator, value);
    if (condition !== undefined) conditions.push(condition);
  }
  return conditions;
};

const limitOf = (value: unknown): number | undefined => {
  if (value === undefined) return undefined;
  const limit = Number(value);
  if (!Number.isSafeInteger(limit) || limit < 0) throw identityError("bad-request", "limit must be a whole number.");
  // Zero means no limit of the client's own.
  return limit === 0 || limit > LIST_MAX ? undefined : limit;
};

/** What a list's query asks for: one row more than it may have, which tells that there are more. Throws `bad-request`. */
export const listQueryOf = (filters: Filters, query: Query): ListQuery => {
  const limit = limitOf(query["limit"]);
  const sortKey = query["sort_key"];
  const sortFilter = typeof sortKey === "string" && Object.hasOwn(filters, sortKey) ? filters[sortKey] : undefined;
  const sortColumn = sortFilter === undefined || sortFilter.isForeign ? "id" : sortFilter.column;
  if (typeof sortKey === "string" && sortKey !== "id" && sortColumn === "id") {
    throw identityError("bad-request", `Cannot sort by ${sortKey}.`);
  }
  const marker = query["marker"];
  return {
    conditions: conditionsOf(filters, query),
    sortColumn,
    sortsNumbers: sortFilter !== undefined && sortFilter.kind !== "text",
    descending: String(query["sort_dir"]).toLowerCase() === "desc",
    limit: (limit ?? LIST_MAX) + 1,
    marker: typeof marker === "string" ? marker : undefined,
  };
};

/** Query strings are texts, or lists of them where a name comes twice, of which the last counts. */
export const anyQuery: TSchema = Type.Record(
  Type.String(),
  Type.Union([Type.String({ maxLength: PARAMETER_MAX }), Type.Array(Type.String({ maxLength: PARAMETER_MAX }))]),
);

/** The text of a parameter, undefined where it is not given. */
export const parameter = (query: unknown, name: string): string | undefined => {
  if (typeof query !== "object" || query === null || !Object.hasOwn(query, name)) return undefined;
  const value = (query as Record<string, unknown>)[name];
  const last: unknown = Array.isArray(value) ? value.at(-1) : value;
  return typeof last === "string" ? last : undefined;
};

/** Whether a parameter is given and not false: `?effective`, `?effective=1`. */
export const isSet = (query: unknown, name: string): boolean => {
  const value = parameter(query, name);
  return value !== undefined && !isFalse(value);
};

/** Query parameters with one text each. */
export const plainQuery = (query: unknown): Record<string, string> => {
  const plain: Record<string, string> = {};
  if (typeof query !== "object" || query === null) return plain;
  for (const name of Object.keys(query)) {
    const value = parameter(query, name);
    if (value !== undefined) plain[name] = value;
  }
  return plain;
};

type Listed = object & { readonly id?: string };

/**
 * A list's answer in Keystone's shape. `items` may have one more than `query` allows: then the client's limit gives a link to the next
 * page, and the service's own `truncated`.
 */
export const listBody = (
  request: Pick<HttpRequest, "path" | "query">,
  plural: string,
  items: readonly Listed[],
  query: Pick<ListQuery, "limit">,
  base: string,
): object => {
  const count = query.limit - 1;
  const shown = items.length > count ? items.slice(0, count) : items;
  const self = `${base}${request.path.replace(/^\/v3/, "")}`;
  const parameters = new URLSearchParams(plainQuery(request.query));
  const own = parameters.size === 0 ? self : `${self}?${parameters.toString()}`;
  const more = items.length > count;
  const asked = parameter(request.query, "limit") !== undefined;
  const last = shown.at(-1)?.id;
  if (more && asked && last !== undefined) parameters.set("marker", last);
  return {
    [plural]: shown,
    links: { next: more && asked ? `${self}?${parameters.toString()}` : null, previous: null, self: own },
    ...(more && !asked ? { truncated: true } : {}),
  };
};
