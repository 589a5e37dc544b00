import { NO_INCARNATION, timestampIn } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import type { Register, Row, RowSummary } from "../../storage-node/wire.ts";
import { finishAccount, postAccount, readAccount } from "../core/account-script.ts";
import { countRows, listRows } from "../core/list-rows.ts";
import { noSpace } from "./no-space.ts";
import type { Partitions } from "./partitions.ts";
import type { PageQuery } from "./row-reader.ts";
import type { ScriptRunner } from "./script-runner.ts";

export type Account = {
  readonly headers: Readonly<Record<string, string>>;
  readonly changed: HybridTimestamp | undefined;
};

const unavailable = (account: string): RingsteadError =>
  new RingsteadError("quorum-unavailable", "too few replicas of the account answer", { account });

/** Accounts exist as soon as somebody may use them; their record holds headers only. */
export class Accounts {
  readonly #partitions: Partitions;
  readonly #runner: ScriptRunner;

  constructor(partitions: Partitions, runner: ScriptRunner) {
    this.#partitions = partitions;
    this.#runner = runner;
  }

  /** Errors: "quorum-unavailable". */
  async get(account: string): Promise<Account> {
    const found = await this.#runner.run(readAccount(this.#partitions.account(account)));
    if (found === "unavailable") throw unavailable(account);
    return {
      headers: found.headers,
      changed: found.version === undefined ? undefined : timestampIn(found.version),
    };
  }

  /** Changes the account's headers. Errors: "device-full", "outcome-unknown". */
  async post(
    account: string,
    change: (headers: Readonly<Record<string, string>>) => Record<string, string>,
  ): Promise<void> {
    const result = await this.#runner.run(postAccount(this.#partitions.account(account), change));
    if (result === "done") return;
    if (result === "no-space") throw noSpace(account);
    throw new RingsteadError("outcome-unknown", "the write may or may not take effect", { account });
  }

  /** [B7]: finishes what a replica reports as left behind. Errors: "quorum-unavailable". */
  async settle(account: string, register: Register): Promise<void> {
    if (!(await this.#runner.run(finishAccount(this.#partitions.account(account), register))))
      throw unavailable(account);
  }

  /** Errors: "quorum-unavailable". */
  async page(account: string, query: PageQuery): Promise<Row[]> {
    const rows = await this.#runner.run(listRows(this.#partitions.account(account), NO_INCARNATION, query));
    if (typeof rows === "string") throw unavailable(account);
    return rows;
  }

  /** Errors: "quorum-unavailable". */
  async summary(account: string): Promise<RowSummary> {
    const summary = await this.#runner.run(countRows(this.#partitions.account(account), NO_INCARNATION));
    if (typeof summary === "string") throw unavailable(account);
    return summary;
  }
}
