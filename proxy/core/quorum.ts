/** Bits of a tally that count the members of the present configuration; those above count the ones that are to come. */
const OLD_BITS = 8;
const OLD_MASK = (1 << OLD_BITS) - 1;
const IN_OLD = 1;
const IN_NEXT = 1 << OLD_BITS;

const writeQuorumOf = (count: number): number => Math.floor(count / 2) + 1;

/**
 * How many answers decide, over the members of a partition, which are numbered in the order in which they are asked (PROTOCOL section 8):
 *
 *     stable  members 0 … N−1                     writes: W of them               reads: R, prepares: W
 *     joint   0 … N−1 the old ones, then the      writes: W of the old ones       reads: R, prepares: W,
 *             one that enters [M1]                *and* W of the new ones         of the old ones
 *
 * A tally is one number in which both sets are counted at once, so that a stable quorum costs an addition and two comparisons, as it would
 * alone. Requires: at most 255 members of each set.
 */
export class Quorum {
  /** Of all who are told of a write. */
  readonly memberCount: number;
  /** Of those who are asked to promise, and read: the first ones. */
  readonly voterCount: number;
  /** W of them promise. */
  readonly promiseCount: number;
  /** R of them are read. */
  readonly readCount: number;
  readonly isJoint: boolean;
  readonly #oldWrites: number;
  readonly #nextWrites: number;
  readonly #weights: readonly number[];
  /** What the tallies of all members make together. */
  readonly #whole: number;

  private constructor(weights: readonly number[], oldCount: number, nextCount: number) {
    this.memberCount = weights.length;
    this.voterCount = oldCount;
    this.promiseCount = writeQuorumOf(oldCount);
    this.readCount = oldCount - this.promiseCount + 1;
    this.isJoint = nextCount > 0;
    this.#oldWrites = this.promiseCount;
    this.#nextWrites = nextCount === 0 ? 0 : writeQuorumOf(nextCount);
    this.#weights = weights;
    this.#whole = oldCount * IN_OLD + nextCount * IN_NEXT;
  }

  static stable(count: number): Quorum {
    return new Quorum(Array<number>(count).fill(IN_OLD), count, 0);
  }

  /** @param isNext of each member, the old ones first, whether it is one of the new ones. Requires: `oldCount` of them are old */
  static joint(oldCount: number, isNext: readonly boolean[]): Quorum {
    const weights = isNext.map((is, index) => (index < oldCount ? IN_OLD : 0) + (is ? IN_NEXT : 0));
    return new Quorum(weights, oldCount, isNext.filter(Boolean).length);
  }

  /** What the answer of a member adds to a tally. */
  weightOf(member: number): number {
    return this.#weights[member] ?? 0;
  }

  /** Whether those of a tally are enough for a write. */
  suffices(tally: number): boolean {
    return (tally & OLD_MASK) >= this.#oldWrites && tally >> OLD_BITS >= this.#nextWrites;
  }

  /** Whether a write is still possible without those of a tally. */
  survives(missing: number): boolean {
    return this.suffices(this.#whole - missing);
  }
}
