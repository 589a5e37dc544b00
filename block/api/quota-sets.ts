import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import { QUOTA_MAX } from "../core/quota.ts";
import { backupUsageOf } from "../store/backups.ts";
import {
  defaultLimits,
  groupCountOf,
  limitsOf,
  removeLimits,
  resourcesOf,
  setLimits,
  sumOf,
  usageOf,
} from "../store/quotas.ts";
import type { BlockDatabase } from "../store/schema.ts";
import { type BlockContext, type BlockRoute, blockRoute, enforce, truthOf } from "./block-route.ts";
import { parameter, queryOf } from "./list-parameters.ts";

const params = Type.Object({ quota_project_id: Type.String({ minLength: 1, maxLength: 255 }) });
const classParams = Type.Object({ class_name: Type.String({ minLength: 1, maxLength: 255 }) });
/** The only class there is: what holds for every project without limits of its own. */
const DEFAULT_CLASS = "default";
/** What clients send along. */
const IGNORED = new Set(["tenant_id", "id", "class_name", "force", "skip_validation"]);

type LimitOf = (resource: string) => number;

const limitsBody = async (database: BlockDatabase, limitOf: LimitOf): Promise<Record<string, number>> =>
  Object.fromEntries((await resourcesOf(database)).map((resource) => [resource, limitOf(resource)]));

/** What is used of each resource. What this version does not have is used by nobody. */
const usagesOf = async (database: BlockDatabase, projectId: string): Promise<(resource: string) => number> => {
  const usages = await usageOf(database, projectId);
  const whole = sumOf(usages);
  const backups = await backupUsageOf(database, projectId);
  const counts = new Map<string, number>([
    ["volumes", whole.volumes],
    ["snapshots", whole.snapshots],
    ["gigabytes", whole.gigabytes],
    ["groups", await groupCountOf(database, projectId)],
    ["backups", backups.backups],
    ["backup_gigabytes", backups.gigabytes],
    ...usages.flatMap(({ typeName, usage }): [string, number][] => [
      [`volumes_${typeName}`, usage.volumes],
      [`snapshots_${typeName}`, usage.snapshots],
      [`gigabytes_${typeName}`, usage.gigabytes],
    ]),
  ]);
  return (resource) => counts.get(resource) ?? 0;
};

/** Checked limits of a body: all of them, or none are written. Throws `bad-request`. */
const wantedLimits = async (
  database: BlockDatabase,
  body: Readonly<Record<string, unknown>>,
): Promise<ReadonlyMap<string, number>> => {
  const known = new Set(await resourcesOf(database));
  const limits = new Map<string, number>();
  for (const [key, value] of Object.entries(body)) {
    if (IGNORED.has(key)) continue;
    if (!known.has(key)) throw blockError("bad-request", `Bad key(s) in quota set: ${key.slice(0, 255)}`);
    const limit = typeof value === "string" && /^-?\d{1,10}$/.test(value) ? Number(value) : value;
    if (typeof limit !== "number" || !Number.isInteger(limit) || limit < -1 || limit > QUOTA_MAX)
      throw blockError(
        "bad-request",
        `Invalid input for field/attribute ${key}: a whole number from -1 to ${QUOTA_MAX} is needed.`,
      );
    limits.set(key, limit);
  }
  return limits;
};

const write = (
  { writer }: BlockContext,
  projectId: string | undefined,
  body: Readonly<Record<string, unknown>>,
): Promise<Record<string, number>> =>
  withTransaction(writer, async (transaction) => {
    await setLimits(transaction, projectId, await wantedLimits(transaction, body));
    const limitOf = projectId === undefined ? await defaultLimits(transaction) : await limitsOf(transaction, projectId);
    return limitsBody(transaction, limitOf);
  });

