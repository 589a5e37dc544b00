import { NO_INCARNATION, timestampIn } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import { decodeContainerRecord, encodeContainerRecord, type Row, type RowSummary } from "../../storage-node/wire.ts";
import type { RegisterIo } from "./register-io.ts";
import type { Replicas } from "./replicas.ts";
import type { PageQuery, RowReader } from "./row-reader.ts";

const RETRY_LIMIT = 10;

export type Account = {
  readonly headers: Readonly<Record<string, string>>;
  readonly changed: HybridTimestamp | undefined;
};

/** Accounts exist as soon as somebody may use them; their record holds headers only. */
export class Accounts {
  readonly #replicas: Replicas;
  readonly #io: RegisterIo;
  readonly #rows: RowReader;

  constructor(replicas: Replicas, io: RegisterIo, rows: RowReader) {
    this.#replicas = replicas;
    this.#io = io;
    this.#rows = rows;
  }

  async get(account: string): Promise<Account> {
    const read = await this.#io.read(this.#replicas.account(account), 0);
    if (read.register === undefined) return { headers: {}, changed: undefined };
    return {
      headers: decodeContainerRecord(read.register.metadata).headers,
      changed: timestampIn(read.register.version),
    };
  }

  /** Changes the account's headers. Errors: "outcome-unknown". */
  async post(
    account: string,
    change: (headers: Readonly<Record<string, string>>) => Record<string, string>,
  ): Promise<void> {
    const set = this.#replicas.account(account);
    for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
      const { outcome } = await this.#io.write(
        set,
        {
          kind: "conditional",
          decide: (base) => {
            const headers = change(base === undefined ? {} : decodeContainerRecord(base.metadata).headers);
            const metadata = encodeContainerRecord({ status: "open", incarnation: NO_INCARNATION, headers });
            return { isTombstone: false, bodyLength: 0, metadata, body: "none", bodyVersion: undefined };
          },
        },
        { kind: "none" },
        () => NO_INCARNATION,
      );
      if (outcome.kind === "established") {
        this.#io.confirm(set, outcome.version);
        return;
      }
      // An account has no row of its own anywhere, so what is left unfinished is finished by accepting it again.
      if (outcome.kind === "unfinished") {
        const { version, ballot, metadata, bodyVersion } = outcome.base;
        const record = { isTombstone: false, bodyLength: 0, metadata, body: "none", bodyVersion } as const;
        const finished = await this.#io.write(
          set,
          { kind: "finish", version, ballot, record },
          { kind: "none" },
          () => NO_INCARNATION,
        );
        if (finished.outcome.kind === "established") this.#io.confirm(set, version);
      }
    }
    throw new RingsteadError("outcome-unknown", "the write may or may not take effect", { account });
  }

  page(account: string, query: PageQuery): Promise<Row[]> {
    return this.#rows.page(this.#replicas.account(account), NO_INCARNATION, query);
  }

  summary(account: string): Promise<RowSummary> {
    return this.#rows.summary(this.#replicas.account(account), NO_INCARNATION);
  }
}
