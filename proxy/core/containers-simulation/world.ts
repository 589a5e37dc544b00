import type { Ballot, Incarnation } from "../../../common/ballot.ts";
import type { Clock } from "../../../common/clock.ts";
import { type HybridTimestamp, TIMESTAMP_ZERO } from "../../../common/hybrid-clock.ts";
import type { Random } from "../../../common/random.ts";
import { RingsteadError } from "../../../common/errors.ts";
import type { SimulatedDisk } from "../../../common/simulation/disk.ts";
import type { EventQueue } from "../../../common/simulation/event-queue.ts";
import { PowerCuts } from "../../../common/simulation/power-cuts.ts";
import type {
  AcceptReply,
  Configuration,
  ListQuery,
  ListReply,
  Name,
  PrepareReply,
  Proposal,
  Register,
  Row,
  RowReply,
  RowSummary,
} from "../../../storage-node/wire.ts";
import type { ContainerPlace, RouteMemory } from "../container-place.ts";
import type { ObjectPlace, Shown } from "../object-script.ts";
import { shardName } from "../shard-ranges.ts";
import type { BlindBallots, Mutation } from "./planted-mistakes.ts";

/** The world of the containers' simulation: the names in it, its messages, and replicas that lose power and come back. */
export const CONTAINER: Name = { space: "container", hash32: 3, path: "/a/c" };
export const ACCOUNT: Name = { space: "account", hash32: 5, path: "/a" };
/** The objects of a short life. */
export const FEW_NAMES: readonly string[] = ["o1", "o2"];

/** The container as somebody knows it who has that memory. */
export const containerPlace = (memory: RouteMemory): ContainerPlace<Name> => ({
  container: CONTAINER,
  account: ACCOUNT,
  name: "c",
  shardOf: (incarnation, id) => ({ ...CONTAINER, path: `/.shards_a/${shardName("c", incarnation, id)}` }),
  memory,
});

/** As somebody knows it who remembers nothing. */
export const PLACE = containerPlace({
  route: () => undefined,
  learn: () => {},
  isGone: () => false,
  noteGone: () => {},
});

export const objectName = (name: string): Name => ({ space: "object", hash32: 7, path: `/a/c/${name}` });

export const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString();

export const rowOf = (name: string, shown: Shown): Row => ({
  name,
  version: shown.version,
  isDeleted: shown.isTombstone,
  objects: shown.isTombstone ? 0 : 1,
  bytes: shown.bodyLength,
  payload: shown.isTombstone ? new Uint8Array() : shown.metadata,
});

export const placeOf = (name: string, container = PLACE): ObjectPlace<Name> => ({
  object: objectName(name),
  container,
  rowOf: (shown) => rowOf(name, shown),
  dueRowOf: () => undefined,
});

type SentBody = { readonly kind: "none" } | { readonly kind: "bytes"; readonly bytes: Uint8Array };
type StoredBody = { readonly kind: "none" } | { readonly kind: "log" | "file"; readonly length: number };

type Held = { readonly register: Register; readonly body: StoredBody };
type Partition = { readonly space: Name["space"]; readonly partition: number; readonly partitionPower: number };

/** Every name lies in the first partition of its ring. */
export const partitionOf = (space: Name["space"]): Partition => ({ space, partition: 0, partitionPower: 16 });

/** What proxies ask of a replica: the storage node's. Only tests look into that house, so it is handed in. */
export type Replica = {
  accept(
    name: Name,
    version: Ballot,
    ballot: Ballot,
    proposal: Proposal,
    body: SentBody,
    own: readonly Ballot[],
    epoch: number,
  ): Promise<AcceptReply>;
  prepare(name: Name, ballot: Ballot, own: readonly Ballot[], epoch: number): Promise<PrepareReply>;
  read(name: Name, epoch: number): Promise<Held | undefined>;
  /** Whatever it is worth. */
  held(name: Name): Promise<Held | undefined>;
  confirm(name: Name, version: Ballot, isVoid: boolean): void;
  row(owner: Name, incarnation: Incarnation, row: Row, epoch: number, isPlaced: boolean): Promise<RowReply>;
  readonly shards: {
    take(
      owner: Name,
      incarnation: Incarnation,
      copies: { readonly rows: readonly Row[]; readonly mark: HybridTimestamp; readonly place: Partition },
      epoch: number,
    ): Promise<RowReply>;
    markOf(owner: Name): HybridTimestamp;
    drop(owner: Name, incarnation: Incarnation, epoch: number): Promise<number>;
  };
  list(
    owner: Name,
    incarnation: Incarnation,
    query: ListQuery,
    epoch: number,
  ): Promise<{ readonly reply: Exclude<ListReply, { kind: "rows" }> | undefined; readonly runs: readonly Buffer[] }>;
  summary(owner: Name, incarnation: Incarnation): RowSummary;
  configure(place: Partition, configuration: Configuration): Promise<Configuration>;
  seal(place: Partition, epoch: number): Promise<HybridTimestamp>;
  release(place: Partition, epoch: number): Promise<number>;
  readonly epochs: {
    configurationOf(place: Partition): Configuration;
    hasCaughtUp(place: Partition): boolean;
  };
};

