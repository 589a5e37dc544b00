import { codeOf } from "../../common/errors.ts";
import type { DeviceReplica } from "../device-replica.ts";
import type { BodyReference, DeviceEngine } from "../engine/device-engine.ts";
import type { PartitionPlace } from "../partition-copy.ts";
import { BUCKET_POWER, bucketIn } from "../store/entry-digest.ts";
import { spaceOfReplicated } from "../store/key-space.ts";
import { packCarried } from "./carried-entries.ts";
import { packStamps } from "./entry-list.ts";

/** Entries of one answer to ENTRIES, at most; each takes some 130 bytes. */
export const ENTRIES_LIMIT = 2000;
/** Keys of one FETCH, at most. */
export const FETCH_LIMIT = 256;
/** Bodies that come along with one answer to FETCH, together; the first always does. */
const FETCH_BODY_BYTES = 2 * 1024 * 1024;
const READ_ATTEMPTS = 3;

/** What a partition's buckets add up to; `isCertain` false: they are being counted. */
export type PartitionSum = { readonly sum: bigint; readonly entries: number };

/** The first bucket of a partition and the one behind its last. Requires: partitions of at most 2^16. */
const bucketsOf = ({ partition, partitionPower }: PartitionPlace): readonly [number, number] => {
  const width = 2 ** (BUCKET_POWER - partitionPower);
  return [partition * width, (partition + 1) * width];
};

/** The device's sum over a partition. */
export const partitionSum = ({ digests }: DeviceEngine, place: PartitionPlace): PartitionSum => {
  const [first, end] = bucketsOf(place);
  let sum = 0n;
  let entries = 0;
  for (let hash16 = first; hash16 < end; hash16++) {
    const bucket = bucketIn(place.space, hash16);
    const count = digests.counts[bucket] ?? 0;
    if (count === 0) continue;
    sum += digests.sums[bucket] ?? 0n;
    entries += count;
  }
  return { sum: BigInt.asUintN(64, sum), entries };
};

/** The sums of a partition's buckets, 8 bytes each, big-endian. */
export const bucketSums = ({ digests }: DeviceEngine, place: PartitionPlace): Buffer => {
  const [first, end] = bucketsOf(place);
  const sums = Buffer.allocUnsafe((end - first) * 8);
  for (let hash16 = first; hash16 < end; hash16++)
    sums.writeBigUInt64BE(digests.sums[bucketIn(place.space, hash16)] ?? 0n, (hash16 - first) * 8);
  return sums;
};

/** The first key of a bucket's range. */
export const firstKeyOfBucket = (hash16: number): Buffer =>
  hash16 >= 2 ** BUCKET_POWER ? Buffer.alloc(5, 0xff) : Buffer.of(hash16 >> 8, hash16 & 0xff);

/** One page of what a device holds of a ring in a range of keys: some of a thousand entries looked at, and where the next page begins. */
export const scanSpace = async (
  engine: DeviceEngine,
  space: PartitionPlace["space"],
  gte: Uint8Array,
  lt: Uint8Array,
): Promise<{ readonly entries: { key: Uint8Array; value: Uint8Array }[]; readonly next: Buffer | undefined }> => {
  const found = await engine.scan({ gte, lt, limit: ENTRIES_LIMIT });
  const last = found.length < ENTRIES_LIMIT ? undefined : found.at(-1)?.key;
  return {
    entries: found.filter(({ key }) => spaceOfReplicated(key) === space),
    next: last === undefined ? undefined : Buffer.concat([last, Buffer.of(0)]),
  };
};

/** A page for another replica: after the sync of everything in it ([D1]). */
export const listEntries = async (
  { engine }: DeviceReplica,
  space: PartitionPlace["space"],
  gte: Uint8Array,
  lt: Uint8Array,
): Promise<{ readonly body: Buffer; readonly next: Buffer | undefined }> => {
  const { entries, next } = await scanSpace(engine, space, gte, lt);
  await engine.sync();
  return { body: packStamps(entries), next };
};

/** A body that cannot be read here is left to another replica. */
const bodyOf = async (engine: DeviceEngine, body: BodyReference): Promise<Uint8Array | undefined> => {
  if (body.kind === "none") return new Uint8Array(0);
  try {
    return await engine.readBody(body, 0, body.length);
  } catch (error) {
    if (codeOf(error) === "body-damaged" || codeOf(error) === "body-gone") return undefined;
    throw error;
  }
};

/**
 * Entries with small bodies for another replica, after their sync. Keys that are not here any more are left out, and so are the last ones
 * where bodies would become too many; the answer has at least one entry unless none is here.
 */
export const fetchEntries = async (replica: DeviceReplica, keys: readonly Uint8Array[]): Promise<Buffer> => {
  const { engine } = replica;
  const carried = [];
  let bytes = 0;
  for (const key of keys.slice(0, FETCH_LIMIT)) {
    if (spaceOfReplicated(key) === undefined) continue;
    for (let attempt = 1; ; attempt++) {
      const entry = replica.entry(key);
      if (entry === undefined) break;
      const { value } = entry;
      const bodyLength = entry.body.kind === "none" ? 0 : entry.body.length;
      const isSmall = entry.body.kind !== "file";
      if (isSmall && bytes > 0 && bytes + bodyLength > FETCH_BODY_BYTES) return finish(engine, carried);
      const body = isSmall ? await bodyOf(engine, entry.body) : undefined;
      // The log moved on beneath the reference, or a newer version came: the entry is read again.
      if (isSmall && body === undefined && attempt < READ_ATTEMPTS) continue;
      carried.push({ key, value, bodyLength, body });
      bytes += body?.length ?? 0;
      break;
    }
  }
  return finish(engine, carried);
};

const finish = async (engine: DeviceEngine, carried: Parameters<typeof packCarried>[0]): Promise<Buffer> => {
  await engine.sync();
  return packCarried(carried);
};
