import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { blockError } from "../core/block-error.ts";
import { consistencyTypeId, type Group } from "../store/groups.ts";
import {
  type BlockContext,
  type BlockRoute,
  blockRoute,
  type Caller,
  enforce,
  timeText,
  truthOf,
} from "./block-route.ts";
import { createGroupFromSource, deleteGroup, type GroupSource } from "./group-actions.ts";
import { typesOfGroup, visibleGroup } from "./group-members.ts";
import { visibleGroupSnapshot } from "./group-snapshots.ts";
import { createGroup, GROUPS, groupSummary, TYPES_MAX } from "./groups.ts";
import { listRows } from "./list-rows.ts";
import { namedActionRoutes } from "./named-actions.ts";
import { updateGroup } from "./update-group.ts";
import { descriptionSchema, nameSchema, uuidParams } from "./volume-fields.ts";

const params = uuidParams("group_id");
/** Names or ids with commas between. */
const TEXT_MAX = 10_000;

/*
 * Consistency groups, as clients knew them before there were groups. They are groups of one type, whose snapshots are of one instant; as in Cinder these
 * operations show and change other groups too, and those of groups leave consistency groups alone.
 */

const groupDetail = async (context: BlockContext, group: Group): Promise<object> => ({
  ...groupSummary(group),
  status: group.status,
  availability_zone: group.availability_zone,
  created_at: timeText(group.created_at_ms),
  description: group.description,
  volume_types: await typesOfGroup(context.database, group.id),
});

const list = async (request: HttpRequest, context: BlockContext, caller: Caller, isDetailed: boolean) => {
  const source = { ...GROUPS, name: "consistencygroup" };
  const { rows, more } = await listRows<Group>(request, context, caller, source);
  const groups = await Promise.all(
    rows.map(async (one) => (isDetailed ? groupDetail(context, one) : groupSummary(one))),
  );
  return { status: 200, body: { consistencygroups: groups, ...more } };
};

const volumeTypesIn = (text: string | null | undefined): readonly string[] => {
  const names = (text ?? "").split(",").flatMap((name) => (name.trim() === "" ? [] : [name.trim()]));
  if (names.length === 0)
    throw blockError("bad-request", "volume_types must be provided to create a consistency group.");
  if (names.length > TYPES_MAX) throw blockError("bad-request", `A group has at most ${TYPES_MAX} volume types.`);
  return names;
};

const text = Type.Optional(Type.Union([Type.String({ maxLength: TEXT_MAX }), Type.Null()]));
const names = { name: nameSchema, description: descriptionSchema };
const createBody = Type.Object({
  consistencygroup: Type.Object({ ...names, volume_types: text, availability_zone: text }),
});
const fromSourceBody = Type.Object({
  "consistencygroup-from-src": Type.Object({ ...names, cgsnapshot_id: text, source_cgid: text }),
});
const updateBody = Type.Object({
  consistencygroup: Type.Object({ ...names, add_volumes: text, remove_volumes: text }),
});
const deleteBody = Type.Union([
  Type.Object({ consistencygroup: Type.Object({ force: Type.Optional(Type.Unknown()) }) }),
  Type.Null(),
]);

const sourceOf = async (
  context: BlockContext,
  caller: Caller,
  snapshotId: string | null,
  groupId: string | null,
): Promise<GroupSource> => {
  if ((snapshotId === null) === (groupId === null))
    throw blockError(
      "bad-request",
      "Either 'cgsnapshot_id' or 'source_cgid' must be provided to create a consistency group from source, and not both.",
    );
  const { database } = context;
  if (snapshotId === null) return { kind: "group", group: await visibleGroup(database, caller, groupId ?? "") };
  const snapshot = await visibleGroupSnapshot(database, caller, snapshotId);
  return { kind: "snapshot", id: snapshotId, group: await visibleGroup(database, caller, snapshot.group_id) };
};

