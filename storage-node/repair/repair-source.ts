import type { Ballot } from "../../common/ballot.ts";
import { codeOf, RingsteadError } from "../../common/errors.ts";
import type { DeviceReplica } from "../device-replica.ts";
import type { BodyReference, DeviceEngine, Entry } from "../engine/device-engine.ts";
import type { PartitionPlace } from "../wire.ts";
import { BUCKET_POWER, bucketIn } from "../store/entry-digest.ts";
import { isRegisterKey, spaceOfReplicated } from "../store/key-space.ts";
import type { Name, Space } from "../wire.ts";
import type { CarriedEntries, CarriedEntry, CarriedPage } from "./carried-entries.ts";
import { packStamps } from "./entry-list.ts";

/** Entries of one answer to ENTRIES, at most; each takes some 130 bytes. */
export const ENTRIES_LIMIT = 500;
/** Keys of one FETCH, and entries of one page with bodies, at most. */
export const FETCH_LIMIT = 512;
/** Entries that come along with one answer, together; the first always does. */
const ANSWER_BYTES = 2 * 1024 * 1024;
const READ_ATTEMPTS = 4;
/** Bodies that are read at once: a disk with cold ones is kept busy. */
const BODY_READS = 16;
const EMPTY = new Uint8Array(0);

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
const firstKeyOfBucket = (hash16: number): Buffer =>
  hash16 >= 2 ** BUCKET_POWER ? Buffer.alloc(5, 0xff) : Buffer.of(hash16 >> 8, hash16 & 0xff);

/** A range of keys. */
export type KeyRange = { readonly gte: Uint8Array; readonly lt: Uint8Array };

/**
 * Where the sums of a partition's buckets differ from those of all others given; neighbouring buckets make one range. Errors (thrown): "bad-message" for sums of
 * another number of buckets.
 */
export const rangesThatDiffer = (place: PartitionPlace, here: Buffer, others: readonly Buffer[]): KeyRange[] => {
  if (others.some(({ length }) => length !== here.length))
    throw new RingsteadError("bad-message", "malformed message: buckets");
  const [first, end] = bucketsOf(place);
  const ranges: KeyRange[] = [];
  let start: number | undefined;
  for (let bucket = first; bucket <= end; bucket++) {
    const at = (bucket - first) * 8;
    const differs = bucket < end && others.every((there) => here.compare(there, at, at + 8, at, at + 8) !== 0);
    if (differs) start ??= bucket;
    else if (start !== undefined) {
      ranges.push({ gte: firstKeyOfBucket(start), lt: firstKeyOfBucket(bucket) });
      start = undefined;
    }
  }
  return ranges;
};

/** That of a whole partition. */
export const rangeOfPartition = (place: PartitionPlace): KeyRange => {
  const [first, end] = bucketsOf(place);
  return { gte: firstKeyOfBucket(first), lt: firstKeyOfBucket(end) };
};

const after = (key: Uint8Array): Buffer => Buffer.concat([key, Buffer.of(0)]);

/** One page of what a device holds of a ring in a range of keys: some of `limit` entries looked at, and where the next page begins. */
export const scanSpace = async (
  engine: DeviceEngine,
  space: Space,
  { gte, lt }: KeyRange,
  limit = ENTRIES_LIMIT,
): Promise<{ readonly entries: { key: Uint8Array; value: Uint8Array }[]; readonly next: Buffer | undefined }> => {
  const found = await engine.scan({ gte, lt, limit });
  const last = found.length < limit ? undefined : found.at(-1)?.key;
  return {
    entries: found.filter(({ key }) => spaceOfReplicated(key) === space),
    next: last === undefined ? undefined : after(last),
  };
};

/** A page for another replica: after the sync of everything in it ([D1]). */
export const listEntries = async (
  { engine }: DeviceReplica,
  space: Space,
  gte: Uint8Array,
  lt: Uint8Array,
): Promise<{ readonly body: Buffer; readonly next: Buffer | undefined }> => {
  const { entries, next } = await scanSpace(engine, space, { gte, lt });
  await engine.sync();
  return { body: packStamps(entries), next };
};

/** A body that cannot be read here is left to another replica. */
const bodyOf = async (engine: DeviceEngine, body: BodyReference): Promise<Uint8Array | undefined> => {
  try {
    return await engine.readBody(body, 0, body.kind === "none" ? 0 : body.length);
  } catch (error) {
    if (codeOf(error) === "body-damaged" || codeOf(error) === "body-gone") return undefined;
    throw error;
  }
};

/** What an entry adds to an answer. */
const sizeOf = (key: Uint8Array, { value, body }: Entry): number =>
  key.length + value.length + (body.kind === "log" ? body.length : 0);

const withoutBody = (key: Uint8Array, { value, body }: Entry): CarriedEntry => {
  const bodyLength = body.kind === "none" ? 0 : body.length;
  return { key, value, bodyLength, isBodyHere: bodyLength === 0, body: EMPTY };
};

