import { randomUUID } from "node:crypto";
import type { Clock } from "../../common/clock.ts";
import { messageOf } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type { LeasedTask, LeasedTasks } from "../store/leased-tasks.ts";
import type { BlockDatabase } from "../store/schema.ts";

/** A process that dies leaves its tasks to others after this. */
const LEASE_MS = 30_000;
/** A step that had no answer is done again after this, then after twice as long. */
const RETRY_FIRST_MS = 200;
const RETRY_LAST_MS = 10_000;
/** How often the table is looked at for what other processes left, or what waits for its time. */
const LOOK_MS = 500;

/** How long a step waits that had no answer so many times before. */
export const retryWaitMs = (attempts: number): number =>
  Math.min(RETRY_LAST_MS, RETRY_FIRST_MS * 2 ** Math.min(attempts, 16));

type LeasedRunnerOptions<Task> = {
  readonly name: string;
  readonly database: BlockDatabase;
  readonly tasks: LeasedTasks<Task>;
  /** Tasks that are worked on at the same time. */
  readonly parallelMax: number;
  readonly clock: Clock;
  readonly log: Log;
  /** Does what it can of a task, which is `owner`'s meanwhile. Rejects where what came of a step could not be written. */
  run(this: void, claim: LeasedTask<Task>, owner: string): Promise<void>;
  /** What is done about that: the task stands there as it was, and is done again when its lease is over. */
  onUnwritten(this: void, claim: LeasedTask<Task>, error: unknown, owner: string): Promise<void>;
};

export type LeasedRunner = {
  readonly worker: Worker;
  /** There may be something to do. */
  wake(): void;
  /** Resolves when a task was put down, done or not. */
  change(): Promise<void>;
  /** Resolves when none is worked on. Requires: the worker is stopped. */
  quiet(): Promise<void>;
};

/** Claims tasks of a table, several at once, and keeps them as long as they are worked on. */
export const createLeasedRunner = <Task>(options: LeasedRunnerOptions<Task>): LeasedRunner => {
  const { name, database, tasks, parallelMax, clock, log } = options;
  const owner = randomUUID();
  const running = new Map<number, Promise<void>>();
  let settledCount = 0;
  let isWoken = false;
  let wakeUp = Promise.withResolvers<void>();
  let change = Promise.withResolvers<void>();

  const wake = (): void => {
    isWoken = true;
    wakeUp.resolve();
    wakeUp = Promise.withResolvers();
  };

  const run = async (claim: LeasedTask<Task>): Promise<void> => {
    const renewal = setInterval(() => {
      tasks
        .renew(database, claim.id, owner, clock.nowMs() + LEASE_MS)
        .catch((thrown: unknown) =>
          log.warn("a task could not be kept", { task: claim.id, reason: messageOf(thrown) }),
        );
    }, LEASE_MS / 3);
    try {
      await options.run(claim, owner);
    } catch (thrown) {
      await options.onUnwritten(claim, thrown, owner);
    } finally {
      clearInterval(renewal);
      running.delete(claim.id);
      settledCount += 1;
      change.resolve();
      change = Promise.withResolvers();
      wake();
    }
  };

  return {
    wake,
    change: () => change.promise,
    quiet: async () => void (await Promise.all(running.values())),
    worker: {
      name,
      status: () => ({ running: running.size, settled: settledCount }),
      work: async () => {
        isWoken = false;
        if (running.size >= parallelMax) return "idle";
        const claim = await tasks.claim(database, owner, clock.nowMs(), LEASE_MS);
        if (claim === undefined) return "idle";
        running.set(claim.id, run(claim));
        return "busy";
      },
      waitForWork: async (signal) => {
        if (isWoken) return;
        const stop = new AbortController();
        await Promise.race([wakeUp.promise, sleep(LOOK_MS, AbortSignal.any([signal, stop.signal]))]);
        stop.abort();
      },
    },
  };
};
