import { Type } from "typebox";

/**
 * What a container's writes promise. `strong`: each name of it is a linearizable register. `available`: a write is acknowledged when W devices have it,
 * those that stand in for absent replicas counted, and reads may be stale until these have sent it on.
 */
const CONSISTENCIES = ["strong", "available"] as const;
export type Consistency = (typeof CONSISTENCIES)[number];

/** Of a policy's number, which container records carry. */
const INDEX_MAX = 255;
/** Most policies of an installation. */
const POLICIES_MAX = 32;
/** That of containers whose record names none; there is always one of this number. */
const FIRST_INDEX = 0;
const FIRST_NAME = "Policy-0";

/** The tables `[storage_policy.NAME]` of cluster.toml. */
export const storagePoliciesSchema = Type.Record(
  Type.String({ pattern: "^[A-Za-z0-9-]{1,64}$" }),
  Type.Object(
    {
      /** What container records carry in the name's place, so that a policy can be renamed; never given to another one. 0: that of containers from before. */
      index: Type.Integer({ minimum: 0, maximum: INDEX_MAX }),
      consistency: Type.Optional(Type.Union(CONSISTENCIES.map((consistency) => Type.Literal(consistency)))),
      /** Of containers whose maker names none; that of index 0 where no table says so. */
      default: Type.Optional(Type.Boolean()),
    },
    { additionalProperties: false },
  ),
  { maxProperties: POLICIES_MAX, additionalProperties: false },
);

/** One table as it stands in the file. */
type PolicyTable = { readonly index: number; readonly consistency?: Consistency; readonly default?: boolean };

/** How the objects of a container are kept, by a name that clients choose (`X-Storage-Policy`). All policies have the same rings. */
export type StoragePolicy = {
  readonly name: string;
  readonly index: number;
  readonly consistency: Consistency;
  readonly isDefault: boolean;
};

/**
 * The policies of an installation by their numbers, the first one always among them. Throws, by `refuse`, where two have one number or a name that differs in case
 * alone, or two are the default.
 */
export const storagePoliciesOf = (
  tables: Readonly<Record<string, PolicyTable>> | undefined,
  refuse: (message: string) => never,
): readonly StoragePolicy[] => {
  const named = Object.entries(tables ?? {}).map(([name, table]) => ({ name, ...table }));
  if (!named.some(({ index }) => index === FIRST_INDEX)) named.push({ name: FIRST_NAME, index: FIRST_INDEX });
  const names = new Set<string>();
  const indexes = new Set<number>();
  for (const { index, name } of named) {
    if (names.has(name.toLowerCase())) refuse(`storage_policy: the name ${name} is given twice`);
    if (indexes.has(index)) refuse(`storage_policy.${name}.index: another policy has the number ${index}`);
    names.add(name.toLowerCase());
    indexes.add(index);
  }
  const defaults = named.filter((one) => one.default === true);
  if (defaults.length > 1)
    refuse(`storage_policy: ${defaults.map(({ name }) => name).join(" and ")} are both the default`);
  const defaultIndex = defaults[0]?.index ?? FIRST_INDEX;
  const policies = named.map(({ consistency, index, name }) =>
    Object.freeze({ name, index, consistency: consistency ?? "strong", isDefault: index === defaultIndex }),
  );
  return Object.freeze(policies.toSorted((a, b) => a.index - b.index));
};
