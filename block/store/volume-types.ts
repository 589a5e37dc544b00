import { randomUUID } from "node:crypto";
import type { Selectable } from "kysely";
import type { BlockDatabase, BlockTransaction, VolumeTypesTable } from "./schema.ts";

export type VolumeType = Selectable<VolumeTypesTable>;

/** A type that the caller may see: public, or one that his project was given; with `projectId` undefined any. */
export const findType = async (
  database: BlockDatabase,
  idOrName: string,
  projectId: string | undefined,
): Promise<VolumeType | undefined> => {
  const found = await database
    .selectFrom("volume_types")
    .selectAll()
    .where((where) => where.or([where("id", "=", idOrName), where("name", "=", idOrName)]))
    .execute();
  // An id that is also somebody's name means the id.
  const type = found.find(({ id }) => id === idOrName) ?? found[0];
  if (type === undefined || type.is_public === 1 || projectId === undefined) return type;
  const access = await database
    .selectFrom("type_access")
    .select("project_id")
    .where("volume_type_id", "=", type.id)
    .where("project_id", "=", projectId)
    .executeTakeFirst();
  return access === undefined ? undefined : type;
};

export const extraSpecsOf = async (
  database: BlockDatabase,
  typeIds: readonly string[],
): Promise<ReadonlyMap<string, Readonly<Record<string, string>>>> => {
  const specs = new Map<string, Record<string, string>>();
  if (typeIds.length === 0) return specs;
  const rows = await database
    .selectFrom("type_extra_specs")
    .selectAll()
    .where("volume_type_id", "in", typeIds)
    .orderBy("key")
    .execute();
  for (const { volume_type_id: id, key, value } of rows) specs.set(id, { ...specs.get(id), [key]: value });
  return specs;
};

export const specsOf = async (database: BlockDatabase, typeId: string): Promise<Readonly<Record<string, string>>> =>
  (await extraSpecsOf(database, [typeId])).get(typeId) ?? {};

export const typeNameOf = async (database: BlockDatabase, typeId: string): Promise<string> =>
  (await database.selectFrom("volume_types").select("name").where("id", "=", typeId).executeTakeFirstOrThrow()).name;

/** Sets keys, others stay. */
export const writeExtraSpecs = async (
  transaction: BlockTransaction,
  typeId: string,
  specs: Readonly<Record<string, string>>,
): Promise<void> => {
  for (const [key, value] of Object.entries(specs)) {
    await transaction
      .insertInto("type_extra_specs")
      .values({ volume_type_id: typeId, key, value })
      .onConflict((conflict) => conflict.columns(["volume_type_id", "key"]).doUpdateSet({ value }))
      .execute();
  }
};

/** Makes the type that volumes have which name none. Idempotent. */
export const ensureDefaultType = async (database: BlockDatabase, name: string, nowMs: number): Promise<void> => {
  await database
    .insertInto("volume_types")
    .values({
      id: randomUUID(),
      name,
      description: "Default Volume Type",
      is_public: 1,
      created_at_ms: nowMs,
      qos_specs_id: null,
    })
    .onConflict((conflict) => conflict.column("name").doNothing())
    .execute();
};
