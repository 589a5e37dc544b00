/** What the scheduler knows of a pool. Sizes in GiB, which may be fractions. */
export type Pool = {
  /** `NODE@BACKEND#POOL`, as volumes and `get_pools` name it. */
  readonly name: string;
  readonly zone: string;
  readonly isEnabled: boolean;
  /** Why it takes no new volumes just now. */
  readonly failure: string | undefined;
  readonly totalGib: number;
  readonly freeGib: number;
  /** What its volumes may grow to, all together, with those that are about to be made. */
  readonly provisionedGib: number;
  readonly volumeCount: number;
  readonly isThin: boolean;
  /** What extra specs of types ask for: `volume_backend_name`, … */
  readonly capabilities: Readonly<Record<string, string | readonly string[]>>;
};

/** A volume that needs a place. */
export type Placement = {
  readonly sizeGib: number;
  /** Undefined: any. */
  readonly zone: string | undefined;
  readonly extraSpecs: Readonly<Record<string, string>>;
  /** Pools that were tried before. */
  readonly excluded: readonly string[];
  /** The only pool that can take it: a copy is made where its source is. */
  readonly onlyPool: string | undefined;
};

export type SchedulerSettings = {
  /** Share of a pool that is kept free, in per cent. */
  readonly reservedPercentage: number;
  /** How much more than it has a thin pool may promise. */
  readonly maxOverSubscriptionRatio: number;
};

type PoolFilter = {
  readonly name: string;
  passes(pool: Pool, placement: Placement, settings: SchedulerSettings): boolean;
};

type PoolWeigher = {
  readonly name: string;
  /** Negative: less is better. */
  readonly multiplier: number;
  weigh(pool: Pool, settings: SchedulerSettings): number;
};

/** GiB that may be given to new volumes of a thick pool, or really be written in a thin one. */
const usableGib = (pool: Pool, { reservedPercentage }: SchedulerSettings): number =>
  pool.freeGib - (pool.totalGib * reservedPercentage) / 100;

const hasRoom = (pool: Pool, sizeGib: number, settings: SchedulerSettings): boolean => {
  const usable = usableGib(pool, settings);
  if (!pool.isThin) return usable >= sizeGib;
  if (usable <= 0 || pool.totalGib <= 0) return false;
  const ratio = settings.maxOverSubscriptionRatio;
  return (pool.provisionedGib + sizeGib) / pool.totalGib <= ratio && usable * ratio >= sizeGib;
};

const OPERATOR = /^(<is>|<in>|<or>|s==|s!=|==|!=|>=|<=|=)\s*(.*)$/;

/** An extra spec against a capability, in the operators of oslo's `specs_matcher` that clients use. */
const matchesSpec = (value: string, spec: string): boolean => {
  const [, operator, operand = ""] = OPERATOR.exec(spec) ?? [];
  switch (operator) {
    case undefined:
      return value === spec;
    case "<is>":
      return value.toLowerCase() === operand.toLowerCase();
    case "<in>":
      return value.includes(operand);
    case "<or>":
      return spec
        .split("<or>")
        .map((part) => part.trim())
        .includes(value);
    case "s==":
      return value === operand;
    case "s!=":
      return value !== operand;
    case "==":
      return Number(value) === Number(operand);
    case "!=":
      return Number(value) !== Number(operand);
    case "<=":
      return Number(value) <= Number(operand);
    default:
      return Number(value) >= Number(operand);
  }
};

/** What a spec asks of a back-end: those with another scope than `capabilities` are for drivers. */
const capabilityOf = (key: string): string | undefined => {
  if (!key.includes(":")) return key === "multiattach" ? undefined : key;
  const [scope, ...rest] = key.split(":");
  return scope === "capabilities" ? rest.join(":") : undefined;
};

const FILTERS: readonly PoolFilter[] = [
  { name: "state", passes: (pool) => pool.isEnabled && pool.failure === undefined },
  { name: "retry", passes: (pool, { excluded }) => !excluded.includes(pool.name) },
  { name: "source", passes: (pool, { onlyPool }) => onlyPool === undefined || onlyPool === pool.name },
  { name: "availability zone", passes: (pool, { zone }) => zone === undefined || zone === pool.zone },
  {
    name: "capabilities",
    passes: ({ capabilities }, { extraSpecs }) =>
      Object.entries(extraSpecs).every(([key, spec]) => {
        const name = capabilityOf(key);
        if (name === undefined) return true;
        // Of a list, one has to match: what a back-end can do in several ways.
        const has = Object.hasOwn(capabilities, name) ? capabilities[name] : undefined;
        return (typeof has === "string" ? [has] : (has ?? [])).some((value) => matchesSpec(value, spec));
      }),
  },
  { name: "capacity", passes: (pool, { sizeGib }, settings) => hasRoom(pool, sizeGib, settings) },
];

const WEIGHERS: readonly PoolWeigher[] = [
  {
    name: "capacity",
    multiplier: 1,
    weigh: (pool, settings) =>
      pool.isThin
        ? Math.min(
            pool.totalGib * settings.maxOverSubscriptionRatio - pool.provisionedGib,
            usableGib(pool, settings) * settings.maxOverSubscriptionRatio,
          )
        : usableGib(pool, settings),
  },
  // Among pools with as much room the one with fewer volumes; it must not outweigh room.
  { name: "volume number", multiplier: -0.1, weigh: ({ volumeCount }) => volumeCount },
];

/** Each weigher's values spread over 0 to 1, so that GiB and counts can be added. */
const weightsOf = (pools: readonly Pool[], settings: SchedulerSettings): readonly number[] => {
  const weights = pools.map(() => 0);
  for (const weigher of WEIGHERS) {
    const values = pools.map((pool) => weigher.weigh(pool, settings));
    const least = Math.min(...values);
    const spread = Math.max(...values) - least;
    for (const [index, value] of values.entries()) {
      weights[index] = (weights[index] ?? 0) + weigher.multiplier * (spread === 0 ? 0 : (value - least) / spread);
    }
  }
  return weights;
};

export type Choice =
  | { readonly kind: "chosen"; readonly pool: Pool }
  /** `reason` in words: how many pools each filter turned away. */
  | { readonly kind: "none"; readonly reason: string };

/** The best of the pools that pass every filter; of equals the first by name. Pure. */
export const choosePool = (pools: readonly Pool[], placement: Placement, settings: SchedulerSettings): Choice => {
  const turnedAway = new Map<string, number>();
  const passing = pools
    .filter((pool) => {
      const failed = FILTERS.find((filter) => !filter.passes(pool, placement, settings));
      if (failed !== undefined) turnedAway.set(failed.name, (turnedAway.get(failed.name) ?? 0) + 1);
      return failed === undefined;
    })
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const weights = weightsOf(passing, settings);
  const [best] = passing
    .map((pool, index) => ({ pool, weight: weights[index] ?? 0 }))
    .toSorted((a, b) => b.weight - a.weight);
  if (best !== undefined) return { kind: "chosen", pool: best.pool };
  const reasons = [...turnedAway].map(([name, count]) => `${name}: ${count}`);
  const details = reasons.length === 0 ? "there are no pools" : `turned away by ${reasons.join(", ")}`;
  return { kind: "none", reason: `No valid backend was found (${details}).` };
};
