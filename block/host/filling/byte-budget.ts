import assert from "node:assert/strict";

type Waiting = { readonly bytes: number; readonly resolve: () => void };

/** Bytes that are held at once, however many ask. Who finds too few left waits, in order; nobody overtakes those who wait. */
export class ByteBudget {
  readonly #limitBytes: number;
  readonly #waiting = new Set<Waiting>();
  #freeBytes: number;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
    this.#freeBytes = limitBytes;
  }

  /** Resolves once they are the caller's. Rejects with the signal's reason where that aborts before. Requires: no more than there are in all. */
  take(bytes: number, signal: AbortSignal): Promise<void> {
    assert(bytes <= this.#limitBytes);
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const give = (): void => {
        signal.removeEventListener("abort", leave);
        resolve();
      };
      const waiting = { bytes, resolve: give };
      const leave = (): void => {
        this.#waiting.delete(waiting);
        reject(signal.reason);
        this.#serve();
      };
      signal.addEventListener("abort", leave, { once: true });
      this.#waiting.add(waiting);
      this.#serve();
    });
  }

  give(bytes: number): void {
    this.#freeBytes += bytes;
    assert(this.#freeBytes <= this.#limitBytes);
    this.#serve();
  }

  #serve(): void {
    for (const first of this.#waiting) {
      if (first.bytes > this.#freeBytes) return;
      this.#waiting.delete(first);
      this.#freeBytes -= first.bytes;
      first.resolve();
    }
  }
}
