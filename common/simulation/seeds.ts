/**
 * The seeds that a simulation runs with: the first, and how many from there on. SEED and SEEDS of the environment choose them; with SEED
 * alone, as a failure prints it, it is that one.
 */
export const chosenSeeds = (usualCount: number): { readonly first: bigint; readonly count: number } => {
  const { SEED, SEEDS } = process.env;
  const count = SEED !== undefined && SEEDS === undefined ? 1 : Number(SEEDS ?? usualCount);
  return { first: BigInt(SEED ?? "1"), count };
};
