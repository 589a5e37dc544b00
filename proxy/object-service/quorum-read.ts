import { RingsteadError } from "../../common/errors.ts";
import type { Name, ReadReply, Register } from "../../storage-node/wire.ts";
import type { Quorum } from "../core/quorum.ts";
import { judgeRead, type ReplicaRead } from "../core/register-read.ts";
import type { Ballots } from "./ballots.ts";
import { groupByNode, type ReadOrder, type Replica, type ReplicaGroup, type ReplicaSet } from "./replicas.ts";

/** A read asks the replicas that are left when those asked first have not answered for so long. */
const HEDGE_MS = 150;
/** How often that is looked at: a hedge is late by at most this. */
const HEDGE_TICK_MS = 25;

export type ReadResult = {
  readonly register: Register | undefined;
  /** The whole body, where it is small and came with the answer. */
  readonly body: Buffer | undefined;
  /** Replicas known to hold exactly this version, best first. */
  readonly holders: readonly Replica[];
  readonly isSettled: boolean;
};

/** The reads under way, oldest first. One timer looks after all of them: nearly every read is over long before it would need one. */
export class Hedges {
  readonly #underWay = new Set<QuorumRead>();
  #isTicking = false;

  begin(read: QuorumRead): void {
    this.#underWay.add(read);
    if (this.#isTicking) return;
    this.#isTicking = true;
    setTimeout(this.#tick, HEDGE_TICK_MS);
  }

  end(read: QuorumRead): void {
    this.#underWay.delete(read);
  }

  readonly #tick = (): void => {
    const nowMs = performance.now();
    for (const read of this.#underWay) {
      if (nowMs - read.startMs < HEDGE_MS) break;
      this.#underWay.delete(read);
      read.askAll();
    }
    this.#isTicking = this.#underWay.size > 0;
    if (this.#isTicking) setTimeout(this.#tick, HEDGE_TICK_MS);
  };
}

/** What reads of one process share. */
export type ReadContext = { readonly ballots: Ballots; readonly hedges: Hedges; readonly timeoutMs: number };

/** One READ at a quorum: asks the fewest that can settle it, and more where one fails, is slow, or leaves the version unfinished. */
export class QuorumRead {
  readonly startMs = performance.now();
  readonly #context: ReadContext;
  readonly #name: Name;
  readonly #quorum: Quorum;
  readonly #replicas: readonly Replica[];
  readonly #resolve: (result: ReadResult) => void;
  readonly #reject: (error: RingsteadError) => void;
  readonly #answers: ReplicaRead[] = [];
  #body: Buffer | undefined;
  #bodyFrom = -1;
  #asked = 0;
  #failed = 0;
  #isDone = false;

  constructor(
    context: ReadContext,
    { name, quorum }: ReplicaSet,
    { replicas }: ReadOrder,
    resolve: (result: ReadResult) => void,
    reject: (error: RingsteadError) => void,
  ) {
    this.#context = context;
    this.#name = name;
    this.#quorum = quorum;
    this.#replicas = replicas;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** The first replica sends a body up to `bodyLimit`, the others their registers. */
  start({ first }: ReadOrder, bodyLimit: number): void {
    this.#context.hedges.begin(this);
    for (const group of first) {
      const limit = this.#asked === 0 ? bodyLimit : 0;
      this.#asked += group.members.length;
      this.#ask(group, limit);
    }
  }

  askAll(): void {
    while (!this.#isDone && this.#asked < this.#replicas.length) this.#askNext();
  }

  #askNext(): void {
    const replica = this.#replicas[this.#asked];
    // Nobody is left who could settle it: what was heard has to do.
    if (replica === undefined) return this.#judge();
    this.#asked += 1;
    for (const group of groupByNode([replica])) this.#ask(group, 0);
  }

  #ask({ client, members }: ReplicaGroup, bodyLimit: number): void {
    client.read(this.#name, bodyLimit, this.#context.timeoutMs, (error, reply, part) => {
      const member = members[part];
      if (member !== undefined) this.#onAnswer(this.#replicas.indexOf(member), error, reply);
    });
  }

  #onAnswer(index: number, error: RingsteadError | undefined, reply: ReadReply | undefined): void {
    const replicas = this.#replicas;
    replicas[index]?.heard(error);
    if (this.#isDone) return;
    if (reply === undefined) {
      this.#failed += 1;
      if (replicas.length - this.#failed >= this.#quorum.readCount) return this.#askNext();
      this.#end();
      return this.#reject(
        new RingsteadError("quorum-unavailable", "too few replicas answer", { path: this.#name.path }),
      );
    }
    const { register } = reply;
    if (register !== undefined) this.#context.ballots.heard(register.ballot);
    if (reply.body !== undefined) {
      this.#body = reply.body;
      this.#bodyFrom = index;
    }
    this.#answers.push({ replica: index, register });
    this.#judge();
  }

  #judge(): void {
    const replicas = this.#replicas;
    const answers = this.#answers;
    const verdict = judgeRead(this.#quorum, answers);
    if (verdict.kind === "more") return;
    const heard = answers.length + this.#failed;
    if (verdict.kind === "unfinished" && heard < replicas.length) {
      // One more answer often settles what a crash left behind without writing anything.
      if (this.#asked <= heard) this.#askNext();
      return;
    }
    const holders: Replica[] = [];
    for (const holder of verdict.holders) {
      const held = replicas[holder];
      if (held !== undefined) holders.push(held);
    }
    this.#end();
    this.#resolve({
      register: verdict.register,
      body: verdict.holders.includes(this.#bodyFrom) ? this.#body : undefined,
      holders,
      isSettled: verdict.kind === "settled",
    });
  }

  #end(): void {
    this.#isDone = true;
    this.#context.hedges.end(this);
  }
}
