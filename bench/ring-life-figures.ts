import type { LifeDevice } from "./ring-life-script.ts";

/** In a table: no replica. */
export const EMPTY = 0xffff;

/** Who holds what, in the same form for both contenders. */
export type LifeTable = {
  readonly partitionCount: number;
  readonly replicas: number;
  /** Cells of a row. */
  readonly width: number;
  /** Row after row, indices into `devices`; cells without a replica are `EMPTY`. */
  readonly cells: Uint16Array;
  /** Those that were removed are undefined. An index keeps its key for the whole life. */
  readonly devices: readonly (LifeDevice | undefined)[];
};

/** Shares this near to a whole number are one. */
const EPSILON = 1e-6;

type Bounds = { readonly floor: number; readonly ceiling: number };
const boundsOf = (share: number): Bounds => ({
  floor: Math.floor(share + EPSILON),
  ceiling: Math.ceil(share - EPSILON),
});

/** Each device's share of one partition by weight. Requires: no device has more than one replica's worth of weight. */
const sharesOf = ({ devices, replicas }: LifeTable): number[] => {
  const total = devices.reduce((sum, device) => sum + (device?.weight ?? 0), 0);
  return devices.map((device) => ((device?.weight ?? 0) / total) * replicas);
};

const heldIn = ({ cells, devices }: LifeTable): Int32Array => {
  const held = new Int32Array(devices.length);
  for (const cell of cells) if (cell !== EMPTY) held[cell] = (held[cell] ?? 0) + 1;
  return held;
};

/** The device furthest from its share, in per cent of the share, as Swift reckons it; a device to be emptied that still holds some is infinitely far. */
export const balanceOf = (table: LifeTable): number => {
  const held = heldIn(table);
  return sharesOf(table).reduce((worst, share, index) => {
    const count = held[index] ?? 0;
    if (table.devices[index] === undefined) return worst;
    const wanted = share * table.partitionCount;
    const off = wanted > 0 ? Math.abs(count / wanted - 1) * 100 : count > 0 ? Infinity : 0;
    return Math.max(worst, off);
  }, 0);
};

/** For zones and nodes: the number of each device's, and what a partition should have in each by the weights. */
const tiersOf = (table: LifeTable): { tierOf: Int32Array; bounds: Bounds[] }[] => {
  const shares = sharesOf(table);
  return [(device: LifeDevice) => `${device.zone}`, (device: LifeDevice) => `${device.zone} ${device.node}`].map(
    (name) => {
      const numbers = new Map<string, number>();
      const sums: number[] = [];
      const tierOf = Int32Array.from(table.devices, (device, index) => {
        if (device === undefined) return -1;
        const tier = numbers.get(name(device)) ?? numbers.size;
        numbers.set(name(device), tier);
        sums[tier] = (sums[tier] ?? 0) + (shares[index] ?? 0);
        return tier;
      });
      return { tierOf, bounds: sums.map(boundsOf) };
    },
  );
};

/** Calls `visit` for each partition and tier with the number of the partition's replicas in it; `tierOf` gives the tier of a device. */
const countByTier = (
  { cells, width, partitionCount }: LifeTable,
  tierOf: Int32Array,
  tierCount: number,
  visit: (tier: number, count: number, partition: number) => void,
): void => {
  const counts = new Int32Array(tierCount);
  for (let partition = 0; partition < partitionCount; partition += 1) {
    counts.fill(0);
    for (let slot = partition * width; slot < (partition + 1) * width; slot += 1) {
      const tier = tierOf[cells[slot] ?? EMPTY] ?? -1;
      if (tier >= 0) counts[tier] = (counts[tier] ?? 0) + 1;
    }
    for (const [tier, count] of counts.entries()) visit(tier, count, partition);
  }
};

/**
 * Per cent of partitions that have more replicas in a zone or node than its share rounded up, or fewer than its share rounded down. No table that
 * keeps to the weights can have fewer than 0. (Swift's own figure looks at too many only, and at the devices rather than their weights.)
 */
export const outOfBoundsOf = (table: LifeTable): number => {
  const bad = new Uint8Array(table.partitionCount);
  for (const { tierOf, bounds } of tiersOf(table))
    countByTier(table, tierOf, bounds.length, (tier, count, partition) => {
      const { floor, ceiling } = bounds[tier] ?? { floor: 0, ceiling: 0 };
      if (count < floor || count > ceiling) bad[partition] = 1;
    });
  return (100 * bad.reduce((sum, one) => sum + one, 0)) / table.partitionCount;
};

/** Replicas that are on a device that did not hold the partition before; where they stand in the row does not matter. */
export const movedBetween = (before: LifeTable, after: LifeTable): number => {
  let moved = 0;
  for (let partition = 0; partition < after.partitionCount; partition += 1) {
    const old = before.cells.subarray(partition * before.width, (partition + 1) * before.width);
    for (let slot = partition * after.width; slot < (partition + 1) * after.width; slot += 1) {
      const cell = after.cells[slot] ?? EMPTY;
      if (cell !== EMPTY && !old.includes(cell)) moved += 1;
    }
  }
  return moved;
};

/**
 * So many replicas at least have to come to a device that did not hold the partition, whoever rebalances, if in the end each device
 * holds its share rounded down or up and each partition is in bounds. `before` is the table before the change, `after` any
 * table with the devices, weights and replica count after it: its rows are not looked at.
 *
 * A lower bound, the larger one of two, each of which counts something that every solution has to do:
 * - by devices: of what a device holds, it keeps at most its share rounded up, and only so many devices can round up that the
 *   sum comes out. What nobody keeps has to be put somewhere anew.
 * - by zones and by nodes: replicas of a partition beyond what a tier may have are not kept there, and what a tier lacks of its
 *   floor has to come in.
 * Neither says that it can be reached (it may take chains of moves), so that a ratio of 1.00 is perfect and one above may be.
 * Replicas that are given up move nothing.
 */
export const fewestMoves = (before: LifeTable, after: LifeTable): number => {
  const { partitionCount, replicas, devices } = after;
  const total = partitionCount * replicas;
  const heldBefore = heldIn(before);
  let keptWhenDown = 0;
  let downSum = 0;
  let keepOneMore = 0;
  for (const [index, share] of sharesOf(after).entries()) {
    const { floor, ceiling } = boundsOf(share * partitionCount);
    const held = devices[index] === undefined ? 0 : (heldBefore[index] ?? 0);
    downSum += floor;
    keptWhenDown += Math.min(floor, held);
    if (ceiling > floor && held > floor) keepOneMore += 1;
  }
  const byDevices = total - keptWhenDown - Math.min(total - downSum, keepOneMore);
  const byTiers = tiersOf(after).map(({ tierOf, bounds }) => {
    let lacking = 0;
    let kept = 0;
    countByTier(before, tierOf, bounds.length, (tier, count) => {
      const { floor, ceiling } = bounds[tier] ?? { floor: 0, ceiling: 0 };
      lacking += Math.max(0, floor - count);
      kept += Math.min(count, ceiling);
    });
    return Math.max(lacking, total - Math.min(total, kept));
  });
  return Math.max(byDevices, ...byTiers);
};
