import { RingsteadError } from "../common/errors.ts";
import { sinceOf } from "./core/partition-epoch.ts";
import type { DeviceReplica } from "./device-replica.ts";
import type { RepairAnswer } from "./repair/repair-operations.ts";
import { partitionSum } from "./repair/repair-source.ts";
import { BUCKET_POWER } from "./store/entry-digest.ts";
import { EPOCHS_LIMIT, type EpochsPage, type HeaderReader, packMoved, type Space } from "./wire.ts";

const ringOf = (reader: HeaderReader): { readonly space: Space; readonly partitionPower: number } => {
  const space = reader.space();
  const partitionPower = reader.count();
  if (partitionPower < 1 || partitionPower > BUCKET_POWER)
    throw new RingsteadError("bad-message", `a partition power is at most ${BUCKET_POWER}`);
  return { space, partitionPower };
};

/** One page of the partitions that were ever moved, as a device knows them; none of them for who has `heard` all of it. Errors (thrown): "epoch-other-power". */
export const epochsPage = (
  { engine, epochs: known, votes }: DeviceReplica,
  space: Space,
  partitionPower: number,
  from: number,
  heard: string,
): EpochsPage => {
  const { stamp } = known;
  const base = { baseIdentity: known.baseIdentityOf(space), isVoting: !votes.isNewcomer };
  if (heard === stamp) return { moved: [], next: undefined, stamp, ...base };
  const found = known.movedFrom(space, partitionPower, from, EPOCHS_LIMIT + 1);
  const moved = found.slice(0, EPOCHS_LIMIT).map(([partition, { caughtUp, configuration, isSealed }]) => {
    const since = sinceOf(configuration, known.self);
    const { entries } = partitionSum(engine, { space, partitionPower, partition });
    return { partition, configuration, hasCaughtUp: since === undefined || since === caughtUp, isSealed, entries };
  });
  return { moved, next: found[EPOCHS_LIMIT]?.[0], stamp, ...base };
};

/** The same as an answer. */
export const epochs = (reader: HeaderReader) => {
  const { space, partitionPower } = ringOf(reader);
  const from = reader.count();
  const heard = reader.text();
  return async (replica: DeviceReplica): Promise<RepairAnswer> => {
    const page = epochsPage(replica, space, partitionPower, from, heard);
    const { baseIdentity, isVoting, moved, next, stamp } = page;
    return { header: [moved.map(packMoved), next ?? null, stamp, baseIdentity ?? null, isVoting ? 1 : 0] };
  };
};

/** What this device holds of a partition that has other members goes. */
export const release = (reader: HeaderReader) => {
  const { space, partitionPower } = ringOf(reader);
  const partition = reader.count();
  if (partition >= 2 ** partitionPower) throw new RingsteadError("bad-message", "there is no such partition");
  const epoch = reader.count();
  return async (replica: DeviceReplica): Promise<RepairAnswer> => ({
    header: [await replica.release({ space, partitionPower, partition }, epoch)],
  });
};
