import type { Incarnation } from "../../common/ballot.ts";
import type { ListQuery, Row } from "../../storage-node/wire.ts";
import type { PageQuery as ListedPage } from "../core/list-rows.ts";
import type { ListAnswer } from "../core/script.ts";
import { MESSAGE_TIMEOUT_MS, type RegisterIo } from "./register-io.ts";
import { groupByNode, readQuorumOf, type ReplicaSet } from "./replicas.ts";

export type PageQuery = ListedPage;

/** Rows on their way back to replicas that lack them; what is beyond this is left to the next listing. */
const REPAIR_LIMIT = 256;

/** Asks row spaces at a quorum, and gives replicas what they lack ([B2]); `core/list-rows.ts` says what is asked and merged. */
export class RowReader {
  readonly #io: RegisterIo;
  #repairing = 0;

  constructor(io: RegisterIo) {
    this.#io = io;
  }

  /** R answers, the first with rows; with `fromAll` all R with rows. */
  ask(set: ReplicaSet, incarnation: Incarnation, query: ListQuery, fromAll: boolean): Promise<ListAnswer> {
    const order = this.#io.ordered(set);
    const readQuorum = readQuorumOf(order.length);
    return new Promise((resolve) => {
      const pages: Extract<ListAnswer, { kind: "rows" }>["pages"][number][] = [];
      let asked = 0;
      let failed = 0;
      let obstacle: "moved" | "behind" | "unavailable" = "unavailable";
      const ask = (wantsRows: boolean): void => {
        const replica = order[asked++];
        if (replica === undefined) return;
        const sent: ListQuery = wantsRows ? query : { ...query, limit: 0 };
        replica.client.list(set.name, incarnation, sent, MESSAGE_TIMEOUT_MS, (error, reply) => {
          replica.heard(error);
          if (reply?.kind === "rows") {
            const page = { replica: set.replicas.indexOf(replica), summary: reply.summary, rows: reply.rows };
            if (wantsRows) pages.unshift(page);
            else pages.push(page);
            if (pages.length === readQuorum) resolve({ kind: "rows", pages });
            return;
          }
          failed += 1;
          if (reply?.kind === "moved") obstacle = "moved";
          else if (reply?.kind === "behind" && obstacle !== "moved") obstacle = "behind";
          if (order.length - failed < readQuorum) resolve({ kind: obstacle });
          else ask(wantsRows);
        });
      };
      for (let count = 0; count < readQuorum; count++) ask(fromAll || count === 0);
    });
  }

  /** Gives one replica a row that it lacks. Nobody waits for it. */
  repair(set: ReplicaSet, incarnation: Incarnation, index: number, row: Row): void {
    const replica = set.replicas[index];
    if (replica === undefined || this.#repairing >= REPAIR_LIMIT) return;
    for (const { client } of groupByNode([replica])) {
      this.#repairing += 1;
      client.row(set.name, incarnation, row, MESSAGE_TIMEOUT_MS, () => {
        this.#repairing -= 1;
      });
    }
  }
}
