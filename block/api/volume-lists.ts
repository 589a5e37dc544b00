import { sql, type SqlBool } from "kysely";
import { likePattern } from "../../common/sql/like.ts";
import { blockError } from "../core/block-error.ts";
import { consistencyGroupsIn } from "../store/groups.ts";
import type { BlockDatabase } from "../store/schema.ts";
import { pairsOfAll } from "../store/pairs.ts";
import { partsOf, type Volume } from "../store/volumes.ts";
import { type Caller, truthOf } from "./block-route.ts";
import { behindMarker, markerNotFound, orderOf, type Page, parameter, type SortColumn } from "./list-parameters.ts";
import type { ShownVolume } from "./volume-views.ts";

type Query = Readonly<Record<string, unknown>>;

export const VOLUME_SORT_COLUMNS: Readonly<Record<string, SortColumn>> = {
  id: { column: "id", kind: "text" },
  name: { column: "name", kind: "text" },
  display_name: { column: "name", kind: "text" },
  status: { column: "status", kind: "text" },
  availability_zone: { column: "availability_zone", kind: "text" },
  bootable: { column: "bootable", kind: "number" },
  size: { column: "size_gib", kind: "number" },
  created_at: { column: "created_at_ms", kind: "number" },
  updated_at: { column: "updated_at_ms", kind: "number" },
  host: { column: "backend", kind: "text" },
};

/** Texts that are equal to a column's; with `~` behind the name a part of it (3.31). */
const TEXT_FILTERS: Readonly<Record<string, { readonly column: string; readonly isForAdmin?: true }>> = {
  id: { column: "id" },
  name: { column: "name" },
  display_name: { column: "name" },
  status: { column: "status" },
  availability_zone: { column: "availability_zone" },
  volume_type_id: { column: "volume_type_id" },
  snapshot_id: { column: "snapshot_id" },
  source_volid: { column: "source_volume_id" },
  group_id: { column: "group_id" },
  consistencygroup_id: { column: "group_id" },
  user_id: { column: "user_id", isForAdmin: true },
  host: { column: "backend", isForAdmin: true },
};
const LIKE_SINCE = 31;
const TIME_SINCE = 60;
const TIME_OPERATORS: Readonly<Record<string, string>> = { gt: ">", gte: ">=", eq: "=", neq: "<>", lt: "<", lte: "<=" };

