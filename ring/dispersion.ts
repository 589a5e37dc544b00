import { type Assessment, assess } from "./assessment.ts";
import { type Builder, countHeld } from "./builder.ts";
import type { RingDevice } from "./device.ts";
import { endOfRow, tableShape } from "./table-shape.ts";
import { computeTargets, overloadToSpread } from "./targets.ts";

const LEVELS = ["region", "zone", "node"] as const;

/** How the replicas of partitions are spread over one failure domain. */
type TierReport = {
  readonly level: (typeof LEVELS)[number];
  readonly name: string;
  /** What one partition should have in it, by the weights. */
  readonly atLeast: number;
  readonly atMost: number;
  /** partitions[n] have n replicas in it. */
  readonly partitions: readonly number[];
  /** Partitions with fewer or more replicas in it than they should have. */
  readonly outOfBounds: number;
};

export type DispersionReport = Assessment & {
  readonly overload: number;
  /** With so much overload replicas would be as far apart as the devices allow, whatever the weights. */
  readonly overloadToSpread: number;
  /** Regions, then zones, then nodes. */
  readonly tiers: readonly TierReport[];
};

/** Requires: as many devices have weight as a partition has replicas. */
export const dispersionReport = (builder: Builder): DispersionReport => {
  const { devices, overload, partitionPower, replicas, assignments } = builder;
  const shape = tableShape(partitionPower, replicas);
  const { partitionCount } = shape;
  const targets = computeTargets(devices, { partitionCount, replicas, overload, held: countHeld(builder) });
  const tiers = LEVELS.flatMap((level, depth): TierReport[] => {
    const tierOf = targets.tierOf[depth] ?? new Int32Array();
    const names = namesOf(devices, tierOf, depth);
    const counts = names.map(() => Array.from({ length: shape.width + 1 }, () => 0));
    const inPartition = new Int32Array(names.length);
    for (let partition = 0; partition < partitionCount; partition += 1) {
      const row = assignments.subarray(partition * shape.width, endOfRow(shape, partition));
      const met = new Set<number>();
      for (const id of row) {
        const tier = tierOf[id] ?? -1;
        if (tier < 0) continue;
        met.add(tier);
        inPartition[tier] = (inPartition[tier] ?? 0) + 1;
      }
      for (const tier of met) {
        const tierCounts = counts[tier];
        const count = inPartition[tier] ?? 0;
        if (tierCounts !== undefined) tierCounts[count] = (tierCounts[count] ?? 0) + 1;
        inPartition[tier] = 0;
      }
    }
    return names.map((name, tier): TierReport => {
      const { floor: atLeast, ceiling: atMost } = targets.bounds[depth]?.[tier] ?? { floor: 0, ceiling: 0 };
      const partitions = counts[tier] ?? [];
      partitions[0] = partitionCount - partitions.reduce((sum, count) => sum + count, 0);
      const outOfBounds = partitions.reduce((sum, count, n) => (n < atLeast || n > atMost ? sum + count : sum), 0);
      return { level, name, atLeast, atMost, partitions, outOfBounds };
    });
  });
  return {
    ...assess(builder, shape, targets),
    overload,
    overloadToSpread: overloadToSpread(devices, replicas),
    tiers,
  };
};

/** Names of the tiers of one level, by number. */
const namesOf = (devices: readonly (RingDevice | undefined)[], tierOf: Int32Array, depth: number): string[] => {
  const names: string[] = [];
  for (const device of devices) {
    if (device === undefined) continue;
    const parts = [`region ${device.region}`, `zone ${device.zone}`, device.node];
    names[tierOf[device.id] ?? 0] ??= parts.slice(0, depth + 1).join(" ");
  }
  return names;
};
