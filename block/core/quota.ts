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

/** What a project has now. */
export type Usage = { readonly volumes: number; readonly gigabytes: number };

/** What is about to be added. `perType` is checked against `volumes_TYPE` and `gigabytes_TYPE`, where these have limits. */
export type Demand = {
  readonly volumes: number;
  readonly gigabytes: number;
  /** The size that one volume would have then. */
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

const exceeds = (resource: string, limit: number, inUse: number, requested: number): Excess | undefined =>
  limit >= 0 && requested > 0 && inUse + requested > limit ? { resource, limit, inUse, requested } : undefined;

/** What of `demand` does not fit into the limits beside what is there; undefined where it fits. Pure. */
export const excessOf = (
  limitOf: LimitOf,
  whole: Usage,
  ofType: Usage,
  typeName: string,
  demand: Demand,
): Excess | undefined =>
  exceeds("per_volume_gigabytes", limitOf("per_volume_gigabytes"), 0, demand.volumeGigabytes) ??
  exceeds("volumes", limitOf("volumes"), whole.volumes, demand.volumes) ??
  exceeds("gigabytes", limitOf("gigabytes"), whole.gigabytes, demand.gigabytes) ??
  exceeds(`volumes_${typeName}`, limitOf(`volumes_${typeName}`), ofType.volumes, demand.volumes) ??
  exceeds(`gigabytes_${typeName}`, limitOf(`gigabytes_${typeName}`), ofType.gigabytes, demand.gigabytes);
