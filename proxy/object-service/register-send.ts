import type { Ballot, Incarnation } from "../../common/ballot.ts";
import type { AcceptReply, PrepareReply, Proposal } from "../../storage-node/wire.ts";
import {
  RegisterWrite,
  type WriteEffect,
  type WriteMode,
  type WriteOutcome,
  type WriteRecord,
} from "../core/register-write.ts";
import { type BodyMemory, hasArrived } from "./body-memory.ts";
import { supplyBody } from "./body-stream.ts";
import { asked, failureOf, forUnasked, meets, MESSAGE_TIMEOUT_MS, type Phase } from "./messages.ts";
import type { Members, ReplicaSet } from "./partition.ts";
import { groupByNode, type Replica, type ReplicaGroup } from "./replicas.ts";

/** What a record takes beside its body, metadata and rows included. */
const RECORD_BYTES = 16 * 1024;

/** The body that goes with an ACCEPT: bytes for the log, or for each replica that has one the number of its staged file. */
export type WriteBody =
  | { readonly kind: "none" }
  | { readonly kind: "bytes"; readonly bytes: Uint8Array; readonly memory?: BodyMemory }
  | { readonly kind: "staged"; readonly ids: ReadonlyMap<Replica, number> };

/** What is common to the writes of one process. */
type WriteContext = {
  newBallot(incarnation: Incarnation): Ballot;
  hearAccept(reply: AcceptReply | undefined): void;
  hearPrepare(reply: PrepareReply | undefined): void;
};

type Accept = Extract<WriteEffect, { readonly kind: "accept" }>;
type Prepare = Extract<WriteEffect, { readonly kind: "prepare" }>;
type Supply = Extract<WriteEffect, { readonly kind: "supply" }>;

const NO_BODY: WriteBody = { kind: "none" };

/**
 * One write on its way: the machine of `core/register-write.ts` over the clients of storage nodes. Every message of a phase names the epoch of the
 * members that it goes to; where one of them tells of a later one, the phase begins anew with the members of that ([M1]).
 */
export class RegisterSend {
  readonly #context: WriteContext;
  readonly #set: ReplicaSet;
  readonly #body: WriteBody;
  readonly #wantedBytes: number;
  readonly #resolve: (outcome: WriteOutcome) => void;
  readonly #machine: RegisterWrite;
  #members: Members;
  /** Replicas whose staged file is the engine's by now: they have the body. */
  #takers: Set<Replica> | undefined;
  #isDone = false;

  constructor(
    context: WriteContext,
    set: ReplicaSet,
    mode: WriteMode,
    given: WriteBody,
    incarnation: Incarnation,
    resolve: (outcome: WriteOutcome) => void,
  ) {
    // What is finished is somebody's earlier version: its body is with the replicas, never this one.
    const body = mode.kind === "finish" ? NO_BODY : given;
    const { members } = set.partition;
    const isCautious = members.replicas.some((replica) => replica.mayLackSpace || replica.mayBeFresh);
    this.#context = context;
    this.#set = set;
    this.#body = body;
    this.#wantedBytes = body.kind === "bytes" ? body.bytes.length + RECORD_BYTES : 0;
    this.#resolve = resolve;
    this.#members = members;
    this.#machine = new RegisterWrite(members.quorum, mode, () => context.newBallot(incarnation), isCautious);
  }

  start(): void {
    this.#perform(this.#machine.start());
  }

