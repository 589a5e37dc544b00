import type { RingDevice } from "./device.ts";
import { ceilingOf, floorOf, roundShares, SHARE_EPSILON } from "./rounding.ts";
import { buildTree, type Tree } from "./tier-tree.ts";

/** How many replicas of one partition a failure domain should hold: at least `floor`, at most `ceiling`. */
type TierBounds = { readonly floor: number; readonly ceiling: number };

/** What a rebalance works towards. Devices are indexed by id, tiers by level (region, zone, node) and number. */
export type Targets = {
  /** Partition replicas of each device, whole; 0 for devices without weight. Their sum is partitions × replicas. */
  readonly ofDevice: Int32Array;
  /** The same before rounding: the device's exact share. */
  readonly shareOfDevice: Float64Array;
  /** tierOf[level][device id] = number of the device's tier on that level. */
  readonly tierOf: readonly Int32Array[];
  /** bounds[level][tier number]. */
  readonly bounds: readonly (readonly TierBounds[])[];
};

/**
 * The share of each device is its weight's, except that no device can hold more than one replica of a partition; what it
 * cannot take goes to the others by weight. `overload` lets a device exceed that by this fraction where it brings
 * replicas further apart. Rounding goes down the tree of tiers, so that the total of every tier is its share rounded up or
 * down, and prefers up for what holds more already (`held`), which saves moves (`rounding.ts`).
 *
 * The bounds of a tier are its share per partition, rounded down and up. All of them can always be kept together with all
 * device targets: the shares spread evenly over the partitions keep both, both families of constraints are laminar, so the
 * constraint matrix is totally unimodular and a whole-number solution exists.
 *
 * Requires: at least `replicas` devices have weight.
 */
export const computeTargets = (
  devices: readonly (RingDevice | undefined)[],
  options: { partitionCount: number; replicas: number; overload: number; held: Int32Array },
): Targets => {
  const { partitionCount, replicas, overload, held } = options;
  const { root, tierOf, tierCounts } = buildTree(devices);
  const weights = devices.map((device) => device?.weight ?? 0);
  const perPartition = sharesByWeight(weights, replicas);
  if (overload > 0) spreadShares(spreadEvenly(root, weights, replicas), perPartition, overload);

  const shareOfDevice = Float64Array.from(perPartition, (share) => share * partitionCount);
  const ofDevice = roundShares(root, partitionCount * replicas, { shareOfDevice, held });

  const bounds = tierCounts.map((count, level) => {
    const shares = new Float64Array(count);
    for (const device of devices) {
      if (device === undefined) continue;
      const tier = tierOf[level]?.[device.id] ?? 0;
      shares[tier] = (shares[tier] ?? 0) + (perPartition[device.id] ?? 0);
    }
    return Array.from(shares, (share) => ({ floor: floorOf(share), ceiling: ceilingOf(share) }));
  });
  return { ofDevice, shareOfDevice, tierOf, bounds };
};

/** Splits `total` by weight with at most 1 for each; what the capped cannot take goes to the others. */
const sharesByWeight = (weights: readonly number[], total: number): Float64Array =>
  splitBetween(
    total,
    weights,
    weights.map(() => 0),
    weights.map((weight) => (weight > 0 ? 1 : 0)),
  );

/**
 * Splits `total` in proportion to `weights`, each part kept within [low, high]: the one factor is searched for which the clamped
 * parts sum to `total`. Requires: Σ low ≤ total ≤ Σ high.
 */
