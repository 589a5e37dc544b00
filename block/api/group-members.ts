import { blockError, notFound } from "../core/block-error.ts";
import { findGroup, type Group } from "../store/groups.ts";
import type { BlockDatabase, BlockTransaction } from "../store/schema.ts";
import { type Caller, isUuid } from "./block-route.ts";

/** The group, if the caller may know that it is there. Throws `not-found`. */
export const visibleGroup = async (database: BlockDatabase, caller: Caller, id: string): Promise<Group> => {
  const group = isUuid(id) ? await findGroup(database, id) : undefined;
  if (group === undefined || (!caller.isAdmin && group.project_id !== caller.token.projectId))
    throw notFound("Group", id);
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
  if (group.status !== "available")
    throw blockError("bad-request", `Invalid group: Group ${id} is ${group.status}, not available.`);
  if (!(await typesOfGroup(transaction, id)).includes(typeId))
    throw blockError(
      "bad-request",
      `Invalid input received: Invalid volume_type ${typeId} provided for creating volume: it must be one of group ${id}.`,
    );
  return group;
};
