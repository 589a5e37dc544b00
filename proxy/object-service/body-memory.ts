import type { RingsteadError } from "../../common/errors.ts";
import { releaseMemory } from "../../common/release-memory.ts";

/**
 * Who may still read a large body's memory: the write that it belongs to, and every message that carries it and may not have left this
 * process. When all have let go it is given back at once (`releaseMemory` says why). A message whose answer never comes holds it for ever:
 * then it is collected like any other.
 */
export class BodyMemory {
  readonly #bytes: Uint8Array;
  #holders = 1;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  hold(): void {
    this.#holders += 1;
  }

  letGo(): void {
    this.#holders -= 1;
    if (this.#holders === 0) releaseMemory(this.#bytes);
  }
}

/** Whether an answer tells that its request arrived as a whole: the peer's own errors do, those of the connection do not. */
export const hasArrived = (error: RingsteadError | undefined): boolean =>
  error === undefined || !error.code.startsWith("rpc-");
