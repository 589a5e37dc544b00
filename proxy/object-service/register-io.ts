import type { Ballot, Incarnation } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { Confirm } from "../../storage-node/client.ts";
import type { AcceptReply, Name, PrepareReply, Proposal, Register, Row } from "../../storage-node/wire.ts";
import { judgeRead, type ReplicaRead } from "../core/register-read.ts";
import {
  RegisterWrite,
  type WriteEffect,
  type WriteMode,
  type WriteOutcome,
  type WriteRecord,
} from "../core/register-write.ts";
import { type RowOutcome, RowQuorum } from "../core/row-write.ts";
import type { Ballots } from "./ballots.ts";
import type { Replica, ReplicaSet } from "./replicas.ts";

/** One message's time; a replica that needs longer is suspected. */
export const MESSAGE_TIMEOUT_MS = 2000;
/** A read asks the next replica when one has not answered for so long. */
const HEDGE_MS = 150;
/** CONFIRMs wait for company this long. */
const CONFIRM_DELAY_MS = 5;
const CONFIRM_BATCH = 256;

/** The body that goes with an ACCEPT: bytes for the log, or for each replica the number of its staged file. */
export type WriteBody =
  | { readonly kind: "none" }
  | { readonly kind: "bytes"; readonly bytes: Uint8Array }
  | { readonly kind: "staged"; readonly ids: readonly (number | undefined)[] };

export type WriteResult = { readonly outcome: WriteOutcome; readonly liveRows: readonly Row[] };

export type ReadResult = {
  readonly register: Register | undefined;
  /** The whole body, where it is small and came with the answer. */
  readonly body: Buffer | undefined;
  /** Replicas known to hold exactly this version, best first. */
  readonly holders: readonly Replica[];
  readonly isSettled: boolean;
};

const unavailable = (name: Name): RingsteadError =>
  new RingsteadError("quorum-unavailable", "too few replicas answer", { path: name.path });

/** Drives the pure protocol of `core/` over the storage nodes' clients. */
export class RegisterIo {
  readonly #ballots: Ballots;
  readonly #confirms = new Map<Replica, Confirm[]>();
  #confirmTimer: NodeJS.Timeout | undefined;
  #turn = 0;

  constructor(ballots: Ballots) {
    this.#ballots = ballots;
  }

