import { RingsteadError } from "../../common/errors.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import { type Configuration, configurationName, type MovedPartition, type Space } from "../../storage-node/wire.ts";
import { type MoveAnswer, type MoveEffect, type MoveOutcome, movePartition } from "../core/partition-move.ts";
import { MESSAGE_TIMEOUT_MS } from "./messages.ts";
import type { Partition, ReplicaSet } from "./partition.ts";
import type { Partitions } from "./partitions.ts";
import type { RegisterIo } from "./register-io.ts";
import type { WriteBody } from "./register-send.ts";
import type { Replica } from "./replicas.ts";

const NO_BODY: WriteBody = { kind: "none" };
/** Erasing a partition's records takes a device some time. */
const RELEASE_TIMEOUT_MS = 60_000;

const SPACES: readonly Space[] = ["account", "container", "object"];

type Asking = Extract<MoveEffect<ReplicaSet>, { readonly ids: readonly string[] }>;
type Answered = { readonly id: string; readonly highest?: HybridTimestamp };

/** What one device knows of one partition that was ever moved. */
export type DeviceEpoch = MovedPartition & { readonly space: Space; readonly id: string };

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

/** Moves partitions: runs the machine of `core/partition-move.ts` over the storage nodes' clients, and decides nothing. */
export class MoveIo {
  readonly #io: RegisterIo;
  readonly #partitions: Partitions;
  /** What each device said last. */
  readonly #heard = new Map<string, { readonly stamp: string; readonly all: readonly DeviceEpoch[] }>();

  constructor(io: RegisterIo, partitions: Partitions) {
    this.#io = io;
    this.#partitions = partitions;
  }

  /** Brings a partition to its target, or some way towards it. Whoever is called again goes on. */
  async move(partition: Partition, target: readonly string[]): Promise<MoveOutcome> {
    const { partition: number, partitionPower, space } = partition.place;
    const set = { name: configurationName(space, number * 2 ** (32 - partitionPower)), partition };
    const script = movePartition<ReplicaSet>(set, target);
    let step = script.next();
    while (step.done !== true) step = script.next(await this.#perform(partition, step.value));
    return step.value;
  }

  /**
   * Lets a device that is no member any more give back what it holds; true where nothing is left there. Requires: a move of the partition has come to its end, so
   * that enough of its members know.
   */
  async release(partition: Partition, id: string): Promise<boolean> {
    const { configuration, epoch } = partition.members;
    const replica = this.#partitions.replica(id);
    const { client } = replica;
    const known = await answered(replica, client.configure(partition.place, configuration, MESSAGE_TIMEOUT_MS));
    if (known?.epoch !== epoch) return false;
    const released = await answered(replica, client.release(partition.place, epoch, RELEASE_TIMEOUT_MS));
    return released !== undefined;
  }

  /** Tells a member of the partition's last configuration, which it has not heard of: it lost its disk, or was away. Whether it has heard now. */
  async inform(partition: Partition, id: string): Promise<boolean> {
    const { configuration } = partition.members;
    const replica = this.#partitions.replica(id);
    const known = await answered(replica, replica.client.configure(partition.place, configuration, MESSAGE_TIMEOUT_MS));
    if (known !== undefined) partition.learn(known);
    return known !== undefined;
  }

  /** What all devices know of partitions that were ever moved: this process hears of their epochs, too. A device that is away knows what it said last. */
  async follow(): Promise<readonly DeviceEpoch[]> {
    const found = await Promise.all(
      [...this.#partitions.replicas()].map(([id, replica]) => this.#followOne(id, replica)),
    );
    return found.flat();
  }

  async #followOne(id: string, replica: Replica): Promise<readonly DeviceEpoch[]> {
    const before = this.#heard.get(id);
    const all: DeviceEpoch[] = [];
    let stamp = "";
    for (const space of SPACES) {
      const { partitionPower } = this.#partitions.ringOf(space);
      for (let from = 0; ; ) {
        const asking = replica.client.epochs(space, partitionPower, from, before?.stamp ?? "", MESSAGE_TIMEOUT_MS);
        const page = await answered(replica, asking);
        if (page === undefined) return before?.all ?? [];
        if (page.stamp === before?.stamp) return before.all;
        // What changes meanwhile is asked for the next time.
        if (stamp === "") ({ stamp } = page);
        for (const moved of page.moved) {
          if (moved.partition >= 2 ** partitionPower) continue;
          this.#partitions.partition(space, moved.partition).learn(moved.configuration);
          all.push({ ...moved, space, id });
        }
        if (page.next === undefined || page.next <= from) break;
        from = page.next;
      }
    }
    this.#heard.set(id, { stamp, all });
    return all;
  }

  async #perform(partition: Partition, effect: MoveEffect<ReplicaSet>): Promise<MoveAnswer> {
    switch (effect.kind) {
      case "write":
        return this.#io.write(effect.set, effect.mode, NO_BODY, effect.incarnation);
      case "confirm":
        this.#io.confirm(effect.set, effect.version, effect.isVoid);
        return undefined;
      case "known":
        return partition.members.configuration;
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
