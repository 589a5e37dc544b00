import { RingsteadError } from "../../common/errors.ts";
import type { DeviceReplica } from "../device-replica.ts";
import type { PartitionPlace } from "../partition-copy.ts";
import { BUCKET_POWER } from "../store/entry-digest.ts";
import { CEILING_KEY } from "../store/keys.ts";
import { isLife } from "../votes.ts";
import type { HeaderReader, Space } from "../wire.ts";
import { bucketSums, FETCH_LIMIT, fetchEntries, listEntries, partitionSum } from "./repair-source.ts";

/** Partitions of one DIGESTS. */
export const DIGESTS_LIMIT = 4096;
/** u8 votes here, u32 entries, u64 sum: of each partition in an answer to DIGESTS. */
export const PARTITION_DIGEST_BYTES = 13;

/** What a replica answers to another one that repairs itself. */
export type RepairAnswer = { readonly header: readonly unknown[]; readonly body?: Uint8Array };

const ringOf = (reader: HeaderReader): { readonly space: Space; readonly partitionPower: number } => {
  const space = reader.space();
  const partitionPower = reader.count();
  if (partitionPower < 1 || partitionPower > BUCKET_POWER)
    throw new RingsteadError("bad-message", `a partition power is at most ${BUCKET_POWER}`);
  return { space, partitionPower };
};

const checkPartition = (partition: number, power: number): void => {
  if (partition >= 2 ** power) throw new RingsteadError("bad-message", "there is no such partition");
};

/** The sums of partitions, with how many entries they have and whether this replica votes there. */
export const digests = (reader: HeaderReader) => {
  const { space, partitionPower } = ringOf(reader);
  const life = reader.any();
  if (!isLife(life)) throw new RingsteadError("bad-message", "malformed message: life");
  const partitions = reader.counts(DIGESTS_LIMIT);
  for (const partition of partitions) checkPartition(partition, partitionPower);
  return async ({ engine, votes: held }: DeviceReplica): Promise<RepairAnswer> => {
    const body = Buffer.allocUnsafe(partitions.length * PARTITION_DIGEST_BYTES);
    for (const [index, partition] of partitions.entries()) {
      const { sum, entries } = partitionSum(engine, { space, partition, partitionPower });
      const at = index * PARTITION_DIGEST_BYTES;
      body[at] = held.votesIn(space, partition * 2 ** (32 - partitionPower)) ? 1 : 0;
      body.writeUInt32BE(entries, at + 1);
      body.writeBigUInt64BE(sum, at + 5);
    }
    const hasPromised = engine.get(CEILING_KEY) !== undefined;
    const flags = [engine.digests.isCertain, hasPromised, held.isFounder(life)].map(Number);
    return { header: [...flags, held.life], body };
  };
};

const placeOf = (reader: HeaderReader): PartitionPlace => {
  const { space, partitionPower } = ringOf(reader);
  const partition = reader.count();
  checkPartition(partition, partitionPower);
  return { space, partition, partitionPower };
};

/** The sums of a partition's buckets. */
export const buckets = (reader: HeaderReader) => {
  const place = placeOf(reader);
  return async ({ engine }: DeviceReplica): Promise<RepairAnswer> => ({
    header: [engine.digests.isCertain ? 1 : 0],
    body: bucketSums(engine, place),
  });
};

/** One page of what is held of a ring between two keys. */
export const entries = (reader: HeaderReader) => {
  const space = reader.space();
  const gte = reader.bytes();
  const lt = reader.bytes();
  return async (replica: DeviceReplica): Promise<RepairAnswer> => {
    const { body, next } = await listEntries(replica, space, gte, lt);
    return { header: [next ?? null], body };
  };
};

/** Entries with their small bodies; the asker's keys in latin1 would be larger than their bytes. */
export const fetch = (reader: HeaderReader) => {
  const keys = reader.list(FETCH_LIMIT).map((item) => item.bytes());
  return async (replica: DeviceReplica): Promise<RepairAnswer> => ({
    header: [],
    body: await fetchEntries(replica, keys),
  });
};
