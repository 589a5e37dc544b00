import { type Random, seededRandom } from "../../../common/random.ts";
import { EventQueue } from "../../../common/simulation/event-queue.ts";
import type { Operation } from "./history.ts";
import { ContainersLife, RECLAIM_AGE_MS } from "./life.ts";
import { longProblemOf } from "./long-history.ts";
import type { SimulatedProxy } from "./simulated-proxy.ts";
import {
  type Hardware,
  type MakeNodes,
  type Message,
  membersIn,
  noMoves,
  objectName,
  CONTAINER,
  ACCOUNT,
  SimulatedReplica,
  type World,
} from "./world.ts";
import { movePartitions, oneOf, someOf } from "./workload.ts";

const START_MS = 1_700_000_000_000;
const TIMEOUT_MS = 60;
const NAMES = ["o1", "o2", "o3", "o4"];
const CLIENTS = 7;
const PROXIES = 4;
/** A life has as many bursts of work as this, in each of which every client does some things one after the other; between them time passes. */
const BURSTS = 12;
const BURST_OPERATIONS = 4;
const BURST_EVERY_MS = 5000;
const BURST_SPREAD_MS = 150;
const THINK_MS = 12;
/** Longer than what a proxy needs to give up. */
const CLIENT_PATIENCE_MS = 4000;
const FAULTS = 40;
const MOVES = 6;
/** About as long as a node takes to start and to write what it has to remember. */
const RECOVERY_MS = 40;
const REPAIR_EVERY_MS = 3000;
const STEP_LIMIT = 3_000_000;
const PROXY_DEATH_CHANCE = 0.04;
/** What is in the memory of all at once is bounded: messages, time-outs and steps of disks that are under way. */
const EVENTS_LIMIT = 6000;
const DISK_LIMIT_BYTES = 4 * 1024 * 1024;

/** What clients do: something is built, or everything is taken away. */
const BUILDING: readonly Operation["kind"][] = [
  ...(["create", "create", "drop", "look", "list", "list"] as const),
  ...(["put", "put", "put", "put", "create-object", "create-object", "post", "post"] as const),
  ...(["delete", "delete", "get", "get", "get", "get"] as const),
];
const CLEARING: readonly Operation["kind"][] = [
  ...(["create", "drop", "drop", "drop", "drop", "look", "list", "put", "put"] as const),
  ...(["delete", "delete", "delete", "delete", "delete", "delete", "get", "get"] as const),
];

/** What goes wrong, by name. */
export const FAULT_KINDS = [
  "a node loses power",
  "all nodes lose power",
  "messages are lost",
  "messages are late",
  "messages come twice",
  "messages overtake each other",
  "nodes are cut off from the others",
  "messages go one way only",
  "a disk is slow",
  "a disk is full",
  "a disk is lost",
  "a byte rots",
  "a node's clock steps",
  "a proxy's clock steps",
] as const;
type FaultKind = (typeof FAULT_KINDS)[number];

/** Chances of a message. */
type Weather = { loss: number; late: number; repeat: number; shuffle: number };

export type LongRun = {
  readonly problem: string | undefined;
  readonly operations: number;
  readonly answered: number;
  readonly succeeded: number;
  readonly simulatedMs: number;
  readonly events: number;
  /** How often each thing occurred. */
  readonly counts: ReadonlyMap<string, number>;
  readonly history: string;
};

/**
 * One seeded life of a container and four objects on three to seven nodes, each with the engine, the recovery and the replicator of production on
 * a disk that tears and drops what is not synced. Seven clients, four proxies; partitions move in every other life.
 *
 * @param trace told of every message, fault and operation, with its time
 */
export const longLife = async (seed: bigint, makeNodes: MakeNodes, trace?: (line: string) => void): Promise<LongRun> =>
  new LongLife(seed, makeNodes, trace).run();

class LongLife {
  readonly #random: Random;
  readonly #queue = new EventQueue(START_MS);
  readonly #counts = new Map<string, number>();
  readonly #weather: Weather = { loss: 0.004, late: 0.01, repeat: 0.01, shuffle: 0.02 };
  readonly #cuts = new Map<string, number>();
  readonly #hardware: Hardware[] = [];
  readonly #trace: ((line: string) => void) | undefined;
  readonly #life: ContainersLife;
  readonly #world: World;
  readonly #proxies: SimulatedProxy[] = [];
  #operations = 0;
  #events = 0;
  #problem: string | undefined;

