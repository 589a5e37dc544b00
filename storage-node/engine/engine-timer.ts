/** Time as the engine's pacing sees it; simulations count turns instead, so that a seed always gives the same history. */
export type EngineTimer = {
  /** Ascending; only differences count. */
  nowMs(): number;
  /** Calls later, once; keeps no process alive. */
  after(delayMs: number, run: () => void): void;
};

/** The machine's. */
export const systemTimer: EngineTimer = {
  nowMs: () => performance.now(),
  after: (delayMs, run) => void setTimeout(run, delayMs).unref(),
};
