/**
 * What QoS specs say that a volume may do in a second, under the names that Cinder gives them: `total_iops_sec`, `read_bytes_sec_max`,
 * `write_iops_sec_per_gib`, … Pure.
 *
 * `_per_gib` counts with the volume's size, and `_per_gib_min` is the least that comes of it; a plain limit beside it wins. `_max` is what may be done
 * for a second at a time. A limit of all and one of reads or writes of the same kind exclude each other (QEMU takes no both): that of all wins.
 */
const DIRECTIONS = ["total", "read", "write"] as const;
const KINDS = ["iops", "bytes"] as const;

type Direction = (typeof DIRECTIONS)[number];
type Kind = (typeof KINDS)[number];
export type LimitName = `${Kind}-${Direction}` | `${Kind}-${Direction}-max`;

/** In a second, of operations or bytes; what is not named is not limited. */
export type VolumeLimits = Readonly<Partial<Record<LimitName, number>>>;

/** More is no limit to any disk, and more than QEMU takes. */
export const LIMIT_MAX = 1_000_000_000_000_000;

export const LIMIT_NAMES: readonly LimitName[] = KINDS.flatMap((kind) =>
  DIRECTIONS.flatMap((direction) => [`${kind}-${direction}`, `${kind}-${direction}-max`] as const),
);

/** A whole number above 0; undefined for what is none, which limits nothing. */
const numberIn = (text: string | undefined): number | undefined => {
  if (text === undefined || !/^\d{1,15}$/.test(text.trim())) return undefined;
  const value = Number(text);
  return value === 0 ? undefined : Math.min(value, LIMIT_MAX);
};

const sizedLimit = (specs: Readonly<Record<string, string>>, key: string, sizeGib: number): number | undefined => {
  const plain = numberIn(specs[key]);
  if (plain !== undefined) return plain;
  const each = numberIn(specs[`${key}_per_gib`]);
  if (each === undefined) return undefined;
  return Math.min(LIMIT_MAX, Math.max(each * sizeGib, numberIn(specs[`${key}_per_gib_min`]) ?? 0));
};

/** The limits of a volume of `sizeGib`. */
export const limitsOf = (specs: Readonly<Record<string, string>>, sizeGib: number): VolumeLimits => {
  const limits: Partial<Record<LimitName, number>> = {};
  for (const kind of KINDS) {
    for (const direction of DIRECTIONS) {
      const key = `${direction}_${kind}_sec`;
      const limit = sizedLimit(specs, key, sizeGib);
      if (limit === undefined || (direction !== "total" && limits[`${kind}-total`] !== undefined)) continue;
      limits[`${kind}-${direction}`] = limit;
      const burst = sizedLimit(specs, `${key}_max`, sizeGib);
      // A burst that is none is left out: QEMU refuses it.
      if (burst !== undefined && burst > limit) limits[`${kind}-${direction}-max`] = burst;
    }
  }
  return limits;
};
