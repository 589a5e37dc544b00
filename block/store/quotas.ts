import { sql } from "kysely";
import { blockError } from "../core/block-error.ts";
import {
  DEFAULT_QUOTAS,
  type Demand,
  exceeds,
  type Excess,
  excessOf,
  typeExcessOf,
  type Usage,
} from "../core/quota.ts";
import type { BlockDatabase, BlockTransaction } from "./schema.ts";

/** Whose limits hold for every project that has no row of its own. */
const DEFAULT_CLASS = "class:default";

const NONE: Usage = { volumes: 0, snapshots: 0, gigabytes: 0 };

export type TypeUsage = { readonly typeName: string; readonly usage: Usage };

/** Counted, not kept: there is nothing that could drift. */
export const usageOf = async (database: BlockDatabase, projectId: string): Promise<readonly TypeUsage[]> => {
  const usages = new Map<string, Usage>();
  const volumes = await database
    .selectFrom("volumes")
    .innerJoin("volume_types", "volume_types.id", "volumes.volume_type_id")
    .select([
      "volume_types.name as type_name",
      sql<number>`COUNT(*)`.as("volumes"),
      sql<number>`SUM(COALESCE(volumes.wanted_size_gib, volumes.size_gib))`.as("gigabytes"),
    ])
    .where("volumes.project_id", "=", projectId)
    .groupBy("volume_types.name")
    .execute();
  for (const row of volumes)
    usages.set(row.type_name, { volumes: Number(row.volumes), snapshots: 0, gigabytes: Number(row.gigabytes) });
  const snapshots = await database
    .selectFrom("snapshots")
    .innerJoin("volumes", "volumes.id", "snapshots.volume_id")
    .innerJoin("volume_types", "volume_types.id", "volumes.volume_type_id")
    .select([
      "volume_types.name as type_name",
      sql<number>`COUNT(*)`.as("snapshots"),
      sql<number>`SUM(snapshots.size_gib)`.as("gigabytes"),
    ])
    .where("snapshots.project_id", "=", projectId)
    .groupBy("volume_types.name")
    .execute();
  for (const row of snapshots) {
    const { volumes: count, gigabytes } = usages.get(row.type_name) ?? NONE;
    const sum = gigabytes + Number(row.gigabytes);
    usages.set(row.type_name, { volumes: count, snapshots: Number(row.snapshots), gigabytes: sum });
  }
  return [...usages].map(([typeName, usage]) => ({ typeName, usage }));
};

export const sumOf = (usages: readonly TypeUsage[]): Usage =>
  usages.reduce(
    (sum, { usage }) => ({
      volumes: sum.volumes + usage.volumes,
      snapshots: sum.snapshots + usage.snapshots,
      gigabytes: sum.gigabytes + usage.gigabytes,
    }),
    NONE,
  );

const rowsOf = async (database: BlockDatabase, projectId: string): Promise<ReadonlyMap<string, number>> => {
  const rows = await database
    .selectFrom("quota_limits")
    .select(["resource", "hard_limit"])
    .where("project_id", "=", projectId)
    .execute();
  return new Map(rows.map(({ resource, hard_limit: limit }) => [resource, Number(limit)]));
};

/** Every resource with a limit: those of the service, and three of each type. */
export const resourcesOf = async (database: BlockDatabase): Promise<readonly string[]> => {
  const types = await database.selectFrom("volume_types").select("name").orderBy("name").execute();
  return [
    ...Object.keys(DEFAULT_QUOTAS),
    ...types.flatMap(({ name }) => [`volumes_${name}`, `gigabytes_${name}`, `snapshots_${name}`]),
  ];
};

/** The limits of projects that have none of their own. */
export const defaultLimits = async (database: BlockDatabase): Promise<(resource: string) => number> => {
  const rows = await rowsOf(database, DEFAULT_CLASS);
  return (resource) =>
    rows.get(resource) ?? (Object.hasOwn(DEFAULT_QUOTAS, resource) ? (DEFAULT_QUOTAS[resource] ?? -1) : -1);
};