const splitBetween = (
  total: number,
  weights: readonly number[],
  low: readonly number[],
  high: readonly number[],
): Float64Array => {
  const parts = new Float64Array(weights.length);
  const fixed = weights.map(() => false);
  for (;;) {
    let freeTotal = total;
    let freeWeight = 0;
    for (const [index, weight] of weights.entries())
      if (fixed[index] === true) freeTotal -= parts[index] ?? 0;
      else freeWeight += weight;
    const factor = freeWeight > 0 ? Math.max(0, freeTotal) / freeWeight : 0;
    // Only the side with the larger excess is fixed in one pass; the other may come free again (as in water filling).
    let excess = 0;
    for (const [index, weight] of weights.entries()) {
      if (fixed[index] === true) continue;
      const part = Math.min(Math.max(weight * factor, low[index] ?? 0), high[index] ?? 0);
      parts[index] = part;
      excess += part - weight * factor;
    }
    let fixedOne = false;
    for (const [index, weight] of weights.entries()) {
      if (fixed[index] === true) continue;
      const difference = (parts[index] ?? 0) - weight * factor;
      const clamped = excess >= 0 ? difference > SHARE_EPSILON ** 2 : difference < -(SHARE_EPSILON ** 2);
      if (!clamped) continue;
      fixed[index] = true;
      fixedOne = true;
    }
    if (!fixedOne) return parts;
  }
};

const devicesBelow = (tree: Tree, weights: readonly number[]): number[] =>
  tree.deviceId >= 0
    ? (weights[tree.deviceId] ?? 0) > 0
      ? [tree.deviceId]
      : []
    : tree.children.flatMap((child) => devicesBelow(child, weights));

/** The shares that put replicas as far apart as the devices allow, and keep to weights only within that. */
const spreadEvenly = (root: Tree, weights: readonly number[], replicas: number): Float64Array => {
  const spread = new Float64Array(weights.length);
  const descend = (tree: Tree, total: number): void => {
    if (tree.deviceId >= 0) {
      spread[tree.deviceId] = total;
      return;
    }
    const below = tree.children.map((child) => devicesBelow(child, weights));
    const capacities = below.map((ids) => ids.length);
    const level = evenLevel(total, capacities);
    const parts = splitBetween(
      total,
      below.map((ids) => ids.reduce((sum, id) => sum + (weights[id] ?? 0), 0)),
      capacities.map((capacity) => Math.min(capacity, floorOf(level))),
      capacities.map((capacity) => Math.min(capacity, Math.max(1, ceilingOf(level)))),
    );
    for (const [index, child] of tree.children.entries()) descend(child, parts[index] ?? 0);
  };
  descend(root, replicas);
  return spread;
};

/**
 * The smallest overload with which every partition is spread as far as the devices allow, whatever their weights; 0 where the weights alone
 * bring that about. Requires: at least `replicas` devices have weight.
 */
export const overloadToSpread = (devices: readonly (RingDevice | undefined)[], replicas: number): number => {
  const weights = devices.map((device) => device?.weight ?? 0);
  const shares = sharesByWeight(weights, replicas);
  const spread = spreadEvenly(buildTree(devices).root, weights, replicas);
  let overload = 0;
  for (const [id, share] of shares.entries())
    if (share > 0) overload = Math.max(overload, ((spread[id] ?? 0) - share) / share);
  return overload > SHARE_EPSILON ? overload : 0;
};

/** Moves shares towards even ones between tiers, as far as `overload` permits, by one factor for all devices (as Swift does). */
const spreadShares = (spread: Float64Array, shares: Float64Array, overload: number): void => {
  let factor = 1;
  for (const [id, share] of shares.entries()) {
    const more = (spread[id] ?? 0) - share;
    if (more > 0) factor = Math.min(factor, (share * overload) / more);
  }
  for (const [id, share] of shares.entries()) shares[id] = share + factor * ((spread[id] ?? 0) - share);
};

/** The level L at which Σ min(capacity, L) = total. */
const evenLevel = (total: number, capacities: readonly number[]): number => {
  let rest = total;
  const ascending = capacities.filter((capacity) => capacity > 0).sort((a, b) => a - b);
  for (const [index, capacity] of ascending.entries()) {
    const level = rest / (ascending.length - index);
    if (capacity >= level) return level;
    rest -= capacity;
  }
  return ascending.at(-1) ?? 0;
};
