import { type Ballot, ballotOf, type Incarnation, timestampIn } from "../../../common/ballot.ts";
import { hybridClock, type HybridClock } from "../../../common/hybrid-clock.ts";
import { type ListReply, type Name, type Proposal, type Row, unpackRows } from "../../../storage-node/wire.ts";
import { CONTAINER, type Message, type Replica, rowOf, type SimulatedReplica, type World } from "./world.ts";
import { type BlindBallots, mutated } from "./planted-mistakes.ts";
import { judgeRead, type ReplicaRead } from "../register-read.ts";
import {
  RegisterWrite,
  type WriteEffect,
  type WriteMode,
  type WriteOutcome,
  type WriteRecord,
} from "../register-write.ts";
import { type RowEffect, type RowOutcome, RowWrite } from "../row-write.ts";
import type { Answer, Effect, ListAnswer, ReadAnswer, Script } from "../script.ts";

/** How the body of an object goes: staged once at each replica, or with each ACCEPT. */
export type Sent = { readonly staged: boolean; readonly used: Set<number> };

type WriteRequest = Extract<Effect<Name>, { kind: "write" }>;

/** A proxy with a skewed clock and its own memory of the container; it may die between any two messages. */
export class SimulatedProxy {
  readonly #world: World;
  readonly #clock: HybridClock;
  /** Its number in ballots, and its name on the network. */
  readonly process: string;
  cached: Incarnation | undefined;
  isDead = false;

  constructor(world: World, process: number) {
    this.#world = world;
    const skewMs = Math.floor(world.random.unit() * 40) - 20;
    this.#clock = hybridClock({ nowMs: () => Math.floor(world.queue.nowMs()) + skewMs });
    this.process = process.toString(16).padStart(8, "0");
  }

  /** Resumes a script with what came of its effects. A dead proxy resumes nothing. */
  async run<T>(script: Script<Name, T>, sent: Sent = { staged: false, used: new Set() }): Promise<T> {
    let step = script.next();
    while (step.done !== true) {
      const answer = await this.#perform(step.value, sent);
      if (this.isDead) await new Promise(() => {});
      step = script.next(answer);
    }
    return step.value;
  }