const remove = async (
  context: BlockContext,
  caller: Caller,
  id: string,
  force: unknown,
): Promise<{ status: number }> => {
  const withVolumes = truthOf(force);
  if (withVolumes === undefined) throw blockError("bad-request", "Invalid value for force.");
  const group = await visibleGroup(context.database, caller, id);
  enforce(context, caller, "group:delete", group.project_id);
  await deleteGroup(context, group.id, withVolumes);
  return { status: 202 };
};

const READ: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/consistencygroups",
    request: {},
    operation: "group:get_all",
    handler: (request, context, caller) => list(request, context, caller, false),
  }),
  ...blockRoute({
    method: "GET",
    path: "/consistencygroups/detail",
    request: {},
    operation: "group:get_all",
    handler: (request, context, caller) => list(request, context, caller, true),
  }),
  ...blockRoute({
    method: "GET",
    path: "/consistencygroups/:group_id",
    request: { params },
    handler: async (request, context, caller) => {
      const group = await visibleGroup(context.database, caller, request.params.group_id);
      enforce(context, caller, "group:get", group.project_id);
      return { status: 200, body: { consistencygroup: await groupDetail(context, group) } };
    },
  }),
];

const CREATE: readonly BlockRoute[] = [
  ...blockRoute({
    method: "POST",
    path: "/consistencygroups",
    request: { body: createBody },
    operation: "group:create",
    handler: async (request, context, caller) => {
      const { volume_types: types, availability_zone: zone = null, ...named } = request.body.consistencygroup;
      const wanted = { ...named, volume_types: volumeTypesIn(types), availability_zone: zone === "" ? null : zone };
      const group = await createGroup(context, caller, await consistencyTypeId(context.database), wanted);
      return { status: 202, body: { consistencygroup: groupSummary(group) } };
    },
  }),
  ...blockRoute({
    method: "POST",
    path: "/consistencygroups/create_from_src",
    request: { body: fromSourceBody },
    operation: "group:create",
    handler: async (request, context, caller) => {
      const { cgsnapshot_id: snapshotId, source_cgid: groupId, ...named } = request.body["consistencygroup-from-src"];
      const source = await sourceOf(context, caller, snapshotId ?? null, groupId ?? null);
      const shown = { name: named.name ?? null, description: named.description ?? null };
      const group = await createGroupFromSource(context, caller, source, shown);
      return { status: 202, body: { consistencygroup: groupSummary(group) } };
    },
  }),
];

const UPDATE: readonly BlockRoute[] = ["/consistencygroups/:group_id/update", "/consistencygroups/:group_id"].flatMap(
  (path) =>
    blockRoute({
      method: "PUT",
      path,
      request: { params, body: updateBody },
      handler: async (request, context, caller) => {
        const group = await visibleGroup(context.database, caller, request.params.group_id);
        enforce(context, caller, "group:update", group.project_id);
        await updateGroup(context, group.id, request.body.consistencygroup);
        return { status: 202 };
      },
    }),
);

const DELETE: readonly BlockRoute[] = [
  ...blockRoute({
    method: "POST",
    path: "/consistencygroups/:group_id/delete",
    request: { params, body: deleteBody },
    handler: (request, context, caller) =>
      remove(context, caller, request.params.group_id, request.body?.consistencygroup.force ?? false),
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/consistencygroups/:group_id",
    request: { params },
    handler: (request, context, caller) => remove(context, caller, request.params.group_id, false),
  }),
];

export const CONSISTENCY_GROUP_ROUTES: readonly BlockRoute[] = [
  ...READ,
  ...CREATE,
  ...UPDATE,
  ...DELETE,
  // Cinder has none: whatever is named is not there.
  ...namedActionRoutes<Group>({
    collection: "consistencygroups",
    idName: "group_id",
    actions: {},
    find: (context, caller, id) => visibleGroup(context.database, caller, id),
  }),
];
