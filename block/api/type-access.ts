import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import type { VolumeType } from "../store/volume-types.ts";
import { type BlockContext, type BlockRoute, blockRoute, enforce } from "./block-route.ts";
import { uuidParams } from "./volume-fields.ts";
import { visibleType } from "./volume-types.ts";

const POLICY = "volume_extension:volume_type_access";
const projectBody = Type.Object({ project: Type.String({ minLength: 1, maxLength: 255 }) });

const assertPrivate = (type: VolumeType): void => {
  if (type.is_public === 0) return;
  throw blockError("conflict", "Type access modification is not applicable to public volume type.");
};

const add = async ({ writer }: BlockContext, type: VolumeType, projectId: string): Promise<void> => {
  assertPrivate(type);
  const { numInsertedOrUpdatedRows } = await writer
    .insertInto("type_access")
    .values({ volume_type_id: type.id, project_id: projectId })
    .onConflict((conflict) => conflict.doNothing())
    .executeTakeFirst();
  if (numInsertedOrUpdatedRows === 0n)
    throw blockError("conflict", `Volume type access for ${type.id} / ${projectId} combination already exists.`);
};

const remove = ({ writer }: BlockContext, type: VolumeType, projectId: string): Promise<void> => {
  assertPrivate(type);
  return withTransaction(writer, async (transaction) => {
    const { numDeletedRows } = await transaction
      .deleteFrom("type_access")
      .where("volume_type_id", "=", type.id)
      .where("project_id", "=", projectId)
      .executeTakeFirst();
    if (numDeletedRows === 0n)
      throw blockError("not-found", `Volume type access not found for ${type.id} / ${projectId} combination.`);
  });
};

/** Which projects may use a private type. */
export const TYPE_ACCESS_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/types/:type_id/os-volume-type-access",
    request: { params: uuidParams("type_id") },
    operation: `${POLICY}:get_all_for_type`,
    handler: async (request, context, caller) => {
      const type = await visibleType(context.database, caller, request.params.type_id);
      if (type.is_public === 1) throw blockError("not-found", "Access list not available for public volume types.");
      const rows = await context.database
        .selectFrom("type_access")
        .selectAll()
        .where("volume_type_id", "=", type.id)
        .orderBy("project_id")
        .execute();
      return { status: 200, body: { volume_type_access: rows } };
    },
  }),
  ...blockRoute({
    method: "POST",
    path: "/types/:type_id/action",
    request: {
      params: uuidParams("type_id"),
      body: Type.Object({
        addProjectAccess: Type.Optional(projectBody),
        removeProjectAccess: Type.Optional(projectBody),
      }),
    },
    handler: async (request, context, caller) => {
      const { addProjectAccess: given, removeProjectAccess: taken } = request.body;
      if ((given === undefined) === (taken === undefined))
        throw blockError("bad-request", "The body has to name one action: addProjectAccess or removeProjectAccess.");
      const operation = given === undefined ? "removeProjectAccess" : "addProjectAccess";
      enforce(context, caller, `${POLICY}:${operation}`, caller.token.projectId);
      const type = await visibleType(context.writer, caller, request.params.type_id);
      if (given !== undefined) await add(context, type, given.project);
      if (taken !== undefined) await remove(context, type, taken.project);
      return { status: 202 };
    },
  }),
];
