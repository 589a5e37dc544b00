import { sql } from "kysely";
import type { BlockDatabase, BlockTransaction } from "./schema.ts";

/** Tables of keys and values that something has, with the column that says whose they are. */
const TABLES = {
  snapshot_metadata: "snapshot_id",
  backup_metadata: "backup_id",
  volume_image_metadata: "volume_id",
  qos_spec_pairs: "qos_specs_id",
  group_specs: "group_type_id",
} as const;
export type PairsTable = keyof typeof TABLES;

export type Pairs = Readonly<Record<string, string>>;

/** By owner, for pages of lists: one question however many there are. */
export const pairsOfAll = async (
  database: BlockDatabase,
  table: PairsTable,
  ownerIds: readonly string[],
): Promise<ReadonlyMap<string, Pairs>> => {
  const found = new Map<string, Pairs>();
  if (ownerIds.length === 0) return found;
  const owner = sql.ref(TABLES[table]);
  const { rows } = await sql<{ owner: string; key: string; value: string }>`
    SELECT ${owner} AS owner, ${sql.ref("key")}, ${sql.ref("value")} FROM ${sql.table(table)}
    WHERE ${owner} IN (${sql.join(ownerIds)}) ORDER BY ${sql.ref("key")}`.execute(database);
  for (const { owner: id, key, value } of rows) found.set(id, { ...found.get(id), [key]: value });
  return found;
};

export const pairsOf = async (database: BlockDatabase, table: PairsTable, ownerId: string): Promise<Pairs> =>
  (await pairsOfAll(database, table, [ownerId])).get(ownerId) ?? {};

/** Resolves with how many there were. */
export const removePairs = async (
  database: BlockDatabase,
  table: PairsTable,
  ownerId: string,
  keys?: readonly string[],
): Promise<number> => {
  if (keys?.length === 0) return 0;
  const ofKeys = keys === undefined ? sql`` : sql` AND ${sql.ref("key")} IN (${sql.join(keys)})`;
  const { numAffectedRows } =
    await sql`DELETE FROM ${sql.table(table)} WHERE ${sql.ref(TABLES[table])} = ${ownerId}${ofKeys}`.execute(database);
  return Number(numAffectedRows ?? 0);
};

/** Sets keys; with `isWhole` nothing else stays. Requires: keys and values checked. */
export const writePairs = async (
  transaction: BlockTransaction,
  table: PairsTable,
  ownerId: string,
  pairs: Pairs,
  isWhole: boolean,
): Promise<void> => {
  await removePairs(transaction, table, ownerId, isWhole ? undefined : Object.keys(pairs));
  for (const [key, value] of Object.entries(pairs))
    await sql`INSERT INTO ${sql.table(table)} (${sql.ref(TABLES[table])}, ${sql.ref("key")}, ${sql.ref("value")})
      VALUES (${ownerId}, ${key}, ${value})`.execute(transaction);
};
