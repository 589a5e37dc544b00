import type { Targets } from "./targets.ts";
import type { FastRandom } from "./fast-random.ts";
import { NO_DEVICE } from "./device.ts";
import { Layout } from "./layout.ts";
import type { TableShape } from "./table-shape.ts";

/** Exchanges tried per replica after the systematic layout; two mix well, four leave no trace of the order. */
const EXCHANGES_PER_REPLICA = 4;

/**
 * Fills an empty table. All devices lie on a line in the order of the tree, each as long as its target; partition p takes
 * the points p, p + count, p + 2 × count, … Every tier is one stretch of the line, so each partition meets it as
 * often as its share says, rounded down or up: targets and dispersion are exact at once (systematic sampling). With a
 * fractional replica count the line ends within the last round, after as many partitions as have one replica more.
 * Neighbours on the line would share all their partitions, and the loss of one device would fall on few others; therefore
 * pairs of replicas are then exchanged at random wherever that keeps both partitions in bounds.
 */
export const fillFirstLayout = (
  assignments: Uint16Array,
  shape: TableShape,
  targets: Targets,
  random: FastRandom,
): void => {
  const { partitionCount, width } = shape;
  const line = devicesInTreeOrder(targets, random);
  let point = 0;
  for (const device of line)
    for (let length = targets.ofDevice[device] ?? 0; length > 0; length -= 1) {
      assignments[(point % partitionCount) * width + Math.floor(point / partitionCount)] = device;
      point += 1;
    }
  const layout = new Layout(
    assignments,
    shape,
    targets,
    new Int32Array(targets.ofDevice),
    new Uint8Array(partitionCount),
  );
  const slotCount = assignments.length;
  for (let rounds = slotCount * EXCHANGES_PER_REPLICA; rounds > 0; rounds -= 1)
    exchange(layout, random.below(slotCount), random.below(slotCount));
  shuffleReplicas(layout, random);
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
  const deviceOne = layout.deviceAt(one);
  const deviceOther = layout.deviceAt(other);
  const partitionOne = layout.partitionOf(one);
  const partitionOther = layout.partitionOf(other);
  // The last cell of a partition with fewer replicas is nobody's.
  if (deviceOne === NO_DEVICE || deviceOther === NO_DEVICE) return;
  if (layout.holds(partitionOne, deviceOther) || layout.holds(partitionOther, deviceOne)) return;
  if (layout.costOfMove(one, deviceOther) > 0 || layout.costOfMove(other, deviceOne) > 0) return;
  layout.assignments[one] = deviceOther;
  layout.assignments[other] = deviceOne;
};

/** Replica 0 is often asked first; each device should be that for an equal part of its partitions. */
const shuffleReplicas = (layout: Layout, random: FastRandom): void => {
  const { assignments, shape } = layout;
  for (let partition = 0; partition < shape.partitionCount; partition += 1) {
    const first = layout.firstOf(partition);
    for (let last = layout.endOf(partition) - 1; last > first; last -= 1) {
      const other = first + random.below(last - first + 1);
      const kept = assignments[last] ?? NO_DEVICE;
      assignments[last] = assignments[other] ?? NO_DEVICE;
      assignments[other] = kept;
    }
  }
};
