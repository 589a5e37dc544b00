import { RingsteadError } from "../common/errors.ts";
import type { RingDevice } from "../ring/device.ts";
import { ringDifference } from "../ring/ring-difference.ts";
import type { Ring } from "../ring/ring.ts";
import type { PartitionPlace } from "../storage-node/partition-copy.ts";
import type { Space } from "../storage-node/wire.ts";

/** One replica of one partition that goes to another device. */
export type ReplicaMove = { readonly place: PartitionPlace; readonly from: RingDevice; readonly to: RingDevice };

/**
 * What differs between two rings of one name. A copy of one replica is no voter beside the others (PROTOCOL.md M2), so a partition that gains
 * or loses a replica is refused.
 */
export const movesBetween = (space: Space, before: Ring, after: Ring): ReplicaMove[] => {
  const { partitionPower, moves } = ringDifference(before, after);
  return moves.map(({ partition, from, to }): ReplicaMove => {
    if (from === undefined || to === undefined)
      throw new RingsteadError(
        "replicas-refused",
        `the ring of ${space}s would have ${after.replicas} replicas instead of ${before.replicas}: only moves are made at the start`,
      );
    return { place: { space, partition, partitionPower }, from, to };
  });
};
