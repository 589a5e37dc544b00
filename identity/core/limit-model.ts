export type LimitModelName = "flat" | "strict_two_level";

export const LIMIT_MODELS: Readonly<Record<LimitModelName, string>> = {
  flat: "Limit enforcement and validation does not take project hierarchy into consideration.",
  strict_two_level: "This model requires project hierarchy never exceeds a depth of two",
};

/** A limit of −1 is none. */
const UNLIMITED = -1;

/** Exactly one of `projectId` and `domainId`. */
export type OwnedLimit = {
  readonly registeredLimitId: string;
  readonly projectId: string | null;
  readonly domainId: string | null;
  readonly resourceLimit: number;
};

/** What a limit is compared with. */
export type LimitSurroundings = {
  /** The domain of each project that a limit is for. */
  readonly domainOf: ReadonlyMap<string, string>;
  /** What holds where a domain has no limit of its own, by registered limit. */
  readonly defaults: ReadonlyMap<string, number>;
  /** The limits of the same registered limits after the change: those of the domains concerned and of all projects in them. */
  readonly limits: readonly OwnedLimit[];
};

const exceeds = (limit: number, bound: number): boolean =>
  bound !== UNLIMITED && (limit === UNLIMITED || limit > bound);

/** The first of `changed` that does not fit the model: a project's limit above its domain's, or a domain's below a project's. */
export const misfitOf = (
  model: LimitModelName,
  changed: readonly OwnedLimit[],
  { domainOf, defaults, limits }: LimitSurroundings,
): OwnedLimit | undefined => {
  if (model === "flat") return undefined;
  const boundOf = (registeredLimitId: string, domainId: string | undefined): number =>
    limits.find((limit) => limit.registeredLimitId === registeredLimitId && limit.domainId === domainId)
      ?.resourceLimit ??
    defaults.get(registeredLimitId) ??
    UNLIMITED;
  return changed.find(({ registeredLimitId, projectId, domainId, resourceLimit }) => {
    if (projectId !== null) return exceeds(resourceLimit, boundOf(registeredLimitId, domainOf.get(projectId)));
    return limits.some(
      (other) =>
        other.registeredLimitId === registeredLimitId &&
        other.projectId !== null &&
        domainOf.get(other.projectId) === domainId &&
        exceeds(other.resourceLimit, resourceLimit),
    );
  });
};