  /** Runs one write to its outcome. `onLiveRows` of a conditional container write hears the rows in the promises before `decide` is asked. */
  write(
    set: ReplicaSet,
    mode: WriteMode,
    body: WriteBody,
    incarnation: () => Incarnation,
    onLiveRow?: (row: Row, register: Register | undefined) => void,
  ): Promise<WriteResult> {
    const machine = new RegisterWrite(set.replicas.length, mode, () => this.#ballots.next(incarnation()));
    // A condition is judged on confirmed versions only: what this proxy knows to be confirmed is told first, on the same connections.
    if (mode.kind === "conditional") this.#sendConfirms();
    return new Promise((resolve) => {
      let liveRows: Row[] = [];
      const perform = (effect: WriteEffect | undefined): void => {
        if (effect === undefined) return;
        switch (effect.kind) {
          case "done":
            resolve({ outcome: effect.outcome, liveRows });
            return;
          case "wait":
            setTimeout(() => perform(machine.onTimer(effect.round)), Math.random() * effect.atMostMs);
            return;
          case "prepare":
            for (const replica of set.replicas) {
              replica.client.prepare(set.name, effect.ballot, effect.own, MESSAGE_TIMEOUT_MS, (error, reply) => {
                this.#note(replica, error);
                this.#hearPrepare(reply);
                if (reply?.kind === "promised" && reply.liveRow !== undefined)
                  onLiveRow?.(reply.liveRow, reply.register);
                perform(machine.onPrepare(effect.round, reply));
              });
            }
            return;
          case "accept": {
            liveRows = [];
            const proposal = proposalOf(effect.version, effect.record, body);
            for (const [index, replica] of set.replicas.entries()) {
              const sent = bodyFor(body, proposal, index);
              if (sent === undefined) {
                queueMicrotask(() => perform(machine.onAccept(effect.round, undefined)));
                continue;
              }
              replica.client.accept(
                set.name,
                effect.version,
                effect.ballot,
                proposal,
                sent,
                effect.own,
                MESSAGE_TIMEOUT_MS,
                (error, reply) => {
                  this.#note(replica, error);
                  this.#hearAccept(reply);
                  if (reply?.kind === "accepted" && reply.liveRow !== undefined) liveRows.push(reply.liveRow);
                  perform(machine.onAccept(effect.round, reply));
                },
              );
            }
            return;
          }
        }
      };
      perform(machine.start());
    });
  }

  /**
   * Reads at a quorum, hedged: the first replica sends a body up to `bodyLimit`, the others their registers.
   * Errors: "quorum-unavailable".
   */
  read(set: ReplicaSet, bodyLimit: number): Promise<ReadResult> {
    const order = this.#order(set.replicas);
    const writeQuorum = Math.floor(order.length / 2) + 1;
    const readQuorum = order.length - writeQuorum + 1;
    return new Promise((resolve, reject) => {
      const answers: ReplicaRead[] = [];
      const bodies = new Map<number, Buffer>();
      let asked = 0;
      let failed = 0;
      let isDone = false;
      const ask = (): void => {
        const index = asked++;
        const replica = order[index];
        if (replica === undefined) return;
        replica.client.read(set.name, index === 0 ? bodyLimit : 0, MESSAGE_TIMEOUT_MS, (error, reply) => {
          this.#note(replica, error);
          if (isDone) return;
          if (reply === undefined) {
            failed += 1;
            if (order.length - failed < readQuorum) finish(() => reject(unavailable(set.name)));
            else ask();
            return;
          }
          if (reply.register !== undefined) this.#ballots.heard(reply.register.ballot);
          if (reply.body !== undefined) bodies.set(index, reply.body);
          answers.push({ replica: index, register: reply.register });
          const verdict = judgeRead(order.length, answers);
          if (verdict.kind === "more") return;
          if (verdict.kind === "unfinished" && answers.length + failed < order.length) {
            // One more answer often settles what a crash left behind without writing anything.
            if (asked <= answers.length + failed) ask();
            return;
          }
          const holders: Replica[] = [];
          let body: Buffer | undefined;
          for (const holder of verdict.holders) {
            const held = order[holder];
            if (held !== undefined) holders.push(held);
            body ??= bodies.get(holder);
          }
          finish(() => resolve({ register: verdict.register, body, holders, isSettled: verdict.kind === "settled" }));
        });
      };
      const hedge = setTimeout(() => {
        while (!isDone && asked < order.length) ask();
      }, HEDGE_MS);
      const finish = (settle: () => void): void => {
        isDone = true;
        clearTimeout(hedge);
        settle();
      };
      for (let count = 0; count < readQuorum; count++) ask();
    });
  }

  /** Writes one row at a quorum of its space ([B1]). */
  row(set: ReplicaSet, incarnation: Incarnation, row: Row): Promise<RowOutcome> {
    const quorum = new RowQuorum(set.replicas.length);
    return new Promise((resolve) => {
      for (const replica of set.replicas) {
        replica.client.row(set.name, incarnation, row, MESSAGE_TIMEOUT_MS, (error, reply) => {
          this.#note(replica, error);
          const outcome = quorum.onReply(reply);
          if (outcome !== undefined) resolve(outcome);
        });
      }
    });
  }

  /** [A5]: tells all replicas; carried together with others a few milliseconds later. */
  confirm(set: ReplicaSet, version: Ballot, isVoid = false): void {
    for (const replica of set.replicas) {
      let waiting = this.#confirms.get(replica);
      if (waiting === undefined) {
        waiting = [];
        this.#confirms.set(replica, waiting);
      }
      waiting.push({ name: set.name, version, isVoid });
      if (waiting.length >= CONFIRM_BATCH) this.#sendConfirms();
    }
    this.#confirmTimer ??= setTimeout(() => this.#sendConfirms(), CONFIRM_DELAY_MS);
  }

  /** Replicas in the order to ask them: healthy ones first, turn by turn. */
  #order(replicas: readonly Replica[]): Replica[] {
    const turn = this.#turn++ % replicas.length;
    const rotated = [...replicas.slice(turn), ...replicas.slice(0, turn)];
    return rotated.some((replica) => replica.isSuspect)
      ? [...rotated.filter((replica) => !replica.isSuspect), ...rotated.filter((replica) => replica.isSuspect)]
      : rotated;
  }

  /** Replicas for a listing, best first. */
  ordered(set: ReplicaSet): Replica[] {
    return this.#order(set.replicas);
  }

  #sendConfirms(): void {
    clearTimeout(this.#confirmTimer);
    this.#confirmTimer = undefined;
    for (const [replica, confirms] of this.#confirms) replica.client.confirm(confirms, MESSAGE_TIMEOUT_MS);
    this.#confirms.clear();
  }

  #note(replica: Replica, error: RingsteadError | undefined): void {
    if (error === undefined) replica.answered();
    else if (error.code === "rpc-timeout") replica.failed(true);
    else if (error.code === "rpc-unreachable" || error.code === "device-failed") replica.failed(false);
  }

  #hearAccept(reply: AcceptReply | undefined): void {
    if (reply?.kind === "refused") this.#ballots.heard(reply.seen, reply.floor);
  }

  #hearPrepare(reply: PrepareReply | undefined): void {
    if (reply?.kind === "refused") this.#ballots.heard(reply.seen, reply.floor);
    else if (reply?.kind === "promised" && reply.register !== undefined) this.#ballots.heard(reply.register.ballot);
  }
}

const proposalOf = (version: Ballot, record: WriteRecord, body: WriteBody): Proposal => ({
  bodyVersion: record.bodyVersion ?? version,
  isTombstone: record.isTombstone,
  bodyLength: record.bodyLength,
  metadata: record.metadata,
  body:
    record.body === "given"
      ? body.kind === "bytes"
        ? "inline"
        : body.kind === "staged"
          ? "staged"
          : "none"
      : record.body,
});

/** What one replica is sent; undefined where its staged copy failed, so that it cannot accept. */
const bodyFor = (
  body: WriteBody,
  proposal: Proposal,
  index: number,
): { bytes?: Uint8Array; stagedId?: number } | undefined => {
  if (proposal.body === "inline" && body.kind === "bytes") return { bytes: body.bytes };
  if (proposal.body !== "staged" || body.kind !== "staged") return {};
  const stagedId = body.ids[index];
  return stagedId === undefined ? undefined : { stagedId };
};
