import { randomUUID } from "node:crypto";
import { type Static, Type } from "typebox";
import { validator } from "../../common/http/validate.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { GROUP_STATUSES } from "../core/group-state.ts";
import {
  findGroup,
  followGroup,
  type Group,
  isGroupOfOneInstant,
  snapshotsOfGroup,
  volumesOfGroup,
} from "../store/groups.ts";
import { metadataOf, type Volume, volumeForChange } from "../store/volumes.ts";
import type { BlockTransaction } from "../store/schema.ts";
import type { Snapshot } from "../store/snapshots.ts";
import { type BlockContext, type BlockRoute, blockRoute, type Caller, projectOf, truthOf } from "./block-route.ts";
import { insertVolumeRow } from "./create-volume.ts";
import { type NamedAction, namedActionRoutes } from "./named-actions.ts";
import { refuseWhileOpen } from "./operators-volume.ts";
import { plainGroup, typesOfGroup } from "./group-members.ts";
import { visibleGroupSnapshot } from "./group-snapshots.ts";
import { groupSummary, insertGroup } from "./groups.ts";
import { descriptionSchema, nameSchema } from "./volume-fields.ts";
import { announceDeletion } from "./volumes.ts";

const DELETE_SINCE = 13;
const FROM_SOURCE_SINCE = 14;
const RESET_SINCE = 20;
const REPLICATION_SINCE = 38;

const refused = (reason: string): Error => blockError("bad-request", `Invalid group: ${reason}`);

/** With its volumes, whose deletions then take the group along, or alone. */
export const deleteGroup = async (context: BlockContext, id: string, withVolumes: boolean): Promise<void> => {
  for (const volume of await volumesOfGroup(context.database, id)) await refuseWhileOpen(context, volume);
  await withTransaction(context.writer, async (transaction) => {
    const group = await findGroup(transaction, id);
    if (group === undefined) throw notFound("Group", id);
    if (!["available", "error", "error_deleting"].includes(group.status))
      throw refused(`Group status must be available or error, but current status is: ${group.status}`);
    const volumes = await volumesOfGroup(transaction, id);
    if (volumes.length > 0 && !withVolumes)
      throw refused(`Group ${id} still contains volumes. The delete-volumes flag is required to delete it.`);
    const snapshot = await transaction
      .selectFrom("group_snapshots")
      .select("id")
      .where("group_id", "=", id)
      .limit(1)
      .executeTakeFirst();
    if (snapshot !== undefined) throw refused(`Group ${id} still has dependent group snapshots.`);
    await transaction.updateTable("volume_groups").set({ status: "deleting" }).where("id", "=", id).execute();
    const nowMs = context.clock.nowMs();
    for (const volume of volumes)
      await announceDeletion(transaction, volume, { isForced: false, isCascade: false }, nowMs);
    await followGroup(transaction, id);
  });
  context.tasks.wake();
};

/** A volume of the new group, and what it is to be made of. */
type Copy = { readonly volume: Volume; readonly snapshot: Snapshot | undefined };

const insertCopy = async (
  context: BlockContext,
  transaction: BlockTransaction,
  group: Group,
  { volume, snapshot }: Copy,
): Promise<void> => {
  const type = await transaction
    .selectFrom("volume_types")
    .selectAll()
    .where("id", "=", volume.volume_type_id)
    .executeTakeFirstOrThrow();
  const row: Volume = {
    ...volume,
    id: randomUUID(),
    project_id: group.project_id,
    user_id: group.user_id,
    size_gib: snapshot?.size_gib ?? volume.size_gib,
    wanted_size_gib: null,
    status: "creating",
    previous_status: null,
    backend: null,
    source_volume_id: snapshot === undefined ? volume.id : null,
    snapshot_id: snapshot?.id ?? null,
    group_id: group.id,
    readonly: null,
    failure: null,
    created_at_ms: context.clock.nowMs(),
    updated_at_ms: null,
  };
  const metadata = await metadataOf(transaction, volume.id);
  await insertVolumeRow(context, transaction, row, type, metadata, { volume, snapshot });
};

export type GroupSource =
  | { readonly kind: "group"; readonly group: Group }
  | { readonly kind: "snapshot"; readonly id: string; readonly group: Group };

/** Throws `bad-request`: the volumes of a group are copied one after the other, and somebody may write to them meanwhile. */
const refuseOfOneInstant = async (transaction: BlockTransaction, group: Group): Promise<void> => {
  if (await isGroupOfOneInstant(transaction, group))
    throw refused(
      `A copy of group ${group.id} would not be of one instant: take a snapshot of the group, and create the new group from that.`,
    );
};

const copiesOf = async (transaction: BlockTransaction, source: GroupSource): Promise<readonly Copy[]> => {
  if (source.kind === "group") {
    await refuseOfOneInstant(transaction, source.group);
    const volumes = await volumesOfGroup(transaction, source.group.id);
    const busy = volumes.find(({ status }) => status !== "available" && status !== "in-use");
    if (busy !== undefined) throw refused(`Volume ${busy.id} of the source group is ${busy.status}.`);
    return volumes.map((volume) => ({ volume, snapshot: undefined }));
  }
  const copies: Copy[] = [];
  for (const snapshot of await snapshotsOfGroup(transaction, source.id)) {
    if (snapshot.status !== "available") throw refused(`Snapshot ${snapshot.id} of the source is ${snapshot.status}.`);
    copies.push({ volume: await volumeForChange(transaction, snapshot.volume_id), snapshot });
  }
  return copies;
};

