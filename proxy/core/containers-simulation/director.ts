import { seededRandom } from "../../../common/random.ts";
import { EventQueue, settlePromises } from "../../../common/simulation/event-queue.ts";
import type { Incarnation } from "../../../common/ballot.ts";
import { decodeContainerRecord, type Name } from "../../../storage-node/wire.ts";
import { setOf } from "../container-place.ts";
import { readContainer } from "../container-script.ts";
import type { Script } from "../script.ts";
import { runChange } from "../shard-change.ts";
import { type Operation, problemOf } from "./history.ts";
import { COPY_SETTINGS } from "./operations.ts";
import { ContainersLife, RECLAIM_AGE_MS } from "./life.ts";
import type { MoveOutcome } from "../partition-move.ts";
import type { SimulatedProxy } from "./simulated-proxy.ts";
import { moveOnce } from "./simulated-mover.ts";
import { FEW_NAMES, type MakeReplica, type Message, noMoves, SimulatedReplica, type World } from "./world.ts";
import { BlindBallots, changeCarelessly, isCarelessChange, type Mutation } from "./planted-mistakes.ts";

const START_MS = 1_700_000_000_000;
const LATENCY_MS = 0.5;
/** So long that everything else is done while one proxy waits for an answer that does not come. */
const TIMEOUT_MS = 5000;
const REPLICAS = 3;
const SETTLE_TURNS = 4;

type Match = (message: Message) => boolean;
type Rule = { readonly matches: Match; readonly held: (() => void)[] | undefined };

/** A life in which nothing happens by chance: who does what, and which messages are lost or late, is told step by step. */
export class ContainersDirector {
  readonly #life: ContainersLife;
  #rules: readonly Rule[] = [];
  #carried: Match[] = [];
  #operations = 0;

  /** @param moving where partitions move: how many replicas there are, and which of them keep every partition at the beginning */
  constructor(
    makeReplica: MakeReplica,
    mutation?: Mutation,
    moving?: { readonly replicas: number; readonly members: readonly string[] },
    isSharded = false,
  ) {
    const queue = new EventQueue(START_MS);
    const moves =
      moving === undefined
        ? {}
        : {
            firstMembers: { account: moving.members, container: moving.members, object: moving.members },
            moves: noMoves(),
          };
    const world: World = {
      ...moves,
      ...(isSharded ? { shards: { ids: new Map() } } : {}),
      queue,
      names: FEW_NAMES,
      random: seededRandom(1n),
      replicas: [],
      mutation,
      blind: mutation === "ballots compare without the incarnation [B6]" ? new BlindBallots() : undefined,
      carry: (message, deliver) => this.#carry(message, () => queue.after(LATENCY_MS, deliver)),
      timeoutMs: TIMEOUT_MS,
      memoryChance: 1,
    };
    for (let index = 0; index < (moving?.replicas ?? REPLICAS); index++)
      world.replicas.push(new SimulatedReplica(world, index, makeReplica));
    this.#life = new ContainersLife(world, problemOf);
  }

