import { RingsteadError } from "../../common/errors.ts";
import type { ReadReply, Register } from "../../storage-node/wire.ts";
import { judgeRead, type ReplicaRead } from "../core/register-read.ts";
import type { Ballots } from "./ballots.ts";
import { meets, type Phase } from "./messages.ts";
import { PassingWait } from "./passing-wait.ts";
import type { Members, ReplicaSet } from "./partition.ts";
import { groupByNode, type ReadOrder, type Replica, type ReplicaGroup } from "./replicas.ts";

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
export type ReadContext = {
  readonly ballots: Ballots;
  readonly hedges: Hedges;
  readonly timeoutMs: number;
  /** Whom to ask next, and in what order. */
  orderOf(set: ReplicaSet, members: Members): ReadOrder;
};

/**
 * One READ at a quorum: asks the fewest that can settle it, and more where one fails, is slow, or leaves the version unfinished. Where the
 * partition has other members by now it is asked anew; where its members change in a moment, after a short wait.
 */
export class QuorumRead {
  startMs = performance.now();
  readonly #context: ReadContext;
  readonly #set: ReplicaSet;
  readonly #bodyLimit: number;
  readonly #resolve: (result: ReadResult) => void;
  readonly #reject: (error: RingsteadError) => void;
  #members: Members;
  #replicas: readonly Replica[] = [];
  #answers: ReplicaRead[] = [];
  #body: Buffer | undefined;
  #bodyFrom = -1;
  #asked = 0;
  #failed = 0;
  #isDone = false;
  /** Of the members that are asked; answers of earlier ones are dropped. */
  #turn = 0;
  #isPassing = false;
  #wait: PassingWait | undefined;

  constructor(
    context: ReadContext,
    set: ReplicaSet,
    bodyLimit: number,
    resolve: (result: ReadResult) => void,
    reject: (error: RingsteadError) => void,
  ) {
    this.#context = context;
    this.#set = set;
    this.#bodyLimit = bodyLimit;
    this.#members = set.partition.members;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** The first replica sends a body up to the limit, the others their registers. */
  start(): void {
    const { first, replicas } = this.#context.orderOf(this.#set, this.#members);
    this.#replicas = replicas;
    this.#context.hedges.begin(this);
    for (const group of first) {
      const limit = this.#asked === 0 ? this.#bodyLimit : 0;
      this.#asked += group.members.length;
      this.#ask(group, limit, 1);
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
    for (const group of groupByNode([replica])) this.#ask(group, 0, 1);
  }

  #ask({ client, members }: ReplicaGroup, bodyLimit: number, attempt: number): void {
    const turn = this.#turn;
    client.read(
      this.#set.name,
      bodyLimit,
      this.#context.timeoutMs,
      (error, reply, part) => {
        const member = members[part];
        if (member === undefined) return;
        member.heard(error);
        if (this.#isDone || turn !== this.#turn) return;
        if (error !== undefined) {
          if (meets(this.#phase(), error, member, attempt)) return;
          if (member.mayReturn) this.#isPassing = true;
        }
        this.#onAnswer(this.#replicas.indexOf(member), reply);
      },
      this.#members.epoch,
    );
  }

  #phase(): Phase {
    const { partition } = this.#set;
    const turn = this.#turn;
    const isOver = (): boolean => this.#isDone || turn !== this.#turn;
    return {
      partition,
      asked: this.#members,
      follow: () => {
        if (isOver() || partition.members === this.#members) return isOver();
        this.#again();
        return true;
      },
      again: (group, attempt) => this.#ask(group, 0, attempt),
      changing: () => {
        this.#isPassing = true;
      },
    };
  }

  /** Asks those who are members now. */
  #again(): void {
    this.#context.hedges.end(this);
    this.#turn += 1;
    this.#members = this.#set.partition.members;
    this.#answers = [];
    this.#body = undefined;
    this.#bodyFrom = -1;
    this.#asked = 0;
    this.#failed = 0;
    this.#isPassing = false;
    this.startMs = performance.now();
    this.start();
  }

  #onAnswer(index: number, reply: ReadReply | undefined): void {
    const replicas = this.#replicas;
    if (reply === undefined) {
      this.#failed += 1;
      if (replicas.length - this.#failed >= this.#members.quorum.readCount) return this.#askNext();
      return this.#fail();
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

  /** Too few answer; where that is because members change, or their node may be back at once, they are asked again in a moment. */
  #fail(): void {
    // Where others stand in for members nobody waits for these.
    if (this.#isPassing && this.#set.handOffs === undefined) {
      this.#wait ??= new PassingWait();
      this.#context.hedges.end(this);
      this.#turn += 1;
      if (this.#wait.after(() => this.#again())) return;
    }
    this.#end();
    const { path } = this.#set.name;
    this.#reject(new RingsteadError("quorum-unavailable", "too few replicas answer", { path }));
  }

  #judge(): void {
    const replicas = this.#replicas;
    const answers = this.#answers;
    const { configuration, quorum } = this.#members;
    const verdict = judgeRead(quorum, answers, configuration.floor);
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