export const limitsOf = async (database: BlockDatabase, projectId: string): Promise<(resource: string) => number> => {
  const [own, general] = [await rowsOf(database, projectId), await defaultLimits(database)];
  return (resource) => own.get(resource) ?? general(resource);
};

/** Undefined as project: the limits of all that have none. */
export const setLimits = async (
  transaction: BlockTransaction,
  projectId: string | undefined,
  limits: ReadonlyMap<string, number>,
): Promise<void> => {
  for (const [resource, limit] of limits) {
    await transaction
      .insertInto("quota_limits")
      .values({ project_id: projectId ?? DEFAULT_CLASS, resource, hard_limit: limit })
      .onConflict((conflict) => conflict.columns(["project_id", "resource"]).doUpdateSet({ hard_limit: limit }))
      .execute();
  }
};

export const removeLimits = async (transaction: BlockTransaction, projectId: string): Promise<void> => {
  await transaction.deleteFrom("quota_limits").where("project_id", "=", projectId).execute();
};

/** In Cinder's words, which clients show. */
const refusal = ({ resource, limit, inUse, requested }: Excess): string => {
  if (resource.startsWith("volumes"))
    return `VolumeLimitExceeded: Maximum number of volumes allowed (${limit}) exceeded for quota '${resource}'.`;
  if (resource.startsWith("snapshots"))
    return `SnapshotLimitExceeded: Maximum number of snapshots allowed (${limit}) exceeded for quota '${resource}'.`;
  if (resource === "groups") return `GroupLimitExceeded: Maximum number of groups allowed (${limit}) exceeded.`;
  if (resource === "per_volume_gigabytes")
    return `VolumeSizeExceedsLimit: Requested volume size ${requested}G is larger than maximum allowed limit ${limit}G.`;
  const have = `Requested ${requested}G, quota is ${limit}G and ${inUse}G has been consumed.`;
  return `VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed ${resource} quota. ${have}`;
};

const refuseExcess = (excess: Excess | undefined): void => {
  if (excess !== undefined) throw blockError("over-quota", refusal(excess), { ...excess });
};

/**
 * Throws `over-quota` where `demand` does not fit. Requires: in the transaction that adds it, so that of two that fit alone, but not together,
 * one is refused (`common/sql/transaction.ts`).
 */
export const assertQuota = async (
  transaction: BlockTransaction,
  projectId: string,
  typeName: string,
  demand: Demand,
): Promise<void> => {
  const usages = await usageOf(transaction, projectId);
  const ofType = usages.find((one) => one.typeName === typeName)?.usage ?? NONE;
  refuseExcess(excessOf(await limitsOf(transaction, projectId), sumOf(usages), ofType, typeName, demand));
};

/** The same for what the project has already, and that is to be of another type. */
export const assertTypeQuota = async (
  transaction: BlockTransaction,
  projectId: string,
  typeName: string,
  demand: Demand,
): Promise<void> => {
  const ofType = (await usageOf(transaction, projectId)).find((one) => one.typeName === typeName)?.usage ?? NONE;
  refuseExcess(typeExcessOf(await limitsOf(transaction, projectId), ofType, typeName, demand));
};

export const groupCountOf = async (database: BlockDatabase, projectId: string): Promise<number> => {
  const counted = database.selectFrom("volume_groups").select(sql<number>`COUNT(*)`.as("count"));
  return Number((await counted.where("project_id", "=", projectId).executeTakeFirstOrThrow()).count);
};

/** Throws `over-quota` where the project may have no further group. Requires: in the transaction that adds it. */
export const assertGroupQuota = async (transaction: BlockTransaction, projectId: string): Promise<void> => {
  const limit = (await limitsOf(transaction, projectId))("groups");
  refuseExcess(exceeds("groups", limit, await groupCountOf(transaction, projectId), 1));
};
