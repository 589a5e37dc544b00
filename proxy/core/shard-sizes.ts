import type { ShardRange } from "../../storage-node/wire.ts";
import { SHARDS_LIMIT } from "../../storage-node/wire.ts";

/** How many live names stand in each range, in their order. */
export type CountedRange = ShardRange & { readonly rows: number };

/** What is to be done about the sizes of a container's shards. */
export type SizeChange =
  | { readonly kind: "split"; readonly id: string; readonly rows: number }
  /** With its right neighbour. */
  | { readonly kind: "merge"; readonly id: string };

/** Neighbours are merged below this share of what one is split at: each half of a split has twice as much. */
const MERGE_SHARE = 0.25;

/** The largest one above `limitNames` is split first, then neighbours that are small together are merged; undefined where all is well. */
export const changeOfSizes = (ranges: readonly CountedRange[], limitNames: number): SizeChange | undefined => {
  const [largest] = ranges.toSorted((left, right) => right.rows - left.rows);
  if (largest !== undefined && largest.rows > limitNames && ranges.length < SHARDS_LIMIT)
    return { kind: "split", id: largest.id, rows: largest.rows };
  for (const [at, { id, rows }] of ranges.entries()) {
    const next = ranges[at + 1];
    if (next !== undefined && rows + next.rows < limitNames * MERGE_SHARE) return { kind: "merge", id };
  }
  return undefined;
};