  constructor(seed: bigint, makeNodes: MakeNodes, trace: ((line: string) => void) | undefined) {
    this.#random = seededRandom(seed);
    this.#trace = trace;
    const random = this.#random;
    const count = 3 + random.below(5);
    const isMoving = count > 3 && random.below(2) === 0;
    const memberCount = count >= 5 && random.below(4) === 0 ? 4 + random.below(2) : 3;
    const someMembers = (): readonly string[] => someOf(random, count, memberCount);
    this.#world = {
      queue: this.#queue,
      names: NAMES,
      random,
      replicas: [],
      mutation: undefined,
      blind: undefined,
      carry: (message, deliver) => this.#carry(message, deliver),
      timeoutMs: TIMEOUT_MS,
      memoryChance: 0.8,
      firstMembers: { account: someMembers(), container: someMembers(), object: someMembers() },
      ...(isMoving ? { moves: noMoves() } : {}),
      note: (occurrence) => this.#note(occurrence),
      settle: async () => {
        this.#events += 1;
        // All promises that are ready go on before the next turn, and the engine writes a batch a turn after it was begun.
        await new Promise(setImmediate);
        await new Promise(setImmediate);
      },
    };
    const makeReplica = makeNodes(this.#queue, seed, this.#hardware);
    for (let index = 0; index < count; index++) {
      this.#world.replicas.push(new SimulatedReplica(this.#world, index, makeReplica));
      const hardware = this.#hardwareOf(index);
      hardware.onStart = (event) => this.#note(`a node starts: ${event}`);
    }
    this.#life = new ContainersLife(this.#world, longProblemOf, STEP_LIMIT);
    this.#begin(isMoving ? someMembers : undefined);
  }

