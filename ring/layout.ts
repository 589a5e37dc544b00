import { NO_DEVICE } from "./device.ts";
import { type Targets, TIER_LEVELS } from "./targets.ts";

/** What it costs to be one replica outside a tier's bounds: an outer level outweighs all inner ones together. */
const LEVEL_COSTS = [16, 4, 1] as const;

/** For `slot`: the device it came from before this rebalance is `origins[slot]`. */
const NOTHING_MOVED = -1;

/**
 * The table of assignments while a rebalance changes it: who holds what, how far from the targets, and which replica may
 * still move. A partition gives up at most one replica per rebalance and `minPartHours`; that one replica may be sent
 * elsewhere again within the same rebalance, for nobody has seen the first choice yet.
 */
export class Layout {
  readonly assignments: Uint16Array;
  readonly replicas: number;
  readonly partitionCount: number;
  readonly targets: Targets;
  /** Replicas that each device holds now. */
  readonly held: Int32Array;
  readonly #origins: Uint16Array;
  /** 1 = moved less than `minPartHours` ago. */
  readonly #locked: Uint8Array;
  /** Per partition the slot moved in this rebalance. */
  readonly #movedSlot: Int32Array;

  constructor(assignments: Uint16Array, replicas: number, targets: Targets, held: Int32Array, locked: Uint8Array) {
    this.assignments = assignments;
    this.replicas = replicas;
    this.partitionCount = assignments.length / replicas;
    this.targets = targets;
    this.held = held;
    this.#origins = assignments.slice();
    this.#locked = locked;
    this.#movedSlot = new Int32Array(this.partitionCount).fill(NOTHING_MOVED);
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
    const partition = Math.floor(slot / this.replicas);
    const moved = this.#movedSlot[partition];
    return moved === NOTHING_MOVED ? this.#locked[partition] === 0 : moved === slot;
  }

  /** Whether the replica was moved in this rebalance, so that sending it elsewhere costs no further move. */
  hasMoved(slot: number): boolean {
    return this.#movedSlot[Math.floor(slot / this.replicas)] === slot;
  }

  holds(partition: number, device: number): boolean {
    const end = (partition + 1) * this.replicas;
    for (let slot = partition * this.replicas; slot < end; slot += 1)
      if (this.assignments[slot] === device) return true;
    return false;
  }

  /** Puts `device` into `slot`. Requires: its partition does not hold it yet. */
  assign(slot: number, device: number): void {
    const previous = this.deviceAt(slot);
    if (previous !== NO_DEVICE) this.held[previous] = (this.held[previous] ?? 0) - 1;
    this.held[device] = (this.held[device] ?? 0) + 1;
    this.assignments[slot] = device;
    this.#movedSlot[Math.floor(slot / this.replicas)] = this.#origins[slot] === device ? NOTHING_MOVED : slot;
  }

  /** By how much the partition's dispersion gets worse (or better, if negative) when `slot` goes to `device`. */
  costOfMove(slot: number, device: number): number {
    const { bounds, tierOf } = this.targets;
    const from = this.deviceAt(slot);
    const first = slot - (slot % this.replicas);
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
      for (let other = first; other < first + this.replicas; other += 1) {
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

  /** Whether every tier holds as many replicas of the partition as it should. */
  isDispersed(partition: number): boolean {
    const first = partition * this.replicas;
    for (let level = 0; level < TIER_LEVELS; level += 1) {
      const tiers = this.targets.tierOf[level];
      const levelBounds = this.targets.bounds[level];
      if (tiers === undefined || levelBounds === undefined) continue;
      for (let slot = first; slot < first + this.replicas; slot += 1) {
        const tier = this.#tierAt(slot, tiers);
        if (this.#countOf(first, tier, tiers) > (levelBounds[tier]?.ceiling ?? 0)) return false;
      }
      for (const tier of this.#tiersWithFloor(level))
        if (this.#countOf(first, tier, tiers) < (levelBounds[tier]?.floor ?? 0)) return false;
    }
    return true;
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
      if (this.assignments[slot] !== this.#origins[slot]) yield Math.floor(slot / this.replicas);
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
    return device === NO_DEVICE ? -2 : (tiers[device] ?? -2);
  }

  #countOf(first: number, tier: number, tiers: Int32Array): number {
    let count = 0;
    for (let slot = first; slot < first + this.replicas; slot += 1) if (this.#tierAt(slot, tiers) === tier) count += 1;
    return count;
  }
}
