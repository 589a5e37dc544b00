const SPACING_MS = 500;
const SPAN_MS = 5000;

type Reading = { readonly atMs: number; readonly entries: number; readonly bytes: number };

/** Entries and bytes per second over the last five seconds, of totals that grow. */
export class RateMeter {
  readonly #readings: Reading[] = [];

  /** The totals before something is added to them. */
  note(atMs: number, entries: number, bytes: number): void {
    const last = this.#readings.at(-1);
    if (last !== undefined && atMs - last.atMs < SPACING_MS) return;
    this.#readings.push({ atMs, entries, bytes });
    this.#forget(atMs);
  }

  /** With the totals of now. */
  rate(atMs: number, entries: number, bytes: number): { readonly entries: number; readonly bytes: number } {
    this.#forget(atMs);
    const oldest = this.#readings[0];
    if (oldest === undefined) return { entries: 0, bytes: 0 };
    const seconds = Math.max(SPACING_MS, atMs - oldest.atMs) / 1000;
    return { entries: (entries - oldest.entries) / seconds, bytes: (bytes - oldest.bytes) / seconds };
  }

  #forget(nowMs: number): void {
    while ((this.#readings[0]?.atMs ?? nowMs) < nowMs - SPAN_MS) this.#readings.shift();
  }
}
