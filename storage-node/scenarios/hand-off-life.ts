import {
  type Ballot,
  ballotOf,
  type Incarnation,
  incarnationMadeBy,
  maxTimestamp,
  NO_INCARNATION,
  timestampIn,
} from "../../common/ballot.ts";
import { type HybridTimestamp, millisecondsOf, TIMESTAMP_ZERO, timestampAt } from "../../common/hybrid-clock.ts";
import { type Random, seededRandom } from "../../common/random.ts";
import { EventQueue, type NetworkFaults, SimulatedNetwork } from "../../common/simulation/event-queue.ts";
import type { DeviceReplica } from "../device-replica.ts";
import { rowKey } from "../store/keys.ts";
import { decodeRowValue, type Name, type Register } from "../wire.ts";
import { ContainersLife, RECLAIM_AGE_MS } from "../../proxy/core/containers-simulation/life.ts";
import type { SimulatedProxy } from "../../proxy/core/containers-simulation/simulated-proxy.ts";
import { movePartitions, oneOf, someOf } from "../../proxy/core/containers-simulation/workload.ts";
import { moveOnce } from "../../proxy/core/containers-simulation/simulated-mover.ts";
import {
  CONTAINER,
  type FirstMembers,
  type MakeReplica,
  membersIn,
  noMoves,
  objectName,
  partitionOf,
  SimulatedReplica,
  textOf,
  type World,
} from "../../proxy/core/containers-simulation/world.ts";
import { putContainer } from "../../proxy/core/container-script.ts";
import { mayBeKept } from "../../proxy/core/hand-off-keep.ts";
import { finishObject, type ObjectWrite, writeObject } from "../../proxy/core/object-script.ts";
import { Quorum } from "../../proxy/core/quorum.ts";
import type { WriteRecord } from "../../proxy/core/register-write.ts";
import { AvailableProxy, deviceOf } from "./available-proxy.ts";
import { SimulatedSenders } from "./simulated-senders.ts";
import { StoppedProcesses } from "./stopped-processes.ts";

const START_MS = 1_700_000_000_000;
const TIMEOUT_MS = 60;
const OPERATIONS = 16;
const FAULTS = 8;
const SPREAD_MS = 500;
const ROUND_MS = 50;
/** Between the clocks of two proxies. */
const MAX_SKEW_MS = 4000;
/** So many rounds of repair, of sending on and of finishing, once faults are over. */
const LAST_ROUNDS = 16;
const LAST_ROUND_MS = 200;
const BAD_DAY: NetworkFaults = { lossChance: 0.04, repeatChance: 0.08, longDelayChance: 0.1 };
const GOOD_DAY: NetworkFaults = { lossChance: 0, repeatChance: 0, longDelayChance: 0 };
/** Partitions that begin to move, and how often a process is stopped. */
const MOVES = 5;
const STOPS = 5;
/** Names that anybody writes, and one that is only ever made on condition that it is not there. */
const NAMES = ["o1", "o2", "once"] as const;
const KINDS = ["put", "put", "put", "put", "delete", "create", "get", "settle", "lost life"] as const;
const SPACES = ["account", "container", "object"] as const;
const TOMBSTONE: WriteRecord = {
  isTombstone: true,
  bodyLength: 0,
  metadata: new Uint8Array(),
  body: "none",
  bodyVersion: undefined,
};

const nodeOf = (index: number): string => `node ${index}`;
/** Who sends a message: a node, or a proxy. */
const processOf = (from: string): string => {
  const [, index] = /^(?:hand-off|replica) ([0-9]+)$/.exec(from) ?? [];
  return index === undefined ? from : nodeOf(Number(index));
};

/** The version of a row, live or deleted; "" where there is none. */
const rowVersionAt = ({ engine }: DeviceReplica, life: Name, name: string): string => {
  const versions = [false, true].map((isDeleted) => {
    const entry = engine.get(rowKey(life, name, isDeleted));
    return entry === undefined ? "" : decodeRowValue(name, isDeleted, entry.value).version;
  });
  return versions.toSorted().at(-1) ?? "";
};

