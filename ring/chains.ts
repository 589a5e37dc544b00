import type { Layout } from "./layout.ts";

/** Feasibility checks that one rebalance may spend on chains; beyond it the rest waits for the next one. */
const CHECKS_MAX = 300_000_000;
/** Steps of a found chain can exclude one another (two of one partition); then another chain is searched, this often. */
const CONFLICTS_MAX = 16;

/** One replica going from one device to another. */
type Step = { readonly slot: number; readonly from: number; readonly to: number };

/**
 * Finishes what direct moves could not do. Where no replica of a full device fits on one that has room, it takes a chain: a
 * replica of A goes to B and one of B to C. Each chain is a shortest path from any device above its target to any
 * below, counted in additional moves: sending a replica that has moved in this rebalance to yet another device costs nothing, so that
 * earlier choices are corrected (the augmenting paths of a minimum-cost flow).
 *
 * Then partitions whose replicas are too close together: such a move unbalances two devices, which a chain evens out.
 * If there is none, the move is taken back.
 */
export const improveByChains = (layout: Layout, order: Uint32Array): void => {
  const search = new ChainSearch(layout, order);
  while (search.hasSurplus() && search.evenOut()) continue;
  for (const partition of order) {
    if (search.isExhausted) return;
    if (!layout.isDispersed(partition)) search.disperse(partition);
  }
};

class ChainSearch {
  readonly #layout: Layout;
  /** Devices that may receive. */
  readonly #receivers: readonly number[];
  /** Per device the slots that it holds, and stale ones that it held. */
  readonly #slots: number[][];
  readonly #steps: Step[] = [];
  #checksLeft = CHECKS_MAX;

  constructor(layout: Layout, order: Uint32Array) {
    this.#layout = layout;
    const { ofDevice } = layout.targets;
    this.#receivers = [...ofDevice.keys()].filter((id) => (ofDevice[id] ?? 0) > 0);
    this.#slots = Array.from(ofDevice, () => []);
    for (const partition of order)
      for (let slot = layout.firstOf(partition); slot < layout.endOf(partition); slot += 1)
        this.#slots[layout.deviceAt(slot)]?.push(slot);
  }

  get isExhausted(): boolean {
    return this.#checksLeft <= 0;
  }

