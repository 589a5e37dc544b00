import type { Selectable } from "kysely";
import { CONSISTENCY_TYPE_NAME, isOfOneInstant } from "../core/consistency.ts";
import { statusOfParts } from "../core/group-state.ts";
import { pairsOf } from "./pairs.ts";
import type { BlockDatabase, BlockTransaction, GroupSnapshotsTable, GroupsTable } from "./schema.ts";

export type Group = Selectable<GroupsTable>;
export type GroupSnapshot = Selectable<GroupSnapshotsTable>;

export const findGroup = (database: BlockDatabase, id: string): Promise<Group | undefined> =>
  database.selectFrom("volume_groups").selectAll().where("id", "=", id).executeTakeFirst();

/** The id of the type of consistency groups, which every installation has. */
export const consistencyTypeId = async (database: BlockDatabase): Promise<string> => {
  const type = database.selectFrom("group_types").select("id").where("name", "=", CONSISTENCY_TYPE_NAME);
  return (await type.executeTakeFirstOrThrow()).id;
};

/** Whether what is made of the group has to be of one instant. */
export const isGroupOfOneInstant = async (
  database: BlockDatabase,
  { group_type_id: typeId }: Pick<Group, "group_type_id">,
): Promise<boolean> => {
  const type = database.selectFrom("group_types").select("name").where("id", "=", typeId);
  return isOfOneInstant((await type.executeTakeFirstOrThrow()).name, await pairsOf(database, "group_specs", typeId));
};

/** Of these groups, those that are consistency groups. */
export const consistencyGroupsIn = async (
  database: BlockDatabase,
  groupIds: readonly string[],
): Promise<ReadonlySet<string>> => {
  if (groupIds.length === 0) return new Set();
  const rows = await database
    .selectFrom("volume_groups")
    .innerJoin("group_types", "group_types.id", "volume_groups.group_type_id")
    .select("volume_groups.id")
    .where("group_types.name", "=", CONSISTENCY_TYPE_NAME)
    .where("volume_groups.id", "in", groupIds)
    .execute();
  return new Set(rows.map(({ id }) => id));
};

export const findGroupSnapshot = (database: BlockDatabase, id: string): Promise<GroupSnapshot | undefined> =>
  database.selectFrom("group_snapshots").selectAll().where("id", "=", id).executeTakeFirst();

export const volumesOfGroup = (database: BlockDatabase, groupId: string) =>
  database.selectFrom("volumes").selectAll().where("group_id", "=", groupId).orderBy("created_at_ms").execute();

/** Writes what the group is after one of its volumes has changed. */
export const followGroup = async (transaction: BlockTransaction, id: string | null): Promise<void> => {
  const group = id === null ? undefined : await findGroup(transaction, id);
  if (group === undefined) return;
  const volumes = await volumesOfGroup(transaction, group.id);
  const status = statusOfParts(
    group.status,
    volumes.map((one) => one.status),
  );
  if (status === undefined) await transaction.deleteFrom("volume_groups").where("id", "=", group.id).execute();
  else if (status !== group.status)
    await transaction.updateTable("volume_groups").set({ status }).where("id", "=", group.id).execute();
};

export const snapshotsOfGroup = (database: BlockDatabase, groupSnapshotId: string) =>
  database.selectFrom("snapshots").selectAll().where("group_snapshot_id", "=", groupSnapshotId).execute();

/** Writes what the group snapshot is after one of its snapshots has changed. */
export const followGroupSnapshot = async (transaction: BlockTransaction, id: string | null): Promise<void> => {
  const whole = id === null ? undefined : await findGroupSnapshot(transaction, id);
  if (whole === undefined) return;
  const snapshots = await snapshotsOfGroup(transaction, whole.id);
  const status = statusOfParts(
    whole.status,
    snapshots.map((one) => one.status),
  );
  if (status === undefined) await transaction.deleteFrom("group_snapshots").where("id", "=", whole.id).execute();
  else if (status !== whole.status)
    await transaction.updateTable("group_snapshots").set({ status }).where("id", "=", whole.id).execute();
};