/** An acknowledged write, as it was when it was acknowledged. */
type Acknowledged = {
  readonly name: string;
  readonly version: Ballot;
  readonly isCondition: boolean;
  readonly value: string;
  /** Hand-offs counted for it. */
  isKept: boolean;
};

export type HandOffRun = {
  readonly problem: string | undefined;
  readonly acknowledged: readonly Acknowledged[];
  /** Copies that hand-offs were asked for. */
  readonly asked: number;
  /** Writes that were acknowledged with fewer members than W. */
  readonly kept: number;
  /** Acknowledged writes that were on their way for so long that deletions as late were forgotten. */
  readonly forgotten: number;
  readonly refused: number;
};

/**
 * A seeded life of a container and three objects under a policy, on five or six devices of which two, three or four keep each partition: devices that lose their power,
 * one its disk, devices and proxies that are stopped and go on late, links that are cut, messages lost, late and repeated. Every device sends on what it keeps, by the daemon
 * of production. In every other life partitions move to other devices meanwhile, and in every other one deletions are forgotten. Some write into a life of the container that
 * never took effect. Checked is what P2 says:
 *
 * - `available`: at the moment of its acknowledgement a write is on W devices, a write with a condition on W members with its row at W; in the end every acknowledged version,
 *   or a higher one, is at all members, which are equal, confirmed and listed; nothing is kept any more. A condition that only conditions wrote before holds once.
 * - A copy that was kept for longer than the reclaim age may be overtaken by deletions that were forgotten meanwhile ([H7]), and what was written into a life that never took
 *   effect is gone; neither takes anything else with it.
 * - `strong`: the same, and nobody asked a hand-off for anything.
 */
export class HandOffLife {
  readonly #random: Random;
  readonly #queue = new EventQueue(START_MS);
  readonly #network: SimulatedNetwork;
  readonly #world: World;
  readonly #life: ContainersLife;
  readonly #isAvailable: boolean;
  readonly #cuts = new Set<string>();
  readonly #stopped = new StoppedProcesses();
  readonly #senders: SimulatedSenders;
  readonly #proxies: AvailableProxy[] = [];
  readonly #inner: SimulatedProxy[] = [];
  readonly #acknowledged: Acknowledged[] = [];
  readonly #written = new Set<string>();
  readonly #members: FirstMembers;
  readonly #isForgetting: boolean;
  #incarnation: Incarnation | undefined;
  /** Of a life that was begun at no more than a minority before the container's, and never took effect. */
  #lostLife: Incarnation | undefined;
  /** What each device keeps in the end. */
  readonly #left = new Map<number, number>();
  #kept = 0;
  #forgotten = 0;
  #refused = 0;
  #problem: string | undefined;

