/** Rows of one page: enough that a listing takes few of them, few enough that one is cheap to read anew. */
export const PAGE_ROWS = 256;
/** Rows read from the engine at once. */
const MAX_READ_ROWS = 32 * PAGE_ROWS;
/** What one device keeps of listings. */
const KEPT_BYTES = 8 * 1024 * 1024;
/** What a page costs beside its rows. */
const PAGE_OVERHEAD_BYTES = 512;

/** Names as latin1 strings of their UTF-8 bytes, which compare as the bytes do. */
type NameBytes = string;

/** Some rows in name order, packed as they travel: row `i` is at `offsets[i]`, the end of the last one at `offsets[count]`. */
export type RowRun = {
  readonly names: readonly NameBytes[];
  readonly packed: Buffer;
  readonly offsets: readonly number[];
};

/** All rows from `from` on and before `to`; undefined: to the end. */
type Page = RowRun & { readonly from: NameBytes; readonly to: NameBytes | undefined };

/** A read under way, and the names in its range that changed meanwhile. */
type Fill = { readonly from: NameBytes; readonly to: NameBytes | undefined; readonly touched: NameBytes[] };

type Owner = { readonly pages: Page[]; readonly fills: Set<Fill>; bytes: number };

/** Reads at most `limit` rows of a range from the engine, in runs of PAGE_ROWS; only the last one may be shorter. */
export type ReadRows = (from: NameBytes, to: NameBytes | undefined, limit: number) => Promise<readonly RowRun[]>;

const NO_ROWS: RowRun = { names: [], packed: Buffer.alloc(0), offsets: [0] };

const isIn = ({ from, to }: Pick<Page, "from" | "to">, name: NameBytes): boolean => name >= from && isBefore(name, to);

const isBefore = (name: NameBytes, end: NameBytes | undefined): boolean => end === undefined || name < end;

/**
 * Pages of the listings that were asked for lately, so that a listing of many names after a change of one reads one page from the
 * engine. A page holds what the engine shows, written or not: who lists waits for the sync afterwards, as without pages.
 *
 *     unknown ──read──▶ kept ──a row in its range changes──▶ unknown
 *
 * A page whose rows changed while it was read is used, and not kept.
 */
export class RowPages {
  /** In the order in which they were last listed. */
  readonly #owners = new Map<string, Owner>();
  #bytes = 0;

  /** A row of `owner` changes, in this turn. */
  touch(owner: string, name: string): void {
    const known = this.#owners.get(owner);
    if (known === undefined) return;
    const bytes = Buffer.from(name).toString("latin1");
    for (const fill of known.fills) if (isIn(fill, bytes)) fill.touched.push(bytes);
    const index = indexOf(known.pages, bytes);
    const page = known.pages[index];
    if (page === undefined || !isIn(page, bytes)) return;
    known.pages.splice(index, 1);
    this.#forget(known, page);
  }

  /** All rows of `owner` may have changed. */
  forget(owner: string): void {
    const known = this.#owners.get(owner);
    if (known === undefined) return;
    // What is being read now is not kept.
    this.#owners.delete(owner);
    this.#drop(known);
  }

  /** The first `limit` rows from `from` on and before `to`, in packed runs: those of pages that did not change are equal, byte for byte. */
  async list(
    owner: string,
    from: NameBytes,
    to: NameBytes | undefined,
    limit: number,
    read: ReadRows,
  ): Promise<readonly Buffer[]> {
    const known = this.#owners.get(owner) ?? { pages: [], fills: new Set(), bytes: 0 };
    this.#owners.delete(owner);
    this.#owners.set(owner, known);
    const runs: Buffer[] = [];
    let left = limit;
    let at: NameBytes | undefined = from;
    while (left > 0 && at !== undefined && isBefore(at, to)) {
      const kept = keptAt(known, at);
      const pages: readonly Page[] =
        kept === undefined ? await this.#read(owner, known, { from: at, to }, left, read) : [kept];
      for (const page of pages) {
        if (left === 0 || at === undefined || !isBefore(at, to)) break;
        const first = page.from >= at ? 0 : lowerBound(page.names, at);
        const isWhole = to === undefined || (page.to !== undefined && page.to <= to);
        const behind = isWhole ? page.names.length : lowerBound(page.names, to);
        const last = Math.min(behind, first + left);
        if (last > first) runs.push(page.packed.subarray(page.offsets[first], page.offsets[last]));
        left -= Math.max(0, last - first);
        at = page.to;
      }
    }
    return runs;
  }

