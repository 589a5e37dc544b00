import type { Clock } from "../../common/clock.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type { ShardWork } from "../object-service/containers.ts";
import type { LeaseAnswer } from "../object-service/mover-lease.ts";
import type { Pause, Tended } from "../object-service/sharding.ts";

/** Between two questions to all devices which listings are too large or too small. */
const LOOK_MS = 2000;
/** A container that needed nothing is looked at again no earlier, and one that could not be settled. */
const REST_MS = 10_000;
/** Containers that wait for it; what does not fit is found again. */
const WAITING_LIMIT = 10_000;
/** Shortest pause between two steps, and how many times as long as a step the one after it is: clients go first, and where they slow a step down it waits the longer. */
const PAUSE_MS = 2;
const PAUSE_SHARE = 2;
const PAUSE_LIMIT_MS = 1000;

export type SharderParts = {
  readonly sharding: {
    find(): Promise<readonly Pick<ShardWork, "account" | "container">[]>;
    tend(of: Pick<ShardWork, "account" | "container">, reported: readonly ShardWork[], pause: Pause): Promise<Tended>;
  };
  /** Shards of which something is left to do, as the settler found them. */
  readonly takeReported: () => readonly ShardWork[];
  readonly lease: { take(versions: Readonly<Record<string, number>>): Promise<LeaseAnswer>; give(): Promise<void> };
  readonly clock: Clock;
  readonly log: Log;
};

type Waiting = { readonly of: Pick<ShardWork, "account" | "container">; readonly reported: ShardWork[] };

const keyOf = ({ account, container }: Pick<ShardWork, "account" | "container">): string => `${account}/${container}`;

/**
 * Splits listings that are too large and merges those that are small, one at a time, and goes on with what others left half done. Every proxy has one, and the one
 * with the lease works; it keeps nothing that the containers' records do not say, so any of them may die at any moment.
 */
export class Sharder implements Worker, AsyncDisposable {
  readonly name = "sharder";
  readonly #parts: SharderParts;
  readonly #waiting = new Map<string, Waiting>();
  readonly #restUntilMs = new Map<string, number>();
  #lookAtMs = 0;
  #isSharder = false;
  #splits = 0;
  #merges = 0;
  #failures = 0;

  constructor(parts: SharderParts) {
    this.#parts = parts;
  }

  /** What an operator wants to know. */
  get progress(): {
    readonly isSharder: boolean;
    readonly splits: number;
    readonly merges: number;
    readonly waiting: number;
  } {
    return { isSharder: this.#isSharder, splits: this.#splits, merges: this.#merges, waiting: this.#waiting.size };
  }

  status(): Record<string, unknown> {
    return { ...this.progress, failures: this.#failures };
  }

  async work(signal: AbortSignal): Promise<"busy" | "idle"> {
    const { lease, takeReported } = this.#parts;
    // What is reported to others is reported to whoever has the lease, too.
    const reported = takeReported();
    this.#isSharder = (await lease.take({})).kind === "taken";
    if (!this.#isSharder) {
      this.#waiting.clear();
      return "idle";
    }
    for (const work of reported) this.#await(work)?.reported.push(work);
    await this.#look();
    const [first] = this.#waiting;
    if (first === undefined) return "idle";
    const [key, { of, reported: known }] = first;
    this.#waiting.delete(key);
    await this.#tend(key, of, known, signal);
    return this.#waiting.size > 0 ? "busy" : "idle";
  }

  waitForWork(signal: AbortSignal): Promise<void> {
    return sleep(LOOK_MS / 2, signal);
  }

  async #tend(key: string, of: Waiting["of"], reported: readonly ShardWork[], signal: AbortSignal): Promise<void> {
    const { clock, log, sharding } = this.#parts;
    try {
      const { isSettled, merged, split } = await sharding.tend(of, reported, this.#pausing(signal));
      this.#splits += split;
      this.#merges += merged;
      if (split + merged > 0) log.info("the listing of a container was split or merged", { ...of, split, merged });
      // One that was split may have to be once more.
      if (isSettled) this.#rest(key, clock.nowMs() + REST_MS);
      else this.#await(of);
    } catch (error) {
      if (!(error instanceof RingsteadError)) throw error;
      this.#failures += 1;
      this.#rest(key, clock.nowMs() + REST_MS);
      if (error.code !== "sharder-ended") log.warn("the listing of a container waits to be split", { ...of, error });
    }
  }

  async #look(): Promise<void> {
    const { clock, sharding } = this.#parts;
    const nowMs = clock.nowMs();
    if (nowMs < this.#lookAtMs) return;
    this.#lookAtMs = nowMs + LOOK_MS;
    for (const [key, untilMs] of this.#restUntilMs) if (untilMs <= nowMs) this.#restUntilMs.delete(key);
    for (const of of await sharding.find()) this.#await(of);
  }

  /** Undefined where it rests, or too much waits. */
  #await(of: Waiting["of"]): Waiting | undefined {
    const key = keyOf(of);
    const known = this.#waiting.get(key);
    if (known !== undefined) return known;
    if (this.#restUntilMs.has(key) || this.#waiting.size >= WAITING_LIMIT) return undefined;
    const waiting: Waiting = { of: { account: of.account, container: of.container }, reported: [] };
    this.#waiting.set(key, waiting);
    return waiting;
  }

  #rest(key: string, untilMs: number): void {
    if (this.#restUntilMs.size < WAITING_LIMIT) this.#restUntilMs.set(key, untilMs);
  }

  /** Longer than the step before it took, and with a look at the lease: who lost it leaves the rest to another. */
  #pausing(signal: AbortSignal): Pause {
    const { clock, lease } = this.#parts;
    let sinceMs = clock.nowMs();
    return async () => {
      await sleep(Math.min(Math.max(PAUSE_SHARE * (clock.nowMs() - sinceMs), PAUSE_MS), PAUSE_LIMIT_MS), signal);
      if (signal.aborted || (await lease.take({})).kind !== "taken")
        throw new RingsteadError("sharder-ended", "this process does not split listings any more");
      sinceMs = clock.nowMs();
      return undefined;
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#parts.lease.give();
    } catch (error) {
      // Nobody takes it before its time is over, then.
      if (!(error instanceof RingsteadError)) throw error;
    }
  }
}
