import type { Ballot, Incarnation } from "../../common/ballot.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import type { Confirm } from "../../storage-node/client.ts";
import type { AcceptReply, PrepareReply, Row } from "../../storage-node/wire.ts";
import type { WriteMode, WriteOutcome } from "../core/register-write.ts";
import type { RowOutcome } from "../core/row-write.ts";
import { AvailableRowSend } from "./available-row-send.ts";
import { AvailableSend } from "./available-send.ts";
import type { Ballots } from "./ballots.ts";
import { MESSAGE_TIMEOUT_MS } from "./messages.ts";
import type { Members, ReplicaSet } from "./partition.ts";
import { Hedges, QuorumRead, type ReadContext, type ReadResult } from "./quorum-read.ts";
import { RegisterSend, type WriteBody } from "./register-send.ts";
import { healthyFirst, type ReadOrder, readOrderOf, type Replica, type ReplicaGroup } from "./replicas.ts";
import { copiedRows, oneRow, RowSend } from "./row-send.ts";

/** CONFIRMs wait for company this long. */
const CONFIRM_DELAY_MS = 5;
const CONFIRM_BATCH = 256;

/** Drives the pure protocol of `core/` over the storage nodes' clients. */
export class RegisterIo {
  readonly #ballots: Ballots;
  readonly #reads: ReadContext;
  readonly #confirms = new Map<ReplicaGroup, Confirm[]>();
  #confirmTimer: NodeJS.Timeout | undefined;
  #turn = 0;

  constructor(ballots: Ballots) {
    this.#ballots = ballots;
    this.#reads = {
      ballots,
      hedges: new Hedges(),
      timeoutMs: MESSAGE_TIMEOUT_MS,
      orderOf: (set, members) => this.#order(set, members),
    };
  }

  /** Runs one write to its outcome; `incarnation` is the first part of its ballots. */
  write(set: ReplicaSet, mode: WriteMode, given: WriteBody, incarnation: Incarnation): Promise<WriteOutcome> {
    // A condition is judged on confirmed versions only: what this proxy knows to be confirmed is told first, on the same connections.
    if (mode.kind === "conditional") this.#sendConfirms();
    if (set.handOffs !== undefined && mode.kind === "plain") {
      const { record } = mode;
      return new Promise((resolve) => new AvailableSend(this, set, record, given, incarnation, resolve).start());
    }
    return new Promise((resolve) => {
      new RegisterSend(this, set, mode, given, incarnation, resolve).start();
    });
  }

  /** Reads at a quorum, hedged: the first replica sends a body up to `bodyLimit`. Errors: "quorum-unavailable". */
  read(set: ReplicaSet, bodyLimit: number): Promise<ReadResult> {
    return new Promise((resolve, reject) => {
      new QuorumRead(this.#reads, set, bodyLimit, resolve, reject).start();
    });
  }

  /** Writes one row at a quorum of its space ([B1]). */
  row(set: ReplicaSet, incarnation: Incarnation, row: Row, isPlaced = false): Promise<RowOutcome> {
    if (set.handOffs !== undefined)
      return new Promise((resolve) => new AvailableRowSend(set, incarnation, row, isPlaced, resolve).start());
    return new Promise((resolve) => {
      new RowSend(set, oneRow(incarnation, row, isPlaced), resolve).start();
    });
  }

  /** Writes copies of rows at a quorum of the listing that is being filled with them. */
  rows(set: ReplicaSet, incarnation: Incarnation, rows: readonly Row[], mark: HybridTimestamp): Promise<RowOutcome> {
    return new Promise((resolve) => {
      const { partitionPower } = set.partition.place;
      new RowSend(set, copiedRows(incarnation, rows, mark, partitionPower), resolve).start();
    });
  }

  /** [A5]: tells all replicas; carried together with others a few milliseconds later. */
  confirm(set: ReplicaSet, version: Ballot, isVoid = false): void {
    for (const group of set.partition.members.groups) {
      let waiting = this.#confirms.get(group);
      if (waiting === undefined) {
        waiting = [];
        this.#confirms.set(group, waiting);
      }
      waiting.push({ name: set.name, version, isVoid });
      if (waiting.length >= CONFIRM_BATCH) this.#sendConfirms();
    }
    this.#confirmTimer ??= setTimeout(() => this.#sendConfirms(), CONFIRM_DELAY_MS);
  }

  /** Replicas in the order to ask them: healthy ones first, turn by turn. */
  #order({ name }: ReplicaSet, { orders, voters }: Members): ReadOrder {
    const turn = this.#turn++;
    const order = orders[turn % orders.length] ?? readOrderOf(voters);
    const { replicas } = order;
    for (const { isSuspect } of replicas) {
      if (!isSuspect) continue;
      return readOrderOf(healthyFirst(name, replicas));
    }
    return order;
  }

  /** Replicas for a listing, healthy ones first, else always in the same order: the first one keeps pages of what was listed before. */
  ordered({ name }: ReplicaSet, { voters }: Members): readonly Replica[] {
    return healthyFirst(name, voters);
  }

  newBallot(incarnation: Incarnation): Ballot {
    return this.#ballots.next(incarnation);
  }

  #sendConfirms(): void {
    clearTimeout(this.#confirmTimer);
    this.#confirmTimer = undefined;
    for (const [{ client }, confirms] of this.#confirms) client.confirm(confirms, MESSAGE_TIMEOUT_MS);
    this.#confirms.clear();
  }

  /** New ballots are above it. */
  hear(ballot: Ballot): void {
    this.#ballots.heard(ballot);
  }

  hearAccept(reply: AcceptReply | undefined): void {
    if (reply?.kind === "refused") this.#ballots.heard(reply.seen, reply.floor);
  }

  hearPrepare(reply: PrepareReply | undefined): void {
    if (reply?.kind === "refused") this.#ballots.heard(reply.seen, reply.floor);
    else if (reply?.kind === "promised" && reply.register !== undefined) this.#ballots.heard(reply.register.ballot);
  }
}
