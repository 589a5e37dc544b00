/** Where time comes from. Cores never take one: they are given `nowMs` with the event. */
export type Clock = {
  /** Milliseconds since 1970-01-01T00:00:00Z; may go backwards when the operator sets the clock. */
  nowMs(): number;
};

/** The machine's clock. */
export const systemClock: Clock = { nowMs: Date.now };
