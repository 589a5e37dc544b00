import type { Ballot, Incarnation } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { Confirm } from "../../storage-node/client.ts";
import type { AcceptReply, PrepareReply, Proposal, Row } from "../../storage-node/wire.ts";
import {
  type NoSpace,
  RegisterWrite,
  type WriteEffect,
  type WriteMode,
  type WriteOutcome,
  type WriteRecord,
} from "../core/register-write.ts";
import { type RowEffect, type RowOutcome, RowWrite } from "../core/row-write.ts";
import type { Ballots } from "./ballots.ts";
import { type BodyMemory, hasArrived } from "./body-memory.ts";
import { supplyBody } from "./body-stream.ts";
import { Hedges, QuorumRead, type ReadContext, type ReadResult } from "./quorum-read.ts";
import {
  groupByNode,
  healthyFirst,
  type ReadOrder,
  readOrderOf,
  type Replica,
  type ReplicaGroup,
  type ReplicaSet,
} from "./replicas.ts";

/** One message's time; a replica that needs longer is suspected. */
export const MESSAGE_TIMEOUT_MS = 2000;
/** CONFIRMs wait for company this long. */
const CONFIRM_DELAY_MS = 5;
const CONFIRM_BATCH = 256;
/** What a record takes beside its body, metadata and rows included. */
const RECORD_BYTES = 16 * 1024;

/** The body that goes with an ACCEPT: bytes for the log, or for each replica the number of its staged file. */
export type WriteBody =
  | { readonly kind: "none" }
  | { readonly kind: "bytes"; readonly bytes: Uint8Array; readonly memory?: BodyMemory }
  | { readonly kind: "staged"; readonly ids: readonly (number | undefined)[] };

/** Drives the pure protocol of `core/` over the storage nodes' clients. */
export class RegisterIo {
  readonly #ballots: Ballots;
  readonly #reads: ReadContext;
  readonly #confirms = new Map<ReplicaGroup, Confirm[]>();
  #confirmTimer: NodeJS.Timeout | undefined;
  #turn = 0;

  constructor(ballots: Ballots) {
    this.#ballots = ballots;
    this.#reads = { ballots, hedges: new Hedges(), timeoutMs: MESSAGE_TIMEOUT_MS };
  }

  /** Runs one write to its outcome; `incarnation` is the first part of its ballots. */
  write(set: ReplicaSet, mode: WriteMode, given: WriteBody, incarnation: Incarnation): Promise<WriteOutcome> {
    // What is finished is somebody's earlier version: its body is with the replicas, never this one.
    const body: WriteBody = mode.kind === "finish" ? { kind: "none" } : given;
    const isCautious = set.replicas.some((replica) => replica.mayLackSpace);
    const machine = new RegisterWrite(set.quorum, mode, () => this.#ballots.next(incarnation), isCautious);
    const wantedBytes = body.kind === "bytes" ? body.bytes.length + RECORD_BYTES : 0;
    // A condition is judged on confirmed versions only: what this proxy knows to be confirmed is told first, on the same connections.
    if (mode.kind === "conditional") this.#sendConfirms();
    return new Promise((resolve) => {
      const perform = (effect: WriteEffect | undefined): void => {
        if (effect === undefined) return;
        switch (effect.kind) {
          case "done":
            resolve(effect.outcome);
            return;
          case "wait":
            setTimeout(() => perform(machine.onTimer(effect.round)), Math.random() * effect.atMostMs);
            return;
          case "prepare": {
            const groups = asked(set, set.groups, 0);
            // What was proposed already may lie somewhere: then the promises themselves are wanted, of full devices too.
            const wanted = effect.own.length === 0 ? wantedBytes : 0;
            for (const { client, members } of groups) {
              client.prepare(set.name, effect.ballot, effect.own, wanted, MESSAGE_TIMEOUT_MS, (error, reply, part) => {
                members[part]?.heard(error);
                this.#hearPrepare(reply);
                perform(machine.onPrepare(effect.round, reply ?? failureOf(error)));
              });
            }
            forUnasked(set, groups, () => perform(machine.onPrepare(effect.round, undefined)));
            return;
          }
          case "accept": {
            const proposal = proposalOf(effect.version, effect.record, body);
            const groups = asked(set, withBody(set, body, proposal), body.kind === "bytes" ? body.bytes.length : 0);
            const memory = proposal.body === "inline" ? memoryOf(body) : undefined;
            for (const { client, members } of groups) {
              let held = memory;
              held?.hold();
              client.accept(
                set.name,
                effect.version,
                effect.ballot,
                proposal,
                bodyFor(set, members, body, proposal),
                effect.own,
                MESSAGE_TIMEOUT_MS,
                (error, reply, part) => {
                  members[part]?.heard(error);
                  if (reply?.kind === "accepted" && reply.isFilling === true) members[part]?.heardOfFilling();
                  this.#hearAccept(reply);
                  if (held !== undefined && hasArrived(error)) {
                    held.letGo();
                    held = undefined;
                  }
                  perform(machine.onAccept(effect.round, reply ?? failureOf(error), indexOf(set, members[part])));
                },
              );
            }
            // Those without the body cannot accept.
            forUnasked(set, groups, (index) => perform(machine.onAccept(effect.round, undefined, index)));
            return;
          }
          case "supply":
            void this.#supply(set, effect, body).then((reply) =>
              perform(machine.onAccept(effect.round, reply, effect.replica)),
            );
            return;
        }
      };
      perform(machine.start());
    });
  }

