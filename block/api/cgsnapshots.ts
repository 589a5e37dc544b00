import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import type { GroupSnapshot } from "../store/groups.ts";
import { type BlockContext, type BlockRoute, blockRoute, type Caller, enforce, timeText } from "./block-route.ts";
import { visibleGroup } from "./group-members.ts";
import { createGroupSnapshot, deleteGroupSnapshot, GROUP_SNAPSHOTS, visibleGroupSnapshot } from "./group-snapshots.ts";
import { listRows } from "./list-rows.ts";
import { descriptionSchema, nameSchema, uuidParams } from "./volume-fields.ts";

const params = uuidParams("cgsnapshot_id");

const summary = ({ id, name }: GroupSnapshot): object => ({ id, name });

const detail = (one: GroupSnapshot): object => ({
  ...summary(one),
  consistencygroup_id: one.group_id,
  status: one.status,
  created_at: timeText(one.created_at_ms),
  description: one.description,
});

const list = async (request: HttpRequest, context: BlockContext, caller: Caller, isDetailed: boolean) => {
  const source = { ...GROUP_SNAPSHOTS, name: "cgsnapshot" };
  const { rows, more } = await listRows<GroupSnapshot>(request, context, caller, source);
  return { status: 200, body: { cgsnapshots: rows.map(isDetailed ? detail : summary), ...more } };
};

const createBody = Type.Object({
  cgsnapshot: Type.Object({ consistencygroup_id: Type.String(), name: nameSchema, description: descriptionSchema }),
});

/** Snapshots of consistency groups (`consistency-groups.ts`): group snapshots under their older name. */
export const CGSNAPSHOT_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/cgsnapshots",
    request: {},
    operation: "group:get_all_group_snapshots",
    handler: (request, context, caller) => list(request, context, caller, false),
  }),
  ...blockRoute({
    method: "GET",
    path: "/cgsnapshots/detail",
    request: {},
    operation: "group:get_all_group_snapshots",
    handler: (request, context, caller) => list(request, context, caller, true),
  }),
  ...blockRoute({
    method: "POST",
    path: "/cgsnapshots",
    request: { body: createBody },
    handler: async (request, context, caller) => {
      const { consistencygroup_id: groupId, name = null, description = null } = request.body.cgsnapshot;
      const group = await visibleGroup(context.database, caller, groupId);
      enforce(context, caller, "group:create_group_snapshot", group.project_id);
      const whole = await createGroupSnapshot(context, caller, group.id, { name, description });
      return { status: 202, body: { cgsnapshot: summary(whole) } };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/cgsnapshots/:cgsnapshot_id",
    request: { params },
    handler: async (request, context, caller) => {
      const found = await visibleGroupSnapshot(context.database, caller, request.params.cgsnapshot_id);
      enforce(context, caller, "group:get_group_snapshot", found.project_id);
      return { status: 200, body: { cgsnapshot: detail(found) } };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/cgsnapshots/:cgsnapshot_id",
    request: { params },
    handler: async (request, context, caller) => {
      const found = await visibleGroupSnapshot(context.database, caller, request.params.cgsnapshot_id);
      enforce(context, caller, "group:delete_group_snapshot", found.project_id);
      await deleteGroupSnapshot(context, found.id);
      return { status: 202 };
    },
  }),
];
