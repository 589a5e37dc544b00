import { CHUNK_GRAINS, GRAIN_BYTES, PAGE_GRAINS } from "./page.ts";

/** Bytes of a volume that may differ from what the backup before has. `isZero`: they are zeros now, without a look at them. */
export type Extent = { readonly offset: number; readonly length: number; readonly isZero: boolean };

/** Grains of one page that go into one chunk, or are zeros. */
export type Run = { readonly kind: "data" | "zero"; readonly first: number; readonly count: number };

const UNCHANGED = 0;
const ZERO = 1;
const DATA = 2;

/**
 * What of a page has to be read, and what is known to be zeros. A grain of which only a part is known to be zeros is read, since the rest of it
 * is something. Chunks begin and end at multiples of a MiB, so that equal content makes equal chunks wherever a run begins. Pure.
 * `limitBytes`: where the volume ends, from the page's beginning.
 */
export const runsOf = (extents: readonly Extent[], pageOffset: number, limitBytes: number): readonly Run[] => {
  const marks = new Uint8Array(PAGE_GRAINS);
  const end = Math.min(limitBytes, PAGE_GRAINS * GRAIN_BYTES);
  for (const { offset, length, isZero } of extents) {
    const from = Math.max(0, offset - pageOffset);
    const to = Math.min(end, offset - pageOffset + length);
    for (let grain = Math.floor(from / GRAIN_BYTES); grain * GRAIN_BYTES < to; grain++) {
      const isWhole = from <= grain * GRAIN_BYTES && to >= Math.min(end, (grain + 1) * GRAIN_BYTES);
      if (!isZero || !isWhole) marks[grain] = DATA;
      else if (marks[grain] === UNCHANGED) marks[grain] = ZERO;
    }
  }
  const runs: Run[] = [];
  for (let first = 0; first < PAGE_GRAINS; ) {
    const mark = marks[first];
    let next = first + 1;
    while (next < PAGE_GRAINS && marks[next] === mark && (mark !== DATA || next % CHUNK_GRAINS !== 0)) next++;
    if (mark !== UNCHANGED) runs.push({ kind: mark === DATA ? "data" : "zero", first, count: next - first });
    first = next;
  }
  return runs;
};