  #perform(effect: Effect<Name>, sent: Sent): Promise<Answer> | undefined {
    const { mutation } = this.#world;
    switch (effect.kind) {
      case "write":
        return this.#writeEffect(effect, sent).then((outcome) =>
          mutation === "the rows are not looked at again at closing [B3]" && outcome.kind === "established"
            ? { ...outcome, liveRows: [] }
            : outcome,
        );
      case "read":
        return this.read(effect.set);
      case "row":
        if (mutation === "the answer does not wait for the row" && effect.set.space === "container") {
          void this.#row(effect.set, effect.incarnation, effect.row);
          return Promise.resolve("stored");
        }
        return this.#row(effect.set, effect.incarnation, effect.row).then((outcome) =>
          mutation === "a row of a dead incarnation is answered as stored [B5]" && outcome === "moved"
            ? "stored"
            : outcome,
        );
      case "list":
        return this.#list(effect.set, effect.incarnation, effect.query, effect.fromAll);
      case "repair":
        this.#world.replicas[effect.replica]?.call(
          this.process,
          "row",
          effect.set,
          (it) => it.row(effect.set, effect.incarnation, effect.row),
          () => {},
        );
        return undefined;
      case "confirm": {
        const { set, isVoid } = effect;
        const version = this.#blindFor(set)?.blind(effect.version) ?? effect.version;
        for (const replica of this.#world.replicas)
          replica.call(
            this.process,
            "confirm",
            set,
            (it) => it.confirm(set, version, isVoid),
            () => {},
          );
        return undefined;
      }
    }
  }

  #writeEffect({ set, mode, incarnation }: WriteRequest, sent: Sent): Promise<WriteOutcome> {
    const { mutation } = this.#world;
    if (mutation === "a version is void unjudged [B5]" && mode.kind === "inspect" && mode.version !== undefined) {
      const ballot = this.#newBallot(incarnation);
      return Promise.resolve({ kind: "inspected", highest: undefined, ballot, verdict: "never" });
    }
    if (
      mutation === "a version of unknown fate is void [B5]" &&
      mode.kind === "inspect" &&
      mode.version !== undefined
    ) {
      return this.#write(set, mode, incarnation, sent).then((outcome) =>
        outcome.kind === "inspected" && outcome.verdict === "unclear" ? { ...outcome, verdict: "never" } : outcome,
      );
    }
    const blind = this.#blindFor(set);
    if (blind === undefined) return this.#write(set, mutated(mutation, mode), incarnation, sent);
    return this.#write(set, blind.blindMode(mode), incarnation, sent).then((outcome) => blind.wholeOutcome(outcome));
  }

  #blindFor(set: Name): BlindBallots | undefined {
    return set.space === "object" ? this.#world.blind : undefined;
  }

  #newBallot(incarnation: Incarnation): Ballot {
    return ballotOf(incarnation, this.#clock.next(), this.process);
  }

  async #write(name: Name, mode: WriteMode, incarnation: Incarnation, sent: Sent): Promise<WriteOutcome> {
    const { replicas, queue, random, mutation } = this.#world;
    if (
      mutation === "the row is written before the version is accepted" &&
      mode.kind === "plain" &&
      name.space === "object"
    )
      await this.#rowFirst(name, mode.record, incarnation);
    const blind = this.#blindFor(name);
    const newBallot = (): Ballot => blind?.blind(this.#newBallot(incarnation)) ?? this.#newBallot(incarnation);
    const machine = new RegisterWrite(replicas.length, mode, newBallot);
    return new Promise((resolve) => {
      const accept = (
        effect: Extract<WriteEffect, { kind: "accept" | "supply" }>,
        index: number,
        bodyLength: number | undefined,
      ): void => {
        const replica = replicas[index];
        if (replica === undefined) throw new Error("a message to a replica that is none");
        const { record, version } = effect;
        const isGiven = bodyLength !== undefined;
        const proposal: Proposal = {
          ...record,
          bodyVersion: record.bodyVersion ?? version,
          body: isGiven ? "inline" : record.body === "keep" ? "keep" : "none",
        };
        this.#ask(
          replica,
          "accept",
          name,
          async (it) => {
            const body = isGiven
              ? ({ kind: "bytes", bytes: Buffer.alloc(bodyLength) } as const)
              : ({ kind: "none" } as const);
            const kept =
              mutation === "a metadata change keeps whatever body is there [A4]" && proposal.body === "keep"
                ? (await it.read(name))?.register.bodyVersion
                : undefined;
            const told = kept === undefined ? proposal : { ...proposal, bodyVersion: kept };
            const reply = await it.accept(name, version, effect.ballot, told, body, effect.own);
            if (reply.kind === "accepted" && sent.staged && isGiven) sent.used.add(index);
            return reply;
          },
          (reply) => {
            if (reply?.kind === "refused") {
              this.#heard(reply.seen);
              this.#clock.advancePast(reply.floor);
            }
            perform(machine.onAccept(effect.round, reply, index));
          },
        );
      };
      const perform = (effect: WriteEffect | undefined): void => {
        if (effect === undefined || this.isDead) return;
        switch (effect.kind) {
          case "done":
            resolve(effect.outcome);
            return;
          case "wait":
            queue.after(random.unit() * effect.atMostMs, () => perform(machine.onTimer(effect.round)));
            return;
          case "prepare":
            for (const replica of replicas) {
              this.#ask(
                replica,
                "prepare",
                name,
                (it) => it.prepare(name, effect.ballot, effect.own),
                (reply) => {
                  if (reply?.kind === "refused") {
                    this.#heard(reply.seen);
                    this.#clock.advancePast(reply.floor);
                  } else if (reply?.register !== undefined) this.#heard(reply.register.ballot);
                  perform(machine.onPrepare(effect.round, reply));
                },
              );
            }
            return;
          case "accept":
            for (const index of replicas.keys()) {
              if (effect.record.body === "given" && sent.staged && sent.used.has(index))
                queue.after(0, () => perform(machine.onAccept(effect.round, undefined, index)));
              else accept(effect, index, effect.record.body === "given" ? effect.record.bodyLength : undefined);
            }
            return;
          case "supply": {
            const bodyVersion = effect.record.bodyVersion ?? effect.version;
            void this.#bodyLength(name, bodyVersion).then((length) => {
              if (length === undefined) perform(machine.onAccept(effect.round, undefined, effect.replica));
              else accept(effect, effect.replica, length);
            });
          }
        }
      };
      perform(machine.start());
    });
  }

  /** The body of exactly this version, from whichever replica has it; bodies are told apart by their lengths. */
  #bodyLength(name: Name, bodyVersion: Ballot): Promise<number | undefined> {
    return new Promise((resolve) => {
      let open = this.#world.replicas.length;
      for (const replica of this.#world.replicas) {
        this.#ask(
          replica,
          "read",
          name,
          async (it) => {
            const stored = await it.read(name);
            return stored?.register.bodyVersion === bodyVersion && stored.body.kind === "log"
              ? stored.body.length
              : undefined;
          },
          (length) => {
            open -= 1;
            if (length !== undefined || open === 0) resolve(length);
          },
        );
      }
    });
  }

  async #rowFirst(name: Name, record: WriteRecord, incarnation: Incarnation): Promise<void> {
    const version = this.#newBallot(incarnation);
    await this.#row(CONTAINER, incarnation, rowOf(name.path.slice("/a/c/".length), { version, ...record }));
  }

  #row(set: Name, incarnation: Incarnation, row: Row): Promise<RowOutcome> {
    const { replicas, mutation, queue, random } = this.#world;
    const machine = new RowWrite(replicas.length);
    return new Promise((resolve) => {
      const perform = (effect: RowEffect | undefined): void => {
        if (effect === undefined || this.isDead) return;
        switch (effect.kind) {
          case "done":
            resolve(effect.outcome);
            return;
          case "wait":
            queue.after(random.unit() * effect.atMostMs, () => perform(machine.onTimer(effect.round)));
            return;
          case "row":
            for (const replica of replicas) {
              this.#ask(
                replica,
                "row",
                set,
                (it) => {
                  // An account's rows are taken without asking: under a container's path and life that is a replica that forgot to.
                  const isBlind =
                    mutation === "rows are taken in any state of the container [B1]" && set.space === "container";
                  return isBlind
                    ? it.row({ ...set, space: "account", path: `${set.path}\0${incarnation}` }, incarnation, row)
                    : it.row(set, incarnation, row);
                },
                (reply) => perform(machine.onReply(effect.round, reply)),
              );
            }
        }
      };
      perform(machine.start());
    });
  }

  #list(
    set: Name,
    incarnation: Incarnation,
    query: Parameters<Replica["list"]>[2],
    fromAll: boolean,
  ): Promise<ListAnswer> {
    const { replicas, random, mutation } = this.#world;
    const wanted =
      mutation === "a listing asks one replica [B2]" ? 1 : replicas.length - Math.floor(replicas.length / 2);
    const first = random.below(replicas.length);
    return new Promise((resolve) => {
      const pages: Extract<ListAnswer, { kind: "rows" }>["pages"][number][] = [];
      let failed = 0;
      let obstacle: "moved" | "behind" | "unavailable" = "unavailable";
      for (const [index, replica] of replicas.entries()) {
        const wantsRows = fromAll || index === first;
        const sent = wantsRows ? query : { ...query, limit: 0 };
        this.#ask(
          replica,
          "list",
          set,
          async (it): Promise<ListReply> => {
            const summary = it.summary(set, incarnation);
            const { reply, runs } = await it.list(set, incarnation, sent);
            const rows = reply === undefined ? unpackRows(Buffer.concat(runs)) : [];
            const isBlind = mutation === "a listing drops deleted rows before merging [B2]";
            return reply ?? { kind: "rows", summary, rows: isBlind ? rows.filter((row) => !row.isDeleted) : rows };
          },
          (reply) => {
            if (reply?.kind === "rows") pages.push({ replica: index, summary: reply.summary, rows: reply.rows });
            else {
              failed += 1;
              if (reply?.kind === "moved") obstacle = "moved";
              else if (reply?.kind === "behind" && obstacle !== "moved") obstacle = "behind";
            }
            const chosen = fromAll ? pages : pages.filter((page) => page.replica === first);
            const others = pages.filter((page) => !chosen.includes(page));
            if (pages.length >= wanted && chosen.length > 0)
              resolve({ kind: "rows", pages: [...chosen, ...others].slice(0, wanted) });
            else if (failed > replicas.length - wanted || pages.length + failed === replicas.length)
              resolve({ kind: obstacle });
          },
        );
      }
    });
  }

  read(name: Name): Promise<ReadAnswer | undefined> {
    const { replicas, random, mutation } = this.#world;
    const readQuorum = replicas.length - Math.floor(replicas.length / 2);
    return new Promise((resolve) => {
      const answers: ReplicaRead[] = [];
      let failed = 0;
      const wanted = random.unit() < 0.5 ? readQuorum : replicas.length;
      for (const [index, replica] of replicas.entries()) {
        this.#ask(
          replica,
          "read",
          name,
          async (it) => ({ register: (await it.read(name))?.register }),
          (read) => {
            if (read === undefined) failed += 1;
            else {
              answers.push({ replica: index, register: read.register });
              if (read.register !== undefined) this.#heard(read.register.ballot);
            }
            if (answers.length !== wanted && answers.length + failed !== replicas.length) return;
            const verdict = judgeRead(replicas.length, answers);
            if (verdict.kind === "more") return resolve(undefined);
            const isSettled = verdict.kind === "settled";
            const isEarly = mutation === "an established version is served before its row is written" && isSettled;
            const register = this.#blindFor(name)?.wholeRegister(verdict.register) ?? verdict.register;
            resolve({ register: isEarly && register ? { ...register, state: "confirmed" } : register, isSettled });
          },
        );
      }
    });
  }

  /** Asks one replica; undefined stands for a time-out. */
  #ask<T>(
    replica: SimulatedReplica,
    kind: Message["kind"],
    name: Name,
    work: (it: Replica) => Promise<T> | T,
    answer: (value: T | undefined) => void,
  ): void {
    let isAnswered = false;
    const once = (value: T | undefined): void => {
      if (isAnswered || this.isDead) return;
      isAnswered = true;
      answer(value);
    };
    replica.call(this.process, kind, name, work, once);
    this.#world.queue.after(this.#world.timeoutMs, () => once(undefined));
  }

  #heard(ballot: Ballot): void {
    this.#clock.advancePast(timestampIn(ballot));
  }
}
