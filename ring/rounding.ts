import type { Tree } from "./tier-tree.ts";

/** Shares within this of a whole number are taken for it, so that rounding errors do not loosen a bound. */
export const SHARE_EPSILON = 1e-6;
export const floorOf = (share: number): number => Math.floor(share + SHARE_EPSILON);
export const ceilingOf = (share: number): number => Math.ceil(share - SHARE_EPSILON);

/**
 * Moves that may be spent on rounding shares so that small devices are near them, as a fraction of the moves that are due anyway. A rebalance that
 * has nothing to do spends none.
 */
const EVENNESS_MOVES = 0.03;

type Shares = { readonly shareOfDevice: Float64Array; readonly held: Int32Array };

/**
 * Rounds the shares of all devices to whole numbers that sum to `total`, the total of every tier to its share rounded down or up: first so
 * that what holds more already is rounded up, which saves moves; then, as far as few moves allow, within each node so that the device furthest from its
 * share, in per cent, is as near as can be. (Of a share of 349.5 one replica is three times as much as of 1048.5.)
 */
export const roundShares = (root: Tree, total: number, shares: Shares): Int32Array => {
  const ofDevice = new Int32Array(shares.shareOfDevice.length);
  roundDown(root, total, { ...shares, ofDevice });
  let budget = 0;
  for (const [device, target] of ofDevice.entries())
    budget += EVENNESS_MOVES * Math.max(0, target - (shares.held[device] ?? 0));
  const nodes = nodesBelow(root).map((devices) => ({ devices, worst: furthest(devices, shares, ofDevice) }));
  nodes.sort((a, b) => b.worst - a.worst);
  for (const { devices } of nodes) {
    const even = roundEvenly(devices, shares, ofDevice);
    const arrivals = (targetOf: (device: number) => number): number =>
      devices.reduce((sum, device) => sum + Math.max(0, targetOf(device) - (shares.held[device] ?? 0)), 0);
    budget -= arrivals((device) => even.get(device) ?? 0) - arrivals((device) => ofDevice[device] ?? 0);
    if (budget < 0) break;
    for (const [device, target] of even) ofDevice[device] = target;
  }
  return ofDevice;
};

/** Devices with a share, node by node. */
const nodesBelow = (tree: Tree): number[][] => {
  if (tree.children.every(({ deviceId }) => deviceId >= 0)) return [tree.children.map(({ deviceId }) => deviceId)];
  return tree.children.flatMap(nodesBelow);
};

const distance = (share: number, target: number): number => (share > 0 ? Math.abs(target - share) / share : 0);

const furthest = (devices: readonly number[], { shareOfDevice }: Shares, ofDevice: Int32Array): number =>
  devices.reduce((worst, id) => Math.max(worst, distance(shareOfDevice[id] ?? 0, ofDevice[id] ?? 0)), 0);

/** The same total for `devices`, with the furthest of them as near as can be; what that leaves open prefers up for what holds more already. */
const roundEvenly = (
  devices: readonly number[],
  { shareOfDevice, held }: Shares,
  ofDevice: Int32Array,
): Map<number, number> => {
  const even = new Map<number, number>();
  const open: { device: number; down: number; up: number; surplus: number; fraction: number }[] = [];
  let rest = 0;
  for (const device of devices) {
    const share = shareOfDevice[device] ?? 0;
    const whole = floorOf(share);
    even.set(device, whole);
    rest += (ofDevice[device] ?? 0) - whole;
    const fraction = share - whole;
    const [down, up] = [distance(share, whole), distance(share, whole + 1)];
    if (fraction > SHARE_EPSILON) open.push({ device, down, up, surplus: (held[device] ?? 0) - whole, fraction });
  }
  // The nearest distance at which as many may be rounded up as have to be, and not more have to than may.
  const distances = open.flatMap(({ down, up }) => [down, up]).sort((a, b) => a - b);
  const isPossible = (limit: number): boolean =>
    open.every(({ down, up }) => down <= limit || up <= limit) &&
    open.filter(({ down }) => down > limit).length <= rest &&
    open.filter(({ up }) => up <= limit).length >= rest;
  let [low, high] = [0, distances.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isPossible(distances[middle] ?? 0)) high = middle;
    else low = middle + 1;
  }
  const limit = distances[low] ?? 0;
  const rank = ({ down, up, surplus }: (typeof open)[number]): number =>
    down > limit ? 3 : up > limit ? 0 : surplus > 0 ? 2 : 1;
  open.sort((a, b) => rank(b) - rank(a) || b.fraction - a.fraction);
  for (const { device } of open.slice(0, rest)) even.set(device, (even.get(device) ?? 0) + 1);
  return even;
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
