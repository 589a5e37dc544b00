import type { RingDevice } from "./device.ts";

/** The three kinds of failure domain above the device, outermost first. */
export const TIER_LEVELS = 3;

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

type Tree = { readonly tier: number; readonly deviceId: number; readonly children: readonly Tree[] };

/** Shares within this of a whole number are taken for it, so that rounding errors do not loosen a bound. */
const SHARE_EPSILON = 1e-6;
const floorOf = (share: number): number => Math.floor(share + SHARE_EPSILON);
const ceilingOf = (share: number): number => Math.ceil(share - SHARE_EPSILON);

/**
 * The share of each device is its weight's, except that no device can hold more than one replica of a partition; what it
 * cannot take goes to the others by weight. `overload` lets a device exceed that by this fraction where it brings
 * replicas further apart. Rounding goes down the tree of tiers, so that the total of every tier is its share rounded up or
 * down, and prefers up for what holds more already (`held`), which saves moves.
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
  if (overload > 0) spreadShares(root, weights, perPartition, replicas, overload);

  const shareOfDevice = Float64Array.from(perPartition, (share) => share * partitionCount);
  const ofDevice = new Int32Array(devices.length);
  roundDown(root, partitionCount * replicas, { shareOfDevice, held, ofDevice });

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

const buildTree = (devices: readonly (RingDevice | undefined)[]) => {
  type Branch = { tier: number; deviceId: number; children: Branch[]; byName: Map<string, Branch> };
  const tierOf = Array.from({ length: TIER_LEVELS }, () => new Int32Array(devices.length).fill(-1));
  const tierCounts: number[] = Array.from({ length: TIER_LEVELS }, () => 0);
  const branch = (tier: number, deviceId: number): Branch => ({ tier, deviceId, children: [], byName: new Map() });
  const root = branch(0, -1);
  for (const device of devices) {
    if (device === undefined) continue;
    let parent = root;
    for (const [level, name] of [`${device.region}`, `${device.zone}`, device.node].entries()) {
      let child = parent.byName.get(name);
      if (child === undefined) {
        const tier = tierCounts[level] ?? 0;
        tierCounts[level] = tier + 1;
        child = branch(tier, -1);
        parent.byName.set(name, child);
        parent.children.push(child);
      }
      const levelTiers = tierOf[level];
      if (levelTiers !== undefined) levelTiers[device.id] = child.tier;
      parent = child;
    }
    parent.children.push(branch(-1, device.id));
  }
  return { root: root as Tree, tierOf, tierCounts };
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

/** Moves shares towards even ones between tiers, as far as `overload` permits, by one factor for all devices (as Swift does). */
const spreadShares = (
  root: Tree,
  weights: readonly number[],
  shares: Float64Array,
  replicas: number,
  overload: number,
): void => {
  const spread = new Float64Array(shares.length);
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

type Rounding = { shareOfDevice: Float64Array; held: Int32Array; ofDevice: Int32Array };

/** Gives `total` to the devices below `tree`, each child its share rounded down or up. */
const roundDown = (tree: Tree, total: number, rounding: Rounding): void => {
  if (tree.deviceId >= 0) {
    rounding.ofDevice[tree.deviceId] = total;
    return;
  }
  const parts = tree.children.map((child) => {
    const share = sumBelow(child, rounding.shareOfDevice);
    const whole = floorOf(share);
    return { child, whole, fraction: Math.max(0, share - whole), surplus: sumBelow(child, rounding.held) - whole };
  });
  let rest = total - parts.reduce((sum, part) => sum + part.whole, 0);
  const mayRoundUp = parts.filter((part) => part.fraction > SHARE_EPSILON);
  mayRoundUp.sort((a, b) => Number(b.surplus > 0) - Number(a.surplus > 0) || b.fraction - a.fraction);
  for (const part of mayRoundUp) {
    if (rest <= 0) break;
    part.whole += 1;
    rest -= 1;
  }
  for (const part of parts) roundDown(part.child, part.whole, rounding);
};

const sumBelow = (tree: Tree, values: Float64Array | Int32Array): number =>
  tree.deviceId >= 0
    ? (values[tree.deviceId] ?? 0)
    : tree.children.reduce((sum, child) => sum + sumBelow(child, values), 0);