/** A group with a copy of each volume. Throws `bad-request`, `over-quota`. */
export const createGroupFromSource = async (
  context: BlockContext,
  caller: Caller,
  source: GroupSource,
  names: Pick<Group, "name" | "description">,
): Promise<Group> => {
  const group: Group = {
    id: randomUUID(),
    project_id: projectOf(caller),
    user_id: caller.token.userId,
    ...names,
    status: "creating",
    availability_zone: source.group.availability_zone,
    group_type_id: source.group.group_type_id,
    group_snapshot_id: source.kind === "snapshot" ? source.id : null,
    source_group_id: source.kind === "group" ? source.group.id : null,
    created_at_ms: context.clock.nowMs(),
  };
  await withTransaction(context.writer, async (transaction) => {
    const copies = await copiesOf(transaction, source);
    if (copies.length === 0) throw refused("Source is empty. No group will be created.");
    await insertGroup(transaction, group, await typesOfGroup(transaction, source.group.id));
    for (const copy of copies) await insertCopy(context, transaction, group, copy);
  });
  context.tasks.wake();
  return group;
};

const id = Type.Optional(Type.Union([Type.String(), Type.Null()]));
const fromSourceBody = Type.Object({
  "create-from-src": Type.Object({
    name: nameSchema,
    description: descriptionSchema,
    group_snapshot_id: id,
    source_group_id: id,
  }),
});

const sourceOf = async (
  context: BlockContext,
  caller: Caller,
  wanted: Static<typeof fromSourceBody>["create-from-src"],
): Promise<GroupSource> => {
  const { group_snapshot_id: snapshotId = null, source_group_id: groupId = null } = wanted;
  if ((snapshotId === null) === (groupId === null))
    throw blockError(
      "bad-request",
      "Either 'group_snapshot_id' or 'source_group_id' must be provided to create a group from source, and not both.",
    );
  if (snapshotId === null) return { kind: "group", group: await plainGroup(context.database, caller, groupId ?? "") };
  const snapshot = await visibleGroupSnapshot(context.database, caller, snapshotId);
  return { kind: "snapshot", id: snapshotId, group: await plainGroup(context.database, caller, snapshot.group_id) };
};

const deleteBody = validator(
  Type.Object({ "delete-volumes": Type.Optional(Type.Unknown()) }, { additionalProperties: false }),
  "body",
);
const resetBody = validator(Type.Object({ status: Type.Enum([...GROUP_STATUSES]) }), "body");

type Action = NamedAction<Group>;

/** Groups are not replicated here: Cinder's answer for a group type that does not ask for it. */
const replication = (policy: string): Action => ({
  policy,
  since: REPLICATION_SINCE,
  run: async (_context, group) => {
    throw refused(`Group type ${group.group_type_id} is not a replicated group type.`);
  },
});

const ACTIONS: Readonly<Record<string, Action>> = {
  delete: {
    policy: "group:delete",
    since: DELETE_SINCE,
    run: async (context, group, argument) => {
      // The validator has just shown it.
      const { "delete-volumes": given = false } = deleteBody(argument ?? {}) as { "delete-volumes"?: unknown };
      const withVolumes = truthOf(given);
      if (withVolumes === undefined) throw blockError("bad-request", "Invalid value for delete-volumes flag.");
      await deleteGroup(context, group.id, withVolumes);
    },
  },
  reset_status: {
    policy: "group:reset_status",
    since: RESET_SINCE,
    run: async (context, group, argument) => {
      const { status } = resetBody(argument) as Pick<Group, "status">;
      await context.writer.updateTable("volume_groups").set({ status }).where("id", "=", group.id).execute();
    },
  },
  enable_replication: replication("group:enable_replication"),
  disable_replication: replication("group:disable_replication"),
  failover_replication: replication("group:failover_replication"),
  list_replication_targets: replication("group:list_replication_targets"),
};

export const GROUP_ACTION_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "POST",
    path: "/groups/action",
    since: FROM_SOURCE_SINCE,
    request: { body: fromSourceBody },
    operation: "group:create",
    handler: async (request, context, caller) => {
      const wanted = request.body["create-from-src"];
      const source = await sourceOf(context, caller, wanted);
      const names = { name: wanted.name ?? null, description: wanted.description ?? null };
      const group = await createGroupFromSource(context, caller, source, names);
      return { status: 202, body: { group: groupSummary(group) } };
    },
  }),
  ...namedActionRoutes({
    collection: "groups",
    idName: "group_id",
    since: DELETE_SINCE,
    actions: ACTIONS,
    find: (context, caller, groupId) => plainGroup(context.database, caller, groupId),
  }),
];
