import { type Ballot, ballotOf, type Incarnation, timestampIn } from "../../../common/ballot.ts";
import { hybridClock, type HybridClock } from "../../../common/hybrid-clock.ts";
import { RingsteadError } from "../../../common/errors.ts";
import {
  type Configuration,
  HeaderReader,
  type ListReply,
  type Name,
  packConfiguration,
  type Proposal,
  type Row,
  type RowReply,
  unpackConfiguration,
  unpackRows,
} from "../../../storage-node/wire.ts";
import {
  CONTAINER,
  containerPlace,
  firstConfigurationIn,
  indexOf,
  type Message,
  type MoveEvent,
  type MoveMessage,
  partitionOf,
  type Replica,
  rowOf,
  type SimulatedReplica,
  type World,
} from "./world.ts";
import { type BlindBallots, mutated } from "./planted-mistakes.ts";
import type { ContainerPlace, RouteMemory } from "../container-place.ts";
import { Quorum } from "../quorum.ts";
import { judgeRead, type ReplicaRead } from "../register-read.ts";
import {
  RegisterWrite,
  type WriteEffect,
  type WriteMode,
  type WriteOutcome,
  type WriteRecord,
} from "../register-write.ts";
import { type RowEffect, type RowOutcome, RowWrite } from "../row-write.ts";
import { type Answer, type Effect, type ListAnswer, obstacleWith, type ReadAnswer, type Script } from "../script.ts";
import { ShardMemory } from "../shard-memory.ts";
import { SharedTasks } from "../shared-tasks.ts";

/** How the body of an object goes: staged once at each replica, or with each ACCEPT. */
export type Sent = { readonly staged: boolean; readonly used: Set<number> };

type WriteRequest = Extract<Effect<Name>, { kind: "write" }>;

/** Who keeps a partition, as a proxy knows it when it begins to ask. */
export type Place = {
  readonly configuration: Configuration;
  readonly quorum: Quorum;
  readonly replicas: readonly SimulatedReplica[];
};

/** Between two attempts of a read that met a partition on its way to other members, doubling. */
const SEALED_WAIT_MS = 2;
const SEALED_ATTEMPTS = 8;
/** A replica that has to be told the configuration is asked so often. */
const TELL_ATTEMPTS = 3;

/** What a message came to, where that is an answer. */
type Met<T> = { readonly value: T } | { readonly refusal: RingsteadError };

/** There is one configuration of each epoch, whoever tells of it. */
export const noteDecided = (world: World, space: Name["space"], configuration: Configuration): void => {
  const { moves } = world;
  if (moves === undefined) return;
  const key = `${space} ${configuration.epoch}`;
  const known = moves.decided.get(key);
  const text = (one: Configuration): string => JSON.stringify(packConfiguration(one));
  if (known !== undefined) {
    if (text(known) !== text(configuration)) moves.problem ??= `two configurations of ${key}`;
    return;
  }
  moves.decided.set(key, configuration);
  const { epoch, next, old } = configuration;
  if (epoch === 0 || next !== undefined) return;
  const before = moves.decided.get(`${space} ${epoch - 1}`);
  const isGivenUp = old.every(({ id }) => before?.old.some((member) => member.id === id) === true);
  moves.counts[isGivenUp ? "given up" : "completed"] += 1;
};

/** Refusals that a storage node gives at once. */
const REFUSALS = new Set(["epoch-behind", "epoch-ahead", "epoch-sealed", "device-joining", "not-a-member"]);

/** Whether an error is about who keeps a partition. */
export const isOfMembers = ({ code }: RingsteadError): boolean => REFUSALS.has(code);

/** What "epoch-behind" says of the members. */
const configurationIn = ({ fields }: RingsteadError): Configuration =>
  unpackConfiguration(new HeaderReader(fields["configuration"] as readonly unknown[]));

const met = async <T>(work: () => Promise<T> | T): Promise<Met<T>> => {
  try {
    return { value: await work() };
  } catch (error) {
    if (error instanceof RingsteadError && isOfMembers(error)) return { refusal: error };
    throw error;
  }
};

