import { xxh64OfString } from "../common/hash.ts";

/** Where a name lies: what its keys begin with, and the partition that follows from it. */
export type Placement = {
  /** Top 32 bits of the placement hash; the first four bytes of every key of this name. */
  readonly hash32: number;
  /** Top `partitionPower` bits of the placement hash. */
  readonly partition: number;
};

/**
 * The placement hash: xxh64 with the ring's seed over the UTF-8 form of "/account[/container[/object]]".
 * Requires: account and container contain no "/" (an object name may), and an object comes with its container.
 */
export const placementHash = (seed: bigint, account: string, container?: string, object?: string): bigint => {
  if (container === undefined) return xxh64OfString(`/${account}`, seed);
  if (object === undefined) return xxh64OfString(`/${account}/${container}`, seed);
  return xxh64OfString(`/${account}/${container}/${object}`, seed);
};

/** Top 32 bits of a 64-bit placement hash. */
export const hash32Of = (hash: bigint): number => Number(hash >> 32n);

/** Requires: 1 ≤ partitionPower ≤ 24 and 0 ≤ hash32 < 2^32. */
export const partitionOfHash32 = (hash32: number, partitionPower: number): number => hash32 >>> (32 - partitionPower);
