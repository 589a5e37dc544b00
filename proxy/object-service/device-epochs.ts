import type { MovedPartition, Space } from "../../storage-node/wire.ts";

/** More entries than that of one partition are told as so many. */
const ENTRIES_MAX = 0xffff_ffff;

/**
 * What one device said of the partitions of one ring that were ever moved: 8 bytes for each, since a proxy keeps that of all devices. Who keeps them is
 * with the partitions (`partition.ts`), once for all devices.
 */
export class DeviceEpochs {
  readonly id: string;
  readonly space: Space;
  /** Epochs of those that are sealed there; a few, for milliseconds. */
  readonly sealed: ReadonlyMap<number, number>;
  /** In order. */
  readonly #partitions: Uint32Array;
  readonly #entries: Uint32Array;

  /** Requires: `moved` is in the order of partitions, as devices tell it. */
  constructor(
    id: string,
    space: Space,
    moved: readonly Pick<MovedPartition, "configuration" | "entries" | "isSealed" | "partition">[],
  ) {
    this.id = id;
    this.space = space;
    this.#partitions = Uint32Array.from(moved, ({ partition }) => partition);
    this.#entries = Uint32Array.from(moved, ({ entries }) => Math.min(entries, ENTRIES_MAX));
    this.sealed = new Map(
      moved.flatMap(({ configuration, isSealed, partition }) => (isSealed ? [[partition, configuration.epoch]] : [])),
    );
  }

  /** Each partition with how many entries the device holds of it, be it a member or not. */
  *[Symbol.iterator](): Generator<{ readonly partition: number; readonly entries: number }> {
    for (const [index, partition] of this.#partitions.entries())
      yield { partition, entries: this.#entries[index] ?? 0 };
  }

  /** Whether the device knows that the partition was moved. */
  knows(partition: number): boolean {
    let low = 0;
    let high = this.#partitions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#partitions[middle] ?? 0) < partition) low = middle + 1;
      else high = middle;
    }
    return this.#partitions[low] === partition;
  }
}
