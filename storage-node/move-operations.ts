import { RingsteadError } from "../common/errors.ts";
import { sinceOf } from "./core/partition-epoch.ts";
import type { DeviceReplica } from "./device-replica.ts";
import type { RepairAnswer } from "./repair/repair-operations.ts";
import { partitionSum } from "./repair/repair-source.ts";
import { BUCKET_POWER } from "./store/entry-digest.ts";
import { EPOCHS_LIMIT, type HeaderReader, packMoved, type Space } from "./wire.ts";

const ringOf = (reader: HeaderReader): { readonly space: Space; readonly partitionPower: number } => {
  const space = reader.space();
  const partitionPower = reader.count();
  if (partitionPower < 1 || partitionPower > BUCKET_POWER)
    throw new RingsteadError("bad-message", `a partition power is at most ${BUCKET_POWER}`);
  return { space, partitionPower };
};

/** One page of the partitions that were ever moved, as this device knows them; nothing for who has heard all of it. */
export const epochs = (reader: HeaderReader) => {
  const { space, partitionPower } = ringOf(reader);
  const from = reader.count();
  const heard = reader.text();
  return async (replica: DeviceReplica): Promise<RepairAnswer> => {
    const { engine, epochs: known } = replica;
    const { stamp } = known;
    if (heard === stamp) return { header: [[], null, stamp] };
    const found = known.movedFrom(space, partitionPower, from, EPOCHS_LIMIT + 1);
    const next = found[EPOCHS_LIMIT]?.[0] ?? null;
    const page = found.slice(0, EPOCHS_LIMIT).map(([partition, state]) => {
      const { configuration, caughtUp, isSealed } = state;
      const since = sinceOf(configuration, known.self);
      const { entries } = partitionSum(engine, { space, partitionPower, partition });
      const hasCaughtUp = since === undefined || since === caughtUp;
      return packMoved({ partition, configuration, hasCaughtUp, isSealed, entries });
    });
    return { header: [page, next, stamp] };
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
