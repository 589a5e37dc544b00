/** Longer reads always go to the thread pool. */
export const DIRECT_READ_LIMIT_BYTES = 128 * 1024;
/** A direct read that took longer than this did not come from the page cache. */
const SLOW_READ_MS = 0.5;
const FIRST_PAUSE_MS = 10;
const LAST_PAUSE_MS = 1000;
/** So many quick reads in a row, and slow ones are forgotten. */
const QUICK_READS = 64;

/**
 * Whether to read now, on the event loop, or through the thread pool.
 *
 *     direct ──a read was slow──▶ pooled (a pause that doubles) ──pause is over──▶ direct
 *
 * A read of 4 KiB from the page cache takes 2 to 6 µs, and some 45 µs with a trip to the thread pool; from a disk it would hold up
 * everybody else. Which one it will be cannot be asked, so it is learned: a device whose data is not cached holds the event loop
 * for one read a second at most.
 */
export class ReadMode {
  #pauseMs = FIRST_PAUSE_MS;
  #pooledUntilMs = 0;
  #quickReads = 0;

  isDirect(nowMs: number): boolean {
    return nowMs >= this.#pooledUntilMs;
  }

  /** A direct read took so long. */
  took(durationMs: number, nowMs: number): void {
    if (durationMs <= SLOW_READ_MS) {
      this.#quickReads += 1;
      if (this.#quickReads >= QUICK_READS) this.#pauseMs = FIRST_PAUSE_MS;
      return;
    }
    this.#quickReads = 0;
    this.#pooledUntilMs = nowMs + this.#pauseMs;
    this.#pauseMs = Math.min(2 * this.#pauseMs, LAST_PAUSE_MS);
  }
}
