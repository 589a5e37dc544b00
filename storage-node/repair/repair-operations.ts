import { RingsteadError } from "../../common/errors.ts";
import { TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import { isMember } from "../core/partition-epoch.ts";
import type { DeviceReplica } from "../device-replica.ts";
import type { PartitionPlace } from "../wire.ts";
import type { Ballot } from "../../common/ballot.ts";
import type { Doomed, ReclaimWord } from "../core/reclaim.ts";
import { BUCKET_POWER } from "../store/entry-digest.ts";
import { spaceOfReplicated } from "../store/key-space.ts";
import { CEILING_KEY } from "../store/keys.ts";
import { isLife, type Life, NO_LIFE } from "../votes.ts";
import type { Marks } from "../reclaim-marks.ts";
import { type Configuration, type HeaderReader, packConfiguration, type Space, unpackConfiguration } from "../wire.ts";
import { packCarried } from "./carried-entries.ts";
import { bucketSums, carriedEntries, FETCH_LIMIT, listEntries, partitionSum, pullEntries } from "./repair-source.ts";

/** Deletions of one RECLAIM. */
export const RECLAIM_LIMIT = 512;
/** Partitions of one DIGESTS. */
const DIGESTS_LIMIT = 4096;
/** u8 bits (1 votes here, 2 sealed, 4 the asker is a stranger), u32 entries, u64 sum, u32 epoch: of each partition in an answer to DIGESTS. */
export const PARTITION_DIGEST_BYTES = 17;
export const DIGEST_VOTES = 1;
export const DIGEST_SEALED = 2;
export const DIGEST_STRANGER = 4;

/** What another replica said of a partition. */
type PartitionDigest = {
  readonly partition: number;
  readonly isVoting: boolean;
  readonly entries: number;
  readonly sum: bigint;
  readonly epoch: number;
  readonly isSealed: boolean;
  /** How late deletions were that it has forgotten there. */
  readonly marks: Marks;
  /** As far as that device knows the asker, which does not vote, neither is nor becomes a member. */
  readonly isStranger: boolean;
};

/**
 * What another device said of some partitions. `hasPromised`: whether it ever voted on anything; `isFounder`: whether it began together with the
 * asker; `life`: of a device without votes.
 */
export type DeviceDigests = {
  readonly hasPromised: boolean;
  readonly isFounder: boolean;
  readonly life: Life;
  readonly partitions: readonly PartitionDigest[];
};

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

/** What a device says of some partitions to one of that life. */
export const digestsOf = (
  { deletions, engine, epochs, votes }: DeviceReplica,
  space: Space,
  partitionPower: number,
  partitions: readonly number[],
  life: Life,
  asker?: string,
): DeviceDigests => ({
  hasPromised: engine.get(CEILING_KEY) !== undefined,
  isFounder: votes.isFounder(life),
  life: votes.life,
  partitions: partitions.map((partition) => {
    const hash32 = partition * 2 ** (32 - partitionPower);
    const moved = epochs.of(space, hash32);
    return {
      partition,
      isVoting: votes.votesIn(space, hash32) && (moved === undefined || isMember(moved, epochs.self)),
      epoch: moved?.configuration.epoch ?? 0,
      isSealed: moved?.isSealed === true,
      marks: deletions.marksOf({ space, partition, partitionPower }),
      isStranger:
        asker !== undefined && life !== NO_LIFE && epochs.isStranger({ space, partition, partitionPower }, asker),
      ...partitionSum(engine, { space, partition, partitionPower }),
    };
  }),
});

/** The sums of partitions, with how many entries they have and whether this replica votes there. */
export const digests = (reader: HeaderReader) => {
  const { space, partitionPower } = ringOf(reader);
  const life = reader.any();
  if (!isLife(life)) throw new RingsteadError("bad-message", "malformed message: life");
  const partitions = reader.counts(DIGESTS_LIMIT);
  for (const partition of partitions) checkPartition(partition, partitionPower);
  const asker = reader.any();
  const askerId = typeof asker === "string" ? asker : undefined;
  return async (replica: DeviceReplica): Promise<RepairAnswer> => {
    const said = digestsOf(replica, space, partitionPower, partitions, life, askerId);
    const body = Buffer.allocUnsafe(partitions.length * PARTITION_DIGEST_BYTES);
    for (const [index, { epoch, isSealed, isStranger, isVoting, entries: count, sum }] of said.partitions.entries()) {
      const at = index * PARTITION_DIGEST_BYTES;
      body[at] = (isVoting ? DIGEST_VOTES : 0) | (isSealed ? DIGEST_SEALED : 0) | (isStranger ? DIGEST_STRANGER : 0);
      body.writeUInt32BE(count, at + 1);
      body.writeBigUInt64BE(sum, at + 5);
      body.writeUInt32BE(epoch, at + 13);
    }
    const flags = [replica.engine.digests.isCertain, said.hasPromised, said.isFounder].map(Number);
    const marked = said.partitions.flatMap(({ marks }, index) =>
      isMarked(marks) ? [[index, marks.registers, marks.rows]] : [],
    );
    return { header: [...flags, said.life, marked], body };
  };
};

const isMarked = ({ registers, rows }: Marks): boolean => registers > TIMESTAMP_ZERO || rows > TIMESTAMP_ZERO;

const placeOf = (reader: HeaderReader): PartitionPlace => {
  const { space, partitionPower } = ringOf(reader);
  const partition = reader.count();
  checkPartition(partition, partitionPower);
  return { space, partition, partitionPower };
};

/** What this device knows of a partition's members, and whether it has caught up with them. */
export const epoch = (reader: HeaderReader) => {
  const place = placeOf(reader);
  return async ({ epochs }: DeviceReplica): Promise<RepairAnswer> => ({
    header: [epochs.hasCaughtUp(place) ? 1 : 0, ...packConfiguration(epochs.configurationOf(place))],
  });
};

/** Takes a configuration that was decided; answers with the one that counts here then. */
export const configure = (reader: HeaderReader) => {
  const place = placeOf(reader);
  const configuration: Configuration = unpackConfiguration(reader);
  return async (replica: DeviceReplica): Promise<RepairAnswer> => ({
    header: [...packConfiguration(await replica.configure(place, configuration))],
  });
};

/** [M3] */
export const seal = (reader: HeaderReader) => {
  const place = placeOf(reader);
  const epochNumber = reader.count();
  return async (replica: DeviceReplica): Promise<RepairAnswer> => ({
    header: [await replica.seal(place, epochNumber)],
  });
};

/** What is said of a deletion in an answer to RECLAIM. Who is of a version that knows of one yes alone takes "forgotten" for a no. */
export const RECLAIM_WORDS = ["kept", "held", "forgotten"] as const satisfies readonly ReclaimWord[];

/** Whether some deletions may go, as far as this replica is concerned: one byte each. */
export const reclaim = (reader: HeaderReader) => {
  const place = placeOf(reader);
  const epochNumber = reader.count();
  const keys = reader.list(RECLAIM_LIMIT).map((item) => item.bytes());
  const ballots = reader.list(RECLAIM_LIMIT).map((item) => item.storedBallot());
  const doomed = keys.map((key, index) => doomedOf(place, key, ballots[index]));
  return async (replica: DeviceReplica): Promise<RepairAnswer> => {
    const confirmed = await replica.deletions.confirm(place, epochNumber, doomed);
    return { header: [], body: Uint8Array.from(confirmed, (word) => RECLAIM_WORDS.indexOf(word)) };
  };
};

const doomedOf = (place: PartitionPlace, key: Uint8Array, ballot: Ballot | undefined): Doomed => {
  const isHere = spaceOfReplicated(key) === place.space && bucketsHave(place, key);
  if (!isHere || ballot === undefined) throw new RingsteadError("bad-message", "a deletion of another partition");
  return { key, ballot };
};

const bucketsHave = ({ partition, partitionPower }: PartitionPlace, key: Uint8Array): boolean =>
  key.length > 4 && Buffer.from(key.buffer, key.byteOffset, 4).readUInt32BE(0) >>> (32 - partitionPower) === partition;

/** The sums of a partition's buckets. */
export const buckets = (reader: HeaderReader) => {
  const place = placeOf(reader);
  return async ({ engine }: DeviceReplica): Promise<RepairAnswer> => ({
    header: [engine.digests.isCertain ? 1 : 0],
    body: bucketSums(engine, place),
  });
};

/** One page of what is held of a ring between two keys: the entries with their small bodies where the asker says how many, else what to compare. */
export const entries = (reader: HeaderReader) => {
  const space = reader.space();
  const gte = reader.bytes();
  const lt = reader.bytes();
  const limit = reader.count();
  return async (replica: DeviceReplica): Promise<RepairAnswer> => {
    if (limit === 0) {
      const { body, next } = await listEntries(replica, space, gte, lt);
      return { header: [next ?? null], body };
    }
    const page = await pullEntries(replica, space, { gte, lt }, limit);
    return { header: [page.next ?? null, page.isOfVoter ? 1 : 0], body: packCarried(page.entries) };
  };
};

/** Entries with their small bodies; the asker's keys in latin1 would be larger than their bytes. */
export const fetch = (reader: HeaderReader) => {
  const keys = reader.list(FETCH_LIMIT).map((item) => item.bytes());
  const isBare = reader.flag();
  return async (replica: DeviceReplica): Promise<RepairAnswer> => {
    const { entries: carried, isOfVoter } = await carriedEntries(replica, keys, isBare);
    return { header: [isOfVoter ? 1 : 0], body: packCarried(carried) };
  };
};
