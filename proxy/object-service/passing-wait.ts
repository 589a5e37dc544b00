/** What is waited for at first, and at most between two attempts; doubling. A sealed partition has other members within some milliseconds. */
const FIRST_WAIT_MS = 2;
const WAIT_LIMIT_MS = 250;
/**
 * All waits of one operation together. Whoever moves the partition may die between the sealing and what follows it: another one goes on
 * within some seconds, as does a storage node that is restarted, and clients wait longer than this.
 */
const PATIENCE_MS = 8000;

/** What an operation waits while something stands in its way that passes: its partition changes its members, or a node was there a moment ago. */
export class PassingWait {
  readonly #untilMs = performance.now() + PATIENCE_MS;
  #waitMs = FIRST_WAIT_MS;

  /** Resolves with true after a random part of the next wait; with false at once when patience is over. */
  next(): Promise<boolean> {
    return new Promise((resolve) => {
      if (!this.after(() => resolve(true))) resolve(false);
    });
  }

  /** Calls `then` after a random part of the next wait; false, and no call, once patience is over. */
  after(then: () => void): boolean {
    if (performance.now() > this.#untilMs) return false;
    setTimeout(then, Math.random() * this.#waitMs);
    this.#waitMs = Math.min(2 * this.#waitMs, WAIT_LIMIT_MS);
    return true;
  }
}
