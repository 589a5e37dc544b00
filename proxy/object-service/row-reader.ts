import type { Incarnation } from "../../common/ballot.ts";
import type { ListQuery, ListReply, Row } from "../../storage-node/wire.ts";
import type { PageQuery as ListedPage } from "../core/list-rows.ts";
import { type ListAnswer, obstacleWith } from "../core/script.ts";
import { listAvailable } from "./available-read.ts";
import { meets, MESSAGE_TIMEOUT_MS, type Phase } from "./messages.ts";
import { PassingWait } from "./passing-wait.ts";
import type { Members, ReplicaSet } from "./partition.ts";
import type { RegisterIo } from "./register-io.ts";
import { groupByNode, type Replica } from "./replicas.ts";

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
    const settled = new Promise<ListAnswer>((resolve) => {
      new QuorumList(this.#io, set, incarnation, query, fromAll, resolve).start();
    });
    if (set.handOffs === undefined) return settled;
    // [H5]
    return settled.then((answer) => (answer.kind === "unavailable" ? listAvailable(set, incarnation, query) : answer));
  }

  /** Gives one replica a row that it lacks; of a partition that has other members by now, any of them. Nobody waits for it. */
  repair(set: ReplicaSet, incarnation: Incarnation, index: number, row: Row): void {
    const { epoch, replicas } = set.partition.members;
    const replica = replicas[index];
    if (replica === undefined || this.#repairing >= REPAIR_LIMIT) return;
    const over = (): void => {
      this.#repairing -= 1;
    };
    for (const { client } of groupByNode([replica])) {
      this.#repairing += 1;
      client.row(set.name, incarnation, row, MESSAGE_TIMEOUT_MS, over, epoch);
    }
  }
}

type Obstacle = Exclude<ListAnswer, { readonly kind: "rows" }>["kind"];

/** One LIST at a quorum, asked anew where the partition has other members by now, or has in a moment. */
class QuorumList {
  readonly #io: RegisterIo;
  readonly #set: ReplicaSet;
  readonly #incarnation: Incarnation;
  readonly #query: ListQuery;
  readonly #fromAll: boolean;
  readonly #resolve: (answer: ListAnswer) => void;
  #members: Members;
  #order: readonly Replica[] = [];
  #pages: Extract<ListAnswer, { kind: "rows" }>["pages"][number][] = [];
  #asked = 0;
  #failed = 0;
  #obstacle: Obstacle = "unavailable";
  #isPassing = false;
  /** Of the members that are asked; answers of earlier ones are dropped, and those after the end. */
  #turn = 0;
  #wait: PassingWait | undefined;

  constructor(
    io: RegisterIo,
    set: ReplicaSet,
    incarnation: Incarnation,
    query: ListQuery,
    fromAll: boolean,
    resolve: (answer: ListAnswer) => void,
  ) {
    this.#io = io;
    this.#set = set;
    this.#incarnation = incarnation;
    this.#query = query;
    this.#fromAll = fromAll;
    this.#resolve = resolve;
    this.#members = set.partition.members;
  }

  start(): void {
    this.#order = this.#io.ordered(this.#set, this.#members);
    const { readCount } = this.#members.quorum;
    for (let count = 0; count < readCount; count++) this.#askNext(this.#fromAll || count === 0);
  }

  #askNext(wantsRows: boolean): void {
    const replica = this.#order[this.#asked++];
    if (replica !== undefined) this.#ask(replica, wantsRows, 1);
  }

  #ask(replica: Replica, wantsRows: boolean, attempt: number): void {
    const turn = this.#turn;
    const sent: ListQuery = wantsRows ? this.#query : { ...this.#query, limit: 0 };
    replica.client.list(
      this.#set.name,
      this.#incarnation,
      sent,
      MESSAGE_TIMEOUT_MS,
      (error, reply) => {
        replica.heard(error);
        if (turn !== this.#turn) return;
        if (error !== undefined) {
          if (meets(this.#phase(replica, wantsRows), error, replica, attempt)) return;
          if (replica.mayReturn) this.#isPassing = true;
        }
        if (reply?.kind !== "rows") return this.#miss(reply?.kind, wantsRows);
        const { voters, quorum } = this.#members;
        const { mark, rows, summary } = reply;
        const page = { replica: voters.indexOf(replica), summary, rows, ...(mark === undefined ? {} : { mark }) };
        if (wantsRows) this.#pages.unshift(page);
        else this.#pages.push(page);
        if (this.#pages.length === quorum.readCount) this.#end({ kind: "rows", pages: this.#pages });
      },
      this.#members.epoch,
    );
  }

  #miss(kind: ListReply["kind"] | undefined, wantsRows: boolean): void {
    this.#failed += 1;
    this.#obstacle = obstacleWith(this.#obstacle, kind);
    if (this.#order.length - this.#failed >= this.#members.quorum.readCount) return this.#askNext(wantsRows);
    // Where others stand in for members nobody waits for these.
    if (this.#isPassing && this.#obstacle === "unavailable" && this.#set.handOffs === undefined) {
      this.#turn += 1;
      this.#wait ??= new PassingWait();
      if (this.#wait.after(() => this.#again())) return;
    }
    this.#end({ kind: this.#obstacle });
  }

  #phase(replica: Replica, wantsRows: boolean): Phase {
    const { partition } = this.#set;
    const turn = this.#turn;
    return {
      partition,
      asked: this.#members,
      follow: () => {
        const isOver = turn !== this.#turn;
        if (isOver || partition.members === this.#members) return isOver;
        this.#again();
        return true;
      },
      again: (_, attempt) => this.#ask(replica, wantsRows, attempt),
      changing: () => {
        this.#isPassing = true;
      },
    };
  }

  /** Asks those who are members now. */
  #again(): void {
    this.#turn += 1;
    this.#members = this.#set.partition.members;
    this.#pages = [];
    this.#asked = 0;
    this.#failed = 0;
    this.#obstacle = "unavailable";
    this.#isPassing = false;
    this.start();
  }

  #end(answer: ListAnswer): void {
    this.#turn += 1;
    this.#resolve(answer);
  }
}
