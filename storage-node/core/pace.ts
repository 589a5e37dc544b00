/**
 * A bucket of tokens that may be overdrawn: who takes too much is not held back, who comes next waits until it is paid back. So nobody has
 * to know beforehand what an answer will bring.
 */
export type Bucket = { readonly tokens: number; readonly atMs: number };

/** What collects while nobody takes anything, in seconds of the rate. */
const BURST_SECONDS = 0.1;

/** The bucket as it is now. */
const refilled = ({ tokens, atMs }: Bucket, perSecond: number, nowMs: number): Bucket => ({
  tokens: Math.min(perSecond * BURST_SECONDS, tokens + (perSecond * Math.max(0, nowMs - atMs)) / 1000),
  atMs: nowMs,
});

/** The bucket after `amount` was taken. Requires: perSecond > 0. */
export const taken = (bucket: Bucket, perSecond: number, amount: number, nowMs: number): Bucket => {
  const now = refilled(bucket, perSecond, nowMs);
  return { tokens: now.tokens - amount, atMs: nowMs };
};

/** How long to wait before the next may be taken. */
export const waitMs = (bucket: Bucket, perSecond: number, nowMs: number): number =>
  Math.max(0, (-refilled(bucket, perSecond, nowMs).tokens * 1000) / perSecond);

/** What one unit of repair is in bytes: an entry costs about as much as this much of a body. */
const UNIT_BYTES = 16 * 1024;
/** What was repaired, in one figure: an entry of 4 KiB is some more than one unit, a MiB of a large body 64. */
export const unitsOf = (operations: number, bytes: number): number => operations + bytes / UNIT_BYTES;

/** Where repair begins beside a foreground that it knows nothing of. */
const FIRST_UNITS_PER_SECOND = 3000;
/**
 * It always goes on: a partition with a replica less than it should have is a risk too, and what slows requests down may be something else
 * altogether, which no waiting of repair makes better. Some fifth of a core.
 */
const MIN_UNITS_PER_SECOND = 1500;
const MAX_UNITS_PER_SECOND = 1_000_000;
const GROWTH = 1.05;
const GROWTH_UNITS = 100;
const CUT = 0.8;
/** Below this share of its rate repair is not what the rate holds back. */
const USED_SHARE = 0.7;
/** What the foreground is never faster than, for all that repair is concerned. */
export const FLOOR_MS = 8;
/** How many times slower than without repair the foreground may be. */
const SLOWER_MAX = 2;
/** How fast what is known of the idle time follows windows that are faster, and slower: a slow window is rather an accident. */
const IDLE_FALLS = 0.3;
const IDLE_RISES = 0.03;
/** Windows without foreground after which repair goes as fast as it can. */
const QUIET_WINDOWS = 4;

/**
 * How fast repair may go beside requests of clients.
 *
 *     free ──a request comes──▶ held: its rate grows while requests are fast enough, and is cut where they are not
 *       ▲                         │
 *       └── no request for a while┘
 */
export type PaceState = {
  /** Undefined: as fast as it can. */
  readonly unitsPerSecond: number | undefined;
  /** That of the last time beside requests. */
  readonly lastUnitsPerSecond: number;
  /** The slowest of a hundred requests where nothing was repaired; undefined before any was seen. */
  readonly idleP99Ms: number | undefined;
  readonly quietWindows: number;
};

export const PACE_AT_START: PaceState = {
  unitsPerSecond: undefined,
  lastUnitsPerSecond: FIRST_UNITS_PER_SECOND,
  idleP99Ms: undefined,
  quietWindows: 0,
};

/** What was seen in one window of time. */
export type PaceWindow = {
  readonly seconds: number;
  /** Requests of clients. */
  readonly requests: number;
  readonly p99Ms: number;
  /** What was repaired meanwhile. */
  readonly units: number;
};

/** A request came: from now on repair is held. */
export const heldFrom = (state: PaceState): PaceState =>
  state.unitsPerSecond === undefined ? { ...state, unitsPerSecond: state.lastUnitsPerSecond, quietWindows: 0 } : state;

/** What requests may take while something is repaired. */
export const p99LimitMs = ({ idleP99Ms }: PaceState): number => Math.max(FLOOR_MS, SLOWER_MAX * (idleP99Ms ?? 0));

/** A window is over. */
export const paceAfter = (state: PaceState, { seconds, requests, p99Ms, units }: PaceWindow): PaceState => {
  const { idleP99Ms, unitsPerSecond } = state;
  if (requests === 0) {
    const quietWindows = state.quietWindows + 1;
    const isQuiet = quietWindows >= QUIET_WINDOWS;
    return { ...state, quietWindows, unitsPerSecond: isQuiet ? undefined : unitsPerSecond };
  }
  if (units === 0) {
    const known = idleP99Ms ?? p99Ms;
    const idle = known + (p99Ms < known ? IDLE_FALLS : IDLE_RISES) * (p99Ms - known);
    return { ...state, idleP99Ms: idle, quietWindows: 0 };
  }
  const rate = unitsPerSecond ?? state.lastUnitsPerSecond;
  const used = units / seconds;
  let next = rate;
  if (p99Ms > p99LimitMs(state)) next = Math.min(rate, used) * CUT;
  else if (used >= rate * USED_SHARE) next = rate * GROWTH + GROWTH_UNITS * seconds;
  next = Math.min(MAX_UNITS_PER_SECOND, Math.max(MIN_UNITS_PER_SECOND, next));
  return { ...state, unitsPerSecond: next, lastUnitsPerSecond: next, quietWindows: 0 };
};
