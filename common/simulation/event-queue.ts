import type { Clock } from "../clock.ts";
import type { Random } from "../random.ts";

/** Virtual time: what is scheduled happens in order of its time, ties in order of scheduling. Nothing else makes time pass. */
export class EventQueue implements Clock {
  readonly #events: { readonly atMs: number; readonly order: number; readonly run: () => void }[] = [];
  #nowMs: number;
  #order = 0;
  /** As many as ever waited at once. */
  mostEvents = 0;

  constructor(startMs: number) {
    this.#nowMs = startMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, run: () => void): void {
    const event = { atMs: this.#nowMs + delayMs, order: this.#order++, run };
    let low = 0;
    let high = this.#events.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const other = this.#events[middle];
      if (other !== undefined && (other.atMs < event.atMs || (other.atMs === event.atMs && other.order < event.order)))
        low = middle + 1;
      else high = middle;
    }
    this.#events.splice(low, 0, event);
    if (this.#events.length > this.mostEvents) this.mostEvents = this.#events.length;
  }

  /** Runs the next event; false when there is none. */
  step(): boolean {
    const event = this.#events.shift();
    if (event === undefined) return false;
    this.#nowMs = event.atMs;
    event.run();
    return true;
  }
}

/** Lets all promises that are ready go on, so that real asynchronous code runs between two events in one fixed order. */
export const settlePromises = async (): Promise<void> => {
  for (let turn = 0; turn < 24; turn++) await Promise.resolve();
};

/** How a virtual network treats messages. */
export type NetworkFaults = {
  readonly lossChance: number;
  readonly repeatChance: number;
  readonly longDelayChance: number;
};

/** Carries messages between simulated processes: delays, loses and repeats them by the seed. */
export class SimulatedNetwork {
  readonly #queue: EventQueue;
  readonly #random: Random;
  faults: NetworkFaults;

  constructor(queue: EventQueue, random: Random, faults: NetworkFaults) {
    this.#queue = queue;
    this.#random = random;
    this.faults = faults;
  }

  send(deliver: () => void): void {
    if (this.#random.unit() < this.faults.lossChance) return;
    const copies = this.#random.unit() < this.faults.repeatChance ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      const isLong = this.#random.unit() < this.faults.longDelayChance;
      this.#queue.after(isLong ? 5 + this.#random.unit() * 200 : 0.1 + this.#random.unit() * 2, deliver);
    }
  }
}