  #hardwareOf(index: number): Hardware {
    const hardware = this.#hardware[index];
    if (hardware === undefined) throw new Error("there is no such node");
    return hardware;
  }

  #note(occurrence: string): void {
    this.#counts.set(occurrence, (this.#counts.get(occurrence) ?? 0) + 1);
  }

  #tell(line: () => string): void {
    this.#trace?.(`${(this.#queue.nowMs() - START_MS).toFixed(3)} ${line()}`);
  }

  #carry(message: Message, deliver: () => void): void {
    const random = this.#random;
    const { from, to, kind, space, way } = message;
    const told = (what: string): void =>
      this.#tell(() => `${what} ${way} ${kind} of ${space} between ${from} and node ${to}`);
    const { late, loss, repeat, shuffle } = this.#weather;
    if (random.unit() < loss) {
      this.#note("message lost");
      return told("lost");
    }
    const copies = random.unit() < repeat ? 2 : 1;
    if (copies === 2) this.#note("message repeated");
    for (let copy = 0; copy < copies; copy++) {
      const isLate = random.unit() < late;
      if (isLate) this.#note("message late");
      const usual = 0.2 + random.unit() * (random.unit() < shuffle ? 20 : 0.4);
      this.#queue.after(isLate ? 5 + random.unit() * 400 : usual, () => {
        const link = way === "request" ? `${from} ${to}` : `${to} ${from}`;
        if (this.#cuts.has(link)) {
          this.#note("message cut off");
          return told("cut off");
        }
        told("arrives:");
        deliver();
      });
    }
  }

  /** Everything that is to happen, as far as that is known beforehand. */
  #begin(someMembers: (() => readonly string[]) | undefined): void {
    const random = this.#random;
    for (const replica of this.#world.replicas) {
      replica.crash();
      replica.restart();
    }
    for (let index = 0; index < PROXIES; index++) this.#proxies.push(this.#life.newProxy());
    for (let burst = 0; burst < BURSTS; burst++) {
      const kinds = burst % 3 === 2 ? CLEARING : BUILDING;
      for (let client = 0; client < CLIENTS; client++)
        this.#queue.after(
          this.#burstMs(burst) + random.unit() * 5,
          () => void this.#client(kinds, burst === 0 && client === 0),
        );
    }
    const spreadMs = BURSTS * BURST_EVERY_MS;
    for (let fault = 0; fault < FAULTS; fault++) {
      const kind = FAULT_KINDS[fault % FAULT_KINDS.length] ?? "messages are lost";
      const atMs = this.#burstMs(random.below(BURSTS)) + random.unit() * BURST_SPREAD_MS - 10;
      const lastsMs = random.below(5) === 0 ? random.unit() * 2 * BURST_EVERY_MS : 2 + random.unit() * BURST_SPREAD_MS;
      this.#queue.after(atMs, () => this.#fault(kind, lastsMs));
    }
    for (const [index, replica] of this.#world.replicas.entries())
      for (let atMs = random.unit() * REPAIR_EVERY_MS; atMs < spreadMs; atMs += random.unit() * 2 * REPAIR_EVERY_MS)
        this.#queue.after(atMs, () => {
          this.#tell(() => `node ${index} repairs itself, and forgets old deletions`);
          void replica.repair();
          void replica.reclaim(this.#queue.nowMs() - RECLAIM_AGE_MS);
        });
    if (someMembers !== undefined) movePartitions(this.#life, spreadMs, someMembers, MOVES);
  }

  #burstMs(burst: number): number {
    return 200 + burst * BURST_EVERY_MS;
  }

  async #client(kinds: readonly Operation["kind"][], isFirst: boolean): Promise<void> {
    for (let count = 0; count < BURST_OPERATIONS; count++) {
      await this.#operate(isFirst && count === 0 ? "create" : oneOf(this.#random, kinds));
      await new Promise<void>((resolve) => this.#queue.after(this.#random.unit() * THINK_MS, resolve));
    }
  }

  async #operate(kind: Operation["kind"]): Promise<void> {
    const random = this.#random;
    const index = this.#operations++;
    const isOfContainer = kind === "create" || kind === "drop" || kind === "look" || kind === "list";
    const name = isOfContainer ? "" : oneOf(random, NAMES);
    const slot = random.below(PROXIES);
    let proxy = this.#proxies[slot];
    if (proxy === undefined || proxy.isDead) this.#proxies[slot] = proxy = this.#life.newProxy();
    const chosen = proxy;
    if (random.unit() < PROXY_DEATH_CHANCE)
      this.#queue.after(random.unit() * 12, () => {
        this.#note("fault: a proxy dies");
        this.#tell(() => `proxy ${chosen.process} dies`);
        chosen.isDead = true;
      });
    this.#tell(() => `operation ${index} begins at proxy ${chosen.process}: ${kind} ${name}`);
    const patience = new Promise<undefined>((resolve) =>
      this.#queue.after(CLIENT_PATIENCE_MS, () => resolve(undefined)),
    );
    const done = await Promise.race([this.#life.operate(chosen, index, kind, name), patience]);
    this.#note(`operation ${kind}: ${done?.status ?? "unknown"}`);
    this.#tell(() => `operation ${index} ends: ${kind} ${name} ${done?.status ?? "unknown"} ${done?.value ?? ""}`);
  }

  /** As long as a node is not whole again no other may be damaged: that is all that three replicas bear. */
  #mayDamage(): boolean {
    return this.#world.replicas.every((replica) => replica.isUp && replica.joiningCount === 0);
  }

  #fault(kind: FaultKind, lastsMs: number): void {
    const random = this.#random;
    const index = random.below(this.#world.replicas.length);
    const replica = this.#world.replicas[index];
    const hardware = this.#hardwareOf(index);
    if (replica === undefined) return;
    if ((kind === "a disk is lost" || kind === "a byte rots") && !this.#mayDamage()) return;
    this.#note(`fault: ${kind}`);
    this.#tell(() => `fault: ${kind}, node ${index}, for ${lastsMs.toFixed(1)} ms`);
    const until = (begin: () => void, end: () => void): void => {
      begin();
      this.#queue.after(lastsMs, end);
    };
    const stormy = (change: Partial<Weather>): void => {
      const before = Object.keys(change).map((key) => [key, this.#weather[key as keyof Weather]] as const);
      until(
        () => Object.assign(this.#weather, change),
        () => Object.assign(this.#weather, Object.fromEntries(before.map(([key]) => [key, CALM[key]]))),
      );
    };
    switch (kind) {
      case "a node loses power":
        return this.#cutPower([index], lastsMs);
      case "all nodes lose power":
        return this.#cutPower([...this.#world.replicas.keys()], Math.min(lastsMs, BURST_SPREAD_MS));
      case "messages are lost":
        return stormy({ loss: 0.05 + random.unit() * 0.15 });
      case "messages are late":
        return stormy({ late: 0.1 + random.unit() * 0.2 });
      case "messages come twice":
        return stormy({ repeat: 0.3 });
      case "messages overtake each other":
        return stormy({ shuffle: 0.6 });
      case "nodes are cut off from the others":
      case "messages go one way only": {
        const isOneWay = kind === "messages go one way only";
        const links = this.#linksOf(index).flatMap(([there, back]) => (isOneWay ? [there] : [there, back]));
        return until(
          () => this.#cut(links, 1),
          () => this.#cut(links, -1),
        );
      }
      case "a disk is slow":
        return until(
          () => (hardware.slowness = 10 + random.unit() * 60),
          () => (hardware.slowness = 1),
        );
      case "a disk is full":
        return until(
          () => (hardware.disk.capacity = 0),
          () => (hardware.disk.capacity = Number.POSITIVE_INFINITY),
        );
      case "a disk is lost":
        replica.lose();
        this.#queue.after(lastsMs, () => replica.restart());
        return;
      case "a byte rots":
        replica.crash();
        void hardware.rot(random).then((isRotten) => {
          if (isRotten) this.#note("a byte that was written rots");
          this.#queue.after(lastsMs, () => replica.restart());
          // What its recovery found is to be known after the next one too.
          if (random.below(2) === 0)
            this.#queue.after(lastsMs + random.unit() * RECOVERY_MS, () => this.#cutPower([index], lastsMs));
        });
        return;
      case "a node's clock steps":
        hardware.skewMs = random.below(400) - 200;
        return;
      case "a proxy's clock steps": {
        const proxy = oneOf(random, this.#proxies);
        proxy.skewMs = random.below(400) - 200;
      }
    }
  }

  #cutPower(nodes: readonly number[], lastsMs: number): void {
    for (const index of nodes) {
      const replica = this.#world.replicas[index];
      if (replica === undefined) continue;
      if (replica.isUp && this.#hardwareOf(index).disk.unsyncedCount > 0)
        this.#note("power is lost with unsynced writes");
      if (!replica.isUp) this.#note("power is lost while a node is down or starts");
      replica.crash();
      this.#queue.after(lastsMs, () => {
        this.#tell(() => `node ${index} starts`);
        this.#note("fault: a node restarts");
        replica.restart();
      });
    }
  }

  /** The links of a node with some of the others, and with some proxies: there and back. */
  #linksOf(index: number): [string, string][] {
    const links: [string, string][] = [];
    for (const other of this.#world.replicas.keys()) {
      if (other === index || this.#random.below(3) === 0) continue;
      links.push([`replica ${index} ${other}`, `${other} replica ${index}`]);
      links.push([`replica ${other} ${index}`, `${index} replica ${other}`]);
    }
    for (const { process } of this.#proxies)
      if (this.#random.below(3) > 0) links.push([`${process} ${index}`, `${index} ${process}`]);
    return links;
  }

  #cut(links: readonly string[], change: 1 | -1): void {
    for (const link of links) {
      const count = (this.#cuts.get(link) ?? 0) + change;
      if (count === 0) this.#cuts.delete(link);
      else this.#cuts.set(link, count);
    }
  }

  /** Nothing goes wrong any more. */
  #calm(): void {
    Object.assign(this.#weather, { loss: 0, late: 0, repeat: 0, shuffle: 0 });
    this.#cuts.clear();
    for (const hardware of this.#hardware) {
      hardware.slowness = 1;
      hardware.disk.capacity = Number.POSITIVE_INFINITY;
    }
  }

  async run(): Promise<LongRun> {
    await this.#life.drain();
    this.#calm();
    for (const replica of this.#world.replicas) {
      if (replica.isFailed) {
        this.#note("a failed device is opened again");
        replica.crash();
      }
      replica.restart();
    }
    await this.#life.drain();
    this.#problem = (await this.#life.conclude()) ?? (await this.#difference()) ?? this.#excess();
    for (const [event, count] of Object.entries(this.#world.moves?.counts ?? {}))
      if (count > 0) this.#counts.set(`move: ${event}`, count);
    const history = this.#life.history.slice(0, -2 - NAMES.length);
    const asked = [...this.#counts].filter(([what]) => what.startsWith("operation "));
    const countOf = (isWanted: (what: string) => boolean): number =>
      asked.reduce((sum, [what, count]) => sum + (isWanted(what) ? count : 0), 0);
    return {
      problem: this.#problem,
      operations: this.#operations,
      answered: countOf((what) => !what.endsWith("unknown")),
      succeeded: countOf((what) => what.endsWith("200")),
      simulatedMs: this.#queue.nowMs() - START_MS,
      events: this.#events,
      counts: this.#counts,
      history: history.map((operation) => JSON.stringify(operation)).join("\n"),
    };
  }

  /** Whether the members of a ring hold anything else than each other, byte for byte. */
  async #difference(): Promise<string | undefined> {
    for (const name of [ACCOUNT, CONTAINER, objectName("")]) {
      const contents = new Set<string>();
      let open = 0;
      for (const replica of membersIn(this.#world, name)) {
        open += 1;
        void replica.content(name.space)?.then((content) => {
          contents.add(content);
          open -= 1;
        });
      }
      await this.#life.drain();
      if (open > 0) return `what a node holds of the ring ${name.space} cannot be read`;
      if (contents.size !== 1) return `replicas of the ring ${name.space} differ:\n${[...contents].join("\n--\n")}`;
    }
    return undefined;
  }

  /** What is more than anything may be. */
  #excess(): string | undefined {
    if (this.#queue.mostEvents > EVENTS_LIMIT) return `${this.#queue.mostEvents} events were waiting at once`;
    for (const [index, { disk }] of this.#hardware.entries()) {
      const { usedBytes } = disk;
      if (usedBytes > DISK_LIMIT_BYTES) return `the disk of node ${index} holds ${usedBytes} bytes`;
    }
    return undefined;
  }
}

const CALM: Readonly<Record<string, number>> = { loss: 0.004, late: 0.01, repeat: 0.01, shuffle: 0.02 };
