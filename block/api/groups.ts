import { randomUUID } from "node:crypto";
import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { choosePool } from "../core/scheduler.ts";
import { schedulerPool } from "../hosts.ts";
import { type Group, volumesOfGroup } from "../store/groups.ts";
import { pairsOf } from "../store/pairs.ts";
import { assertGroupQuota } from "../store/quotas.ts";
import type { BlockTransaction } from "../store/schema.ts";
import { findType, specsOf } from "../store/volume-types.ts";
import {
  type BlockContext,
  type BlockRoute,
  blockRoute,
  type Caller,
  enforce,
  mayDo,
  projectOf,
  timeText,
  truthOf,
} from "./block-route.ts";
import { NO_CONSISTENCY_GROUP, plainGroup, refuseConsistencyGroup, typesOfGroup } from "./group-members.ts";
import { visibleGroupType } from "./group-types.ts";
import { updateGroup } from "./update-group.ts";
import { parameter, queryOf } from "./list-parameters.ts";
import { listRows, type ListSource } from "./list-rows.ts";
import { descriptionSchema, nameSchema, uuidParams } from "./volume-fields.ts";

const SINCE = 13;
const SOURCES_SINCE = 14;
const VOLUMES_SINCE = 25;
const REPLICATION_SINCE = 38;
const PROJECT_SINCE = 58;
/** Volume types of one group. */
export const TYPES_MAX = 100;

export const GROUPS: ListSource = {
  table: "volume_groups",
  name: "group",
  sortColumns: {
    id: { column: "id", kind: "text" },
    name: { column: "name", kind: "text" },
    status: { column: "status", kind: "text" },
    group_type_id: { column: "group_type_id", kind: "text" },
    created_at: { column: "created_at_ms", kind: "number" },
  },
  filters: { id: "id", name: "name", status: "status", group_type_id: "group_type_id" },
};

export const groupSummary = ({ id, name }: Group): object => ({ id, name });

const groupDetail = async (request: HttpRequest, context: BlockContext, caller: Caller, group: Group) => {
  const { version } = caller;
  const query = queryOf(request.query);
  const isListed = version >= VOLUMES_SINCE && truthOf(parameter(query, "list_volume") ?? "false") === true;
  const isOwnerShown =
    version >= PROJECT_SINCE && mayDo(context, caller, "group:group_project_attribute", group.project_id);
  return {
    ...groupSummary(group),
    status: group.status,
    availability_zone: group.availability_zone,
    created_at: timeText(group.created_at_ms),
    description: group.description,
    group_type: group.group_type_id,
    volume_types: await typesOfGroup(context.database, group.id),
    ...(version >= SOURCES_SINCE
      ? { group_snapshot_id: group.group_snapshot_id, source_group_id: group.source_group_id }
      : {}),
    ...(isListed ? { volumes: (await volumesOfGroup(context.database, group.id)).map(({ id }) => id) } : {}),
    ...(version >= REPLICATION_SINCE ? { replication_status: "disabled" } : {}),
    ...(isOwnerShown ? { project_id: group.project_id } : {}),
  };
};

/** The row with its types, within the project's quota. Throws `over-quota`. */
export const insertGroup = async (
  transaction: BlockTransaction,
  group: Group,
  typeIds: readonly string[],
): Promise<void> => {
  await assertGroupQuota(transaction, group.project_id);
  await transaction.insertInto("volume_groups").values(group).execute();
  for (const typeId of new Set(typeIds))
    await transaction.insertInto("group_volume_types").values({ group_id: group.id, volume_type_id: typeId }).execute();
};

/** Whether some pool can do what the group's type asks for, together with each of its volume types. */
const isPossible = async (
  context: BlockContext,
  groupSpecs: Readonly<Record<string, string>>,
  typeIds: readonly string[],
): Promise<boolean> => {
  const { pools } = await context.hosts.reports();
  const { availabilityZone: zone, scheduler } = context.config;
  for (const typeId of typeIds) {
    const extraSpecs = { ...(await specsOf(context.database, typeId)), ...groupSpecs };
    const placement = { sizeGib: 0, zone: undefined, extraSpecs, excluded: [], onlyPool: undefined };
    const all = pools.map((pool) => schedulerPool(pool, zone, true, 0));
    if (choosePool(all, placement, scheduler).kind === "none") return false;
  }
  return true;
};

/** Throws `not-found` for a type that the caller may not use. */
const typeIdsOf = async (context: BlockContext, caller: Caller, names: readonly string[]): Promise<string[]> => {
  const ids: string[] = [];
  for (const name of names) {
    const type = await findType(context.database, name, caller.isAdmin ? undefined : projectOf(caller));
    if (type === undefined) throw notFound("Volume type", name);
    ids.push(type.id);
  }
  return ids;
};

