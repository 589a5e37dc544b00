import { createHmac } from "node:crypto";
import { BALLOT_BYTES } from "../../common/ballot.ts";
import { xxh64, xxh64OfString } from "../../common/hash.ts";
import type { DigestScheme } from "../engine/digest-table.ts";
import type { Space } from "../wire.ts";
import { isRegisterKey, spaceOfReplicated } from "./key-space.ts";
import { ballotOffsetsIn } from "./register-format.ts";

/** Buckets are the top 16 bits of the placement hash, for each ring: a partition of up to 2^16 is a run of whole ones. */
export const BUCKET_POWER = 16;
const RINGS: readonly Space[] = ["object", "container", "account"];
/** A range of keys that is counted in one go: 256 of them. */
const GROUP_POWER = 8;
const GROUP_COUNT = 2 ** GROUP_POWER;
/** Longest key of the engine, and two ballots. */
const SCRATCH_BYTES = 4096 + 2 * BALLOT_BYTES;
/** Behind every key: a hash of all ones is followed by a kind below this. */
const BEHIND_ALL_KEYS = Buffer.alloc(5, 0xff);
const DIGEST_VERSION = 1;

/** The bucket of a ring's keys whose hash begins with these 16 bits. */
export const bucketIn = (space: Space, hash16: number): number => hash16 * RINGS.length + RINGS.indexOf(space);

/**
 * What replicas of an entry agree on: its key with version and ballot of a register, or the version of a row. The state of a register is
 * left out: confirmations lag, and are brought in by those who settle ([B7]). Sums of two xxh64 with secret seeds can be neither cancelled
 * nor aimed at by who chooses names.
 */
export const entryDigests = (clusterKey: Buffer): DigestScheme => {
  const secret = createHmac("sha256", clusterKey).update("entry digests").digest();
  const seeds = [secret.readBigUInt64BE(0), secret.readBigUInt64BE(8)] as const;
  const scratch = Buffer.alloc(SCRATCH_BYTES);
  return {
    id: BigInt.asUintN(64, xxh64OfString(`entry digests ${DIGEST_VERSION}`, seeds[0])),
    bucketCount: 2 ** BUCKET_POWER * RINGS.length,
    groupSize: 2 ** (BUCKET_POWER - GROUP_POWER) * RINGS.length,
    bucketOf(key) {
      const space = spaceOfReplicated(key);
      return space === undefined ? -1 : bucketIn(space, ((key[0] ?? 0) << 8) | (key[1] ?? 0));
    },
    digestOf(key, value) {
      scratch.set(key, 0);
      let end = key.length;
      const take = (offset: number): void => {
        const part = value.subarray(offset, offset + BALLOT_BYTES);
        scratch.set(part, end);
        end += part.length;
      };
      if (isRegisterKey(key)) for (const offset of ballotOffsetsIn(value)) take(offset);
      else take(0);
      const bytes = scratch.subarray(0, end);
      return BigInt.asUintN(64, xxh64(bytes, seeds[0]) + xxh64(bytes, seeds[1]));
    },
    firstKeyOf: (group) => (group >= GROUP_COUNT ? BEHIND_ALL_KEYS : Buffer.of(group)),
  };
};
