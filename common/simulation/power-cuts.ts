import type { Random } from "../random.ts";
import type { EventQueue } from "./event-queue.ts";

/**
 * A simulated machine between two losses of power: `afterCrash` makes what is left, without what was not synced, and ends the old one. One
 * that needs time to start gives a promise; where power is lost meanwhile it is asked once more, and nothing becomes of the first.
 */
type Powered<Machine> = {
  afterCrash(): Machine | Promise<Machine>;
  /** Power is lost in this moment. */
  onCrash?: () => void;
};

/** Takes one way of a message: calls `deliver` when it arrives, if it does. */
type Carry = (way: "request" | "answer", deliver: () => void) => void;

const SYNC_MIN_MS = 0.2;
const SYNC_SPREAD_MS = 3;

/** One machine with its power cuts. Its syncs take a random time, and those of an earlier life never end. */
export class PowerCuts<Machine extends Powered<Machine>> {
  #machine: Machine;
  #life = 0;
  #isStarting = false;
  isUp = true;

  /** `syncAfter` decides when a sync of the machine is over. */
  constructor(queue: EventQueue, random: Random, make: (syncAfter: (done: () => void) => void) => Machine) {
    this.#machine = make((done) => {
      const life = this.#life;
      queue.after(SYNC_MIN_MS + random.unit() * SYNC_SPREAD_MS, () => {
        if (life === this.#life) done();
      });
    });
  }

  get machine(): Machine {
    return this.#machine;
  }

  crash(): void {
    this.#life += 1;
    this.isUp = false;
    this.#isStarting = false;
    this.#machine.onCrash?.();
  }

  /** Of two power cuts that overlap the first restart ends both: a running machine that is set back would lose what it is about to acknowledge. */
  restart(): void {
    if (this.isUp || this.#isStarting) return;
    const started = this.#machine.afterCrash();
    if (!(started instanceof Promise)) {
      this.#machine = started;
      this.isUp = true;
      return;
    }
    const life = this.#life;
    this.#isStarting = true;
    void started.then((machine) => {
      if (life !== this.#life) return;
      this.#isStarting = false;
      this.#machine = machine;
      this.isUp = true;
    });
  }

  /** Calls the machine as the network would; no answer when it is down, or dies before it answers. */
  call<T>(carry: Carry, work: (machine: Machine) => Promise<T> | T, answer: (value: T) => void): void {
    carry("request", () => {
      if (!this.isUp) return;
      const life = this.#life;
      void Promise.resolve()
        .then(() => work(this.#machine))
        .then((value) => {
          if (life === this.#life && this.isUp) carry("answer", () => answer(value));
        })
        .catch(() => {});
    });
  }
}
