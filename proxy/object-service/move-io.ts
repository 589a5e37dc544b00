import { RingsteadError } from "../../common/errors.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import {
  type Configuration,
  configurationName,
  type Member,
  type MovedPartition,
  type Name,
  type Register,
  type Space,
} from "../../storage-node/wire.ts";
import { placementIdentity } from "../../ring/base-ring.ts";
import {
  finishConfiguration,
  type MoveAnswer,
  type MoveEffect,
  type MoveOutcome,
  movePartition,
  type MoveScript,
} from "../core/partition-move.ts";
import { DeviceEpochs } from "./device-epochs.ts";
import { MESSAGE_TIMEOUT_MS } from "./messages.ts";
import type { Partition, ReplicaSet } from "./partition.ts";
import type { Partitions } from "./partitions.ts";
import type { RegisterIo } from "./register-io.ts";
import type { WriteBody } from "./register-send.ts";
import type { Replica } from "./replicas.ts";

const NO_BODY: WriteBody = { kind: "none" };
/** Erasing a partition's records takes a device some time. */
const RELEASE_TIMEOUT_MS = 60_000;

/** Members that are shared between partitions. */
const POOL_LIMIT = 10_000;

const SPACES: readonly Space[] = ["account", "container", "object"];

type Asking = Extract<MoveEffect<ReplicaSet>, { readonly ids: readonly string[] }>;
type Answered = { readonly id: string; readonly highest?: HybridTimestamp };

/** What one device said: its stamp, which it changes with every change. */
type Heard = { readonly stamp: string; readonly all: readonly DeviceEpochs[] };
/** A device that votes, and began with another ring than this process has as its base. */
type OtherBase = { readonly id: string; readonly space: Space };

/** Undefined where a device does not answer, or refuses. */
const answered = async <T>(replica: Replica, asked: Promise<T>): Promise<T | undefined> => {
  try {
    const value = await asked;
    replica.heard(undefined);
    return value;
  } catch (error) {
    if (!(error instanceof RingsteadError)) throw error;
    replica.heard(error);
    return undefined;
  }
};

/** The name under which a partition keeps its configuration. */
const setOf = (partition: Partition): ReplicaSet => {
  const { partition: number, partitionPower, space } = partition.place;
  return { name: configurationName(space, number * 2 ** (32 - partitionPower)), partition };
};

/** Moves partitions: runs the machine of `core/partition-move.ts` over the storage nodes' clients, and decides nothing. */
export class MoveIo {
  readonly #io: RegisterIo;
  readonly #partitions: Partitions;
  /** What each device said last. */
  readonly #heard = new Map<string, Heard>();
  readonly #pool = new Map<string, Member>();
  readonly #identities = new Map<Space, string>();
  readonly #otherBases = new Map<string, Space>();

  constructor(io: RegisterIo, partitions: Partitions) {
    this.#io = io;
    this.#partitions = partitions;
  }

  /** Brings a partition to its target, or some way towards it. Whoever is called again goes on. */
  async move(partition: Partition, target: readonly string[]): Promise<MoveOutcome> {
    return this.#run(partition, movePartition<ReplicaSet>(setOf(partition), target));
  }

