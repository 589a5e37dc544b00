import { channel } from "node:diagnostics_channel";
import { type Clock, systemClock } from "../clock.ts";
import type { Log } from "../log.ts";

/** A connection that one side refused. `server`: the peer came to us; `client`: we went to it. */
export type PeerRefusal = {
  readonly side: "server" | "client";
  /** `host:port` of a server, the address of a client, the path of a Unix socket. */
  readonly peer: string;
  readonly code: string;
  readonly reason: string;
  readonly remedy: string;
};

type PeerEvent =
  | { readonly kind: "refused"; readonly refusal: PeerRefusal }
  | { readonly kind: "trusted"; readonly peer: string };

/** RPC servers and clients are made in many places, and the page and log on which an operator looks are those of the process. */
const events = channel("ringstead:rpc-peers");

export const tellRefused = (refusal: PeerRefusal): void =>
  events.publish({ kind: "refused", refusal } satisfies PeerEvent);

/** We are connected to a server. */
export const tellTrusted = (peer: string): void => events.publish({ kind: "trusted", peer } satisfies PeerEvent);

/** Who tries again does so within seconds; who was not refused for so long is gone, or well. */
const SHOWN_MS = 120_000;
/** A refusal that goes on is logged once in this time, with how often it happened. */
const LOG_INTERVAL_MS = 60_000;
/** Somebody who comes from many addresses must not fill memory: those that were refused longest ago are forgotten. */
const PEERS_LIMIT = 64;

type Known = { readonly refusal: PeerRefusal; atMs: number; loggedAtMs: number; unlogged: number };

const escaped = (text: string): string => text.replace(/[\\"\n]/g, (found) => (found === "\n" ? "\\n" : `\\${found}`));

/** What refusals a process knows of: in its log, bounded, and on its metrics page. Disposal stops listening. */
export class PeerRefusals implements Disposable {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #known = new Map<string, Known>();

  constructor(log: Log, clock: Clock = systemClock) {
    this.#log = log;
    this.#clock = clock;
    events.subscribe(this.#listen);
  }

  [Symbol.dispose](): void {
    events.unsubscribe(this.#listen);
  }

  /** Those of the last two minutes. */
  list(): readonly (PeerRefusal & { readonly atMs: number })[] {
    const nowMs = this.#clock.nowMs();
    return [...this.#known.values()]
      .filter(({ atMs }) => nowMs - atMs < SHOWN_MS)
      .map(({ refusal, atMs }) => ({ ...refusal, atMs }));
  }

  /** Lines for the metrics page: when each was last refused, in seconds since 1970. */
  render(role: string): string {
    const lines = this.list().map(({ side, peer, code, reason, remedy, atMs }) => {
      const labels = Object.entries({ role, side, peer, code, reason, remedy })
        .map(([name, value]) => `${name}="${escaped(value)}"`)
        .join(",");
      return `ringstead_rpc_refused_seconds{${labels}} ${Math.floor(atMs / 1000)}\n`;
    });
    if (lines.length === 0) return "";
    const help = "When an RPC peer was last refused, in seconds since 1970.";
    return `# HELP ringstead_rpc_refused_seconds ${help}\n# TYPE ringstead_rpc_refused_seconds gauge\n${lines.join("")}`;
  }

  readonly #listen = (message: unknown): void => {
    const event = message as PeerEvent;
    if (event.kind === "refused") this.#note(event.refusal);
    else this.#forgive(event.peer);
  };

  #note(refusal: PeerRefusal): void {
    const key = `${refusal.side} ${refusal.peer} ${refusal.code}`;
    const nowMs = this.#clock.nowMs();
    const known = this.#known.get(key) ?? { refusal, atMs: nowMs, loggedAtMs: Number.NEGATIVE_INFINITY, unlogged: 0 };
    // Behind the others: the first in the map is the one that was refused longest ago.
    this.#known.delete(key);
    const next = { ...known, refusal, atMs: nowMs, unlogged: known.unlogged + 1 };
    this.#known.set(key, next);
    if (this.#known.size > PEERS_LIMIT) this.#known.delete(this.#known.keys().next().value ?? "");
    if (nowMs - next.loggedAtMs < LOG_INTERVAL_MS) return;
    this.#log.warn("an RPC peer was refused", { ...refusal, times: next.unlogged });
    next.loggedAtMs = nowMs;
    next.unlogged = 0;
  }

  #forgive(peer: string): void {
    for (const [key, { refusal }] of this.#known)
      if (refusal.side === "client" && refusal.peer === peer) this.#known.delete(key);
  }
}
