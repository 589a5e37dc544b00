import type { Selectable } from "kysely";
import { pairsOf, type Pairs } from "./pairs.ts";
import type { BlockDatabase, QosSpecsTable, TypeEncryptionTable } from "./schema.ts";

export type QosSpecs = Selectable<QosSpecsTable>;
export type TypeEncryption = Selectable<TypeEncryptionTable>;

/** What volumes of the type are to be encrypted with. */
export const encryptionOf = (database: BlockDatabase, typeId: string): Promise<TypeEncryption | undefined> =>
  database.selectFrom("type_encryption").selectAll().where("volume_type_id", "=", typeId).executeTakeFirst();

/** The limits of the type's volumes. */
export const qosOfType = (database: BlockDatabase, typeId: string): Promise<QosSpecs | undefined> =>
  database
    .selectFrom("qos_specs")
    .innerJoin("volume_types", "volume_types.qos_specs_id", "qos_specs.id")
    .selectAll("qos_specs")
    .where("volume_types.id", "=", typeId)
    .executeTakeFirst();

/** Limits that whoever connects to a volume of the type has to keep; undefined: none. */
export const frontEndQos = async (database: BlockDatabase, typeId: string): Promise<Pairs | undefined> => {
  const specs = await qosOfType(database, typeId);
  return specs === undefined || specs.consumer === "back-end"
    ? undefined
    : pairsOf(database, "qos_spec_pairs", specs.id);
};
