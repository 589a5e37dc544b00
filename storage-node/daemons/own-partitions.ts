import type { Ring } from "../../ring/ring.ts";
import { firstConfiguration, sinceOf } from "../core/partition-epoch.ts";
import type { PartitionEpochs } from "../partition-epochs.ts";
import type { Configuration, PartitionPlace, Space } from "../wire.ts";

/** Which devices keep a partition that was never moved, for each ring. */
export type SpaceRings = Readonly<Record<Space, Pick<Ring, "partitionCount" | "partitionPower" | "primaries">>>;

/** Numbers of partitions of one ring. */
export type Queue = { readonly space: Space; readonly partitions: number[] };

export const SPACES: readonly Space[] = ["account", "container", "object"];

export const countOf = (queues: readonly Queue[]): number =>
  queues.reduce((sum, { partitions }) => sum + partitions.length, 0);

export function* slicesOf({ space, partitions }: Queue, count: number): Generator<Queue> {
  for (let at = 0; at < partitions.length; at += count) yield { space, partitions: partitions.slice(at, at + count) };
}

/** The partitions that a device is a member of. */
export class OwnPartitions {
  readonly #epochs: PartitionEpochs;
  readonly #rings: SpaceRings;
  readonly #self: string;
  /** Those of each ring where they were never moved. */
  readonly #first: readonly Queue[];

  /** @param self the device, as `node/device` */
  constructor(self: string, epochs: PartitionEpochs, rings: SpaceRings) {
    this.#self = self;
    this.#epochs = epochs;
    this.#rings = rings;
    this.#first = SPACES.map((space) => ({ space, partitions: [...this.#firstOf(space)] }));
  }

  *#firstOf(space: Space): Generator<number> {
    const ring = this.#rings[space];
    for (let partition = 0; partition < ring.partitionCount; partition++)
      if (ring.primaries(partition).some(({ device, node }) => `${node}/${device}` === this.#self)) yield partition;
  }

  configurationOf({ partition, space }: PartitionPlace): Configuration {
    const ring = this.#rings[space];
    const state = this.#epochs.of(space, partition * 2 ** (32 - ring.partitionPower));
    if (state !== undefined) return state.configuration;
    return firstConfiguration(ring.primaries(partition).map(({ device, node }) => `${node}/${device}`));
  }

  /** Partitions that were moved here are added, those that were moved away left out. */
  now(): readonly Queue[] {
    return this.#first.map(({ space, partitions }) => {
      const moved = new Map(this.#epochs.moved(space));
      if (moved.size === 0) return { space, partitions };
      const isOwn = (configuration: Configuration): boolean => sinceOf(configuration, this.#self) !== undefined;
      const gained = [...moved].filter(([, state]) => isOwn(state.configuration)).map(([partition]) => partition);
      return { space, partitions: [...partitions.filter((partition) => !moved.has(partition)), ...gained] };
    });
  }

  /** Those that it enters, and has not everything of yet. */
  entering(): readonly Queue[] {
    return SPACES.map((space) => ({ space, partitions: [...this.#epochs.entering(space)] }));
  }
}
