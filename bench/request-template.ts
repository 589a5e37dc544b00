import { INDEX_DIGITS } from "./load.ts";

const ZERO = 0x30;
const PLACE = "#".repeat(INDEX_DIGITS);

/** What stands in a path where an index goes. */
export const INDEX_PLACE = PLACE;

/**
 * The bytes of a request, formatted once; from one request to the next only the digits of the index in its path are written over.
 * Requires: INDEX_PLACE at most once in `head`, and nowhere before its path.
 */
export class RequestTemplate {
  readonly bytes: Buffer;
  readonly #lastDigitAt: number;

  /** `head`: all lines of it, with the empty one at its end. */
  constructor(head: string, body: Buffer = Buffer.alloc(0)) {
    this.bytes = Buffer.concat([Buffer.from(head, "latin1"), body]);
    const place = head.indexOf(PLACE);
    this.#lastDigitAt = place < 0 ? -1 : place + INDEX_DIGITS - 1;
  }

  /** Requires: a template with a place for it. */
  setIndex(index: number): void {
    let rest = index;
    for (let digit = 0; digit < INDEX_DIGITS; digit += 1) {
      const next = Math.floor(rest / 10);
      this.bytes[this.#lastDigitAt - digit] = ZERO + rest - next * 10;
      rest = next;
    }
  }
}