  #perform(effect: WriteEffect | undefined): void {
    if (effect === undefined) return;
    switch (effect.kind) {
      case "done":
        this.#isDone = true;
        this.#resolve(effect.outcome);
        return;
      case "wait":
        setTimeout(() => {
          this.#follow();
          this.#perform(this.#machine.onTimer(effect.round));
        }, Math.random() * effect.atMostMs);
        return;
      case "prepare":
        return this.#prepare(effect);
      case "accept":
        return this.#accept(effect);
      case "supply":
        void this.#supply(effect, this.#members).then((reply) =>
          this.#perform(this.#machine.onAccept(effect.round, reply, effect.replica)),
        );
        return;
    }
  }

  #prepare(effect: Prepare): void {
    const members = this.#members;
    const groups = asked(this.#set.name, members.voterGroups, 0);
    for (const group of groups) this.#sendPrepare(effect, members, group, 1);
    forUnasked(members.voters, groups, () => this.#perform(this.#machine.onPrepare(effect.round, undefined)));
  }

  #sendPrepare(effect: Prepare, asking: Members, { client, members }: ReplicaGroup, attempt: number): void {
    // What was proposed already may lie somewhere: then the promises themselves are wanted, of full devices too.
    const wanted = effect.own.length === 0 ? this.#wantedBytes : 0;
    client.prepare(
      this.#set.name,
      effect.ballot,
      effect.own,
      wanted,
      MESSAGE_TIMEOUT_MS,
      (error, reply, part) => {
        const replica = members[part];
        if (replica === undefined) return;
        replica.heard(error);
        if (error !== undefined) {
          const phase = this.#phase(asking, (group, next) => this.#sendPrepare(effect, asking, group, next));
          if (meets(phase, error, replica, attempt)) return;
        }
        this.#context.hearPrepare(reply);
        this.#perform(this.#machine.onPrepare(effect.round, reply ?? failureOf(error)));
      },
      asking.epoch,
    );
  }

  #accept(effect: Accept): void {
    const body = this.#body;
    const members = this.#members;
    const proposal = proposalOf(effect.version, effect.record, body);
    if (proposal.body === "staged" && body.kind === "staged") return this.#acceptStaged(effect, proposal, body.ids);
    const groups = asked(this.#set.name, members.groups, body.kind === "bytes" ? body.bytes.length : 0);
    for (const group of groups) this.#sendAccept(effect, proposal, members, group, 1);
    forUnasked(members.replicas, groups, (index) => this.#fail(effect, index));
  }

  /** Those without the body cannot accept; who took it in an earlier epoch has it. */
  #acceptStaged(effect: Accept, proposal: Proposal, ids: ReadonlyMap<Replica, number>): void {
    const members = this.#members;
    const takers = this.#takers;
    const isWhole = takers === undefined && members.replicas.every((replica) => ids.has(replica));
    const staged = isWhole
      ? members.groups
      : groupByNode(members.replicas.filter((one) => ids.has(one) && takers?.has(one) !== true));
    const groups = asked(this.#set.name, staged, 0);
    for (const group of groups) this.#sendAccept(effect, proposal, members, group, 1);
    const kept = takers === undefined ? [] : groupByNode(members.replicas.filter((one) => takers.has(one)));
    for (const group of kept) this.#sendAccept(effect, { ...proposal, body: "keep" }, members, group, 1);
    forUnasked(members.replicas, [...groups, ...kept], (index) => this.#fail(effect, index));
  }

  #fail({ round }: Accept, index: number): void {
    this.#perform(this.#machine.onAccept(round, undefined, index));
  }

  #sendAccept(
    effect: Accept,
    proposal: Proposal,
    asking: Members,
    { client, members }: ReplicaGroup,
    attempt: number,
  ): void {
    let held = proposal.body === "inline" ? memoryOf(this.#body) : undefined;
    held?.hold();
    client.accept(
      this.#set.name,
      effect.version,
      effect.ballot,
      proposal,
      bodyFor(members, this.#body, proposal),
      effect.own,
      MESSAGE_TIMEOUT_MS,
      (error, reply, part) => {
        const replica = members[part];
        if (replica === undefined) return;
        replica.heard(error);
        if (reply?.kind === "accepted") {
          if (reply.isFilling === true) replica.heardOfFilling();
          if (proposal.body === "staged") (this.#takers ??= new Set()).add(replica);
        }
        this.#context.hearAccept(reply);
        if (held !== undefined && hasArrived(error)) {
          held.letGo();
          held = undefined;
        }
        if (error !== undefined) {
          const phase = this.#phase(asking, (group, next) => this.#sendAccept(effect, proposal, asking, group, next));
          if (meets(phase, error, replica, attempt)) return;
        }
        const index = asking.replicas.indexOf(replica);
        this.#perform(this.#machine.onAccept(effect.round, reply ?? failureOf(error), index));
      },
      asking.epoch,
    );
  }

  /** [A4]: gives one replica a record with its body: the one at hand, else one from a replica that holds it. Undefined when that fails. */
  async #supply(effect: Supply, asking: Members): Promise<AcceptReply | undefined> {
    const body = this.#body;
    const replica = asking.replicas[effect.replica];
    const [group] = replica === undefined ? [] : groupByNode([replica]);
    if (replica === undefined || group === undefined) return undefined;
    const proposal = proposalOf(effect.version, effect.record, body);
    const memory = memoryOf(body);
    memory?.hold();
    const sent = await supplyBody(this.#set, replica, proposal, body);
    if (sent === undefined) {
      memory?.letGo();
      return undefined;
    }
    return new Promise((resolve) => {
      group.client.accept(
        this.#set.name,
        effect.version,
        effect.ballot,
        { ...proposal, body: "bytes" in sent ? "inline" : "staged" },
        sent,
        effect.own,
        MESSAGE_TIMEOUT_MS,
        (error, reply) => {
          replica.heard(error);
          this.#context.hearAccept(reply);
          if (hasArrived(error)) memory?.letGo();
          if (error !== undefined && this.#set.partition.meet(error, asking) === "moved") this.#follow();
          resolve(reply);
        },
        asking.epoch,
      );
    });
  }

  /** Where it is over, the memory of its body may be somebody else's by now: then nothing is sent again. */
  #phase(asked: Members, again: (group: ReplicaGroup, attempt: number) => void): Phase {
    const { partition } = this.#set;
    return { partition, asked, follow: () => this.#isDone || this.#follow(), again };
  }

  /** Begins the phase anew where the partition has other members by now ([M1]); whether it has. */
  #follow(): boolean {
    const { members } = this.#set.partition;
    if (members === this.#members) return false;
    this.#members = members;
    this.#perform(this.#machine.onEpoch(members.quorum));
    return true;
  }
}

export const memoryOf = (body: WriteBody): BodyMemory | undefined => (body.kind === "bytes" ? body.memory : undefined);

export const proposalOf = (version: Ballot, record: WriteRecord, body: WriteBody): Proposal => ({
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

export const bodyFor = (
  members: readonly Replica[],
  body: WriteBody,
  proposal: Proposal,
): { bytes?: Uint8Array; stagedIds?: readonly number[] } => {
  if (proposal.body === "inline" && body.kind === "bytes") return { bytes: body.bytes };
  if (proposal.body !== "staged" || body.kind !== "staged") return {};
  return { stagedIds: members.map((member) => body.ids.get(member) ?? 0) };
};
