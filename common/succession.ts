/** Set in the environment of a process that takes over from one that still serves. */
export const TAKES_OVER = "RINGSTEAD_TAKES_OVER";
/** Set in the environment of a process that loads its code and then waits for `{ go: true }`: the one before it still has what it needs. */
export const STANDS_BY = "RINGSTEAD_STANDS_BY";

const taken = (name: string): boolean => {
  const isSet = process.env[name] !== undefined;
  // Processes that this one starts are no successors of anything.
  delete process.env[name];
  return isSet;
};

const takesOver = taken(TAKES_OVER);
const standsBy = taken(STANDS_BY);

/** Whether this process takes over from one that still serves the same addresses. */
export const hasPredecessor = (): boolean => takesOver;
/** Whether this process waits to be told to start. */
export const isStandingBy = (): boolean => standsBy;

/** How a process ends whose connections another one takes over. Milliseconds. */
export type Retirement = {
  /** How long connections without a request stay open. */
  readonly idleMs: number;
  /** How long requests under way may take. */
  readonly limitMs: number;
};

let retirement: Retirement | undefined;
const hurried = new AbortController();

/** From now on this process ends, and another one has its addresses. */
export const retire = (how: Retirement): void => {
  retirement = how;
};

/** What this process was given to retire; undefined where it just ends. */
export const retirementOf = (): Retirement | undefined => (hurried.signal.aborted ? undefined : retirement);

/** The installation ends while this process retires: connections without a request are closed after all. */
export const hurry = (): void => hurried.abort();

export const hurrySignal: AbortSignal = hurried.signal;
