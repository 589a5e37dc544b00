import { RingsteadError } from "../../common/errors.ts";
import type { EngineTimer } from "./engine-timer.ts";
import type { SegmentStore } from "./segment-store.ts";

/** Log bytes per needed byte from which acknowledgements slow down, and at which they wait for compaction. */
const SLOW_ABOVE = 1.38;
const STOP_ABOVE = 1.44;
/** What a log of few segments may waste on top: the segment being written and the one being emptied. */
const SLACK_SEGMENTS = 2;
/** Just below STOP_ABOVE an acknowledgement waits this long; in between in proportion. */
const MAX_DELAY_MS = 40;
const TICK_MS = 2;
/** Looks at the debt each time so much of a segment was written. */
const LOOKS_PER_SEGMENT = 64;
/** Commits that may wait; beyond, writers who never wait for answers are refused with "device-overloaded". */
const MAX_HELD = 10_000;

type Held = { readonly sinceMs: number; readonly release: () => void };

/** What the pushback asks of compaction. */
export type CompactionProgress = {
  /** Something is being emptied, or a checkpoint on the way that lets something be emptied. */
  readonly isWorking: () => boolean;
  /** Starts that, where there is something to gain; false where there is not. */
  readonly start: () => boolean;
};

/**
 * Slows acknowledgements down where compaction cannot keep up, so that the log does not outgrow its bound: a commit is durable as
 * soon as ever, but who waits for its answer waits in proportion to the debt, and at the bound until compaction has caught up or has
 * nothing left to do. Nobody is held on account of a device that failed or was closed.
 */
export class Pushback {
  readonly #store: SegmentStore;
  readonly #progress: CompactionProgress;
  readonly #timer: EngineTimer;
  readonly #held: Held[] = [];
  #debt = 0;
  #lookedAtBytes = 0;
  #isTicking = false;
  #isClosed = false;

  constructor(store: SegmentStore, progress: CompactionProgress, timer: EngineTimer) {
    this.#store = store;
    this.#progress = progress;
    this.#timer = timer;
  }

  /** Acknowledgements held back. */
  get heldCount(): number {
    return this.#held.length;
  }

  /** Errors (thrown): "device-overloaded". */
  admit(): void {
    if (this.#held.length >= MAX_HELD) {
      throw new RingsteadError("device-overloaded", "compaction lags, and too many commits wait for it");
    }
  }

  /** When a commit that is durable with `synced` is to be acknowledged. `appendedBytes`: of the log, since the device was opened. */
  acknowledge(synced: Promise<void>, appendedBytes: number): Promise<void> {
    if (appendedBytes - this.#lookedAtBytes >= this.#store.segmentBytes / LOOKS_PER_SEGMENT) {
      this.#lookedAtBytes = appendedBytes;
      this.#look();
    }
    if (this.#debt <= 0 || this.#isClosed) return synced;
    if (!this.#progress.isWorking() && !this.#progress.start()) return synced;
    return synced.then(() => this.#hold());
  }

  #look(): void {
    const { usedBytes, liveBytes, deleteBytes } = this.#store.figures();
    const needed = Math.max(1, liveBytes + deleteBytes);
    const waste = (usedBytes - SLACK_SEGMENTS * this.#store.segmentBytes) / needed;
    this.#debt = (waste - SLOW_ABOVE) / (STOP_ABOVE - SLOW_ABOVE);
  }

  #hold(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#held.push({ sinceMs: this.#timer.nowMs(), release: resolve });
    this.#tickLater();
    return promise;
  }

  #tickLater(): void {
    if (this.#isTicking || this.#held.length === 0) return;
    this.#isTicking = true;
    this.#timer.after(TICK_MS, () => {
      this.#isTicking = false;
      this.#look();
      const isHopeless = this.#isClosed || (!this.#progress.isWorking() && !this.#progress.start());
      this.#releaseUntil(isHopeless ? Number.POSITIVE_INFINITY : this.#dueMs());
      this.#tickLater();
    });
  }

  /** Commits held since before this may go. */
  #dueMs(): number {
    if (this.#debt <= 0) return Number.POSITIVE_INFINITY;
    return this.#debt >= 1 ? Number.NEGATIVE_INFINITY : this.#timer.nowMs() - this.#debt * MAX_DELAY_MS;
  }

  #releaseUntil(dueMs: number): void {
    let count = 0;
    for (const { sinceMs, release } of this.#held) {
      if (sinceMs > dueMs) break;
      release();
      count++;
    }
    this.#held.splice(0, count);
  }

  /** Lets everyone go. */
  close(): void {
    this.#isClosed = true;
    this.#releaseUntil(Number.POSITIVE_INFINITY);
  }
}
