import { RingsteadError } from "../common/errors.ts";
import type { RingDevice } from "../ring/device.ts";
import type { Ring } from "../ring/ring.ts";
import type { PartitionPlace } from "../storage-node/partition-copy.ts";
import type { Space } from "../storage-node/wire.ts";

/** One replica of one partition that goes to another device. */
export type ReplicaMove = { readonly place: PartitionPlace; readonly from: RingDevice; readonly to: RingDevice };

/** What differs between two rings of one name: each device that leaves a partition is paired with one that enters it. */
export const movesBetween = (space: Space, before: Ring, after: Ring): ReplicaMove[] => {
  const { partitionPower } = after;
  if (before.partitionPower !== partitionPower || before.hashSeed !== after.hashSeed)
    throw new RingsteadError("ring-foreign", `the ring of ${space}s and its builder are not of one installation`);
  const moves: ReplicaMove[] = [];
  for (let partition = 0; partition < after.partitionCount; partition++) {
    const old = before.primaries(partition);
    const now = after.primaries(partition);
    const entering = now.filter(({ id }) => !old.some((device) => device.id === id));
    const leaving = old.filter(({ id }) => !now.some((device) => device.id === id));
    for (const [index, to] of entering.entries()) {
      const from = leaving[index];
      if (from !== undefined) moves.push({ place: { space, partition, partitionPower }, from, to });
    }
  }
  return moves;
};