  constructor(seed: bigint, policy: "strong" | "available", makeReplica: MakeReplica) {
    this.#random = seededRandom(seed);
    const random = this.#random;
    const queue = this.#queue;
    const network = new SimulatedNetwork(queue, random, GOOD_DAY);
    this.#network = network;
    this.#isAvailable = policy === "available";
    const count = 5 + random.below(2);
    const members = oneOf(random, [2, 3, 3, 3, 4]);
    const isMoving = random.below(2) === 0;
    this.#isForgetting = random.below(2) === 0;
    this.#members = {
      account: someOf(random, count, members),
      container: someOf(random, count, members),
      object: someOf(random, count, members),
    };
    const cuts = this.#cuts;
    this.#world = {
      queue,
      names: NAMES,
      random,
      replicas: [],
      mutation: undefined,
      blind: undefined,
      carry: ({ from, to }, deliver) =>
        network.send(() => {
          if (!cuts.has(`${from} ${to}`)) this.#stopped.pass([processOf(from), nodeOf(to)], deliver);
        }),
      timeoutMs: TIMEOUT_MS,
      memoryChance: 1,
      firstMembers: this.#members,
      ...(isMoving ? { moves: noMoves() } : {}),
    };
    this.#senders = new SimulatedSenders(this.#world, this.#members);
    for (let index = 0; index < count; index++)
      this.#world.replicas.push(new SimulatedReplica(this.#world, index, makeReplica));
    this.#life = new ContainersLife(this.#world, () => this.#finalProblem());
    for (let number = 1; number <= 3; number++) {
      const inner = this.#life.newProxy();
      this.#inner.push(inner);
      // Deletions are forgotten long after clocks could mistake one for old.
      const skews = this.#isForgetting ? [20] : [20, 20, MAX_SKEW_MS];
      const skewMs = Math.floor((random.unit() - 0.5) * oneOf(random, skews));
      this.#proxies.push(new AvailableProxy(this.#world, inner, 0x1000 + number, skewMs));
    }
  }

  async run(): Promise<HandOffRun> {
    const queue = this.#queue;
    const random = this.#random;
    const [first] = this.#proxies;
    if (first === undefined) throw new Error("there is no proxy");
    // Below what took effect: whoever began it after that would have had promises above it, and found the container.
    this.#lostLife = incarnationMadeBy(ballotOf(NO_INCARNATION, timestampAt(START_MS - MAX_SKEW_MS), "00000001"));
    void first.run(putContainer(this.#place(), (headers) => ({ ...headers }), false)).then((made) => {
      if (typeof made === "object") this.#incarnation = made.record.incarnation;
    });
    await this.#life.drain();
    this.#network.faults = BAD_DAY;
    for (let index = 0; index < OPERATIONS; index++) {
      const kind = oneOf(random, KINDS);
      const name = kind === "create" ? oneOf(random, NAMES) : oneOf(random, ["o1", "o2"]);
      const proxy = oneOf(random, this.#proxies);
      queue.after(random.unit() * SPREAD_MS, () => void this.#operate(proxy, kind, name, index));
    }
    this.#plantFaults();
    for (const replica of this.#world.replicas)
      for (let atMs = random.unit() * ROUND_MS; atMs < SPREAD_MS + 200; atMs += random.unit() * 2 * ROUND_MS) {
        queue.after(atMs, () => {
          void this.#sendOn(replica);
          if (this.#stopped.isStopped(nodeOf(replica.index))) return;
          if (random.below(3) === 0) void replica.repair();
          if (this.#isForgetting && random.below(3) === 0) void replica.reclaim(queue.nowMs() - RECLAIM_AGE_MS);
        });
      }
    const { account } = this.#members;
    const someMembers = (): readonly string[] => someOf(random, this.#world.replicas.length, account.length);
    if (this.#world.moves !== undefined) movePartitions(this.#life, SPREAD_MS, someMembers, MOVES);
    await this.#life.drain();
    this.#network.faults = GOOD_DAY;
    this.#cuts.clear();
    this.#stopped.end();
    await this.#bringHome();
    const last = await this.#conclude();
    const asked = this.#proxies.reduce((sum, proxy) => sum + proxy.asked, 0);
    const broken = this.#proxies.map((proxy) => proxy.problem).find((one) => one !== undefined);
    const problem =
      this.#problem ?? broken ?? last ?? (this.#isAvailable || asked === 0 ? undefined : "strong asked a hand-off");
    return {
      problem,
      acknowledged: this.#acknowledged,
      asked,
      kept: this.#kept,
      forgotten: this.#forgotten,
      refused: this.#refused,
    };
  }

  async #conclude(): Promise<string | undefined> {
    for (const replica of this.#world.replicas) {
      void deviceOf(replica.replica)
        .handOffs.page(undefined, 100)
        .then((page) => this.#left.set(replica.index, page.length));
      await this.#life.drain();
    }
    return this.#life.conclude();
  }

  #place() {
    const [inner] = this.#inner;
    if (inner === undefined) throw new Error("there is no proxy");
    return inner.place;
  }

  #plantFaults(): void {
    const queue = this.#queue;
    const random = this.#random;
    for (let fault = 0; fault < FAULTS; fault++) {
      const atMs = random.unit() * SPREAD_MS;
      const endMs = atMs + 20 + random.unit() * 250;
      const replica = oneOf(random, this.#world.replicas);
      if (random.below(4) > 0) {
        queue.after(atMs, () => replica.crash());
        queue.after(endMs, () => replica.restart());
      } else {
        const links = this.#processesOf(random.below(3)).map((process) => `${process} ${replica.index}`);
        queue.after(atMs, () => links.forEach((link) => this.#cuts.add(link)));
        queue.after(endMs, () => links.forEach((link) => this.#cuts.delete(link)));
      }
    }
    for (let stop = 0; stop < STOPS; stop++) {
      const atMs = random.unit() * SPREAD_MS;
      const endMs = atMs + 20 + random.unit() * 300;
      const isNode = random.below(5) > 0;
      const processes = isNode
        ? [nodeOf(oneOf(random, this.#world.replicas).index)]
        : this.#processesOf(random.below(3));
      queue.after(atMs, () => processes.forEach((process) => this.#stopped.stop(process)));
      queue.after(endMs, () => processes.forEach((process) => this.#stopped.goOn(process)));
    }
    for (const proxy of this.#proxies)
      for (const { index } of this.#world.replicas) {
        if (random.below(4) > 0) continue;
        const atMs = random.unit() * SPREAD_MS;
        queue.after(atMs, () => proxy.suspect(index, true));
        queue.after(atMs + random.unit() * 150, () => proxy.suspect(index, false));
      }
    // All of an object's members at once, and back.
    if (random.below(3) === 0) {
      const atMs = random.unit() * SPREAD_MS;
      const members = membersIn(this.#world, objectName("o1"));
      queue.after(atMs, () => members.forEach((replica) => replica.crash()));
      queue.after(atMs + 20 + random.unit() * 250, () => members.forEach((replica) => replica.restart()));
    }
    // One disk is as many as a write that lies on two devices can do without.
    const isSpare = this.#members.object.length > 2;
    if (isSpare && random.below(2) === 0) {
      const replica = oneOf(random, this.#world.replicas);
      const atMs = random.unit() * SPREAD_MS;
      queue.after(atMs, () => replica.lose());
      queue.after(atMs + 20, () => replica.restart());
    }
  }

  /** The names that one proxy has on the network. */
  #processesOf(proxy: number): readonly string[] {
    return [this.#proxies[proxy]?.process, this.#inner[proxy]?.process].filter((one) => one !== undefined);
  }

  async #operate(proxy: AvailableProxy, kind: (typeof KINDS)[number], name: string, index: number): Promise<void> {
    if (kind === "settle") return this.#settleSome(name);
    if (kind === "get") return this.#get(proxy, name);
    const value = `v${index}`;
    if (kind !== "delete") this.#written.add(value);
    const record: WriteRecord =
      kind === "delete"
        ? TOMBSTONE
        : {
            isTombstone: false,
            bodyLength: 10 + index,
            metadata: Buffer.from(value),
            body: "given",
            bodyVersion: undefined,
          };
    const isThere = (base: Register | undefined): boolean =>
      base !== undefined && !base.isTombstone && base.state !== "void";
    const given: ObjectWrite =
      kind === "create"
        ? { kind: "conditional", decide: (base) => (isThere(base) ? "stop" : record) }
        : { kind: "plain", record };
    const place = mayBeKept(this.#isAvailable, given.kind) ? proxy.availablePlaceOf(name) : proxy.strongPlaceOf(name);
    const incarnation = kind === "lost life" ? this.#lostLife : this.#incarnation;
    if (incarnation === undefined) throw new Error("the container was not made");
    const result = await proxy.run(writeObject(place, incarnation, given, false));
    if (result.kind !== "done") {
      this.#refused += 1;
      return;
    }
    // Whoever has heard of no other life writes into that one, and it is gone with it.
    if (!result.version.startsWith(this.#incarnation ?? "")) return;
    const acknowledged = {
      name,
      version: result.version,
      isCondition: kind === "create",
      value: kind === "delete" ? "" : value,
      isKept: false,
    };
    this.#acknowledged.push(acknowledged);
    this.#checkCopies(acknowledged);
  }

  async #get(proxy: AvailableProxy, name: string): Promise<void> {
    const found = await proxy.get(name);
    if (found === "unknown") return;
    const { isOfQuorum, register } = found;
    if (register === undefined && !isOfQuorum) this.#problem ??= `${name} is said not to be there, by hand-offs`;
    if (register === undefined) return;
    if (!register.isTombstone && !this.#written.has(textOf(register.metadata)))
      this.#problem ??= `${name} read as ${textOf(register.metadata)}, which nobody wrote`;
    // Whoever read it deletes it now and then: what it writes is not to be hidden below what it read.
    if (!this.#isAvailable || this.#random.below(2) > 0 || this.#incarnation === undefined) return;
    const given: ObjectWrite = { kind: "plain", record: TOMBSTONE };
    const result = await proxy.run(writeObject(proxy.availablePlaceOf(name), this.#incarnation, given, false));
    if (result.kind !== "done") return;
    if (result.version < register.version)
      this.#problem ??= `${name} was deleted below ${register.version}, which its deleter had read`;
    const acknowledged = { name, version: result.version, isCondition: false, value: "", isKept: false };
    this.#acknowledged.push(acknowledged);
    this.#checkCopies(acknowledged);
  }

  /** What the disks hold in the moment of the acknowledgement. Nothing is asked about disks that were lost. */
  #checkCopies(acknowledged: Acknowledged): void {
    const { isCondition, name, version } = acknowledged;
    const object = objectName(name);
    const { promiseCount } = Quorum.stable(this.#members.object.length);
    const isHolding = (replica: SimulatedReplica): boolean => (replica.held(object)?.register.ballot ?? "") >= version;
    const members = membersIn(this.#world, object).filter(isHolding).length;
    acknowledged.isKept = members < promiseCount;
    if (acknowledged.isKept) this.#kept += 1;
    if (isCondition && members < promiseCount && !this.#hasLostDisk)
      this.#problem ??= `a condition on ${name} was answered with ${members} members`;
    if (isCondition) this.#checkRows(name, version, promiseCount);
  }

  #checkRows(name: string, version: Ballot, promiseCount: number): void {
    const life: Name = { ...CONTAINER, path: `${CONTAINER.path}\0${this.#incarnation ?? ""}` };
    const rows = membersIn(this.#world, CONTAINER).filter(
      ({ replica }) => rowVersionAt(deviceOf(replica), life, name) >= version,
    );
    if (rows.length < promiseCount && !this.#hasLostDisk)
      this.#problem ??= `a condition on ${name} was answered with rows at ${rows.length} members`;
  }

  get #hasLostDisk(): boolean {
    return this.#world.replicas.some(({ joiningCount }) => joiningCount > 0);
  }

  /** As the settler of production does for what a device reports. */
  async #settleSome(name: string): Promise<void> {
    const [inner] = this.#inner;
    const proxy = oneOf(this.#random, this.#proxies);
    const replica = oneOf(this.#random, membersIn(this.#world, objectName(name)));
    const left = replica.isUp ? replica.held(objectName(name))?.register : undefined;
    if (inner !== undefined && left?.state === "accepted")
      await proxy.run(finishObject(proxy.strongPlaceOf(name), left, false));
  }

  /** One round of the daemon of production on one device, if it runs. */
  async #sendOn(replica: SimulatedReplica): Promise<void> {
    if (!this.#stopped.isStopped(nodeOf(replica.index))) await this.#senders.round(replica);
  }

  /** Faults are over: everybody is up, and what workers do again and again is done so often that it ends. */
  async #bringHome(): Promise<void> {
    for (const replica of this.#world.replicas) replica.restart();
    const [proxy] = this.#proxies;
    for (let round = 0; round < LAST_ROUNDS; round++) {
      this.#queue.after(LAST_ROUND_MS, () => {});
      await this.#life.drain();
      for (const [space, target] of this.#world.moves?.targets ?? [])
        void moveOnce(this.#world, this.#life.newProxy(), space, target);
      for (const replica of this.#world.replicas) {
        void replica.repair();
        void this.#sendOn(replica);
      }
      await this.#life.drain();
      if (proxy === undefined) return;
      for (const name of NAMES)
        for (const replica of membersIn(this.#world, objectName(name))) {
          const left = replica.held(objectName(name))?.register;
          if (left?.state === "accepted") void proxy.run(finishObject(proxy.strongPlaceOf(name), left, false));
          await this.#life.drain();
        }
    }
  }

  /** After `conclude` has finished, read, repaired and forgotten everything. */
  #finalProblem(): string | undefined {
    for (const replica of this.#world.replicas) {
      if (this.#left.get(replica.index) !== 0)
        return `device ${replica.index} still keeps ${this.#left.get(replica.index)} copies`;
    }
    const list = this.#life.history.findLast(({ kind }) => kind === "list")?.listed;
    if (list === undefined) return "the container was not listed in the end";
    const reclaimedBeforeMs = this.#queue.nowMs() - RECLAIM_AGE_MS;
    for (const name of NAMES) {
      const held = membersIn(this.#world, objectName(name)).map((one) => one.held(objectName(name))?.register);
      const [first] = held;
      if (held.some((one) => one?.version !== first?.version || one?.state !== first?.state))
        return `members differ in ${name}`;
      if (first !== undefined && first.state === "accepted") return `${name} is not finished`;
      const isLive = first !== undefined && !first.isTombstone && first.state === "confirmed";
      const row = list.rows.find((one) => one.name === name);
      if (isLive !== (row !== undefined) || (isLive && row?.version !== first.version))
        return `${name} is listed otherwise than it is`;
      const mine = this.#acknowledged.filter((one) => one.name === name);
      const highest = mine.toSorted((a, b) => (a.version < b.version ? 1 : -1))[0];
      if (highest === undefined) continue;
      // A deletion may have been forgotten by all of them.
      const isDeletion = highest.value === "" && millisecondsOf(timestampIn(highest.version)) < reclaimedBeforeMs;
      const isOvertaken = highest.isKept && timestampIn(highest.version) <= this.#markOf(name);
      if (first === undefined && isOvertaken && !isDeletion) this.#forgotten += 1;
      const isForgotten = isDeletion || isOvertaken;
      if (first === undefined ? !isForgotten : first.version < highest.version)
        return `${name} was acknowledged as ${highest.value || "deleted"} and is ${first === undefined ? "absent" : textOf(first.metadata)}`;
      if (first?.version === highest.version && textOf(first.metadata) !== highest.value)
        return `${name} has another content`;
      if (name === "once" && mine.length > 1) return "two conditions held that exclude each other";
    }
    return undefined;
  }

  /** How late deletions were that any member of an object's partition has forgotten. */
  #markOf(name: string): HybridTimestamp {
    const marks = membersIn(this.#world, objectName(name)).map(
      ({ replica }) => deviceOf(replica).deletions.marksOf(partitionOf("object")).registers,
    );
    return marks.reduce(maxTimestamp, TIMESTAMP_ZERO);
  }

  /** For a failure's message. */
  toString(): string {
    return [
      JSON.stringify(this.#members),
      ...this.#acknowledged.map((one) => JSON.stringify(one)),
      ...SPACES.map(
        (space) =>
          `${space} ${membersIn(this.#world, { space, hash32: 0, path: "" })
            .map(({ index }) => index)
            .join(" ")}`,
      ),
      ...NAMES.map((name) =>
        membersIn(this.#world, objectName(name))
          .map((one) => `${name} ${one.index} ${JSON.stringify(one.held(objectName(name))?.register ?? null)}`)
          .join("\n"),
      ),
    ].join("\n");
  }
}