  /** [A4]: gives one replica a record with its body: the one at hand, else one from a replica that holds it. Undefined when that fails. */
  async #supply(
    set: ReplicaSet,
    effect: Extract<WriteEffect, { kind: "supply" }>,
    body: WriteBody,
  ): Promise<AcceptReply | undefined> {
    const replica = set.replicas[effect.replica];
    const [group] = replica === undefined ? [] : groupByNode([replica]);
    if (replica === undefined || group === undefined) return undefined;
    const proposal = proposalOf(effect.version, effect.record, body);
    const memory = memoryOf(body);
    memory?.hold();
    const sent = await supplyBody(set, effect.replica, proposal, body);
    if (sent === undefined) {
      memory?.letGo();
      return undefined;
    }
    return new Promise((resolve) => {
      group.client.accept(
        set.name,
        effect.version,
        effect.ballot,
        { ...proposal, body: "bytes" in sent ? "inline" : "staged" },
        sent,
        effect.own,
        MESSAGE_TIMEOUT_MS,
        (error, reply) => {
          replica.heard(error);
          this.#hearAccept(reply);
          if (hasArrived(error)) memory?.letGo();
          resolve(reply);
        },
      );
    });
  }

  /** Reads at a quorum, hedged: the first replica sends a body up to `bodyLimit`. Errors: "quorum-unavailable". */
  read(set: ReplicaSet, bodyLimit: number): Promise<ReadResult> {
    const order = this.#order(set);
    return new Promise((resolve, reject) => {
      new QuorumRead(this.#reads, set, order, resolve, reject).start(order, bodyLimit);
    });
  }

  /** Writes one row at a quorum of its space ([B1]). */
  row(set: ReplicaSet, incarnation: Incarnation, row: Row): Promise<RowOutcome> {
    const machine = new RowWrite(set.quorum);
    return new Promise((resolve) => {
      const perform = (effect: RowEffect | undefined): void => {
        if (effect === undefined) return;
        switch (effect.kind) {
          case "done":
            resolve(effect.outcome);
            return;
          case "wait":
            setTimeout(() => perform(machine.onTimer(effect.round)), Math.random() * effect.atMostMs);
            return;
          case "row": {
            const groups = asked(set, set.groups, row.payload.length);
            for (const { client, members } of groups) {
              client.row(set.name, incarnation, row, MESSAGE_TIMEOUT_MS, (error, reply, part) => {
                members[part]?.heard(error);
                perform(machine.onReply(effect.round, reply ?? failureOf(error), indexOf(set, members[part])));
              });
            }
            forUnasked(set, groups, (index) => perform(machine.onReply(effect.round, undefined, index)));
          }
        }
      };
      perform(machine.start());
    });
  }

  /** [A5]: tells all replicas; carried together with others a few milliseconds later. */
  confirm(set: ReplicaSet, version: Ballot, isVoid = false): void {
    for (const group of set.groups) {
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
  #order(set: ReplicaSet): ReadOrder {
    const turn = this.#turn++;
    const order = set.orders[turn % set.orders.length] ?? readOrderOf(set.replicas);
    const { replicas } = order;
    for (const { isSuspect } of replicas) {
      if (!isSuspect) continue;
      return readOrderOf(healthyFirst({ name: set.name, replicas }));
    }
    return order;
  }

  /** Replicas for a listing, healthy ones first, else always in the same order: the first one keeps pages of what was listed before. */
  ordered(set: ReplicaSet): readonly Replica[] {
    return healthyFirst(set);
  }

  #sendConfirms(): void {
    clearTimeout(this.#confirmTimer);
    this.#confirmTimer = undefined;
    for (const [{ client }, confirms] of this.#confirms) client.confirm(confirms, MESSAGE_TIMEOUT_MS);
    this.#confirms.clear();
  }

  #hearAccept(reply: AcceptReply | undefined): void {
    if (reply?.kind === "refused") this.#ballots.heard(reply.seen, reply.floor);
  }

  #hearPrepare(reply: PrepareReply | undefined): void {
    if (reply?.kind === "refused") this.#ballots.heard(reply.seen, reply.floor);
    else if (reply?.kind === "promised" && reply.register !== undefined) this.#ballots.heard(reply.register.ballot);
  }
}

