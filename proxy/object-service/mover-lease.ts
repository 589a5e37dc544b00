import { randomBytes } from "node:crypto";
import type { Clock } from "../../common/clock.ts";
import type { Accounts } from "./accounts.ts";

/** Where each kind of work has its lease. Names of real accounts do not begin with a dot. */
const MOVER_LEASE = ".mover";
export const SHARDER_LEASE = ".sharder";
const HOLDER = "holder";
const UNTIL = "until";
/** How long the lease is another's after it was last renewed; a mover that died keeps partitions that it had sealed waiting no longer. */
const LEASE_MS = 3000;

/** How it went: the lease is this proxy's, or another's, or nobody may have it who follows a ring of a lower version than others did. */
export type LeaseAnswer =
  | { readonly kind: "taken" | "held" }
  | { readonly kind: "outdated"; readonly ring: string; readonly version: number };

type Headers = Readonly<Record<string, string>>;

const versionKey = (ring: string): string => `version-${ring}`;

/**
 * Which of the proxies moves partitions, or splits listings: whoever wrote its name into a record of the store last, for a moment. Two who both believe it, with clocks that
 * differ, do no harm; they would only do the same work twice (`core/partition-move.ts`). The record keeps the versions of the rings that were followed: a proxy with older
 * ones would move everything back.
 */
export class MoverLease {
  readonly #accounts: Pick<Accounts, "get" | "post">;
  readonly #clock: Clock;
  readonly #account: string;
  readonly #self = randomBytes(8).toString("hex");
  #renewAtMs = 0;
  #written = "";

  /** @param account whose record is the lease */
  constructor(accounts: Pick<Accounts, "get" | "post">, clock: Clock, account: string = MOVER_LEASE) {
    this.#accounts = accounts;
    this.#clock = clock;
    this.#account = account;
  }

  /**
   * Takes or renews it. Errors: "quorum-unavailable", "device-full", "outcome-unknown".
   * @param versions of the rings that this proxy follows, by their names
   */
  async take(versions: Readonly<Record<string, number>>): Promise<LeaseAnswer> {
    const nowMs = this.#clock.nowMs();
    const text = JSON.stringify(versions);
    if (nowMs < this.#renewAtMs && text === this.#written) return { kind: "taken" };
    this.#renewAtMs = 0;
    let answer = this.#judge((await this.#accounts.get(this.#account)).headers, versions, nowMs);
    if (answer.kind !== "taken") return answer;
    await this.#accounts.post(this.#account, (headers) => {
      answer = this.#judge(headers, versions, nowMs);
      if (answer.kind !== "taken") return { ...headers };
      const followed = Object.entries(versions).map(([ring, version]) => [versionKey(ring), String(version)]);
      return { [HOLDER]: this.#self, [UNTIL]: String(nowMs + LEASE_MS), ...Object.fromEntries(followed) };
    });
    if (answer.kind === "taken") {
      this.#renewAtMs = nowMs + LEASE_MS / 3;
      this.#written = text;
    }
    return answer;
  }

  /** Lets the next one have it at once. Errors: as above. */
  async give(): Promise<void> {
    if (this.#renewAtMs === 0) return;
    this.#renewAtMs = 0;
    await this.#accounts.post(this.#account, ({ holder, until, ...others }) =>
      holder === this.#self || holder === undefined || until === undefined ? others : { holder, until, ...others },
    );
  }

  #judge(headers: Headers, versions: Readonly<Record<string, number>>, nowMs: number): LeaseAnswer {
    for (const [ring, version] of Object.entries(versions)) {
      const followed = Number(headers[versionKey(ring)] ?? 0);
      if (followed > version) return { kind: "outdated", ring, version: followed };
    }
    const isFree = headers[HOLDER] === this.#self || Number(headers[UNTIL] ?? 0) < nowMs;
    return { kind: isFree ? "taken" : "held" };
  }
}
