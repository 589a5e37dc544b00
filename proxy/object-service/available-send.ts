import type { Ballot, Incarnation } from "../../common/ballot.ts";
import { codeOf, RingsteadError } from "../../common/errors.ts";
import { HandOffClient } from "../../storage-node/client.ts";
import type { AcceptReply, Proposal, Register } from "../../storage-node/wire.ts";
import { type AvailableEffect, AvailableWrite, copyToKeep, type KeepReply } from "../core/available-write.ts";
import type { WriteOutcome, WriteRecord } from "../core/register-write.ts";
import { hasArrived } from "./body-memory.ts";
import { asked, failureOf, forUnasked, meets, MESSAGE_TIMEOUT_MS, type Phase } from "./messages.ts";
import type { Members, ReplicaSet } from "./partition.ts";
import { bodyFor, memoryOf, proposalOf, type WriteBody } from "./register-send.ts";
import { groupByNode, healthyFirst, type Replica, type ReplicaGroup } from "./replicas.ts";

type AvailableContext = {
  newBallot(incarnation: Incarnation): Ballot;
  hear(ballot: Ballot): void;
  hearAccept(reply: AcceptReply | undefined): void;
};

/** The ballot that a hand-off keeps, or why it did not say. */
type KeepAnswer = { readonly value: Ballot } | RingsteadError;
type Kept = { readonly reply: KeepReply; readonly kept?: Ballot };

const FAILED: Kept = { reply: "failed" };

const NO_BODY: WriteBody = { kind: "none" };

type Accept = Extract<AvailableEffect, { readonly kind: "accept" }>;

/** A device as a hand-off is asked. */
const handOffAt = ({ client }: Replica): HandOffClient => new HandOffClient(client.rpc, client.device);

/** Asks one hand-off something, and notes whether it answers. Undefined where it does not. */
export const askHandOff = async <T>(
  replica: Replica,
  ask: (client: HandOffClient) => Promise<T>,
): Promise<{ readonly value: T } | RingsteadError> => {
  try {
    const value = await ask(handOffAt(replica));
    replica.heard(undefined);
    return { value };
  } catch (error) {
    if (!(error instanceof RingsteadError)) throw error;
    replica.heard(error);
    return error;
  }
};

/** One plain write under policy `available` on its way: the machine of `core/available-write.ts` over the clients of storage nodes. */
export class AvailableSend {
  readonly #context: AvailableContext;
  readonly #set: ReplicaSet;
  readonly #body: WriteBody;
  readonly #handOffs: readonly Replica[];
  readonly #resolve: (outcome: WriteOutcome) => void;
  readonly #machine: AvailableWrite;
  #members: Members;
  /** Those whose staged file is the engine's by now. */
  readonly #takers = new Set<Replica>();
  /** The KEEPs of a staged body under way, or over: a hand-off gets one at a time. */
  readonly #keeps = new Map<Replica, Promise<unknown>>();
  #isDone = false;

  constructor(
    context: AvailableContext,
    set: ReplicaSet,
    record: WriteRecord,
    body: WriteBody,
    incarnation: Incarnation,
    resolve: (outcome: WriteOutcome) => void,
  ) {
    this.#context = context;
    this.#set = set;
    this.#body = body;
    // A large body lies where it was staged.
    const handOffs = healthyFirst(set.name, set.handOffs ?? []);
    this.#handOffs = body.kind === "staged" ? handOffs.filter((one) => body.ids.has(one)) : handOffs;
    this.#resolve = resolve;
    this.#members = set.partition.members;
    const newBallot = (): Ballot => context.newBallot(incarnation);
    this.#machine = new AvailableWrite(this.#members.quorum, record, newBallot, this.#handOffs.length);
  }

  start(): void {
    this.#perform(this.#machine.start());
  }

