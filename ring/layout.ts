import { NO_DEVICE } from "./device.ts";
import { endOfRow, type TableShape } from "./table-shape.ts";
import type { Targets } from "./targets.ts";
import { TIER_LEVELS } from "./tier-tree.ts";

/** What it costs to be one replica outside a tier's bounds: an outer level outweighs all inner ones together. */
export const LEVEL_COSTS = [16, 4, 1] as const;

const NOTHING_MOVED = -1;
/** Of a slot that holds no device: no tier's number, and other than that of a device without a tier. */
const NO_TIER = -2;

/**
 * The table of assignments while a rebalance changes it: who holds what, how far from the targets, and which replica may
 * still move. A partition gives up at most one replica per rebalance and `minPartHours`, and none while a hole of it is
 * filled. What has moved or filled a hole may be sent elsewhere again within the same rebalance, for nobody has seen the
 * first choice yet.
 */
export class Layout {
  readonly assignments: Uint16Array;
  readonly shape: TableShape;
  readonly targets: Targets;
  /** Replicas that each device holds now. */
  readonly held: Int32Array;
  /** The table before this rebalance. */
  readonly #origins: Uint16Array;
  /** 1 = moved less than `minPartHours` ago, or a replica is missing. */
  readonly #locked: Uint8Array;
  /** Per partition the slot moved in this rebalance. */
  readonly #movedSlot: Int32Array;

  constructor(assignments: Uint16Array, shape: TableShape, targets: Targets, held: Int32Array, locked: Uint8Array) {
    this.assignments = assignments;
    this.shape = shape;
    this.targets = targets;
    this.held = held;
    this.#origins = assignments.slice();
    this.#locked = locked.slice();
    this.#movedSlot = new Int32Array(shape.partitionCount).fill(NOTHING_MOVED);
    for (let partition = 0; partition < shape.partitionCount; partition += 1) {
      const end = this.endOf(partition);
      for (let slot = this.firstOf(partition); slot < end; slot += 1)
        if (this.isEmpty(slot)) this.#locked[partition] = 1;
    }
  }

  /** The slot of a partition's first replica. */
  firstOf(partition: number): number {
    return partition * this.shape.width;
  }

  /** One past the slot of its last replica. */
  endOf(partition: number): number {
    return endOfRow(this.shape, partition);
  }

  partitionOf(slot: number): number {
    return Math.floor(slot / this.shape.width);
  }

  deviceAt(slot: number): number {
    return this.assignments[slot] ?? NO_DEVICE;
  }

  /** Replicas above (positive) or below (negative) the device's target. */
  surplus(device: number): number {
    return (this.held[device] ?? 0) - (this.targets.ofDevice[device] ?? 0);
  }

  isEmpty(slot: number): boolean {
    return this.assignments[slot] === NO_DEVICE;
  }