/** What a new group is called, and what may be in it. */
export type WantedGroup = {
  readonly name?: string | null;
  readonly description?: string | null;
  /** Ids or names. */
  readonly volume_types: readonly string[];
  readonly availability_zone?: string | null;
};

/** An empty group of the caller's project; in error where no pool can do what its type asks for. Throws `bad-request`, `not-found`, `over-quota`. */
export const createGroup = async (
  context: BlockContext,
  caller: Caller,
  groupTypeId: string,
  wanted: WantedGroup,
): Promise<Group> => {
  const projectId = projectOf(caller);
  const zone = wanted.availability_zone ?? context.config.availabilityZone;
  if (zone !== context.config.availabilityZone)
    throw blockError("bad-request", `Invalid input received: Availability zone '${zone}' is invalid.`);
  const typeIds = await typeIdsOf(context, caller, wanted.volume_types);
  const specs = await pairsOf(context.database, "group_specs", groupTypeId);
  const group: Group = {
    id: randomUUID(),
    project_id: projectId,
    user_id: caller.token.userId,
    name: wanted.name ?? null,
    description: wanted.description ?? null,
    // There is nothing to be made: a group is what its volumes are.
    status: (await isPossible(context, specs, typeIds)) ? "available" : "error",
    availability_zone: zone,
    group_type_id: groupTypeId,
    group_snapshot_id: null,
    source_group_id: null,
    created_at_ms: context.clock.nowMs(),
  };
  await withTransaction(context.writer, (transaction) => insertGroup(transaction, group, typeIds));
  return group;
};

const createBody = Type.Object({
  group: Type.Object({
    name: nameSchema,
    description: descriptionSchema,
    group_type: Type.String({ minLength: 1, maxLength: 255 }),
    volume_types: Type.Array(Type.String({ minLength: 1, maxLength: 255 }), { minItems: 1, maxItems: TYPES_MAX }),
    availability_zone: Type.Optional(Type.Union([Type.String({ maxLength: 255 }), Type.Null()])),
  }),
});

const list = async (request: HttpRequest, context: BlockContext, caller: Caller, isDetailed: boolean) => {
  const { rows, more } = await listRows<Group>(request, context, caller, GROUPS, [NO_CONSISTENCY_GROUP]);
  const groups = await Promise.all(
    rows.map(async (one) => (isDetailed ? groupDetail(request, context, caller, one) : groupSummary(one))),
  );
  return { status: 200, body: { groups, ...more } };
};

const idList = Type.Optional(Type.Union([Type.String({ maxLength: 10_000 }), Type.Null()]));

/** Volumes that are looked at together: deleted, or snapshot. */
export const GROUP_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/groups",
    since: SINCE,
    request: {},
    operation: "group:get_all",
    handler: (request, context, caller) => list(request, context, caller, false),
  }),
  ...blockRoute({
    method: "GET",
    path: "/groups/detail",
    since: SINCE,
    request: {},
    operation: "group:get_all",
    handler: (request, context, caller) => list(request, context, caller, true),
  }),
  ...blockRoute({
    method: "GET",
    path: "/groups/:group_id",
    since: SINCE,
    request: { params: uuidParams("group_id") },
    handler: async (request, context, caller) => {
      const group = await plainGroup(context.database, caller, request.params.group_id);
      enforce(context, caller, "group:get", group.project_id);
      return { status: 200, body: { group: await groupDetail(request, context, caller, group) } };
    },
  }),
  ...blockRoute({
    method: "POST",
    path: "/groups",
    since: SINCE,
    request: { body: createBody },
    operation: "group:create",
    handler: async (request, context, caller) => {
      const { group: wanted } = request.body;
      const type = await visibleGroupType(context.database, caller, wanted.group_type);
      await refuseConsistencyGroup(context.database, { group_type_id: type.id });
      const group = await createGroup(context, caller, type.id, wanted);
      return { status: 202, body: { group: groupSummary(group) } };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/groups/:group_id",
    since: SINCE,
    request: {
      params: uuidParams("group_id"),
      body: Type.Object({
        group: Type.Object({
          name: nameSchema,
          description: descriptionSchema,
          add_volumes: idList,
          remove_volumes: idList,
        }),
      }),
    },
    handler: async (request, context, caller) => {
      const known = await plainGroup(context.database, caller, request.params.group_id);
      enforce(context, caller, "group:update", known.project_id);
      await updateGroup(context, known.id, request.body.group);
      return { status: 202 };
    },
  }),
];
