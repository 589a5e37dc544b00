import { messageOf } from "./errors.ts";
import type { Log } from "./log.ts";

/** Back-off after a failed round: doubles from the first to the last. */
const BACKOFF_FIRST_MS = 100;
const BACKOFF_LAST_MS = 60_000;

/** A piece of background work: repairs, expiry, compaction, audit. */
export type Worker = {
  readonly name: string;
  /** What an operator would ask: progress, queue, last result. Plain JSON. */
  status(): Record<string, unknown>;
  /** One round. Resolves to `busy` when there is more to do at once, to `idle` when it should wait first. */
  work(signal: AbortSignal): Promise<"busy" | "idle">;
  /** Resolves when there may be work again: a timer, an event, or the signal. */
  waitForWork(signal: AbortSignal): Promise<void>;
};

type WorkerState = {
  readonly name: string;
  readonly state: "working" | "waiting" | "paused" | "failing" | "stopped";
  readonly rounds: number;
  readonly failures: number;
  readonly lastError: string | undefined;
  readonly status: Record<string, unknown>;
};

/** All workers of a process: listed, paused and resumed at run time. Disposal aborts them and waits until they have ended. */
type WorkerRunner = AsyncDisposable & {
  list(): WorkerState[];
  pause(name: string): boolean;
  resume(name: string): boolean;
};

type RunnerOptions = {
  readonly log: Log;
  /** A round that takes longer is aborted and counted as failed. */
  readonly deadlineMs?: number;
  /** Pause after each busy round: the share of time that is left to the foreground. */
  readonly throttleMs?: number;
};

type Slot = {
  readonly worker: Worker;
  state: WorkerState["state"];
  rounds: number;
  failures: number;
  consecutiveFailures: number;
  lastError: string | undefined;
  paused: boolean;
  wake: () => void;
};

/** Resolves after `ms`, or early when `signal` aborts; never rejects. */
export const sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });

const round = async (slot: Slot, signal: AbortSignal, options: RunnerOptions): Promise<void> => {
  slot.state = "working";
  const limited =
    options.deadlineMs === undefined ? signal : AbortSignal.any([signal, AbortSignal.timeout(options.deadlineMs)]);
  const result = await slot.worker.work(limited);
  if (limited.aborted && !signal.aborted) throw new Error(`round took longer than ${options.deadlineMs} ms`);
  slot.rounds += 1;
  slot.consecutiveFailures = 0;
  slot.state = "waiting";
  if (result === "idle") await slot.worker.waitForWork(signal);
  // Even an unthrottled worker lets other work of the process run between two rounds.
  else await sleep(options.throttleMs ?? 0, signal);
};

const runOne = async (slot: Slot, signal: AbortSignal, options: RunnerOptions): Promise<void> => {
  while (!signal.aborted) {
    if (slot.paused) {
      slot.state = "paused";
      await new Promise<void>((resolve) => {
        slot.wake = resolve;
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
      continue;
    }
    try {
      await round(slot, signal, options);
    } catch (thrown) {
      if (signal.aborted) break;
      slot.state = "failing";
      slot.failures += 1;
      slot.consecutiveFailures += 1;
      slot.lastError = messageOf(thrown);
      options.log.error("worker round failed", { worker: slot.worker.name, error: thrown });
      await sleep(Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** (slot.consecutiveFailures - 1)), signal);
    }
  }
  slot.state = "stopped";
};

/** Runs `workers` until disposed. */
export const runWorkers = (workers: readonly Worker[], options: RunnerOptions): WorkerRunner => {
  const stop = new AbortController();
  const slots = workers.map(
    (worker): Slot => ({
      worker,
      state: "waiting",
      rounds: 0,
      failures: 0,
      consecutiveFailures: 0,
      lastError: undefined,
      paused: false,
      wake: () => {},
    }),
  );
  const ended = Promise.all(slots.map((slot) => runOne(slot, stop.signal, options)));
  const setPaused = (name: string, paused: boolean): boolean => {
    const slot = slots.find((candidate) => candidate.worker.name === name);
    if (slot === undefined) return false;
    slot.paused = paused;
    slot.wake();
    return true;
  };
  return {
    list: () =>
      slots.map(({ worker, state, rounds, failures, lastError }) => ({
        name: worker.name,
        state,
        rounds,
        failures,
        lastError,
        status: worker.status(),
      })),
    pause: (name) => setPaused(name, true),
    resume: (name) => setPaused(name, false),
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await ended;
    },
  };
};
