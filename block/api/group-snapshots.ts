import { randomUUID } from "node:crypto";
import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { GROUP_SNAPSHOT_STATUSES } from "../core/group-state.ts";
import {
  findGroup,
  findGroupSnapshot,
  followGroupSnapshot,
  type GroupSnapshot,
  isGroupOfOneInstant,
  snapshotsOfGroup,
  volumesOfGroup,
} from "../store/groups.ts";
import type { BlockDatabase, BlockTransaction } from "../store/schema.ts";
import { changeSnapshot } from "../store/snapshots.ts";
import { enqueueTask } from "../store/tasks.ts";
import type { Volume } from "../store/volumes.ts";
import {
  type BlockContext,
  type BlockRoute,
  blockRoute,
  type Caller,
  enforce,
  isUuid,
  mayDo,
  timeText,
} from "./block-route.ts";
import { NO_CONSISTENCY_GROUP, plainGroup, refuseConsistencyGroup } from "./group-members.ts";
import { listRows, type ListSource } from "./list-rows.ts";
import { refuseWhileConnected, refuseWhileOpen } from "./operators-volume.ts";
import { assertUnread, insertSnapshot } from "./snapshots.ts";
import { descriptionSchema, nameSchema, uuidParams } from "./volume-fields.ts";

const SINCE = 14;
const RESET_SINCE = 19;
const PROJECT_SINCE = 58;
const params = uuidParams("group_snapshot_id");

export const GROUP_SNAPSHOTS: ListSource = {
  table: "group_snapshots",
  name: "group_snapshot",
  sortColumns: {
    id: { column: "id", kind: "text" },
    name: { column: "name", kind: "text" },
    status: { column: "status", kind: "text" },
    group_id: { column: "group_id", kind: "text" },
    created_at: { column: "created_at_ms", kind: "number" },
  },
  filters: { id: "id", name: "name", status: "status", group_id: "group_id" },
};

const summary = ({ id, name }: GroupSnapshot): object => ({ id, name });

const detail = (context: BlockContext, caller: Caller, one: GroupSnapshot): object => ({
  ...summary(one),
  group_id: one.group_id,
  group_type_id: one.group_type_id,
  status: one.status,
  created_at: timeText(one.created_at_ms),
  description: one.description,
  ...(caller.version >= PROJECT_SINCE &&
  mayDo(context, caller, "group:group_snapshot_project_attribute", one.project_id)
    ? { project_id: one.project_id }
    : {}),
});

/** The group snapshot, if the caller may know that it is there. Throws `not-found`. */
export const visibleGroupSnapshot = async (
  database: BlockDatabase,
  caller: Caller,
  id: string,
): Promise<GroupSnapshot> => {
  const found = isUuid(id) ? await findGroupSnapshot(database, id) : undefined;
  if (found === undefined || (!caller.isAdmin && found.project_id !== caller.token.projectId))
    throw blockError("not-found", `GroupSnapshot ${id} could not be found.`);
  return found;
};

/** One of a group that is no consistency group. Throws `not-found`, `bad-request`. */
const plainGroupSnapshot = async (database: BlockDatabase, caller: Caller, id: string): Promise<GroupSnapshot> => {
  const found = await visibleGroupSnapshot(database, caller, id);
  await refuseConsistencyGroup(database, found);
  return found;
};

type Names = { readonly name: string | null; readonly description: string | null };

/**
 * All of them are snapshot at one instant where nobody writes to any between the first snapshot and the last: nobody has one open now, and whoever connects to
 * one from now on does so after its snapshot, since the tasks of a volume are done in their order. Throws `invalid-state`.
 */
const refuseWhileWritten = async (transaction: BlockTransaction, volumes: readonly Volume[]): Promise<void> => {
  for (const volume of volumes) {
    if (volume.status !== "available")
      throw blockError(
        "invalid-state",
        `Invalid volume: Volume ${volume.id} is ${volume.status}; snapshots of one instant need volumes that are available.`,
      );
    await refuseWhileConnected(transaction, volume);
  }
};

/**
 * A snapshot of each volume, all of them in the quotas or none. Each is a point in time of its volume; the volumes' points are as near to each
 * other as the host is fast, and one instant where the group's type asks for that. Throws `not-found`, `bad-request`, `invalid-state`, `over-quota`.
 */
export const createGroupSnapshot = async (
  context: BlockContext,
  caller: Caller,
  groupId: string,
  { name, description }: Names,
): Promise<GroupSnapshot> => {
  const { database } = context;
  const known = await findGroup(database, groupId);
  const isOne = known !== undefined && (await isGroupOfOneInstant(database, known));
  if (isOne) for (const volume of await volumesOfGroup(database, groupId)) await refuseWhileOpen(context, volume);
  const whole = await withTransaction(context.writer, async (transaction) => {
    const group = await findGroup(transaction, groupId);
    if (group === undefined) throw notFound("Group", groupId);
    if (group.status !== "available")
      throw blockError("bad-request", `Invalid group: Group ${groupId} is ${group.status}, not available.`);
    const volumes = await volumesOfGroup(transaction, groupId);
    if (volumes.length === 0)
      throw blockError("bad-request", "Invalid group: Group is empty. No group snapshot will be created.");
    if (isOne) await refuseWhileWritten(transaction, volumes);
    const row: GroupSnapshot = {
      id: randomUUID(),
      project_id: group.project_id,
      user_id: caller.token.userId,
      group_id: groupId,
      group_type_id: group.group_type_id,
      name,
      description,
      status: "creating",
      created_at_ms: context.clock.nowMs(),
    };
    await transaction.insertInto("group_snapshots").values(row).execute();
    for (const volume of volumes)
      await insertSnapshot(context, caller, transaction, {
        volume,
        name,
        description,
        metadata: {},
        groupSnapshotId: row.id,
        isForced: true,
      });
    return row;
  });
  context.tasks.wake();
  return whole;
};

