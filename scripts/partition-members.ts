import { RingsteadError } from "../common/errors.ts";
import type { Ring } from "../ring/ring.ts";
import type { DeviceClient } from "../storage-node/client.ts";
import type { Configuration, Member, MovedPartition, PartitionPlace, Space } from "../storage-node/wire.ts";

/** Nobody waits long for a command. */
const TIMEOUT_MS = 2000;

/** A device that can be asked who keeps a partition. */
type Knowing = Pick<DeviceClient, "epoch" | "epochs">;

/** Undefined where a device does not answer: what it knows is not known then. */
const answered = async <T>(asked: Promise<T>): Promise<T | undefined> => {
  try {
    return await asked;
  } catch (error) {
    if (!(error instanceof RingsteadError)) throw error;
    return undefined;
  }
};

/** Who keeps the partition, as those of the devices know that answer: undefined where none does. */
export const newestConfiguration = async (
  place: PartitionPlace,
  devices: readonly Knowing[],
): Promise<Configuration | undefined> => {
  const said = await Promise.all(devices.map((device) => answered(device.epoch(place, TIMEOUT_MS))));
  return said.reduce<Configuration | undefined>((newest, one) => {
    if (one === undefined) return newest;
    return newest === undefined || one.configuration.epoch > newest.epoch ? one.configuration : newest;
  }, undefined);
};

/** The partitions of one ring that were ever moved, as those of the devices know that answer. */
export const movedPartitions = async (
  space: Space,
  partitionPower: number,
  devices: readonly Knowing[],
): Promise<ReadonlyMap<number, Configuration>> => {
  const newest = new Map<number, Configuration>();
  const note = ({ configuration, partition }: MovedPartition): void => {
    if (configuration.epoch > (newest.get(partition)?.epoch ?? 0)) newest.set(partition, configuration);
  };
  const hear = async (device: Knowing): Promise<void> => {
    for (let from = 0; ; ) {
      const page = await answered(device.epochs(space, partitionPower, from, "", TIMEOUT_MS));
      page?.moved.forEach(note);
      if (page?.next === undefined || page.next <= from) return;
      from = page.next;
    }
  };
  await Promise.all(devices.map(hear));
  return newest;
};

/** Whether a write finds its quorum among those members: W of the old ones, and where others are to come W of these too. */
const findsQuorum = ({ next, old }: Pick<Configuration, "next" | "old">, isAble: (id: string) => boolean): boolean => {
  const suffices = (members: readonly Pick<Member, "id">[]): boolean =>
    members.filter(({ id }) => isAble(id)).length >= Math.floor(members.length / 2) + 1;
  return suffices(old) && (next === undefined || suffices(next));
};

/**
 * In how many partitions fewer than W = floor(N/2)+1 replicas take writes.
 *
 * @param base who keeps those that were never moved
 * @param isAble whether a device, as `node/device`, takes writes
 */
export const partitionsWithoutQuorum = (
  base: Ring,
  moved: ReadonlyMap<number, Pick<Configuration, "next" | "old">>,
  isAble: (id: string) => boolean,
): number => {
  let count = 0;
  for (let partition = 0; partition < base.partitionCount; partition++) {
    const first = base.primaries(partition).map(({ device, node }) => ({ id: `${node}/${device}`, since: 0 }));
    if (!findsQuorum(moved.get(partition) ?? { old: first, next: undefined }, isAble)) count++;
  }
  return count;
};
