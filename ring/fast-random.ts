import type { Random } from "../common/random.ts";

/**
 * sfc32 (Chris Doty-Humphrey, PractRand), seeded from another source: several million numbers a second, where the 64-bit
 * generator of `common/random.ts` works in BigInt. A rebalance draws some for every replica.
 */
export const fastRandom = (source: Random): { below(bound: number): number } => {
  let a = source.uint32() | 0;
  let b = source.uint32() | 0;
  let c = source.uint32() | 0;
  let counter = 1;
  const uint32 = (): number => {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    c |= 0;
    return sum >>> 0;
  };
  for (let warmUp = 0; warmUp < 12; warmUp += 1) uint32();
  return { below: (bound) => Math.floor((uint32() / 4294967296) * bound) };
};

export type FastRandom = ReturnType<typeof fastRandom>;

/** The numbers 0 … count − 1 in random order (Fisher and Yates). */
export const shuffledIndices = (count: number, random: FastRandom): Uint32Array => {
  const indices = Uint32Array.from({ length: count }, (_, index) => index);
  for (let last = count - 1; last > 0; last -= 1) {
    const other = random.below(last + 1);
    const kept = indices[last] ?? 0;
    indices[last] = indices[other] ?? 0;
    indices[other] = kept;
  }
  return indices;
};