  /** [B7]: finishes a configuration that a replica reports as left behind. Errors: "quorum-unavailable". */
  async settle({ hash32, space }: Name, left: Register): Promise<void> {
    const partition = this.#partitions.partition(space, this.#partitions.ringOf(space).partitionOfHash32(hash32));
    if (await this.#run(partition, finishConfiguration<ReplicaSet>(setOf(partition), left))) return;
    throw new RingsteadError("quorum-unavailable", "the configuration of a partition cannot be settled");
  }

  async #run<T>(partition: Partition, script: MoveScript<ReplicaSet, T>): Promise<T> {
    let step = script.next();
    while (step.done !== true) step = script.next(await this.#perform(partition, step.value));
    return step.value;
  }

  /**
   * Lets a device that is no member any more give back what it holds; true where nothing is left there. Requires: a move of the partition has come to its end, so
   * that enough of its members know.
   */
  async release(partition: Partition, id: string): Promise<boolean> {
    const { configuration } = partition;
    const { epoch } = configuration;
    const replica = this.#partitions.replica(id);
    const { client } = replica;
    const known = await answered(replica, client.configure(partition.place, configuration, MESSAGE_TIMEOUT_MS));
    if (known?.epoch !== epoch) return false;
    const released = await answered(replica, client.release(partition.place, epoch, RELEASE_TIMEOUT_MS));
    return released !== undefined;
  }

  /** Tells a member of the partition's last configuration, which it has not heard of: it lost its disk, or was away. Whether it has heard now. */
  async inform(partition: Partition, id: string): Promise<boolean> {
    const { configuration } = partition;
    const replica = this.#partitions.replica(id);
    const known = await answered(replica, replica.client.configure(partition.place, configuration, MESSAGE_TIMEOUT_MS));
    if (known !== undefined) partition.learn(known);
    return known !== undefined;
  }

  /** What all devices know of partitions that were ever moved: this process hears of their epochs, too. A device that is away knows what it said last. */
  async follow(): Promise<readonly DeviceEpochs[]> {
    const found = await Promise.all(
      [...this.#partitions.replicas()].map(([id, replica]) => this.#followOne(id, replica)),
    );
    return found.flat();
  }

  /** Of the devices heard so far one that says that the installation began with another ring than this process says. */
  get otherBase(): OtherBase | undefined {
    for (const [id, space] of this.#otherBases) return { id, space };
    return undefined;
  }

  async #followOne(id: string, replica: Replica): Promise<readonly DeviceEpochs[]> {
    const before = this.#heard.get(id);
    const all: DeviceEpochs[] = [];
    let stamp = "";
    let otherBase: Space | undefined;
    let unchanged = 0;
    for (const space of SPACES) {
      const { partitionPower } = this.#partitions.ringOf(space);
      const found: MovedPartition[] = [];
      for (let from = 0; ; ) {
        const asking = replica.client.epochs(space, partitionPower, from, before?.stamp ?? "", MESSAGE_TIMEOUT_MS);
        const page = await answered(replica, asking);
        if (page === undefined) return before?.all ?? [];
        if (page.isVoting && page.baseIdentity !== undefined && page.baseIdentity !== this.#identityOf(space))
          otherBase = space;
        if (page.stamp === before?.stamp) {
          // Whether it votes, and what it began with, may be news all the same.
          unchanged += 1;
          break;
        }
        // It changed while it was asked: all of it is asked for the next time.
        if (unchanged > 0) return before?.all ?? [];
        // What changes meanwhile is asked for the next time.
        if (stamp === "") ({ stamp } = page);
        for (const moved of page.moved) {
          if (moved.partition >= 2 ** partitionPower) continue;
          this.#partitions.partition(space, moved.partition).learn(this.#shared(moved.configuration));
          found.push(moved);
        }
        if (page.next === undefined || page.next <= from) break;
        from = page.next;
      }
      all.push(new DeviceEpochs(id, space, found));
    }
    if (otherBase === undefined) this.#otherBases.delete(id);
    else this.#otherBases.set(id, otherBase);
    if (before !== undefined && unchanged > 0) return before.all;
    this.#heard.set(id, { stamp, all });
    return all;
  }

  /** The same with members that other configurations have as well: of many partitions a few devices are the members. */
  #shared({ epoch, floor, next, old }: Configuration): Configuration {
    if (this.#pool.size > POOL_LIMIT) this.#pool.clear();
    const share = (member: Member): Member => {
      const key = `${member.id} ${member.since}`;
      const known = this.#pool.get(key);
      if (known === undefined) this.#pool.set(key, member);
      return known ?? member;
    };
    return { epoch, floor, old: old.map(share), next: next?.map(share) };
  }

  #identityOf(space: Space): string {
    let identity = this.#identities.get(space);
    if (identity === undefined) {
      identity = placementIdentity(this.#partitions.ringOf(space));
      this.#identities.set(space, identity);
    }
    return identity;
  }

  async #perform(partition: Partition, effect: MoveEffect<ReplicaSet>): Promise<MoveAnswer> {
    switch (effect.kind) {
      case "write":
        return this.#io.write(effect.set, effect.mode, NO_BODY, effect.incarnation);
      case "confirm":
        this.#io.confirm(effect.set, effect.version, effect.isVoid);
        return undefined;
      case "known":
        return partition.configuration;
      case "configure":
        // What devices are told was decided.
        partition.learn(effect.configuration);
        return { devices: await this.#askAll(partition, effect) };
      case "caught-up":
      case "seal":
        return { devices: await this.#askAll(partition, effect) };
    }
  }

  async #askAll(partition: Partition, effect: Asking): Promise<readonly Answered[]> {
    const asked = await Promise.all(effect.ids.map((id) => this.#ask(partition, id, effect)));
    return asked.filter((one) => one !== undefined);
  }

  async #ask(partition: Partition, id: string, { configuration, kind }: Asking): Promise<Answered | undefined> {
    const replica = this.#partitions.replica(id);
    const { client } = replica;
    const { place } = partition;
    const { epoch } = configuration;
    const isHeard = (known: Configuration | undefined): boolean => {
      if (known !== undefined) partition.learn(known);
      return known?.epoch === epoch;
    };
    switch (kind) {
      case "configure": {
        const known = await answered(replica, client.configure(place, configuration, MESSAGE_TIMEOUT_MS));
        return isHeard(known) ? { id } : undefined;
      }
      case "caught-up": {
        const said = await answered(replica, client.epoch(place, MESSAGE_TIMEOUT_MS));
        return isHeard(said?.configuration) && said?.hasCaughtUp === true ? { id } : undefined;
      }
      case "seal": {
        const sealing = client.seal(place, epoch, MESSAGE_TIMEOUT_MS).catch((error: unknown) => {
          if (error instanceof RingsteadError) partition.meet(error, partition.members);
          throw error;
        });
        const highest = await answered(replica, sealing);
        return highest === undefined ? undefined : { id, highest };
      }
    }
  }
}