/** A replica between two losses of power, with the device that it stands on. */
export type PoweredReplica = {
  readonly replica: Replica;
  /** What the device holds of a name, and how long the body beside it is. */
  held(name: Name): { readonly register: Register; readonly storedBytes: number } | undefined;
  /** What was not synced is gone. The old one must not be used again. */
  afterCrash(): PoweredReplica | Promise<PoweredReplica>;
  readonly onCrash?: () => void;
  /** Whether its device takes nothing any more before it is opened again, which is an operator's to do. */
  isFailed?(): boolean;
  /** Where replicas repair themselves. */
  readonly repair: RepairSide | undefined;
  /** All that it holds of a ring, in words that are equal where the bytes are. */
  content?(space: Name["space"]): Promise<string>;
};

/** A question of one replica to another; only the storage node knows what is in it. */
type RepairQuestion = readonly unknown[];

/** How a replica repairs itself, and helps others to. */
export type RepairSide = {
  /** Its disk is replaced by an empty one at the next restart. */
  empty(): void;
  answer(question: RepairQuestion): Promise<unknown>;
  /** One round over the other replicas; `ask` rejects when no answer comes. */
  round(
    index: number,
    count: number,
    ask: (index: number, question: RepairQuestion) => Promise<unknown>,
  ): Promise<void>;
  /** Removes deletions from before that moment, where all members agree; how many went. */
  reclaim(olderThanMs: number, ask: (index: number, question: RepairQuestion) => Promise<unknown>): Promise<number>;
  /** Partitions in which it has no vote. */
  joiningCount(): number;
};

/** Makes a replica on an empty device; `syncAfter` decides when a sync is over. */
export type MakeReplica = (
  syncAfter: (done: () => void) => void,
  clock: Clock,
  index: number,
  firstMembers: FirstMembers | undefined,
  mutation: Mutation | undefined,
) => PoweredReplica;

/** What a simulation may break of a node's machine, and does not lose with its power. */
export type Hardware = {
  disk: SimulatedDisk;
  /** How many times longer than usual each step of the disk takes. */
  slowness: number;
  /** How far its clock is ahead. */
  skewMs: number;
  /** Told of what was found at a start. */
  onStart: (event: "unopened" | "damaged" | "emptied") => void;
  /** Of what is written one bit becomes another, and what could have told which is lost. Whether there was one. Requires: the node is down. */
  rot(random: Random): Promise<boolean>;
};

/** Makes whole nodes, and puts what may be broken of each into `hardware`. They are down before their first restart. */
export type MakeNodes = (queue: EventQueue, seed: bigint, hardware: Hardware[]) => MakeReplica;

/** What is asked of a replica when its partition changes its members. */
export type MoveMessage = "configure" | "caught-up" | "seal" | "release";

/** One way of a message between a proxy and a replica. */
export type Message = {
  readonly from: string;
  readonly to: number;
  readonly kind: "accept" | "prepare" | "read" | "row" | "list" | "confirm" | "repair" | MoveMessage;
  readonly space: Name["space"];
  readonly way: "request" | "answer";
  /** What replicas ask each other. */
  readonly question?: string;
};

export type World = {
  readonly queue: EventQueue;
  /** The objects that there may be. */
  readonly names: readonly string[];
  /** Lets everything happen that one event brings about, where that takes more than promises. */
  readonly settle?: () => Promise<void>;
  /** Told of everything that occurs, in words that can be counted. */
  readonly note?: (occurrence: string) => void;
  readonly random: Random;
  readonly replicas: SimulatedReplica[];
  readonly mutation: Mutation | undefined;
  readonly blind: BlindBallots | undefined;
  /** The network: `deliver` is called when the message arrives, if it does. */
  readonly carry: (message: Message, deliver: () => void) => void;
  /** How long a proxy waits for an answer. */
  readonly timeoutMs: number;
  /** How often a proxy relies on what it remembers of the container. */
  readonly memoryChance: number;
  /** Where listings are split and merged: every shard that was ever planned, with its container's life. */
  readonly shards?: { readonly ids: Map<string, Incarnation> };
  /** The members of each partition at the beginning, where that is not all replicas. */
  readonly firstMembers?: FirstMembers;
  /** Where partitions move: what became of it. */
  readonly moves?: MovesSeen;
};

/** How partitions are moved in a life. */
export type MovesSeen = {
  /** The members that each partition is to have in the end. */
  readonly targets: Map<Name["space"], readonly string[]>;
  /** Every configuration that anybody heard of, by partition and epoch: there may be one of each. */
  readonly decided: Map<string, Configuration>;
  /** How often something happened. */
  readonly counts: Record<MoveEvent, number>;
  problem: string | undefined;
};

export type MoveEvent = "completed" | "given up" | "met sealed" | "met behind" | "met ahead" | "met joining";