/** What Python prints of a dictionary of texts, or JSON. Throws `bad-request`. */
export const dictionaryOf = (text: string): Readonly<Record<string, string>> => {
  const pairs = /^\s*\{(.*)\}\s*$/s.exec(text)?.[1];
  const item =
    /^\s*(?:u?'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*:\s*(?:u?'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*(?:,|$)/;
  const found: Record<string, string> = {};
  let rest = pairs ?? "";
  while (pairs !== undefined && rest.trim() !== "") {
    const match = item.exec(rest);
    if (match === null) break;
    found[match[1] ?? match[2] ?? ""] = match[3] ?? match[4] ?? "";
    rest = rest.slice(match[0].length);
  }
  if (pairs === undefined || rest.trim() !== "")
    throw blockError("bad-request", `Invalid filter: ${text.slice(0, 100)}`);
  return found;
};

const timeConditions = (column: string, text: string) =>
  text.split(",").map((part) => {
    const [, operator = "eq", moment = ""] = /^\s*(?:(gte?|lte?|eq|neq):)?(.+?)\s*$/.exec(part) ?? [];
    const atMs = Date.parse(/(Z|[+-]\d\d:?\d\d)$/.test(moment) ? moment : `${moment}Z`);
    if (Number.isNaN(atMs)) throw blockError("bad-request", `Invalid time: ${part.slice(0, 100)}`);
    return sql<SqlBool>`${sql.ref(column)} ${sql.raw(TIME_OPERATORS[operator] ?? "=")} ${atMs}`;
  });

/** Whose volumes the caller sees: his project's; administrators ask for another one's, or for all. */
const scopeOf = (query: Query, { isAdmin, token }: Caller) => {
  const project = isAdmin ? parameter(query, "project_id") : undefined;
  const everywhere = isAdmin && truthOf(parameter(query, "all_tenants") ?? "false") === true;
  if (project === undefined && everywhere) return sql<SqlBool>`1 = 1`;
  return sql<SqlBool>`project_id = ${project ?? token.projectId ?? ""}`;
};

/** The conditions that a query's filters come to. Filters that are unknown are ignored, as by Cinder for those who are no administrators. */
const conditionsOf = (query: Query, caller: Caller) => {
  const { version, isAdmin } = caller;
  const conditions = [scopeOf(query, caller)];
  for (const [name, { column, isForAdmin }] of Object.entries(TEXT_FILTERS)) {
    if (isForAdmin === true && !isAdmin) continue;
    const exact = parameter(query, name);
    if (exact !== undefined) conditions.push(sql<SqlBool>`${sql.ref(column)} = ${exact}`);
    const like = version >= LIKE_SINCE ? parameter(query, `${name}~`) : undefined;
    if (like !== undefined)
      conditions.push(sql<SqlBool>`${sql.ref(column)} LIKE ${`%${likePattern(like)}%`} ESCAPE ${"\\"}`);
  }
  const bootable = parameter(query, "bootable");
  if (bootable !== undefined) {
    const truth = truthOf(bootable);
    if (truth === undefined) throw blockError("bad-request", `bootable=${bootable} is neither true nor false.`);
    conditions.push(sql<SqlBool>`bootable = ${Number(truth)}`);
  }
  const metadata = parameter(query, "metadata");
  for (const [key, value] of Object.entries(metadata === undefined ? {} : dictionaryOf(metadata))) {
    conditions.push(
      sql<SqlBool>`EXISTS (SELECT 1 FROM volume_metadata AS pair WHERE pair.volume_id = volumes.id AND pair.key = ${key} AND pair.value = ${value})`,
    );
  }
  for (const name of version >= TIME_SINCE ? ["created_at", "updated_at"] : []) {
    const text = parameter(query, name);
    if (text !== undefined) conditions.push(...timeConditions(`${name}_ms`, text));
  }
  return conditions;
};

/** One page of the volumes that the caller may see and the query asks for. */
export const listVolumes = async (
  database: BlockDatabase,
  query: Query,
  page: Page,
  caller: Caller,
): Promise<readonly Volume[]> => {
  const conditions = conditionsOf(query, caller);
  let select = database.selectFrom("volumes").selectAll();
  for (const condition of conditions) select = select.where(condition);
  if (page.marker !== undefined) {
    const marker = await database
      .selectFrom("volumes")
      .selectAll()
      .where("id", "=", page.marker)
      .where(scopeOf(query, caller))
      .executeTakeFirst();
    if (marker === undefined) throw markerNotFound(page.marker);
    select = select.where(behindMarker(page.order, marker));
  }
  for (const { value, direction } of orderOf(page.order)) select = select.orderBy(value, direction);
  return select.limit(page.limit).offset(page.offset).execute();
};

/** How many there are on all pages, and how much: `summary`, and `count` of lists. */
export const totalOf = async (
  database: BlockDatabase,
  query: Query,
  caller: Caller,
): Promise<{ readonly count: number; readonly gigabytes: number }> => {
  let select = database
    .selectFrom("volumes")
    .select([sql<number>`COUNT(*)`.as("count"), sql<number>`COALESCE(SUM(size_gib), 0)`.as("gigabytes")]);
  for (const condition of conditionsOf(query, caller)) select = select.where(condition);
  const row = await select.executeTakeFirstOrThrow();
  return { count: Number(row.count), gigabytes: Number(row.gigabytes) };
};

/** Metadata of all volumes that the query asks for: each key with its different values. */
export const metadataOfAll = async (
  database: BlockDatabase,
  query: Query,
  caller: Caller,
): Promise<Readonly<Record<string, readonly string[]>>> => {
  let select = database
    .selectFrom("volumes")
    .innerJoin("volume_metadata as pair_of", "pair_of.volume_id", "volumes.id")
    .select(["pair_of.key", "pair_of.value"])
    .distinct();
  for (const condition of conditionsOf(query, caller)) select = select.where(condition);
  const values = new Map<string, string[]>();
  for (const { key, value } of await select.execute()) values.set(key, [...(values.get(key) ?? []), value]);
  return Object.fromEntries(values);
};

/** The volumes with what detailed views show, in five questions however many they are. */
export const withParts = async (database: BlockDatabase, volumes: readonly Volume[]): Promise<ShownVolume[]> => {
  const ids = volumes.map(({ id }) => id);
  const { metadata, attachments } = await partsOf(database, ids);
  const imageMetadata = await pairsOfAll(database, "volume_image_metadata", ids);
  const groupIds = new Set(volumes.flatMap(({ group_id: groupId }) => (groupId === null ? [] : [groupId])));
  const consistent = await consistencyGroupsIn(database, [...groupIds]);
  const types = new Map(
    (await database.selectFrom("volume_types").select(["id", "name"]).execute()).map(({ id, name }) => [id, name]),
  );
  return volumes.map((volume) => ({
    volume,
    typeName: types.get(volume.volume_type_id) ?? "",
    metadata: metadata.get(volume.id) ?? {},
    attachments: attachments.get(volume.id) ?? [],
    imageMetadata: imageMetadata.get(volume.id) ?? {},
    isInConsistencyGroup: volume.group_id !== null && consistent.has(volume.group_id),
  }));
};
