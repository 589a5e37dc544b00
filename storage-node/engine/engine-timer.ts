/** Time as the engine's pacing sees it; simulations count turns instead, so that a seed always gives the same history. */
export type EngineTimer = {
  /** Ascending; only differences count. */
  nowMs(): number;
  /** Calls later, once; keeps no process alive unless somebody waits for it. */
  after(delayMs: number, run: () => void, isAwaited?: boolean): void;
};

/** The machine's. */
export const systemTimer: EngineTimer = {
  nowMs: () => performance.now(),
  after: (delayMs, run, isAwaited = false) => {
    const timer = setTimeout(run, delayMs);
    if (!isAwaited) timer.unref();
  },
};