export type FirstMembers = Readonly<Record<Name["space"], readonly string[]>>;

/** Nothing has moved yet. */
export const noMoves = (): MovesSeen => ({
  targets: new Map(),
  decided: new Map(),
  counts: { completed: 0, "given up": 0, "met sealed": 0, "met behind": 0, "met ahead": 0, "met joining": 0 },
  problem: undefined,
});

/** A replica as configurations name it, and back. */
export const idOf = (index: number): string => `node/${index}`;
export const indexOf = (id: string): number => Number(id.slice("node/".length));

/** The members of a partition before it is moved. */
export const firstConfigurationIn = ({ firstMembers, replicas }: World, space: Name["space"]): Configuration => {
  const ids = firstMembers?.[space] ?? replicas.map(({ index }) => idOf(index));
  return { epoch: 0, old: ids.map((id) => ({ id, since: 0 })), next: undefined, floor: TIMESTAMP_ZERO };
};

/** The newest configuration that any replica has. */
const newestIn = (world: World, space: Name["space"]): Configuration => {
  let newest = firstConfigurationIn(world, space);
  for (const { replica } of world.replicas) {
    const known = replica.epochs.configurationOf(partitionOf(space));
    if (known.epoch > newest.epoch) newest = known;
  }
  return newest;
};

/** Those that keep a name now. */
export const membersIn = (world: World, { space }: Name): readonly SimulatedReplica[] =>
  newestIn(world, space).old.flatMap(({ id }) => world.replicas[indexOf(id)] ?? []);

/** One replica with its power cuts. */
export class SimulatedReplica {
  readonly #world: World;
  readonly #power: PowerCuts<PoweredReplica>;
  readonly index: number;

  constructor(world: World, index: number, makeReplica: MakeReplica) {
    this.#world = world;
    this.index = index;
    this.#power = new PowerCuts(world.queue, world.random, (syncAfter) =>
      makeReplica(syncAfter, world.queue, index, world.firstMembers, world.mutation),
    );
  }

  get isUp(): boolean {
    return this.#power.isUp;
  }

  get replica(): Replica {
    return this.#power.machine.replica;
  }

  held(name: Name): ReturnType<PoweredReplica["held"]> {
    return this.#power.machine.held(name);
  }

  content(space: Name["space"]): Promise<string> | undefined {
    return this.#power.machine.content?.(space);
  }

  /** Whether an operator has to start it again. */
  get isFailed(): boolean {
    return this.isUp && this.#power.machine.isFailed?.() === true;
  }

  crash(): void {
    this.#power.crash();
  }

  /** It loses its power and its disk. */
  lose(): void {
    this.#power.machine.repair?.empty();
    this.#power.crash();
  }

  get joiningCount(): number {
    return this.#power.machine.repair?.joiningCount() ?? 0;
  }

  /** One round of repair, if it is up; it is over when it came to its end or the replica lost its power. */
  async repair(): Promise<void> {
    const side = this.#power.machine.repair;
    if (side === undefined || !this.isUp) return;
    await this.#attempt(side.round(this.index, this.#world.replicas.length, this.#ask));
  }

  /** Removes deletions from before that moment, if it is up. */
  async reclaim(olderThanMs: number): Promise<void> {
    const side = this.#power.machine.repair;
    if (side === undefined || !this.isUp) return;
    const count = await this.#attempt(side.reclaim(olderThanMs, this.#ask));
    for (let one = 0; one < (count ?? 0); one++) this.#world.note?.("a deletion is reclaimed");
  }

  /** A device that fails, or whose power is gone; as in production a later round goes on. */
  async #attempt<T>(work: Promise<T>): Promise<T | undefined> {
    try {
      return await work;
    } catch (error) {
      if (!(error instanceof RingsteadError)) throw error;
      return undefined;
    }
  }

  readonly #ask: Parameters<RepairSide["round"]>[2] = (to, question) => {
    const { carry, queue, replicas, timeoutMs } = this.#world;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    queue.after(timeoutMs, () => reject(new RingsteadError("rpc-timeout", "no answer came")));
    const asked = replicas[to];
    if (asked === undefined) throw new Error("there is no such replica");
    asked.#power.call(
      (way, deliver) =>
        carry(
          { from: `replica ${this.index}`, to, kind: "repair", space: "object", way, question: String(question[0]) },
          deliver,
        ),
      (machine) => machine.repair?.answer(question),
      resolve,
    );
    return promise;
  };

  restart(): void {
    this.#power.restart();
  }

  /** Calls the replica as the network would; no answer when it is down, or dies before it answers. */
  call<T>(
    from: string,
    kind: Message["kind"],
    { space }: Name,
    work: (it: Replica) => Promise<T> | T,
    answer: (value: T) => void,
  ): void {
    const { carry } = this.#world;
    this.#power.call(
      (way, deliver) => carry({ from, to: this.index, kind, space, way }, deliver),
      ({ replica }) => work(replica),
      answer,
    );
  }
}
