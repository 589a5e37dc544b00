import { sql, type SqlBool } from "kysely";
import { CONSISTENCY_TYPE_NAME } from "../core/consistency.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { consistencyTypeId, findGroup, type Group } from "../store/groups.ts";
import type { BlockDatabase, BlockTransaction } from "../store/schema.ts";
import { type Caller, isUuid, projectOf } from "./block-route.ts";

/** The group, if the caller may know that it is there. Throws `not-found`. */
export const visibleGroup = async (database: BlockDatabase, caller: Caller, id: string): Promise<Group> => {
  const group = isUuid(id) ? await findGroup(database, id) : undefined;
  if (group === undefined || (!caller.isAdmin && group.project_id !== caller.token.projectId))
    throw notFound("Group", id);
  return group;
};

/** Of groups and group snapshots: none of a consistency group. */
export const NO_CONSISTENCY_GROUP = sql<SqlBool>`group_type_id NOT IN (SELECT id FROM group_types WHERE name = ${CONSISTENCY_TYPE_NAME})`;

/** Operations of groups do not touch consistency groups, nor their snapshots. Throws `bad-request`. */
export const refuseConsistencyGroup = async (
  database: BlockDatabase,
  { group_type_id: typeId }: Pick<Group, "group_type_id">,
): Promise<void> => {
  if (typeId !== (await consistencyTypeId(database))) return;
  throw blockError(
    "bad-request",
    `Group_type ${typeId} is reserved for consistency groups, which have operations of their own.`,
  );
};

/** A group that is no consistency group. Throws `not-found`, `bad-request`. */
export const plainGroup = async (database: BlockDatabase, caller: Caller, id: string): Promise<Group> => {
  const group = await visibleGroup(database, caller, id);
  await refuseConsistencyGroup(database, group);
  return group;
};

export const typesOfGroup = async (database: BlockDatabase, groupId: string): Promise<readonly string[]> =>
  (
    await database
      .selectFrom("group_volume_types")
      .select("volume_type_id")
      .where("group_id", "=", groupId)
      .orderBy("volume_type_id")
      .execute()
  ).map((one) => one.volume_type_id);

/** The group that a new volume is to be in. Throws `not-found`, `bad-request`. */
export const groupForVolume = async (
  transaction: BlockTransaction,
  caller: Caller,
  id: string | undefined,
  typeId: string,
): Promise<Group | undefined> => {
  if (id === undefined) return undefined;
  const group = await visibleGroup(transaction, caller, id);
  // Administrators see those of other projects, and their volumes belong into none of them.
  if (group.project_id !== projectOf(caller))
    throw blockError("bad-request", `Invalid group: Group ${id} is another project's.`);
  if (group.status !== "available")
    throw blockError("bad-request", `Invalid group: Group ${id} is ${group.status}, not available.`);
  if (!(await typesOfGroup(transaction, id)).includes(typeId))
    throw blockError(
      "bad-request",
      `Invalid input received: Invalid volume_type ${typeId} provided for creating volume: it must be one of group ${id}.`,
    );
  return group;
};
