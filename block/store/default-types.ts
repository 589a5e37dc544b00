import type { BlockDatabase, BlockTransaction } from "./schema.ts";

/** The id of the type that a project's volumes have which name none; undefined: that of the installation. */
export const projectDefaultType = async (database: BlockDatabase, projectId: string): Promise<string | undefined> =>
  (
    await database
      .selectFrom("default_types")
      .select("volume_type_id")
      .where("project_id", "=", projectId)
      .executeTakeFirst()
  )?.volume_type_id;

export const setProjectDefaultType = async (
  transaction: BlockTransaction,
  projectId: string,
  typeId: string,
): Promise<void> => {
  await transaction
    .insertInto("default_types")
    .values({ project_id: projectId, volume_type_id: typeId })
    .onConflict((conflict) => conflict.column("project_id").doUpdateSet({ volume_type_id: typeId }))
    .execute();
};
