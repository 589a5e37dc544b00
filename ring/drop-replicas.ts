import { NO_DEVICE } from "./device.ts";
import { LEVEL_COSTS } from "./layout.ts";
import type { Targets } from "./targets.ts";

/** Rounds of exchanges after the greedy choice; the last ones find hardly anything. */
const EXCHANGE_ROUNDS_MAX = 8;
/** Pairs of devices evened out by way of a third; each costs a pass over the table, and more than a few are left only where bounds are in the way. */
const BRIDGES_MAX = 32;

/**
 * Shortens rows to `lengthOf(partition)`, so that devices come nearest to their targets and what is left of a partition stays
 * in bounds. Nothing else can spare as many moves: whoever keeps too much has to give it away later.
 *
 * Greedy: holes go first; then each partition drops a replica where that costs least dispersion, and among those of the device
 * that must drop the largest part of what it still can. Then kept and dropped replicas of a partition are exchanged
 * where that evens out two devices, in the end also by way of a third.
 *
 * Requires: `held` counts what the rows hold; it is changed along with them.
 */
export const dropReplicas = (
  rows: number[][],
  lengthOf: (partition: number) => number,
  targets: Targets,
  held: Int32Array,
): void => {
  const surplus = Int32Array.from(held, (count, device) => count - (targets.ofDevice[device] ?? 0));
  const undecided = held.slice();
  const dropped = rows.map((row, partition): number[] => {
    const gone: number[] = [];
    for (const device of row) if (device !== NO_DEVICE) undecided[device] = (undecided[device] ?? 0) - 1;
    while (row.length > lengthOf(partition)) {
      const [device = NO_DEVICE] = row.splice(toDrop(row, targets, surplus, undecided), 1);
      if (device === NO_DEVICE) continue;
      gone.push(device);
      surplus[device] = (surplus[device] ?? 0) - 1;
    }
    return gone;
  });
  for (let round = 0; round < EXCHANGE_ROUNDS_MAX; round += 1) {
    let exchanged = 0;
    for (const [partition, gone] of dropped.entries())
      if (gone.length > 0) exchanged += evenOut(rows[partition] ?? [], gone, targets, surplus);
    if (exchanged === 0) break;
  }
  for (let count = 0; count < BRIDGES_MAX && bridge(rows, dropped, targets, surplus); count += 1) continue;
  for (const [device, more] of surplus.entries()) held[device] = (targets.ofDevice[device] ?? 0) + more;
};

/** The index of the replica to drop next. */
const toDrop = (row: readonly number[], targets: Targets, surplus: Int32Array, undecided: Int32Array): number => {
  let best = 0;
  let bestCost = Infinity;
  let bestUrgency = -Infinity;
  for (const [index, device] of row.entries()) {
    if (device === NO_DEVICE) return index;
    const cost = outOfBounds(row, targets, index, NO_DEVICE);
    const urgency = (surplus[device] ?? 0) / ((undecided[device] ?? 0) + 1);
    if (cost > bestCost || (cost === bestCost && urgency <= bestUrgency)) continue;
    best = index;
    bestCost = cost;
    bestUrgency = urgency;
  }
  return best;
};

/** Whether the replica at `index` may be dropped instead of `back` without the row getting further out of bounds. */
const mayExchange = (row: readonly number[], targets: Targets, index: number, back: number): boolean =>
  outOfBounds(row, targets, index, back) <= outOfBounds(row, targets, index, row[index] ?? NO_DEVICE);

/** Drops the replica at `index` and takes back the dropped one at `place`. */
const exchange = (row: number[], gone: number[], index: number, place: number, surplus: Int32Array): void => {
  const kept = row[index] ?? NO_DEVICE;
  const back = gone[place] ?? NO_DEVICE;
  row[index] = back;
  gone[place] = kept;
  surplus[kept] = (surplus[kept] ?? 0) - 1;
  surplus[back] = (surplus[back] ?? 0) + 1;
};

/** Takes a dropped replica back for a kept one wherever that evens out two devices; returns how often. */
const evenOut = (row: number[], gone: number[], targets: Targets, surplus: Int32Array): number => {
  let exchanged = 0;
  for (const [index, kept] of row.entries()) {
    if (kept === NO_DEVICE || (surplus[kept] ?? 0) <= 0) continue;
    const place = gone.findIndex(
      (back) => (surplus[back] ?? 0) < (surplus[kept] ?? 0) - 1 && mayExchange(row, targets, index, back),
    );
    if (place < 0) continue;
    exchange(row, gone, index, place, surplus);
    exchanged += 1;
  }
  return exchanged;
};

/**
 * Evens out two devices that share no partition, by way of a third that is as it should be: the one that keeps too much drops a replica for
 * the third, which drops one of another partition for the device that keeps too little. False where there is no such way.
 */
const bridge = (rows: number[][], dropped: number[][], targets: Targets, surplus: Int32Array): boolean => {
  const halves = new Map<number, { partition: number; index: number; place: number }>();
  for (const [partition, gone] of dropped.entries())
    for (const [place, back] of gone.entries()) {
      if ((surplus[back] ?? 0) >= 0) continue;
      const row = rows[partition] ?? [];
      for (const [index, kept] of row.entries())
        if (surplus[kept] === 0 && !halves.has(kept) && mayExchange(row, targets, index, back))
          halves.set(kept, { partition, index, place });
    }
  if (halves.size === 0) return false;
  for (const [partition, row] of rows.entries())
    for (const [index, kept] of row.entries()) {
      if ((surplus[kept] ?? 0) <= 0) continue;
      const gone = dropped[partition] ?? [];
      for (const [place, third] of gone.entries()) {
        const half = halves.get(third);
        if (half === undefined || half.partition === partition || !mayExchange(row, targets, index, third)) continue;
        exchange(row, gone, index, place, surplus);
        exchange(rows[half.partition] ?? [], dropped[half.partition] ?? [], half.index, half.place, surplus);
        return true;
      }
    }
  return false;
};

/** How far the row is out of bounds when `device`, which may be none, stands in the place of `index`. Floors of tiers that the row does not meet are left out. */
const outOfBounds = (row: readonly number[], targets: Targets, index: number, device: number): number => {
  const { bounds, tierOf } = targets;
  const own = row[index] ?? NO_DEVICE;
  let cost = 0;
  for (const [level, tiers] of tierOf.entries()) {
    const levelCost = LEVEL_COSTS[level] ?? 1;
    for (const tier of new Set([...row, device].map((id) => tiers[id]))) {
      if (tier === undefined) continue;
      let count = device !== NO_DEVICE && tiers[device] === tier ? 1 : 0;
      for (const other of row) if (other !== own && tiers[other] === tier) count += 1;
      const { floor, ceiling } = bounds[level]?.[tier] ?? { floor: 0, ceiling: 0 };
      cost += levelCost * (Math.max(0, count - ceiling) + Math.max(0, floor - count));
    }
  }
  return cost;
};
