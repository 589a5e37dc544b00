export type LimitedWork = <Result>(work: () => Promise<Result>) => Promise<Result>;

export type LimitedWorkOptions = {
  readonly concurrentMax: number;
  readonly waitingMax: number;
  /** What whoever comes beyond those is told. */
  readonly refusal: () => Error;
};

/** Runs so many at once, keeps so many waiting in the order in which they came, and refuses the rest. */
export const createLimitedWork = ({ concurrentMax, waitingMax, refusal }: LimitedWorkOptions): LimitedWork => {
  const waiting: (() => void)[] = [];
  let running = 0;
  return async (work) => {
    if (running >= concurrentMax) {
      if (waiting.length >= waitingMax) throw refusal();
      // Who ends hands its place on: `running` stays as it is.
      await new Promise<void>((resolve) => waiting.push(resolve));
    } else {
      running += 1;
    }
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) running -= 1;
      else next();
    }
  };
};
