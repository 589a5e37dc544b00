import type { Clock } from "./clock.ts";

/** A hybrid timestamp: 48 bits of milliseconds and a 16-bit counter as 16 lower-case hexadecimal digits, so that text order is time order. */
export type HybridTimestamp = string & { readonly brand: "HybridTimestamp" };

/** Before every timestamp that a clock gives. */
export const TIMESTAMP_ZERO = "0000000000000000" as HybridTimestamp;

const COUNTER_LIMIT = 0x10000;

const timestampOf = (ms: number, counter: number): HybridTimestamp =>
  (ms.toString(16).padStart(12, "0") + counter.toString(16).padStart(4, "0")) as HybridTimestamp;

/** The timestamp `aheadMs` after the milliseconds of `timestamp`. */
export const timestampAfter = (timestamp: HybridTimestamp, aheadMs: number): HybridTimestamp =>
  timestampOf(millisecondsOf(timestamp) + aheadMs, 0);

/** The first timestamp of a millisecond. */
export const timestampAt = (ms: number): HybridTimestamp => timestampOf(Math.floor(ms), 0);

/** The milliseconds part, since 1970-01-01T00:00:00Z. */
export const millisecondsOf = (timestamp: HybridTimestamp): number => Number.parseInt(timestamp.slice(0, 12), 16);

/**
 * Swift's `X-Timestamp`: seconds with five decimals. Three come from the milliseconds and two from the counter, so that two
 * timestamps of one millisecond differ as long as fewer than a hundred are given in it.
 */
export const swiftTimestamp = (timestamp: HybridTimestamp): string => {
  const ms = millisecondsOf(timestamp);
  const counter = Number.parseInt(timestamp.slice(12), 16) % 100;
  return `${String(Math.floor(ms / 1000)).padStart(10, "0")}.${String(ms % 1000).padStart(3, "0")}${String(counter).padStart(2, "0")}`;
};

/** A clock that never gives the same timestamp twice and never goes back, whatever the machine's clock does (Kulkarni et al., 2014). */
export type HybridClock = {
  next(): HybridTimestamp;
  /** Everything given from now on is later than `seen`. */
  advancePast(seen: HybridTimestamp): void;
};

/** Makes a clock that starts at the machine's time. */
export const hybridClock = (clock: Clock): HybridClock => {
  let lastMs = 0;
  let counter = 0;
  return {
    next() {
      const nowMs = clock.nowMs();
      if (nowMs > lastMs) {
        lastMs = nowMs;
        counter = 0;
      } else if (++counter === COUNTER_LIMIT) {
        lastMs += 1;
        counter = 0;
      }
      return timestampOf(lastMs, counter);
    },
    advancePast(seen) {
      const ms = millisecondsOf(seen);
      const seenCounter = Number.parseInt(seen.slice(12), 16);
      if (ms > lastMs || (ms === lastMs && seenCounter > counter)) {
        lastMs = ms;
        counter = seenCounter;
      }
    },
  };
};
