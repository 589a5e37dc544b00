/** Partitions that came to where they are to be count for so long. */
const WINDOW_MS = 60_000;
/** More are not remembered: they are enough to tell a rate. */
const REMEMBERED_LIMIT = 1000;
/** Steps in which it is told, so that it is not another one each time. */
const STEP_SECONDS = 5;
const MINUTE_SECONDS = 60;
const FEW_SECONDS = 120;

/** How long moving will take, from how many partitions were moved within the last minute. Times are those of one clock, in milliseconds. */
export class TimeLeft {
  #beganMs: number | undefined;
  #endsMs: number[] = [];

  /** There is something to move. */
  begin(nowMs: number): void {
    this.#beganMs ??= nowMs;
  }

  /** Nothing is to be moved any more. */
  end(): void {
    this.#beganMs = undefined;
    this.#endsMs = [];
  }

  /** A partition is where it is to be. */
  note(nowMs: number): void {
    this.#endsMs.push(nowMs);
    if (this.#endsMs.length > REMEMBERED_LIMIT) this.#endsMs.shift();
  }

  /** Undefined while no partition has come anywhere lately. */
  seconds(left: number, nowMs: number): number | undefined {
    const since = Math.max(this.#beganMs ?? nowMs, nowMs - WINDOW_MS);
    const ends = this.#endsMs.filter((endMs) => endMs >= since);
    const first = this.#endsMs.length === REMEMBERED_LIMIT ? (ends[0] ?? since) : since;
    if (ends.length === 0 || nowMs <= first) return undefined;
    const seconds = (left * (nowMs - first)) / ends.length / 1000;
    const step = seconds < FEW_SECONDS ? STEP_SECONDS : MINUTE_SECONDS;
    return Math.ceil(seconds / step) * step;
  }
}
