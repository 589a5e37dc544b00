/** What projects may have, with the limits that hold where nobody set others (Cinder's). −1: without limit. */
export const DEFAULT_QUOTAS: Readonly<Record<string, number>> = {
  volumes: 10,
  snapshots: 10,
  gigabytes: 1000,
  backups: 10,
  backup_gigabytes: 1000,
  groups: 10,
  per_volume_gigabytes: -1,
};

/** Limits beyond this are refused; PostgreSQL and JSON keep it exactly. */
export const QUOTA_MAX = 2_147_483_647;

/** What a project has now; `gigabytes` are those of volumes and of snapshots (Cinder's no_snapshot_gb_quota is false). */
export type Usage = { readonly volumes: number; readonly snapshots: number; readonly gigabytes: number };

/** What is about to be added. It is checked against `volumes_TYPE`, `snapshots_TYPE` and `gigabytes_TYPE` too, where these have limits. */
export type Demand = {
  readonly volumes: number;
  readonly snapshots: number;
  readonly gigabytes: number;
  /** The size that one volume would have then; 0 where no volume changes. */
  readonly volumeGigabytes: number;
};

/** The first resource that would be exceeded. */
export type Excess = {
  readonly resource: string;
  readonly limit: number;
  readonly inUse: number;
  readonly requested: number;
};

type LimitOf = (resource: string) => number;

/** Undefined where it fits. */
export const exceeds = (resource: string, limit: number, inUse: number, requested: number): Excess | undefined =>
  limit >= 0 && requested > 0 && inUse + requested > limit ? { resource, limit, inUse, requested } : undefined;

const COUNTED = ["volumes", "snapshots", "gigabytes"] as const;

/** What of `demand` does not fit into the limits of one type. */
export const typeExcessOf = (limitOf: LimitOf, ofType: Usage, typeName: string, demand: Demand): Excess | undefined => {
  for (const counted of COUNTED) {
    const resource = `${counted}_${typeName}`;
    const excess = exceeds(resource, limitOf(resource), ofType[counted], demand[counted]);
    if (excess !== undefined) return excess;
  }
  return undefined;
};

/** What of `demand` does not fit into the limits beside what is there; undefined where it fits. Pure. */
export const excessOf = (
  limitOf: LimitOf,
  whole: Usage,
  ofType: Usage,
  typeName: string,
  demand: Demand,
): Excess | undefined => {
  const tooLarge = exceeds("per_volume_gigabytes", limitOf("per_volume_gigabytes"), 0, demand.volumeGigabytes);
  if (tooLarge !== undefined) return tooLarge;
  for (const counted of COUNTED) {
    const excess = exceeds(counted, limitOf(counted), whole[counted], demand[counted]);
    if (excess !== undefined) return excess;
  }
  return typeExcessOf(limitOf, ofType, typeName, demand);
};
