import type { Selectable } from "kysely";
import { statusOfParts } from "../core/group-state.ts";
import type { BlockDatabase, BlockTransaction, GroupSnapshotsTable, GroupsTable } from "./schema.ts";

export type Group = Selectable<GroupsTable>;
export type GroupSnapshot = Selectable<GroupSnapshotsTable>;

export const findGroup = (database: BlockDatabase, id: string): Promise<Group | undefined> =>
  database.selectFrom("volume_groups").selectAll().where("id", "=", id).executeTakeFirst();

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