const setBody = <const Name extends string>(name: Name) =>
  Type.Object({ [name]: Type.Record(Type.String(), Type.Unknown(), { maxProperties: 1_000 }) } as Record<
    Name,
    ReturnType<typeof Type.Record<ReturnType<typeof Type.String>, ReturnType<typeof Type.Unknown>>>
  >);

export const QUOTA_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/os-quota-sets/:quota_project_id",
    request: { params },
    handler: async (request, context, caller) => {
      const { quota_project_id: id } = request.params;
      enforce(context, caller, "volume_extension:quotas:show", id);
      const limitOf = await limitsOf(context.database, id);
      if (truthOf(parameter(queryOf(request.query), "usage") ?? "false") !== true)
        return { status: 200, body: { quota_set: { id, ...(await limitsBody(context.database, limitOf)) } } };
      const used = await usagesOf(context.database, id);
      const resources = await resourcesOf(context.database);
      const entries = resources.map(
        (name) => [name, { limit: limitOf(name), in_use: used(name), reserved: 0 }] as const,
      );
      return { status: 200, body: { quota_set: { id, ...Object.fromEntries(entries) } } };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/os-quota-sets/:quota_project_id/defaults",
    request: { params },
    handler: async (request, context, caller) => {
      const { quota_project_id: id } = request.params;
      enforce(context, caller, "volume_extension:quotas:show", id);
      const limits = await limitsBody(context.database, await defaultLimits(context.database));
      return { status: 200, body: { quota_set: { id, ...limits } } };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/os-quota-sets/:quota_project_id",
    request: { params, body: setBody("quota_set") },
    handler: async (request, context, caller) => {
      const { quota_project_id: id } = request.params;
      enforce(context, caller, "volume_extension:quotas:update", id);
      return { status: 200, body: { quota_set: await write(context, id, request.body.quota_set) } };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/os-quota-sets/:quota_project_id",
    request: { params },
    handler: async (request, context, caller) => {
      const { quota_project_id: id } = request.params;
      enforce(context, caller, "volume_extension:quotas:delete", id);
      await withTransaction(context.writer, (transaction) => removeLimits(transaction, id));
      return { status: 200 };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/os-quota-class-sets/:class_name",
    request: { params: classParams },
    operation: "volume_extension:quota_classes:get",
    handler: async (request, context) => {
      const { class_name: id } = request.params;
      const limits = await limitsBody(context.database, await defaultLimits(context.database));
      return { status: 200, body: { quota_class_set: { id, ...limits } } };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/os-quota-class-sets/:class_name",
    request: { params: classParams, body: setBody("quota_class_set") },
    operation: "volume_extension:quota_classes:update",
    handler: async (request, context) => {
      if (request.params.class_name !== DEFAULT_CLASS)
        throw blockError("not-found", `Quota class ${request.params.class_name} could not be found.`);
      return { status: 200, body: { quota_class_set: await write(context, undefined, request.body.quota_class_set) } };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/limits",
    request: {},
    handler: async (request, context, caller) => {
      const other = parameter(queryOf(request.query), "project_id");
      const projectId = caller.isAdmin && other !== undefined ? other : (caller.token.projectId ?? "");
      enforce(context, caller, "limits_extension:used_limits", projectId);
      const limitOf = await limitsOf(context.database, projectId);
      const used = await usagesOf(context.database, projectId);
      const absolute = {
        maxTotalVolumes: limitOf("volumes"),
        maxTotalVolumeGigabytes: limitOf("gigabytes"),
        maxTotalSnapshots: limitOf("snapshots"),
        maxTotalBackups: limitOf("backups"),
        maxTotalBackupGigabytes: limitOf("backup_gigabytes"),
        totalVolumesUsed: used("volumes"),
        totalGigabytesUsed: used("gigabytes"),
        totalSnapshotsUsed: used("snapshots"),
        totalBackupsUsed: used("backups"),
        totalBackupGigabytesUsed: used("backup_gigabytes"),
      };
      return { status: 200, body: { limits: { rate: [], absolute } } };
    },
  }),
];
