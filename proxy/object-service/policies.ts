import type { StoragePolicy } from "../../common/storage-policy.ts";

/** In a container's headers, where no client's are: the number of its policy; left out where that is 0. */
const POLICY_HEADER = ".policy";

/** Whether a key of a container's headers is this house's own. */
export const isOwnHeader = (name: string): boolean => name.startsWith(".");

/** The storage policies of an installation, and which of them a container has. */
export class Policies {
  readonly all: readonly StoragePolicy[];
  /** Of containers whose maker names none. */
  readonly standard: StoragePolicy;
  /** Where no container can be of such a policy nobody asks. */
  readonly hasAvailable: boolean;
  readonly #byIndex: ReadonlyMap<number, StoragePolicy>;

  /** Requires: one of them is the default. */
  constructor(all: readonly StoragePolicy[]) {
    const standard = all.find(({ isDefault }) => isDefault);
    if (standard === undefined) throw new Error("no policy is the default");
    this.all = all;
    this.standard = standard;
    this.hasAvailable = all.some(({ consistency }) => consistency === "available");
    this.#byIndex = new Map(all.map((policy) => [policy.index, policy]));
  }

  /** That of a name, whatever its case. */
  named(name: string): StoragePolicy | undefined {
    const wanted = name.toLowerCase();
    return this.all.find((policy) => policy.name.toLowerCase() === wanted);
  }

  /** That of a container with these headers. One that cluster.toml has no more is kept as it can be without knowing it. */
  of(headers: Readonly<Record<string, string>>): StoragePolicy {
    const index = Number(headers[POLICY_HEADER] ?? 0);
    return this.#byIndex.get(index) ?? { name: `index-${index}`, index, consistency: "strong", isDefault: false };
  }
}

/** Headers of a new container of that policy. */
export const headersWith = (headers: Record<string, string>, { index }: StoragePolicy): Record<string, string> => {
  if (index !== 0) headers[POLICY_HEADER] = String(index);
  return headers;
};
