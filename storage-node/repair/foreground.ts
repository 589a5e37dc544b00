import type { RpcReply } from "../../common/rpc/server.ts";
import { METHOD_ACCEPT, METHOD_READ, METHOD_ROW } from "../wire.ts";

/** What clients wait for, and what takes about as long each time. */
const TIMED_METHODS: ReadonlySet<unknown> = new Set([METHOD_ACCEPT, METHOD_READ, METHOD_ROW]);
/** Of so many such messages one is timed. */
const TIMED_EACH = 4;
/** Times kept of one window; later ones are not timed. */
const TIMES_LIMIT = 4096;

/** Times one message until its last part is answered. */
class TimedReply implements RpcReply {
  readonly #inner: RpcReply;
  readonly #ended: (ms: number) => void;
  readonly #sinceMs = performance.now();
  #unanswered = 1;

  constructor(inner: RpcReply, ended: (ms: number) => void) {
    this.#inner = inner;
    this.#ended = ended;
  }

  expect(parts: number): void {
    this.#unanswered = parts;
    this.#inner.expect(parts);
  }

  ok(header: readonly unknown[], body?: Uint8Array, part?: number): void {
    this.#inner.ok(header, body, part);
    this.#answered();
  }

  give(header: readonly unknown[], body: Uint8Array, part?: number): void {
    this.#inner.give(header, body, part);
    this.#answered();
  }

  error(error: unknown, part?: number): void {
    this.#inner.error(error, part);
    this.#answered();
  }

  #answered(): void {
    this.#unanswered -= 1;
    if (this.#unanswered === 0) this.#ended(performance.now() - this.#sinceMs);
  }
}

/** What was seen of the foreground since the last time somebody asked. */
export type ForegroundWindow = { readonly requests: number; readonly p99Ms: number };

/** How many messages a node gets that clients wait for, and how long they take here. A few of them are timed: 0.2 µs each of all others. */
export class Foreground {
  readonly #times = new Float64Array(TIMES_LIMIT);
  #timed = 0;
  #requests = 0;
  /** Called with each message that clients wait for. */
  onRequest: () => void = () => {};

  /** The reply to give to the dispatcher in place of `reply`. */
  watched(header: readonly unknown[], reply: RpcReply): RpcReply {
    if (!TIMED_METHODS.has(header[0])) return reply;
    this.#requests += 1;
    this.onRequest();
    if (this.#requests % TIMED_EACH !== 1 || this.#timed >= TIMES_LIMIT) return reply;
    return new TimedReply(reply, (ms) => {
      if (this.#timed < TIMES_LIMIT) this.#times[this.#timed++] = ms;
    });
  }

  takeWindow(): ForegroundWindow {
    const times = this.#times.subarray(0, this.#timed).sort();
    const p99Ms = times[Math.ceil(times.length * 0.99) - 1] ?? 0;
    const requests = this.#requests;
    this.#timed = 0;
    this.#requests = 0;
    return { requests, p99Ms };
  }
}