  #perform(effects: readonly AvailableEffect[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case "accept":
          this.#accept(effect);
          break;
        case "keep":
          void this.#keep(effect).then(({ kept, reply }) =>
            this.#perform(this.#machine.onKept(effect.round, reply, kept)),
          );
          break;
        case "done":
          this.#isDone = true;
          this.#resolve(effect.outcome);
      }
    }
  }

  #accept(effect: Accept): void {
    const body = this.#body;
    const members = this.#members;
    const proposal = proposalOf(effect.version, effect.record, body);
    const isStaged = proposal.body === "staged" && body.kind === "staged";
    const takers = this.#takers;
    const holding = isStaged
      ? members.replicas.filter((one) => body.ids.has(one) || takers.has(one))
      : members.replicas;
    const fresh = isStaged ? groupByNode(holding.filter((one) => !takers.has(one))) : members.groups;
    const groups = asked(this.#set.name, fresh, body.kind === "bytes" ? body.bytes.length : 0);
    for (const group of groups) this.#send(effect, proposal, members, group, 1);
    const kept = isStaged ? groupByNode(holding.filter((one) => takers.has(one))) : [];
    for (const group of kept) this.#send(effect, { ...proposal, body: "keep" }, members, group, 1);
    forUnasked(members.replicas, [...groups, ...kept], (index) => this.#fail(effect, index));
    // [H2]: who would only cost a time-out is not waited for; it counts if it answers after all.
    for (const [index, { isSuspect }] of members.replicas.entries())
      if (isSuspect) queueMicrotask(() => this.#fail(effect, index));
  }

  #fail({ round }: Accept, index: number): void {
    this.#perform(this.#machine.onAccept(round, undefined, index));
  }

  #send(effect: Accept, proposal: Proposal, asking: Members, group: ReplicaGroup, attempt: number): void {
    const { client, members } = group;
    let held = proposal.body === "inline" ? memoryOf(this.#body) : undefined;
    held?.hold();
    client.accept(
      this.#set.name,
      effect.version,
      effect.version,
      proposal,
      bodyFor(members, this.#body, proposal),
      [effect.version],
      MESSAGE_TIMEOUT_MS,
      (error, reply, part) => {
        const replica = members[part];
        if (replica === undefined) return;
        replica.heard(error);
        if (reply?.kind === "accepted" && proposal.body === "staged") this.#takers.add(replica);
        this.#context.hearAccept(reply);
        if (held !== undefined && hasArrived(error)) {
          held.letGo();
          held = undefined;
        }
        if (error !== undefined && meets(this.#phase(effect, proposal, asking), error, replica, attempt)) return;
        const index = asking.replicas.indexOf(replica);
        this.#perform(this.#machine.onAccept(effect.round, reply ?? failureOf(error), index));
      },
      asking.epoch,
    );
  }

  #phase(effect: Accept, proposal: Proposal, asking: Members): Phase {
    const { partition } = this.#set;
    const again = (group: ReplicaGroup, attempt: number): void => this.#send(effect, proposal, asking, group, attempt);
    return { partition, asked: asking, follow: () => this.#isDone || this.#follow(), again };
  }

  /** Begins anew where the partition has other members by now ([M1]); whether it has. */
  #follow(): boolean {
    const { members } = this.#set.partition;
    if (members === this.#members) return false;
    this.#members = members;
    this.#perform(this.#machine.onEpoch(members.quorum));
    return true;
  }

  /** Gives one hand-off a copy. */
  async #keep({ index, record, version }: Extract<AvailableEffect, { readonly kind: "keep" }>): Promise<Kept> {
    const replica = this.#handOffs[index];
    // One that has become a member meanwhile counts as such alone.
    if (replica === undefined || this.#members.replicas.includes(replica)) return FAILED;
    const body = this.#body;
    const register = copyToKeep(version, record);
    const answer = await this.#giveCopy(replica, register, record.body === "none" ? NO_BODY : body);
    if (answer instanceof RingsteadError) return FAILED;
    const kept = answer.value;
    this.#context.hear(kept);
    return { reply: kept === version ? "kept" : "refused", kept };
  }

  /** The ballot that the hand-off keeps then. */
  async #giveCopy(replica: Replica, register: Register, body: WriteBody): Promise<KeepAnswer> {
    const { name } = this.#set;
    if (body.kind === "staged") {
      const before = this.#keeps.get(replica);
      const given = this.#giveStaged(replica, register, body.ids.get(replica) ?? 0, before);
      this.#keeps.set(replica, given);
      return given;
    }
    const held = body.kind === "bytes" ? body.memory : undefined;
    held?.hold();
    const given = body.kind === "bytes" ? { bytes: body.bytes } : ("none" as const);
    const answer = await askHandOff(replica, (client) => client.keep(name, register, given, MESSAGE_TIMEOUT_MS));
    if (hasArrived(answer instanceof RingsteadError ? answer : undefined)) held?.letGo();
    return answer;
  }

  /** After the KEEP `before`, which may have made the staged file the engine's, whether or not that was heard: then the body lies there already. */
  async #giveStaged(
    replica: Replica,
    register: Register,
    stagedId: number,
    before?: Promise<unknown>,
  ): Promise<KeepAnswer> {
    await before;
    const { name } = this.#set;
    const answer = await askHandOff(replica, (client) => client.keep(name, register, { stagedId }, MESSAGE_TIMEOUT_MS));
    if (before === undefined || codeOf(answer) !== "staging-unknown") return answer;
    return askHandOff(replica, (client) => client.keep(name, register, undefined, MESSAGE_TIMEOUT_MS));
  }
}