export const deleteGroupSnapshot = async (context: BlockContext, id: string): Promise<void> => {
  await withTransaction(context.writer, async (transaction) => {
    const whole = await findGroupSnapshot(transaction, id);
    if (whole === undefined) throw blockError("not-found", `GroupSnapshot ${id} could not be found.`);
    if (!["available", "error", "error_deleting"].includes(whole.status))
      throw blockError(
        "bad-request",
        `Invalid group snapshot: GroupSnapshot status must be available or error, but current status is: ${whole.status}`,
      );
    await transaction.updateTable("group_snapshots").set({ status: "deleting" }).where("id", "=", id).execute();
    const nowMs = context.clock.nowMs();
    for (const snapshot of await snapshotsOfGroup(transaction, id)) {
      await assertUnread(transaction, snapshot.id);
      await changeSnapshot(transaction, snapshot, { kind: "delete" }, nowMs);
      const task = { kind: "unsnapshot", step: "drop", snapshotId: snapshot.id } as const;
      await enqueueTask(transaction, snapshot.volume_id, task, nowMs);
    }
    await followGroupSnapshot(transaction, id);
  });
  context.tasks.wake();
};

const list = async (request: HttpRequest, context: BlockContext, caller: Caller, isDetailed: boolean) => {
  const { rows, more } = await listRows<GroupSnapshot>(request, context, caller, GROUP_SNAPSHOTS, [
    NO_CONSISTENCY_GROUP,
  ]);
  return {
    status: 200,
    body: {
      group_snapshots: rows.map((one) => (isDetailed ? detail(context, caller, one) : summary(one))),
      ...more,
    },
  };
};

const createBody = Type.Object({
  group_snapshot: Type.Object({ group_id: Type.String(), name: nameSchema, description: descriptionSchema }),
});
const resetBody = Type.Object({ reset_status: Type.Object({ status: Type.Enum([...GROUP_SNAPSHOT_STATUSES]) }) });

export const GROUP_SNAPSHOT_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/group_snapshots",
    since: SINCE,
    request: {},
    operation: "group:get_all_group_snapshots",
    handler: (request, context, caller) => list(request, context, caller, false),
  }),
  ...blockRoute({
    method: "GET",
    path: "/group_snapshots/detail",
    since: SINCE,
    request: {},
    operation: "group:get_all_group_snapshots",
    handler: (request, context, caller) => list(request, context, caller, true),
  }),
  ...blockRoute({
    method: "POST",
    path: "/group_snapshots",
    since: SINCE,
    request: { body: createBody },
    handler: async (request, context, caller) => {
      const { group_id: groupId, name = null, description = null } = request.body.group_snapshot;
      const group = await plainGroup(context.database, caller, groupId);
      enforce(context, caller, "group:create_group_snapshot", group.project_id);
      const whole = await createGroupSnapshot(context, caller, group.id, { name, description });
      const shown = { ...summary(whole), group_type_id: whole.group_type_id };
      return { status: 202, body: { group_snapshot: shown } };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/group_snapshots/:group_snapshot_id",
    since: SINCE,
    request: { params },
    handler: async (request, context, caller) => {
      const found = await plainGroupSnapshot(context.database, caller, request.params.group_snapshot_id);
      enforce(context, caller, "group:get_group_snapshot", found.project_id);
      return { status: 200, body: { group_snapshot: detail(context, caller, found) } };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/group_snapshots/:group_snapshot_id",
    since: SINCE,
    request: { params },
    handler: async (request, context, caller) => {
      const found = await plainGroupSnapshot(context.database, caller, request.params.group_snapshot_id);
      enforce(context, caller, "group:delete_group_snapshot", found.project_id);
      await deleteGroupSnapshot(context, found.id);
      return { status: 202 };
    },
  }),
  ...blockRoute({
    method: "POST",
    path: "/group_snapshots/:group_snapshot_id/action",
    since: RESET_SINCE,
    request: { params, body: resetBody },
    handler: async (request, context, caller) => {
      const found = await plainGroupSnapshot(context.database, caller, request.params.group_snapshot_id);
      enforce(context, caller, "group:reset_group_snapshot_status", found.project_id);
      const { status } = request.body.reset_status;
      await context.writer.updateTable("group_snapshots").set({ status }).where("id", "=", found.id).execute();
      return { status: 202 };
    },
  }),
];
