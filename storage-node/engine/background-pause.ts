import type { EngineTimer } from "./engine-timer.ts";

/** The pauses of work in the background. They end with it: the timer keeps no process alive, and a device that closes waits for none. */
export class BackgroundPause {
  readonly #timer: EngineTimer;
  #isEnded = false;
  #end: () => void = () => {};

  constructor(timer: EngineTimer) {
    this.#timer = timer;
  }

  /** Resolves after `delayMs`, or at once when the work is to end. Requires: one pause at a time. */
  pause(delayMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#end = resolve;
    if (this.#isEnded) resolve();
    else this.#timer.after(delayMs, resolve);
    return promise;
  }

  /** There are no more pauses from now on. */
  end(): void {
    this.#isEnded = true;
    this.#end();
  }
}
