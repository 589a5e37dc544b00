import assert from "node:assert/strict";

/**
 * Which entries a device counts in which bucket, and what each adds. Two devices that hold the same have equal sums, bucket by bucket.
 * Buckets follow the order of the keys: of two keys the lower one has the lower bucket, or a bucket that interleaves with it by kind,
 * so that `firstKeyOf` cuts the key space into ranges of whole buckets.
 */
export type DigestScheme = {
  /** Changes whenever an entry's bucket or digest would: what an index says of another scheme counts for nothing. */
  readonly id: bigint;
  readonly bucketCount: number;
  /** Buckets that share one range of keys: those of range n are n × groupSize and the ones behind it. */
  readonly groupSize: number;
  /** −1 for what is not counted. A key never changes its bucket. */
  bucketOf(key: Uint8Array): number;
  /** 64 bits; what they depend on is the same on every replica of the entry. */
  digestOf(key: Uint8Array, value: Uint8Array): bigint;
  /** The first key of a range of buckets; behind all keys for the one after the last. */
  firstKeyOf(group: number): Uint8Array;
};

/** What a device says of its buckets. Sums are modulo 2^64. */
export type DigestView = {
  readonly scheme: DigestScheme;
  /** False while they are being counted anew: they are then worth nothing. */
  readonly isCertain: boolean;
  readonly sums: BigUint64Array;
  readonly counts: Uint32Array;
};

/** The sums of a device's buckets: every put and delete subtracts what it supersedes and adds what it brings. */
export class DigestTable implements DigestView {
  readonly scheme: DigestScheme;
  readonly sums: BigUint64Array;
  readonly counts: Uint32Array;
  #isCertain = true;
  /** Buckets below this one are, or are being, counted anew: changes go to the new count as well. */
  #countedBefore = 0;
  #newSums = new BigUint64Array(0);
  #newCounts = new Uint32Array(0);

  constructor(scheme: DigestScheme) {
    this.scheme = scheme;
    this.sums = new BigUint64Array(scheme.bucketCount);
    this.counts = new Uint32Array(scheme.bucketCount);
  }

  get isCertain(): boolean {
    return this.#isCertain;
  }

  /** Something is not accounted for: worth nothing until it was counted anew. */
  doubt(): void {
    this.#isCertain = false;
  }

  /** An entry changes from one digest to another; undefined: it was not there, or is not any more. */
  replace(bucket: number, from: bigint | undefined, to: bigint | undefined): void {
    if (bucket < 0) return;
    add(this.sums, this.counts, bucket, from, to);
    if (bucket < this.#countedBefore) add(this.#newSums, this.#newCounts, bucket, from, to);
  }

  /** Begins a new count; what is known already stays as certain as it is until `finishCount`. */
  beginCount(): void {
    this.#newSums = new BigUint64Array(this.sums.length);
    this.#newCounts = new Uint32Array(this.counts.length);
    this.#countedBefore = 0;
  }

  /** The next range is being counted: from this turn on its changes go to the new count. */
  beginGroup(group: number): void {
    assert(this.#countedBefore === group * this.scheme.groupSize, "ranges are counted in their order");
    this.#countedBefore += this.scheme.groupSize;
  }

  /** An entry as it was when its range was begun. */
  countEntry(bucket: number, digest: bigint): void {
    assert(bucket < this.#countedBefore, "an entry is counted within its range");
    if (bucket >= 0) add(this.#newSums, this.#newCounts, bucket, undefined, digest);
  }

  /** In how many buckets what was known differed from the count that takes its place. Requires: every range was counted. */
  finishCount(): number {
    assert(this.#countedBefore >= this.scheme.bucketCount, "nothing is left out of a count");
    let wrong = 0;
    for (let bucket = 0; bucket < this.sums.length; bucket++) {
      const isSame = this.sums[bucket] === this.#newSums[bucket] && this.counts[bucket] === this.#newCounts[bucket];
      if (!isSame) wrong++;
    }
    this.sums.set(this.#newSums);
    this.counts.set(this.#newCounts);
    this.abandonCount();
    this.#isCertain = true;
    return wrong;
  }

  abandonCount(): void {
    this.#newSums = new BigUint64Array(0);
    this.#newCounts = new Uint32Array(0);
    this.#countedBefore = 0;
  }
}

const add = (
  sums: BigUint64Array,
  counts: Uint32Array,
  bucket: number,
  from: bigint | undefined,
  to: bigint | undefined,
): void => {
  // A typed array of 64-bit words wraps by itself.
  sums[bucket] = (sums[bucket] ?? 0n) - (from ?? 0n) + (to ?? 0n);
  counts[bucket] = (counts[bucket] ?? 0) - (from === undefined ? 0 : 1) + (to === undefined ? 0 : 1);
};