  #carry(message: Message, send: () => void): void {
    this.#carried = this.#carried.filter((matches) => !matches(message));
    const rule = this.#rules.find(({ matches }) => matches(message));
    if (rule === undefined) send();
    else rule.held?.push(send);
  }

  newProxy(): SimulatedProxy {
    return this.#life.newProxy();
  }

  /** Messages like this are lost until the function that is given back is called. */
  lose(matches: Match): () => void {
    return this.#add({ matches, held: undefined });
  }

  /** Messages like this are late: they go on when the function that is given back is called. */
  hold(matches: Match): () => void {
    const held: (() => void)[] = [];
    const remove = this.#add({ matches, held });
    return () => {
      remove();
      for (const send of held) send();
    };
  }

  #add(rule: Rule): () => void {
    this.#rules = [...this.#rules, rule];
    return () => (this.#rules = this.#rules.filter((it) => it !== rule));
  }

  /** All replicas at once, and back at once. */
  losePower(): void {
    for (const replica of this.#life.world.replicas) {
      replica.crash();
      replica.restart();
    }
  }

  replica(index: number): SimulatedReplica {
    const replica = this.#life.world.replicas[index];
    if (replica === undefined) throw new Error("there is no such replica");
    return replica;
  }

  /** One round of a replica's repair, until it is over. */
  async repair(index: number): Promise<void> {
    await this.#ended(this.replica(index).repair());
  }

  /** Begins a round of a replica's repair, and lets it go on by itself. */
  beginRepair(index: number): void {
    void this.replica(index).repair();
  }

  /** Every replica forgets deletions that are as old as may be, all one after the other. */
  async reclaim(...indices: readonly number[]): Promise<void> {
    for (const index of indices)
      await this.#ended(this.replica(index).reclaim(this.#life.world.queue.nowMs() - RECLAIM_AGE_MS));
  }

  nowMs(): number {
    return this.#life.world.queue.nowMs();
  }

  /** Lets time pass. */
  async pass(ms: number): Promise<void> {
    const { queue } = this.#life.world;
    await this.#ended(new Promise<void>((resolve) => queue.after(ms, resolve)));
  }

  /** Runs something about the container's shards. */
  async run<T>(
    proxy: SimulatedProxy,
    script: (place: SimulatedProxy["place"], incarnation: Incarnation) => Script<Name, T>,
  ) {
    const found = await this.#end(proxy.run(readContainer(proxy.place)));
    if (typeof found === "string") throw new Error(`the container is ${found}`);
    return this.#end(proxy.run(script(proxy.place, found.record.incarnation)));
  }

  /** Begins to do what is planned for the container's shards; with the planted mistake, unless `isCareful`. */
  beginChange(proxy: SimulatedProxy, incarnation: Incarnation, isCareful = false): Promise<unknown> {
    const { mutation } = this.#life.world;
    return isCarelessChange(mutation) && !isCareful
      ? proxy.run(changeCarelessly(proxy.place, incarnation, COPY_SETTINGS, mutation))
      : proxy.run(runChange(proxy.place, incarnation, COPY_SETTINGS));
  }

  async endChange(change: Promise<unknown>): Promise<void> {
    await this.#end(change);
  }

  /** Lets time pass until a replica has it that the rows of a shard of the container are elsewhere. */
  async goneSomewhere(proxy: SimulatedProxy, incarnation: Incarnation, id: string): Promise<void> {
    const shard = setOf(proxy.place, incarnation, id);
    await this.#until(() =>
      this.#life.world.replicas.some((replica) => {
        const register = replica.held(shard)?.register;
        return register !== undefined && decodeContainerRecord(register.metadata).shards?.rows === "gone";
      }),
    );
  }

  async #end<T>(work: Promise<T>): Promise<T> {
    let done: { readonly value: T } | undefined;
    void work.then((value) => (done = { value }));
    await this.#until(() => done !== undefined);
    if (done === undefined) throw new Error("what was waited for did not come");
    return done.value;
  }

  /** Begins to bring the objects to other members. */
  beginMove(proxy: SimulatedProxy, target: readonly string[]): Promise<MoveOutcome> {
    const { world } = this.#life;
    world.moves?.targets.set("object", target);
    return moveOnce(world, proxy, "object", target);
  }

  /** Lets time pass until the mover has ended. */
  async endMove(move: Promise<MoveOutcome>): Promise<MoveOutcome | undefined> {
    let outcome: MoveOutcome | undefined;
    void move.then((it) => (outcome = it));
    await this.#until(() => outcome !== undefined);
    return outcome;
  }

  move(proxy: SimulatedProxy, target: readonly string[]): Promise<MoveOutcome | undefined> {
    return this.endMove(this.beginMove(proxy, target));
  }

  async #ended(work: Promise<void>): Promise<void> {
    let isOver = false;
    void work.then(() => (isOver = true));
    await this.#until(() => isOver);
  }

  /** Begins an operation. */
  begin(proxy: SimulatedProxy, kind: Operation["kind"], name = ""): Promise<Operation> {
    return this.#life.operate(proxy, this.#operations++, kind, name);
  }

  /** Lets time pass until the operation has ended. */
  async end(operation: Promise<Operation>): Promise<Operation["status"]> {
    let done: Operation | undefined;
    void operation.then((it) => (done = it));
    await this.#until(() => done !== undefined);
    return done?.status;
  }

  do(proxy: SimulatedProxy, kind: Operation["kind"], name = ""): Promise<Operation["status"]> {
    return this.end(this.begin(proxy, kind, name));
  }

  /** Lets time pass until such a message was sent, be it lost or late. */
  async sent(matches: Match): Promise<void> {
    this.#carried.push(matches);
    await this.#until(() => !this.#carried.includes(matches));
  }

  async #until(isReached: () => boolean): Promise<void> {
    for (let idle = 0; ; ) {
      // What follows of one event is over before the next, which may be a time-out that nobody meant to wait for.
      for (let turn = 0; turn < SETTLE_TURNS; turn++) await settlePromises();
      if (isReached()) return;
      idle = (await this.#life.step()) ? 0 : idle + 1;
      if (idle > 1) throw new Error("nothing goes on, and what was waited for did not come");
    }
  }

  /** Nothing is lost or late any more; gives what is wrong with this life, if anything. */
  async conclude(): Promise<string | undefined> {
    this.#rules = [];
    await this.#life.drain();
    return this.#life.conclude();
  }
}