  /** Pages of a range, without a gap, at least one: `wanted` rows in all where there are so many before the next page that is kept. */
  async #read(
    id: string,
    owner: Owner,
    { from, to }: Pick<Page, "from" | "to">,
    wanted: number,
    read: ReadRows,
  ): Promise<readonly Page[]> {
    const next = owner.pages[indexOf(owner.pages, from) + 1];
    const end = next === undefined || (to !== undefined && to < next.from) ? to : next.from;
    const fill: Fill = { from, to: end, touched: [] };
    const limit = Math.min(Math.ceil(wanted / PAGE_ROWS) * PAGE_ROWS, MAX_READ_ROWS);
    owner.fills.add(fill);
    try {
      const runs = await read(from, fill.to, limit);
      const pages: Page[] = [];
      let at = from;
      for (const run of runs) {
        const lastName = run.names.at(-1);
        const isFull = run.names.length >= PAGE_ROWS && lastName !== undefined;
        const page: Page = { ...run, from: at, to: isFull ? `${lastName}\0` : fill.to };
        pages.push(page);
        at = page.to ?? at;
      }
      if (pages.length === 0) pages.push({ ...NO_ROWS, from, to: fill.to });
      for (const page of pages) {
        // Keeping one may push out this very owner, whose pages then belong to nobody.
        if (this.#owners.get(id) !== owner) break;
        if (!fill.touched.some((name) => isIn(page, name))) this.#keep(owner, page);
      }
      return pages;
    } finally {
      owner.fills.delete(fill);
    }
  }

  #keep(owner: Owner, page: Page): void {
    const index = indexOf(owner.pages, page.from) + 1;
    const before = owner.pages[index - 1];
    const after = owner.pages[index];
    // Somebody else read the same range meanwhile.
    if (before !== undefined && isBefore(page.from, before.to)) return;
    if (after !== undefined && isBefore(after.from, page.to)) return;
    owner.pages.splice(index, 0, page);
    const bytes = page.packed.length * 2 + PAGE_OVERHEAD_BYTES;
    owner.bytes += bytes;
    this.#bytes += bytes;
    for (const [id, oldest] of this.#owners) {
      if (this.#bytes <= KEPT_BYTES || (oldest === owner && this.#owners.size === 1)) break;
      this.#owners.delete(id);
      this.#bytes -= oldest.bytes;
      oldest.bytes = 0;
    }
    if (this.#bytes > KEPT_BYTES) this.#drop(owner);
  }

  /** One listing larger than all that may be kept: it begins anew. */
  #drop(owner: Owner): void {
    this.#bytes -= owner.bytes;
    owner.bytes = 0;
    owner.pages.length = 0;
  }

  #forget(owner: Owner, page: Page): void {
    const bytes = page.packed.length * 2 + PAGE_OVERHEAD_BYTES;
    owner.bytes -= bytes;
    this.#bytes -= bytes;
  }
}

/** Index of the last page that begins at or before `name`; -1 where all begin behind it. */
const indexOf = (pages: readonly Page[], name: NameBytes): number => {
  let low = 0;
  let high = pages.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const page = pages[middle];
    if (page !== undefined && page.from <= name) low = middle + 1;
    else high = middle;
  }
  return low - 1;
};

const keptAt = ({ pages }: Owner, name: NameBytes): Page | undefined => {
  const page = pages[indexOf(pages, name)];
  return page !== undefined && isBefore(name, page.to) ? page : undefined;
};

/** Index of the first name that is not before `name`. */
const lowerBound = (names: readonly NameBytes[], name: NameBytes): number => {
  let low = 0;
  let high = names.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((names[middle] ?? "") < name) low = middle + 1;
    else high = middle;
  }
  return low;
};
