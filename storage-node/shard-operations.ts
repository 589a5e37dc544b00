import { RingsteadError } from "../common/errors.ts";
import type { DeviceReplica } from "./device-replica.ts";
import type { RepairAnswer } from "./repair/repair-operations.ts";
import { BUCKET_POWER } from "./store/entry-digest.ts";
import { type HeaderReader, ROW_SKIP_LIMIT, ROWS_LIMIT, spaceCode, unpackRows } from "./wire.ts";

type Asked = (replica: DeviceReplica) => Promise<RepairAnswer>;

/** Copies for a listing that is being filled. */
export const rowsOf = (reader: HeaderReader, body: Buffer): Asked => {
  const owner = reader.name();
  const incarnation = reader.incarnation();
  const rows = unpackRows(body);
  const mark = reader.timestamp();
  const partitionPower = reader.count();
  if (partitionPower < 1 || partitionPower > BUCKET_POWER)
    throw new RingsteadError("bad-message", `a partition power is at most ${BUCKET_POWER}`);
  const partition = owner.hash32 >>> (32 - partitionPower);
  const copies = { rows, mark, place: { space: owner.space, partition, partitionPower } };
  if (rows.length > ROWS_LIMIT) throw new RingsteadError("bad-message", "too many rows");
  const epoch = reader.epoch();
  return async (replica) => ({ header: [(await replica.shards.take(owner, incarnation, copies, epoch)).kind] });
};

/** The name some rows behind another one. */
export const rowName = (reader: HeaderReader): Asked => {
  const owner = reader.name();
  const incarnation = reader.incarnation();
  const marker = reader.text();
  const skip = Math.min(reader.count(), ROW_SKIP_LIMIT);
  const epoch = reader.epoch();
  return async (replica) => ({
    header: [(await replica.shards.nameAt(owner, incarnation, marker, skip, epoch)) ?? null],
  });
};

/** Some rows that are for nobody any more go. */
export const dropRows = (reader: HeaderReader): Asked => {
  const owner = reader.name();
  const incarnation = reader.incarnation();
  const epoch = reader.epoch();
  return async (replica) => ({ header: [await replica.shards.drop(owner, incarnation, epoch)] });
};

/** Listings that are large, or shards that are small. */
export const counts = (reader: HeaderReader): Asked => {
  const atLeast = reader.count();
  const atMost = reader.count();
  const shardPrefix = reader.text();
  return async (replica) => ({
    header: [
      replica.shards
        .counts(atLeast, atMost, shardPrefix)
        .map(({ incarnation, owner, rows }) => [spaceCode(owner.space), owner.hash32, owner.path, incarnation, rows]),
    ],
  });
};