  hasSurplus(): boolean {
    for (const device of this.#layout.held.keys()) if (this.#layout.surplus(device) > 0) return true;
    return false;
  }

  /** Applies one chain from a device above its target to one below; false if there is none. */
  evenOut(): boolean {
    const banned = new Set<number>();
    for (let conflicts = 0; conflicts < CONFLICTS_MAX; conflicts += 1) {
      const chain = this.#findChain(banned);
      if (chain === undefined) return false;
      const conflict = this.#apply(chain);
      if (conflict === undefined) return true;
      banned.add(conflict);
    }
    return false;
  }

  /** Moves one replica of `partition` to where it is further from the others, if the devices can be evened out after that. */
  disperse(partition: number): void {
    const layout = this.#layout;
    const candidates: (Step & { cost: number; uneven: number })[] = [];
    for (let slot = layout.firstOf(partition); slot < layout.endOf(partition); slot += 1) {
      if (!layout.isMovable(slot)) continue;
      const from = layout.deviceAt(slot);
      for (const to of this.#receivers) {
        if (layout.holds(partition, to)) continue;
        const cost = layout.costOfMove(slot, to);
        const uneven = Number(layout.surplus(from) <= 0) + Number(layout.surplus(to) >= 0);
        if (cost < 0) candidates.push({ slot, from, to, cost, uneven });
      }
    }
    this.#checksLeft -= layout.shape.width * this.#receivers.length;
    candidates.sort((a, b) => a.cost - b.cost || a.uneven - b.uneven);
    for (const candidate of candidates) {
      if (this.isExhausted) return;
      const stepsBefore = this.#steps.length;
      const unevenBefore = this.#unevenness();
      this.#take(candidate);
      while (this.#unevenness() > unevenBefore && this.evenOut()) continue;
      if (this.#unevenness() <= unevenBefore) return;
      this.#takeBackTo(stepsBefore);
    }
  }

  #unevenness(): number {
    let sum = 0;
    for (const device of this.#layout.held.keys()) sum += Math.abs(this.#layout.surplus(device));
    return sum;
  }

  /** Breadth-first with costs 0 and 1 over the devices, from all that are above their target. */
  #findChain(banned: ReadonlySet<number>): Step[] | undefined {
    const layout = this.#layout;
    const distance = new Int32Array(layout.held.length).fill(0x7fffffff);
    const arrivedBy: (Step | undefined)[] = [];
    let current: number[] = [];
    for (const device of layout.held.keys())
      if (layout.surplus(device) > 0) {
        distance[device] = 0;
        current.push(device);
      }
    for (let depth = 0; current.length > 0; depth += 1) {
      const next: number[] = [];
      // Devices reached at no cost join `current` while it is walked.
      for (const device of current) {
        if (distance[device] !== depth) continue;
        if (layout.surplus(device) < 0) return stepsTo(device, arrivedBy);
        this.#expand(
          device,
          depth,
          banned,
          (step, cost) => {
            distance[step.to] = depth + cost;
            arrivedBy[step.to] = step;
            (cost === 0 ? current : next).push(step.to);
          },
          distance,
        );
        if (this.isExhausted) return undefined;
      }
      current = next;
    }
    return undefined;
  }

  /** Reports each device that a replica of `from` can go to, if that is a shorter way to it. */
  #expand(
    from: number,
    depth: number,
    banned: ReadonlySet<number>,
    report: (step: Step, cost: number) => void,
    distance: Int32Array,
  ): void {
    const layout = this.#layout;
    const isOpen = (device: number, cost: number): boolean => (distance[device] ?? 0) > depth + cost;
    // What a step of cost 0 or 1 would reach sooner; a device leaves the list once it is reached.
    const open = [0, 1].map((cost) => this.#receivers.filter((device) => isOpen(device, cost)));
    for (const slot of this.#slotsOf(from)) {
      const cost = layout.hasMoved(slot) ? 0 : 1;
      const candidates = open[cost];
      if (candidates === undefined || candidates.length === 0 || banned.has(slot) || !layout.isMovable(slot)) continue;
      const partition = layout.partitionOf(slot);
      let reached = false;
      for (const to of candidates) {
        if (!isOpen(to, cost)) continue;
        this.#checksLeft -= 1;
        if (layout.holds(partition, to) || layout.costOfMove(slot, to) > 0) continue;
        report({ slot, from, to }, cost);
        reached = true;
      }
      if (reached) open[cost] = candidates.filter((device) => isOpen(device, cost));
    }
  }

  /** The slots that `device` holds; forgets stale entries on the way. */
  #slotsOf(device: number): readonly number[] {
    const slots = (this.#slots[device] ?? []).filter((slot) => this.#layout.deviceAt(slot) === device);
    this.#slots[device] = slots;
    return slots;
  }

  /** Takes all steps, or none and returns the slot of one that an earlier one has made impossible. */
  #apply(chain: readonly Step[]): number | undefined {
    const layout = this.#layout;
    const stepsBefore = this.#steps.length;
    for (const step of chain) {
      const partition = layout.partitionOf(step.slot);
      const possible =
        layout.deviceAt(step.slot) === step.from &&
        layout.isMovable(step.slot) &&
        !layout.holds(partition, step.to) &&
        layout.costOfMove(step.slot, step.to) <= 0;
      if (!possible) {
        this.#takeBackTo(stepsBefore);
        return step.slot;
      }
      this.#take(step);
    }
    return undefined;
  }

  #take(step: Step): void {
    this.#steps.push(step);
    this.#layout.assign(step.slot, step.to);
    this.#slots[step.to]?.push(step.slot);
  }

  #takeBackTo(count: number): void {
    for (const step of this.#steps.splice(count).reverse()) {
      this.#layout.assign(step.slot, step.from);
      this.#slots[step.from]?.push(step.slot);
    }
  }
}

/** The steps that lead to `device`, last first: each makes room for the one before it. */
const stepsTo = (device: number, arrivedBy: readonly (Step | undefined)[]): Step[] => {
  const steps: Step[] = [];
  for (let step = arrivedBy[device]; step !== undefined; step = arrivedBy[step.from]) steps.push(step);
  return steps;
};