/** A proxy with a skewed clock and its own memory of the container; it may die between any two messages. */
export class SimulatedProxy {
  readonly #world: World;
  readonly #clock: HybridClock;
  /** Its number in ballots, and its name on the network. */
  readonly process: string;
  cached: Incarnation | undefined;
  isDead = false;
  /** Called before each step of a script of it. */
  onStep: (kind: Effect<Name>["kind"]) => void = () => {};
  /** How long it lets others go first, at most. */
  pauseMs = 3;
  /** How far its clock is ahead. */
  skewMs: number;
  /** What it remembers of the container's shards. */
  readonly memory: RouteMemory;
  readonly place: ContainerPlace<Name>;
  readonly #places = new Map<Name["space"], Place>();
  readonly #tasks = new SharedTasks();

  constructor(world: World, process: number) {
    this.#world = world;
    const memory = new ShardMemory();
    const isRash = world.mutation === "a row goes to what follows its shard alone [S2]";
    this.memory = isRash
      ? {
          route: () => memory.route(),
          learn: (found) => memory.learn(found),
          isGone: () => true,
          noteGone: () => {},
        }
      : memory;
    this.place = containerPlace(this.memory);
    this.skewMs = Math.floor(world.random.unit() * 40) - 20;
    this.#clock = hybridClock({ nowMs: () => Math.floor(world.queue.nowMs()) + this.skewMs });
    this.process = process.toString(16).padStart(8, "0");
  }

  /** Resumes a script with what came of its effects. A dead proxy resumes nothing. */
  async run<T>(script: Script<Name, T>, sent: Sent = { staged: false, used: new Set() }): Promise<T> {
    let step = script.next();
    while (step.done !== true) {
      this.onStep(step.value.kind);
      const answer = await this.#perform(step.value, sent);
      this.#noteAnswer(step.value, answer);
      if (this.isDead) await new Promise(() => {});
      step = script.next(answer);
    }
    return step.value;
  }