/** The groups without suspects for whom too much waits already. */
const asked = (set: ReplicaSet, groups: readonly ReplicaGroup[], bodyBytes: number): readonly ReplicaGroup[] => {
  let isAnySuspect = false;
  for (const { isSuspect } of set.replicas) if (isSuspect) isAnySuspect = true;
  if (!isAnySuspect) return groups;
  const members = groups.flatMap((group) => group.members);
  for (const replica of members) replica.probe(set.name);
  const taking = members.filter((replica) => replica.mayTake(bodyBytes));
  return taking.length === members.length ? groups : groupByNode(taking);
};

/** Calls `failed` for each replica that no message goes to, never before this returns. */
const forUnasked = (set: ReplicaSet, groups: readonly ReplicaGroup[], failed: (index: number) => void): void => {
  let missing = set.replicas.length;
  for (const { members } of groups) missing -= members.length;
  if (missing === 0) return;
  for (const [index, replica] of set.replicas.entries())
    if (!groups.some(({ members }) => members.includes(replica))) queueMicrotask(() => failed(index));
};

const failureOf = (error: RingsteadError | undefined): NoSpace | undefined =>
  error?.code === "device-full" || error?.code === "device-read-only" ? { kind: "no-space" } : undefined;

const memoryOf = (body: WriteBody): BodyMemory | undefined => (body.kind === "bytes" ? body.memory : undefined);

const indexOf = (set: ReplicaSet, replica: Replica | undefined): number =>
  replica === undefined ? 0 : set.replicas.indexOf(replica);

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

/** The groups without those replicas whose staged copy failed. */
const withBody = (set: ReplicaSet, body: WriteBody, proposal: Proposal): readonly ReplicaGroup[] => {
  if (proposal.body !== "staged" || body.kind !== "staged") return set.groups;
  const { ids } = body;
  if (!ids.includes(undefined)) return set.groups;
  return groupByNode(set.replicas.filter((_, index) => ids[index] !== undefined));
};

const bodyFor = (
  set: ReplicaSet,
  members: readonly Replica[],
  body: WriteBody,
  proposal: Proposal,
): { bytes?: Uint8Array; stagedIds?: readonly number[] } => {
  if (proposal.body === "inline" && body.kind === "bytes") return { bytes: body.bytes };
  if (proposal.body !== "staged" || body.kind !== "staged") return {};
  return { stagedIds: members.map((member) => body.ids[set.replicas.indexOf(member)] ?? 0) };
};
