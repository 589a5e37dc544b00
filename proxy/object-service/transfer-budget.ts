type Waiting = { readonly bytes: number; readonly resolve: () => void };

const MIB = 1024 * 1024;

/**
 * How many bytes of bodies a process holds at once, whatever the number of clients. Who finds nothing left waits, in order. Whoever waits
 * for more must be able to let go of what it has, or hold nothing: that is what keeps takers from waiting for each other.
 */
export class TransferBudget {
  readonly #waiting: Waiting[] = [];
  #freeBytes: number;

  constructor(limitBytes: number) {
    this.#freeBytes = limitBytes;
  }

  /** Takes `bytes` at once and returns undefined, or returns when they are taken. Requires: at most what the budget has in all. */
  take(bytes: number): Promise<void> | undefined {
    if (this.tryTake(bytes)) return undefined;
    return new Promise((resolve) => {
      this.#waiting.push({ bytes, resolve });
    });
  }

  /** Whether `bytes` could be taken without waiting. Nobody overtakes those who wait. */
  tryTake(bytes: number): boolean {
    if (this.#waiting.length > 0 || bytes > this.#freeBytes) return false;
    this.#freeBytes -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.#freeBytes += bytes;
    for (let next = this.#waiting[0]; next !== undefined && next.bytes <= this.#freeBytes; next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#freeBytes -= next.bytes;
      next.resolve();
    }
  }
}

/*
 * What is let go of is given back at once where nobody can still be sending it, else it is free only once it is collected, and Node lets
 * some 60 MiB of buffers come together before it does. With both budgets spent the process stays below 300 MiB
 * (`scripts/scenarios/memory.test.ts`).
 */

/** Bodies on their way in: received and not yet acknowledged by the storage nodes. */
export const uploadBudget = new TransferBudget(40 * MIB);

/** Blocks on their way out: asked for, or not yet taken by the client's connection. */
export const downloadBudget = new TransferBudget(48 * MIB);