/** An entry, with its body where that lies in the log. */
const withBody = async (replica: DeviceReplica, key: Uint8Array, given: Entry): Promise<CarriedEntry> => {
  let entry = given;
  for (let attempt = 1; entry.body.kind === "log"; attempt++) {
    const body = await bodyOf(replica.engine, entry.body);
    if (body !== undefined) return { key, value: entry.value, bodyLength: body.length, isBodyHere: true, body };
    // The log moved on beneath the reference, or a newer version came: the entry is read again.
    const again = replica.entry(key);
    if (again === undefined || attempt === READ_ATTEMPTS) break;
    entry = again;
  }
  return withoutBody(key, entry);
};

/** Whether the device votes in the partition of a key, or of the first bytes of one. */
const votesOn = ({ votes }: DeviceReplica, space: Space | undefined, key: Uint8Array): boolean => {
  const [first = 0, second = 0, third = 0, fourth = 0] = key;
  return space !== undefined && votes.votesIn(space, Buffer.of(first, second, third, fourth).readUInt32BE(0));
};

/** Some bodies at a time, entries in their order; after the sync of all of them. */
const carryAll = async (
  replica: DeviceReplica,
  found: readonly { readonly key: Uint8Array; readonly entry: Entry }[],
): Promise<CarriedEntry[]> => {
  const carried: CarriedEntry[] = [];
  for (let at = 0; at < found.length; at += BODY_READS) {
    const some = found.slice(at, at + BODY_READS).map(({ key, entry }) => withBody(replica, key, entry));
    carried.push(...(await Promise.all(some)));
  }
  await replica.engine.sync();
  return carried;
};

/**
 * Entries with small bodies for another replica, after their sync. Keys that are not here any more are left out, and so are the last ones
 * where it would become too much; the answer has at least one entry unless none is here. `isBare`: no body comes along.
 */
export const carriedEntries = async (
  replica: DeviceReplica,
  keys: readonly Uint8Array[],
  isBare = false,
): Promise<CarriedEntries> => {
  const found = [];
  let bytes = 0;
  for (const key of keys.slice(0, FETCH_LIMIT)) {
    if (spaceOfReplicated(key) === undefined) continue;
    const entry = replica.entry(key);
    if (entry === undefined) continue;
    const size = isBare ? key.length + entry.value.length : sizeOf(key, entry);
    if (bytes > 0 && bytes + size > ANSWER_BYTES) break;
    bytes += size;
    found.push({ key, entry });
  }
  const isOfVoter = keys.every((key) => votesOn(replica, spaceOfReplicated(key), key));
  if (!isBare) return { entries: await carryAll(replica, found), isOfVoter };
  const entries = found.map(({ key, entry }) => withoutBody(key, entry));
  await replica.engine.sync();
  return { entries, isOfVoter };
};

/**
 * One page of everything of a ring in a range, for a replica that has nothing there: it need not say what it wants. At most `limit`
 * entries, with their small bodies, after their sync.
 */
export const pullEntries = async (
  replica: DeviceReplica,
  space: Space,
  range: KeyRange,
  limit: number,
): Promise<CarriedPage> => {
  const page = await scanSpace(replica.engine, space, range, Math.min(limit, FETCH_LIMIT));
  const found = [];
  let { next } = page;
  let bytes = 0;
  for (const { key, value } of page.entries) {
    // A row is all in its value; a register's may be older than its confirmation, and says nothing of where the body lies.
    const entry = isRegisterKey(key) ? replica.entry(key) : { value, body: NO_BODY };
    if (entry === undefined) continue;
    const size = sizeOf(key, entry);
    if (bytes > 0 && bytes + size > ANSWER_BYTES) {
      next = Buffer.from(key);
      break;
    }
    bytes += size;
    found.push({ key, entry });
  }
  const isOfVoter = votesOn(replica, space, range.gte);
  return { entries: await carryAll(replica, found), next, isOfVoter };
};

const NO_BODY: BodyReference = { kind: "none" };

/** The body of a version that the device keeps as a hand-off. */
const keptBody = async (
  { handOffs }: DeviceReplica,
  name: Name,
  bodyVersion: Ballot,
): Promise<BodyReference | undefined> => {
  const kept = await handOffs.find(name);
  return kept?.register.bodyVersion === bodyVersion ? kept.body : undefined;
};

/**
 * A piece of the body of a version that is held here, after its sync, or was until lately, while somebody reads it; whether this replica votes does not
 * matter. Errors: "body-gone" also where it holds another one, "body-damaged".
 */
export const readHeldBody = async (
  replica: DeviceReplica,
  name: Name,
  bodyVersion: Ballot,
  offset: number,
  length: number,
): Promise<Uint8Array> => {
  for (let attempt = 1; ; attempt++) {
    const stored = await replica.held(name);
    const isHeld = stored?.register.bodyVersion === bodyVersion;
    const body = isHeld
      ? stored.body
      : (replica.lent.get(name, bodyVersion) ?? (await keptBody(replica, name, bodyVersion)));
    if (body === undefined) throw new RingsteadError("body-gone", "this replica does not hold that version's body");
    try {
      const bytes = await replica.engine.readBody(body, offset, length);
      if (isHeld) replica.lent.lend(name, bodyVersion, body);
      return bytes;
    } catch (error) {
      // The log moved on beneath the reference: the entry is read again, and names the new place.
      if (codeOf(error) !== "body-gone" || attempt === READ_ATTEMPTS) throw error;
    }
  }
};
