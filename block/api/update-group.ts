import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { findGroup, type Group } from "../store/groups.ts";
import type { BlockTransaction } from "../store/schema.ts";
import { findVolume, type Volume } from "../store/volumes.ts";
import { type BlockContext, isUuid } from "./block-route.ts";
import { typesOfGroup } from "./group-members.ts";

/** Absent and null: stays as it is. The lists are ids with commas between. */
export type GroupChange = {
  readonly name?: string | null;
  readonly description?: string | null;
  readonly add_volumes?: string | null;
  readonly remove_volumes?: string | null;
};

const idsIn = (text: string | null | undefined): readonly string[] => [
  ...new Set(
    (text ?? "")
      .split(",")
      .map((id) => id.trim())
      .filter((id) => id !== ""),
  ),
];

const refused = (reason: string): Error => blockError("bad-request", `Invalid group: ${reason}`);

const volumeOfProject = async (transaction: BlockTransaction, group: Group, id: string): Promise<Volume> => {
  const volume = isUuid(id) ? await findVolume(transaction, id) : undefined;
  if (volume === undefined || volume.project_id !== group.project_id)
    throw refused(`Cannot add volume ${id} to group ${group.id} because volume cannot be found.`);
  return volume;
};

const add = async (transaction: BlockTransaction, group: Group, ids: readonly string[]): Promise<void> => {
  const types = ids.length === 0 ? [] : await typesOfGroup(transaction, group.id);
  for (const id of ids) {
    const volume = await volumeOfProject(transaction, group, id);
    if (volume.group_id === group.id) continue;
    const why = `Cannot add volume ${id} to group ${group.id} because`;
    if (volume.group_id !== null) throw refused(`${why} it is already in group ${volume.group_id}.`);
    if (!types.includes(volume.volume_type_id)) throw refused(`${why} volume type is not supported by the group.`);
    if (volume.status !== "available" && volume.status !== "in-use")
      throw refused(`${why} volume is in an invalid state: ${volume.status}. Valid states are: available, in-use.`);
    await transaction.updateTable("volumes").set({ group_id: group.id }).where("id", "=", id).execute();
  }
};

const remove = async (transaction: BlockTransaction, group: Group, ids: readonly string[]): Promise<void> => {
  for (const id of ids) {
    const volume = isUuid(id) ? await findVolume(transaction, id) : undefined;
    const why = `Cannot remove volume ${id} from group ${group.id} because`;
    if (volume?.group_id !== group.id) throw refused(`${why} it is not in the group.`);
    if (!["available", "in-use", "error", "error_deleting"].includes(volume.status))
      throw refused(`${why} volume is in an invalid state: ${volume.status}.`);
    await transaction.updateTable("volumes").set({ group_id: null }).where("id", "=", id).execute();
  }
};

/** All of it, or nothing. Throws `not-found`, and `bad-request` for what cannot be added or removed. */
export const updateGroup = (context: BlockContext, id: string, change: GroupChange): Promise<void> =>
  withTransaction(context.writer, async (transaction) => {
    const group = await findGroup(transaction, id);
    if (group === undefined) throw notFound("Group", id);
    const added = idsIn(change.add_volumes);
    const removed = idsIn(change.remove_volumes);
    const name = change.name ?? group.name;
    const description = change.description ?? group.description;
    if (added.length + removed.length === 0 && (change.name ?? null) === null && (change.description ?? null) === null)
      throw refused(
        `Cannot update group ${id} because no valid name, description, add_volumes, or remove_volumes were provided.`,
      );
    const both = added.find((one) => removed.includes(one));
    if (both !== undefined) throw refused(`Cannot add and remove volume ${both} at once.`);
    if (group.status !== "available") throw refused(`Group ${id} is ${group.status}, not available.`);
    await add(transaction, group, added);
    await remove(transaction, group, removed);
    await transaction.updateTable("volume_groups").set({ name, description }).where("id", "=", id).execute();
  });
