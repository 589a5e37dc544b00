import type { Targets } from "./targets.ts";
import type { FastRandom } from "./fast-random.ts";
import { Layout } from "./layout.ts";

/** Exchanges tried per replica after the systematic layout; two mix well, four leave no trace of the order. */
const EXCHANGES_PER_REPLICA = 4;

/**
 * Fills an empty table. All devices lie on a line in the order of the tree, each as long as its target; partition p takes
 * the points p, p + count, p + 2 × count, … Every tier is one stretch of the line, so each partition meets it as
 * often as its share says, rounded down or up: targets and dispersion are exact at once (systematic sampling).
 * Neighbours on the line would share all their partitions, and the loss of one device would fall on few others; therefore
 * pairs of replicas are then exchanged at random wherever that keeps both partitions in bounds.
 */
export const fillFirstLayout = (
  assignments: Uint16Array,
  replicas: number,
  targets: Targets,
  random: FastRandom,
): void => {
  const partitionCount = assignments.length / replicas;
  const line = devicesInTreeOrder(targets, random);
  let point = 0;
  for (const device of line)
    for (let length = targets.ofDevice[device] ?? 0; length > 0; length -= 1) {
      assignments[(point % partitionCount) * replicas + Math.floor(point / partitionCount)] = device;
      point += 1;
    }
  const layout = new Layout(
    assignments,
    replicas,
    targets,
    new Int32Array(targets.ofDevice),
    new Uint8Array(partitionCount),
  );
  const slotCount = assignments.length;
  for (let rounds = slotCount * EXCHANGES_PER_REPLICA; rounds > 0; rounds -= 1)
    exchange(layout, random.below(slotCount), random.below(slotCount));
  shuffleReplicas(assignments, replicas, random);
};

/** Devices with a target, those of one node, zone, region next to each other, otherwise in random order. */
const devicesInTreeOrder = (targets: Targets, random: FastRandom): number[] => {
  const order = targets.tierOf.map((tiers) => {
    const ranks = new Map<number, number>();
    for (const tier of tiers) if (!ranks.has(tier)) ranks.set(tier, random.below(2 ** 32));
    return ranks;
  });
  const ids = [...targets.ofDevice.keys()].filter((id) => (targets.ofDevice[id] ?? 0) > 0);
  const keys = new Map(
    ids.map((id) => [
      id,
      [
        ...targets.tierOf.flatMap((tiers, level) => {
          const tier = tiers[id] ?? 0;
          return [order[level]?.get(tier) ?? 0, tier];
        }),
        random.below(2 ** 32),
        id,
      ],
    ]),
  );
  return ids.sort((a, b) => {
    const [keyA, keyB] = [keys.get(a) ?? [], keys.get(b) ?? []];
    for (const [index, part] of keyA.entries()) {
      const difference = part - (keyB[index] ?? 0);
      if (difference !== 0) return difference;
    }
    return 0;
  });
};

const exchange = (layout: Layout, one: number, other: number): void => {
  const [deviceOne, deviceOther] = [layout.deviceAt(one), layout.deviceAt(other)];
  const partitionOne = Math.floor(one / layout.replicas);
  const partitionOther = Math.floor(other / layout.replicas);
  if (layout.holds(partitionOne, deviceOther) || layout.holds(partitionOther, deviceOne)) return;
  if (layout.costOfMove(one, deviceOther) > 0 || layout.costOfMove(other, deviceOne) > 0) return;
  layout.assignments[one] = deviceOther;
  layout.assignments[other] = deviceOne;
};

/** Replica 0 is often asked first; each device should be that for an equal part of its partitions. */
const shuffleReplicas = (assignments: Uint16Array, replicas: number, random: FastRandom): void => {
  for (let first = 0; first < assignments.length; first += replicas)
    for (let last = replicas - 1; last > 0; last -= 1) {
      const other = first + random.below(last + 1);
      const kept = assignments[first + last] ?? 0;
      assignments[first + last] = assignments[other] ?? 0;
      assignments[other] = kept;
    }
};
