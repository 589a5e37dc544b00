/** A source of random 32-bit integers that a seed determines, so that a failing run can be repeated. */
export type Random = {
  /** A uniform integer in [0, 2^32). */
  uint32(): number;
  /** A uniform integer in [0, bound). Requires: 1 ≤ bound ≤ 2^32. */
  below(bound: number): number;
  /** A uniform float in [0, 1). */
  unit(): number;
};

const MASK_64 = (1n << 64n) - 1n;

/**
 * SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
 * The 64-bit state makes neighbouring seeds independent, which seeds counted 1, 2, 3, … need.
 */
export const seededRandom = (seed: bigint): Random => {
  let state = seed & MASK_64;
  const uint32 = (): number => {
    state = (state + 0x9e3779b97f4a7c15n) & MASK_64;
    let mixed = state;
    mixed = ((mixed ^ (mixed >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK_64;
    mixed = ((mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn) & MASK_64;
    return Number((mixed ^ (mixed >> 31n)) >> 32n);
  };
  const unit = (): number => uint32() / 4294967296;
  return { uint32, unit, below: (bound) => Math.floor(unit() * bound) };
};
