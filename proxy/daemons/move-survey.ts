import type { Space } from "../../storage-node/wire.ts";
import type { DeviceEpochs } from "../object-service/device-epochs.ts";
import type { Partition } from "../object-service/partition.ts";

/** What a device holds of a partition that it does not keep: it was away when that was said, or died in the middle. */
export type Left = {
  readonly id: string;
  readonly space: Space;
  readonly partition: number;
  readonly entries: number;
};

/** A member that does not know that it is one: it lost its disk. */
export type Unaware = { readonly partition: Partition; readonly id: string };

export type MoveSurvey = {
  /** Partitions that were ever moved, by their numbers. */
  readonly ever: Readonly<Record<Space, Set<number>>>;
  /** Those that are sealed somewhere in their present epoch, with that epoch. */
  readonly sealed: ReadonlyMap<Partition, number>;
  readonly left: Left[];
  readonly unaware: Unaware[];
};

/** The partitions of a process; see `Partitions`. */
export type SurveyedPartitions = {
  ringOf(space: Space): { readonly partitionCount: number };
  partition(space: Space, partition: number): Partition;
};

const SPACES: readonly Space[] = ["account", "container", "object"];

const unawareIn = (
  space: Space,
  numbers: Iterable<number>,
  devices: ReadonlyMap<string, DeviceEpochs>,
  tellers: Uint8Array,
  partitions: SurveyedPartitions,
): Unaware[] => {
  const found: Unaware[] = [];
  for (const number of numbers) {
    const partition = partitions.partition(space, number);
    const { old } = partition.configuration;
    if (tellers[number] === old.length) continue;
    for (const { id } of old) if (devices.get(id)?.knows(number) !== true) found.push({ partition, id });
  }
  return found;
};

/** What follows of all that devices said, for those who move partitions. Besides what is found it takes a byte for each partition. */
export const surveyOf = (said: readonly DeviceEpochs[], partitions: SurveyedPartitions): MoveSurvey => {
  const ever = { account: new Set<number>(), container: new Set<number>(), object: new Set<number>() };
  const sealed = new Map<Partition, number>();
  const left: Left[] = [];
  const unaware: Unaware[] = [];
  for (const space of SPACES) {
    const devices = new Map(said.filter((one) => one.space === space).map((one) => [one.id, one]));
    /** Of each partition how many of its members know that it was moved. A partition has at most 255. */
    const tellers = new Uint8Array(partitions.ringOf(space).partitionCount);
    for (const [id, device] of devices) {
      for (const { entries, partition: number } of device) {
        const { next, old } = partitions.partition(space, number).configuration;
        ever[space].add(number);
        if (old.some((member) => member.id === id)) tellers[number] = (tellers[number] ?? 0) + 1;
        else if (entries > 0 && next === undefined) left.push({ id, space, partition: number, entries });
      }
      for (const [number, epoch] of device.sealed) {
        const partition = partitions.partition(space, number);
        if (partition.configuration.epoch === epoch) sealed.set(partition, epoch);
      }
    }
    unaware.push(...unawareIn(space, ever[space], devices, tellers, partitions));
  }
  return { ever, sealed, left, unaware };
};
