import type { Incarnation } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { ListQuery, ListReply, Row, RowSummary } from "../../storage-node/wire.ts";
import { mergeRows } from "../core/merge-rows.ts";
import { MESSAGE_TIMEOUT_MS, type RegisterIo } from "./register-io.ts";
import type { Replica, ReplicaSet } from "./replicas.ts";

type RowsReply = Extract<ListReply, { kind: "rows" }>;
export type PageQuery = Omit<ListQuery, "withDeleted">;

const SUMMARY_ONLY: PageQuery = { marker: "", endMarker: "", prefix: "", isReverse: false, limit: 0 };
/** Rows per page while replicas that differ are counted name by name. */
const RECONCILE_PAGE = 5000;

/** Reads row spaces at a quorum ([B2]). */
export class RowReader {
  readonly #io: RegisterIo;

  constructor(io: RegisterIo) {
    this.#io = io;
  }

  /** One page of live rows in name order. Errors: "quorum-unavailable", "container-moved". */
  async page(set: ReplicaSet, incarnation: Incarnation, query: PageQuery): Promise<Row[]> {
    const replies = await this.#ask(set, incarnation, query, false);
    if (areEqual(replies)) return [...(replies[0]?.rows ?? [])];
    const full = await this.#ask(set, incarnation, query, true);
    return mergeRows(
      full.map((reply) => reply.rows),
      query.limit,
      query.isReverse,
    ).live;
  }

  /** Count and bytes of all live rows; exact also while replicas differ. Errors: as `page`. */
  async summary(set: ReplicaSet, incarnation: Incarnation): Promise<RowSummary> {
    const replies = await this.#ask(set, incarnation, SUMMARY_ONLY, false);
    const first = replies[0];
    if (first !== undefined && areEqual(replies)) return first.summary;
    let marker = "";
    const total = { rows: 0, objects: 0, bytes: 0, setHash: "" };
    for (;;) {
      const query = { ...SUMMARY_ONLY, marker, limit: RECONCILE_PAGE };
      const pages = await this.#ask(set, incarnation, query, true);
      const merged = mergeRows(
        pages.map((reply) => reply.rows),
        RECONCILE_PAGE,
        false,
      );
      for (const row of merged.live) {
        total.rows += 1;
        total.objects += row.objects;
        total.bytes += row.bytes;
      }
      if (merged.next === undefined) return total;
      marker = merged.next;
    }
  }

  /** R answers, the first with rows; with `withDeleted` all R with rows, deleted ones too. */
  #ask(set: ReplicaSet, incarnation: Incarnation, query: PageQuery, withDeleted: boolean): Promise<RowsReply[]> {
    const order = this.#io.ordered(set);
    const writeQuorum = Math.floor(order.length / 2) + 1;
    const readQuorum = order.length - writeQuorum + 1;
    return new Promise((resolve, reject) => {
      const replies: RowsReply[] = [];
      let asked = 0;
      let failed = 0;
      let obstacle: string | undefined;
      const ask = (wantsRows: boolean): void => {
        const replica: Replica | undefined = order[asked++];
        if (replica === undefined) return;
        const sent: ListQuery = { ...query, limit: wantsRows ? query.limit : 0, withDeleted };
        replica.client.list(set.name, incarnation, sent, MESSAGE_TIMEOUT_MS, (error, reply) => {
          if (error === undefined) replica.answered();
          else replica.failed(error.code === "rpc-timeout");
          if (reply?.kind === "rows") {
            if (wantsRows) replies.unshift(reply);
            else replies.push(reply);
            if (replies.length === readQuorum) resolve(replies);
            return;
          }
          failed += 1;
          if (reply !== undefined) obstacle = reply.kind;
          if (order.length - failed < readQuorum) {
            reject(
              obstacle === "moved"
                ? new RingsteadError("container-moved", "the container was deleted meanwhile")
                : new RingsteadError("quorum-unavailable", "too few replicas of the listing answer", {
                    path: set.name.path,
                  }),
            );
          } else {
            ask(wantsRows);
          }
        });
      };
      for (let count = 0; count < readQuorum; count++) ask(withDeleted || count === 0);
    });
  }
}

const areEqual = (replies: readonly RowsReply[]): boolean => {
  const first = replies[0]?.summary;
  return replies.every(({ summary }) => summary.setHash === first?.setHash && summary.rows === first.rows);
};