  /** Whether the replica may go elsewhere in this rebalance. Holes are filled whatever this says. */
  isMovable(slot: number): boolean {
    if (this.#origins[slot] === NO_DEVICE) return true;
    const partition = this.partitionOf(slot);
    const moved = this.#movedSlot[partition];
    return moved === NOTHING_MOVED ? this.#locked[partition] === 0 : moved === slot;
  }

  /** Whether the replica was moved or placed in this rebalance, so that sending it elsewhere costs no further move. */
  hasMoved(slot: number): boolean {
    return this.#origins[slot] === NO_DEVICE || this.#movedSlot[this.partitionOf(slot)] === slot;
  }

  holds(partition: number, device: number): boolean {
    const end = this.endOf(partition);
    for (let slot = this.firstOf(partition); slot < end; slot += 1) if (this.assignments[slot] === device) return true;
    return false;
  }

  /** Puts `device` into `slot`. Requires: its partition does not hold it yet. */
  assign(slot: number, device: number): void {
    const previous = this.deviceAt(slot);
    if (previous !== NO_DEVICE) this.held[previous] = (this.held[previous] ?? 0) - 1;
    this.held[device] = (this.held[device] ?? 0) + 1;
    this.assignments[slot] = device;
    const origin = this.#origins[slot];
    if (origin !== NO_DEVICE) this.#movedSlot[this.partitionOf(slot)] = origin === device ? NOTHING_MOVED : slot;
  }

  /** By how much the partition's dispersion gets worse (or better, if negative) when `slot` goes to `device`. */
  costOfMove(slot: number, device: number): number {
    const { bounds, tierOf } = this.targets;
    const from = this.deviceAt(slot);
    const first = slot - (slot % this.shape.width);
    let cost = 0;
    for (let level = 0; level < TIER_LEVELS; level += 1) {
      const tiers = tierOf[level];
      const levelBounds = bounds[level];
      const levelCost = LEVEL_COSTS[level] ?? 1;
      if (tiers === undefined || levelBounds === undefined) continue;
      const fromTier = from === NO_DEVICE ? -1 : (tiers[from] ?? -1);
      const toTier = tiers[device] ?? -1;
      if (fromTier === toTier) continue;
      let fromCount = 0;
      let toCount = 0;
      for (let other = first; other < first + this.shape.width; other += 1) {
        const tier = this.#tierAt(other, tiers);
        if (tier === fromTier) fromCount += 1;
        else if (tier === toTier) toCount += 1;
      }
      const fromBounds = levelBounds[fromTier];
      if (fromBounds !== undefined) {
        if (fromCount > fromBounds.ceiling) cost -= levelCost;
        if (fromCount <= fromBounds.floor) cost += levelCost;
      }
      const toBounds = levelBounds[toTier];
      if (toBounds !== undefined) {
        if (toCount >= toBounds.ceiling) cost += levelCost;
        if (toCount < toBounds.floor) cost -= levelCost;
      }
    }
    return cost;
  }

  /** Whether a tier holds fewer replicas of the partition than it should. */
  lacksTier(partition: number): boolean {
    const first = this.firstOf(partition);
    for (let level = 0; level < TIER_LEVELS; level += 1) {
      const tiers = this.targets.tierOf[level];
      const levelBounds = this.targets.bounds[level];
      if (tiers === undefined || levelBounds === undefined) continue;
      for (const tier of this.#tiersWithFloor(level))
        if (this.#countOf(first, tier, tiers) < (levelBounds[tier]?.floor ?? 0)) return true;
    }
    return false;
  }

  /** Whether every tier holds as many replicas of the partition as it should. */
  isDispersed(partition: number): boolean {
    const first = this.firstOf(partition);
    const end = this.endOf(partition);
    for (let level = 0; level < TIER_LEVELS; level += 1) {
      const tiers = this.targets.tierOf[level];
      const levelBounds = this.targets.bounds[level];
      if (tiers === undefined || levelBounds === undefined) continue;
      for (let slot = first; slot < end; slot += 1) {
        const tier = this.#tierAt(slot, tiers);
        if (this.#countOf(first, tier, tiers) > (levelBounds[tier]?.ceiling ?? 0)) return false;
      }
    }
    return !this.lacksTier(partition);
  }

  /** Replicas that are on another device than before; filled holes count. */
  countMoves(): number {
    let moves = 0;
    for (let slot = 0; slot < this.assignments.length; slot += 1)
      if (this.assignments[slot] !== this.#origins[slot]) moves += 1;
    return moves;
  }

  /** Partitions of which a replica is on another device than before. */
  *movedPartitions(): Generator<number, void, undefined> {
    for (let slot = 0; slot < this.assignments.length; slot += 1)
      if (this.assignments[slot] !== this.#origins[slot]) yield this.partitionOf(slot);
  }

  readonly #floors: number[][] = [];

  /** Tiers that every partition must have a replica in: at most as many as there are replicas. */
  #tiersWithFloor(level: number): readonly number[] {
    const known = this.#floors[level];
    if (known !== undefined) return known;
    const tiers: number[] = [];
    for (const [tier, { floor }] of (this.targets.bounds[level] ?? []).entries()) if (floor > 0) tiers.push(tier);
    this.#floors[level] = tiers;
    return tiers;
  }

  #tierAt(slot: number, tiers: Int32Array): number {
    const device = this.assignments[slot] ?? NO_DEVICE;
    return device === NO_DEVICE ? NO_TIER : (tiers[device] ?? NO_TIER);
  }

  #countOf(first: number, tier: number, tiers: Int32Array): number {
    let count = 0;
    for (let slot = first; slot < first + this.shape.width; slot += 1)
      if (this.#tierAt(slot, tiers) === tier) count += 1;
    return count;
  }
}