  #noteAnswer(effect: Effect<Name>, answer: Answer): void {
    const { note } = this.#world;
    if (note === undefined) return;
    const came =
      answer === undefined || typeof answer === "string" ? answer : "kind" in answer ? answer.kind : "register";
    const asked = effect.kind === "write" ? `${effect.mode.kind} write` : effect.kind;
    note(came === undefined ? asked : `${asked}: ${came}`);
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
          void this.#row(effect.set, effect.incarnation, effect.row, effect.isPlaced === true);
          return Promise.resolve("stored");
        }
        return this.#row(effect.set, effect.incarnation, effect.row, effect.isPlaced === true).then((outcome) =>
          mutation === "a row of a dead incarnation is answered as stored [B5]" && outcome === "moved"
            ? "stored"
            : outcome,
        );
      case "rows":
        return this.#rowAsked(effect.set, (it, epoch) =>
          it.shards.take(
            effect.set,
            effect.incarnation,
            { rows: effect.rows, mark: effect.mark, place: partitionOf(effect.set.space) },
            epoch,
          ),
        );
      case "pause":
        return new Promise((resolve) =>
          this.#world.queue.after(this.#world.random.unit() * this.pauseMs, () => resolve(undefined)),
        );
      case "share":
        return this.#tasks.do(`${effect.set.space} ${effect.set.path}`, effect.role, () => this.run(effect.task()));
      case "list":
        return this.#list(effect.set, effect.incarnation, effect.query, effect.fromAll);
      case "repair": {
        const { configuration, replicas } = this.placeOf(effect.set.space);
        replicas[effect.replica]?.call(
          this.process,
          "row",
          effect.set,
          (it) => it.row(effect.set, effect.incarnation, effect.row, configuration.epoch, false),
          () => {},
        );
        return undefined;
      }
      case "confirm": {
        const { set, isVoid } = effect;
        const version = this.#blindFor(set)?.blind(effect.version) ?? effect.version;
        this.confirm(set, version, isVoid);
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

  confirm(set: Name, version: Ballot, isVoid: boolean): void {
    for (const replica of this.placeOf(set.space).replicas)
      replica.call(
        this.process,
        "confirm",
        set,
        (it) => it.confirm(set, version, isVoid),
        () => {},
      );
  }

  /** The newest configuration of a partition that it has heard of. */
  known(space: Name["space"]): Configuration {
    return this.placeOf(space).configuration;
  }

  /** A configuration that counts somewhere: the newest one is kept. */
  learn(space: Name["space"], configuration: Configuration): void {
    noteDecided(this.#world, space, configuration);
    if (configuration.epoch <= this.known(space).epoch) return;
    const isOldOnly = this.#world.mutation === "a write of a joint phase needs the old members alone [M1]";
    const ids = configuration.old.map(({ id }) => id);
    const next = configuration.next?.map(({ id }) => id) ?? [];
    const all = [...ids, ...next.filter((id) => !ids.includes(id))];
    const quorum =
      configuration.next === undefined
        ? Quorum.stable(ids.length)
        : Quorum.joint(
            ids.length,
            all.map((id) => next.includes(id) && !isOldOnly),
          );
    const replicas = all.flatMap((id) => this.#world.replicas[indexOf(id)] ?? []);
    this.#places.set(space, { configuration, quorum, replicas });
    this.#clock.advancePast(configuration.floor);
  }

  /** Another object once the partition has other members. */
  placeOf(space: Name["space"]): Place {
    let place = this.#places.get(space);
    if (place === undefined) {
      const configuration = firstConfigurationIn(this.#world, space);
      const replicas = configuration.old.flatMap(({ id }) => this.#world.replicas[indexOf(id)] ?? []);
      place = { configuration, quorum: Quorum.stable(replicas.length), replicas };
      this.#places.set(space, place);
    }
    return place;
  }

  #newBallot(incarnation: Incarnation): Ballot {
    return ballotOf(incarnation, this.#clock.next(), this.process);
  }

  async #write(name: Name, mode: WriteMode, incarnation: Incarnation, sent: Sent): Promise<WriteOutcome> {
    const { queue, random, mutation } = this.#world;
    if (
      mutation === "the row is written before the version is accepted" &&
      mode.kind === "plain" &&
      name.space === "object"
    )
      await this.#rowFirst(name, mode.record, incarnation);
    const blind = this.#blindFor(name);
    const newBallot = (): Ballot => blind?.blind(this.#newBallot(incarnation)) ?? this.#newBallot(incarnation);
    let place = this.placeOf(name.space);
    const machine = new RegisterWrite(place.quorum, mode, newBallot);
    return new Promise((resolve) => {
      const moved = (): void => {
        const present = this.placeOf(name.space);
        // Another replica said so before: the phase has begun anew already.
        if (present === place) return;
        place = present;
        perform(machine.onEpoch(place.quorum));
      };
      const accept = (
        effect: Extract<WriteEffect, { kind: "accept" | "supply" }>,
        index: number,
        bodyLength: number | undefined,
      ): void => {
        const replica = place.replicas[index];
        if (replica === undefined) throw new Error("a message to a replica that is none");
        const { record, version } = effect;
        const isGiven = bodyLength !== undefined;
        const proposal: Proposal = {
          ...record,
          bodyVersion: record.bodyVersion ?? version,
          body: isGiven ? "inline" : record.body === "keep" ? "keep" : "none",
        };
        this.ask(
          place,
          replica,
          "accept",
          name,
          async (it, epoch) => {
            const body = isGiven
              ? ({ kind: "bytes", bytes: Buffer.alloc(bodyLength) } as const)
              : ({ kind: "none" } as const);
            const kept =
              mutation === "a metadata change keeps whatever body is there [A4]" && proposal.body === "keep"
                ? (await it.held(name))?.register.bodyVersion
                : undefined;
            const told = kept === undefined ? proposal : { ...proposal, bodyVersion: kept };
            const reply = await it.accept(name, version, effect.ballot, told, body, effect.own, epoch);
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
          moved,
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
            for (const replica of place.replicas.slice(0, place.quorum.voterCount)) {
              this.ask(
                place,
                replica,
                "prepare",
                name,
                (it, epoch) => it.prepare(name, effect.ballot, effect.own, epoch),
                (reply) => {
                  if (reply?.kind === "refused") {
                    this.#heard(reply.seen);
                    this.#clock.advancePast(reply.floor);
                  } else if (reply?.register !== undefined) this.#heard(reply.register.ballot);
                  perform(machine.onPrepare(effect.round, reply));
                },
                moved,
              );
            }
            return;
          case "accept":
            for (const index of place.replicas.keys()) {
              if (effect.record.body === "given" && sent.staged && sent.used.has(index))
                queue.after(0, () => perform(machine.onAccept(effect.round, undefined, index)));
              else accept(effect, index, effect.record.body === "given" ? effect.record.bodyLength : undefined);
            }
            return;
          case "supply": {
            const bodyVersion = effect.record.bodyVersion ?? effect.version;
            void this.#bodyLength(place, name, bodyVersion).then((length) => {
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
  #bodyLength(place: Place, name: Name, bodyVersion: Ballot): Promise<number | undefined> {
    return new Promise((resolve) => {
      let open = place.replicas.length;
      for (const replica of place.replicas) {
        this.ask(
          place,
          replica,
          "read",
          name,
          async (it) => {
            const stored = await it.held(name);
            return stored?.register.bodyVersion === bodyVersion && stored.body.kind === "log"
              ? stored.body.length
              : undefined;
          },
          (length) => {
            open -= 1;
            if (length !== undefined || open === 0) resolve(length);
          },
          () => {},
        );
      }
    });
  }

  async #rowFirst(name: Name, record: WriteRecord, incarnation: Incarnation): Promise<void> {
    const version = this.#newBallot(incarnation);
    await this.#row(CONTAINER, incarnation, rowOf(name.path.slice("/a/c/".length), { version, ...record }));
  }

  #row(set: Name, incarnation: Incarnation, row: Row, isPlaced = false): Promise<RowOutcome> {
    const { mutation } = this.#world;
    // An account's rows are taken without asking: under a container's path and life that is a replica that forgot to.
    const isBlind = mutation === "rows are taken in any state of the container [B1]" && set.space === "container";
    const owner: Name = isBlind ? { ...set, space: "account", path: `${set.path}\0${incarnation}` } : set;
    const isTaken = isPlaced || mutation === "a leaving shard takes rows that are nowhere else [S2]";
    return this.#rowAsked(set, (it, epoch) => it.row(owner, incarnation, row, epoch, isTaken));
  }

  #rowAsked(set: Name, ask: (it: Replica, epoch: number) => Promise<RowReply>): Promise<RowOutcome> {
    const { queue, random } = this.#world;
    let place = this.placeOf(set.space);
    const machine = new RowWrite(place.quorum);
    return new Promise((resolve) => {
      const moved = (): void => {
        const present = this.placeOf(set.space);
        // Another replica said so before: the phase has begun anew already.
        if (present === place) return;
        place = present;
        perform(machine.onEpoch(place.quorum));
      };
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
            for (const [index, replica] of place.replicas.entries())
              this.ask(
                place,
                replica,
                "row",
                set,
                ask,
                (reply) => perform(machine.onReply(effect.round, reply, index)),
                moved,
              );
        }
      };
      perform(machine.start());
    });
  }

  /** Asks again, with waits that double, while a partition is on its way to other members. */
  async #whileMoving<T>(space: Name["space"], once: (place: Place) => Promise<T | "again">): Promise<T | undefined> {
    const { queue, random } = this.#world;
    for (let attempt = 0; attempt < SEALED_ATTEMPTS; attempt++) {
      const place = this.placeOf(space);
      const result = await once(place);
      if (result !== "again") return result;
      if (this.placeOf(space) !== place) continue;
      await new Promise<void>((resolve) => queue.after(random.unit() * SEALED_WAIT_MS * 2 ** attempt, resolve));
    }
    return undefined;
  }

  async #list(
    set: Name,
    incarnation: Incarnation,
    query: Parameters<Replica["list"]>[2],
    fromAll: boolean,
  ): Promise<ListAnswer> {
    const found = await this.#whileMoving(set.space, (place) =>
      this.#listOnce(place, set, incarnation, query, fromAll),
    );
    return found ?? { kind: "unavailable" };
  }

  #listOnce(
    place: Place,
    set: Name,
    incarnation: Incarnation,
    query: Parameters<Replica["list"]>[2],
    fromAll: boolean,
  ): Promise<ListAnswer | "again"> {
    const { random, mutation } = this.#world;
    const replicas = place.replicas.slice(0, place.quorum.voterCount);
    const isCareless = mutation === "one replica of a shard is copied [S3]" && query.isCopy === true;
    const wanted = mutation === "a listing asks one replica [B2]" || isCareless ? 1 : place.quorum.readCount;
    const first = random.below(replicas.length);
    return new Promise((resolve) => {
      const pages: Extract<ListAnswer, { kind: "rows" }>["pages"][number][] = [];
      let failed = 0;
      let isMoving = false;
      let obstacle: Exclude<ListAnswer["kind"], "rows"> = "unavailable";
      for (const [index, replica] of replicas.entries()) {
        const wantsRows = fromAll || index === first;
        const isDeaf = mutation === "a shard is copied where nobody has heard that it is leaving [S3]";
        const asked = isDeaf ? { ...query, isCopy: false } : query;
        const sent = wantsRows ? asked : { ...asked, limit: 0 };
        this.ask(
          place,
          replica,
          "list",
          set,
          async (it, epoch): Promise<ListReply> => {
            const summary = it.summary(set, incarnation);
            const { reply, runs } = await it.list(set, incarnation, sent, epoch);
            const rows = reply === undefined ? unpackRows(Buffer.concat(runs)) : [];
            const isBlind = mutation === "a listing drops deleted rows before merging [B2]";
            const mark = it.shards.markOf(set);
            return (
              reply ?? { kind: "rows", summary, rows: isBlind ? rows.filter((row) => !row.isDeleted) : rows, mark }
            );
          },
          (reply) => {
            if (reply?.kind === "rows") pages.push({ ...reply, replica: index });
            else {
              failed += 1;
              obstacle = obstacleWith(obstacle, reply?.kind);
            }
            const chosen = fromAll ? pages : pages.filter((page) => page.replica === first);
            const others = pages.filter((page) => !chosen.includes(page));
            if (pages.length >= wanted && chosen.length > 0)
              resolve({ kind: "rows", pages: [...chosen, ...others].slice(0, wanted) });
            else if (failed > replicas.length - wanted || pages.length + failed === replicas.length)
              resolve(isMoving && obstacle === "unavailable" ? "again" : { kind: obstacle });
          },
          () => resolve("again"),
          () => (isMoving = true),
        );
      }
    });
  }

  read(name: Name): Promise<ReadAnswer | undefined> {
    return this.#whileMoving(name.space, (place) => this.#readOnce(place, name));
  }

  #readOnce(place: Place, name: Name): Promise<ReadAnswer | undefined | "again"> {
    const { random, mutation } = this.#world;
    const { configuration, quorum } = place;
    const replicas = place.replicas.slice(0, quorum.voterCount);
    return new Promise((resolve) => {
      const answers: ReplicaRead[] = [];
      let failed = 0;
      let isMoving = false;
      const wanted = random.unit() < 0.5 ? quorum.readCount : replicas.length;
      for (const [index, replica] of replicas.entries()) {
        this.ask(
          place,
          replica,
          "read",
          name,
          async (it, epoch) => ({ register: (await it.read(name, epoch))?.register }),
          (read) => {
            if (read === undefined) failed += 1;
            else {
              answers.push({ replica: index, register: read.register });
              if (read.register !== undefined) this.#heard(read.register.ballot);
            }
            if (answers.length !== wanted && answers.length + failed !== replicas.length) return;
            const isAgreed = mutation === "what the old members agree on is served in a joint phase [M1]";
            const judged = isAgreed ? Quorum.stable(quorum.voterCount) : quorum;
            const verdict = judgeRead(judged, answers, configuration.floor);
            if (verdict.kind === "more") return resolve(isMoving ? "again" : undefined);
            const isSettled = verdict.kind === "settled";
            const isEarly = mutation === "an established version is served before its row is written" && isSettled;
            const register = this.#blindFor(name)?.wholeRegister(verdict.register) ?? verdict.register;
            resolve({ register: isEarly && register ? { ...register, state: "confirmed" } : register, isSettled });
          },
          () => resolve("again"),
          () => (isMoving = true),
        );
      }
    });
  }

  /**
   * Asks one replica in the epoch of `place`; undefined stands for a time-out and for every refusal. `moved` is called where the partition has
   * other members by now: what was asked in the old epoch does not count any more. `onSealed`: they change in a moment.
   */
  ask<T>(
    place: Place,
    replica: SimulatedReplica,
    kind: Message["kind"],
    name: Name,
    work: (it: Replica, epoch: number) => Promise<T> | T,
    answer: (value: T | undefined) => void,
    moved: () => void,
    onSealed: () => void = () => {},
  ): void {
    let isAnswered = false;
    const once = (value: T | undefined): void => {
      if (isAnswered || this.isDead) return;
      isAnswered = true;
      answer(value);
    };
    let { configuration } = place;
    const send = (attempt: number): void => {
      const sent = (it: Replica): Promise<Met<T>> => met(() => work(it, configuration.epoch));
      replica.call<Met<T>>(this.process, kind, name, sent, (result) => {
        if (isAnswered || this.isDead) return;
        if ("value" in result) {
          this.#noteReply(kind, result.value);
          return once(result.value);
        }
        this.#world.note?.(`${kind} refused: ${result.refusal.code}`);
        switch (result.refusal.code) {
          case "epoch-behind":
            this.#saw("met behind");
            if (kind === "accept" && this.#world.mutation === "answers of two epochs are counted together [M1]") {
              this.learn(name.space, configurationIn(result.refusal));
              configuration = this.known(name.space);
              if (attempt < TELL_ATTEMPTS) return send(attempt + 1);
            }
            isAnswered = true;
            this.learn(name.space, configurationIn(result.refusal));
            return moved();
          case "epoch-ahead":
            this.#saw("met ahead");
            if (attempt === TELL_ATTEMPTS) return once(undefined);
            return replica.call(
              this.process,
              "configure",
              name,
              (it) => it.configure(partitionOf(name.space), configuration),
              () => send(attempt + 1),
            );
          case "epoch-sealed":
            this.#saw("met sealed");
            onSealed();
            return once(undefined);
          default:
            this.#saw("met joining");
            return once(undefined);
        }
      });
    };
    send(1);
    this.#world.queue.after(this.#world.timeoutMs, () => once(undefined));
  }

  #noteReply(kind: Message["kind"], reply: unknown): void {
    const { note } = this.#world;
    if (note === undefined || typeof reply !== "object" || reply === null || !("kind" in reply)) return;
    note(`${kind} answered: ${String(reply.kind)}`);
  }

  #saw(event: MoveEvent): void {
    const { moves } = this.#world;
    if (moves !== undefined) moves.counts[event] += 1;
  }

  #heard(ballot: Ballot): void {
    this.#clock.advancePast(timestampIn(ballot));
  }

  /** Of a register that is no client's. */
  writeAs(name: Name, mode: WriteMode, incarnation: Incarnation): Promise<WriteOutcome> {
    return this.#write(name, mode, incarnation, { staged: false, used: new Set() });
  }

  /** Asks one replica something about a name; undefined where it does not answer. */
  askOne<T>(
    replica: SimulatedReplica,
    name: Name,
    work: (it: Replica, epoch: number) => Promise<T> | T,
  ): Promise<T | undefined> {
    return new Promise((resolve) => {
      this.ask(this.placeOf(name.space), replica, "row", name, work, resolve, () => resolve(undefined));
    });
  }

  /** Asks one replica something about a partition's members; undefined where it does not answer. */
  askOfMove<T>(
    replica: SimulatedReplica,
    kind: MoveMessage,
    space: Name["space"],
    work: (it: Replica, place: ReturnType<typeof partitionOf>) => Promise<T> | T,
  ): Promise<T | undefined> {
    return new Promise((resolve) => {
      const partition = partitionOf(space);
      const sent = (it: Replica): Promise<Met<T>> => met(() => work(it, partition));
      replica.call<Met<T>>(this.process, kind, { space, hash32: 0, path: "" }, sent, (result) => {
        if ("value" in result) return resolve(result.value);
        if (result.refusal.code === "epoch-behind") this.learn(space, configurationIn(result.refusal));
        resolve(undefined);
      });
      this.#world.queue.after(this.#world.timeoutMs, () => resolve(undefined));
    });
  }
}
