import type { Row } from "../../storage-node/wire.ts";

/** A row that one of the merged pages lacks, or has in an older version. */
export type MissingRow = { readonly page: number; readonly row: Row };

/**
 * Merges pages of several replicas, each in name order and at most `limit` long, deleted rows included ([B2]): name by name
 * the higher version wins, deleted ones are dropped afterwards.
 *
 * A page that is full says nothing of names behind its last one, so merging stops at the first end of a full page; `next` is
 * then the marker to go on from. `all`: what was merged, deleted rows included, in no order.
 */
export const mergeRows = (
  pages: readonly (readonly Row[])[],
  limit: number,
  isReverse: boolean,
): { live: Row[]; next: string | undefined; missing: MissingRow[]; all: Row[] } => {
  const sign = isReverse ? -1 : 1;
  let horizon: Buffer | undefined;
  for (const page of pages) {
    const last = page.length >= limit ? page.at(-1) : undefined;
    if (last === undefined) continue;
    const end = Buffer.from(last.name);
    if (horizon === undefined || sign * Buffer.compare(end, horizon) < 0) horizon = end;
  }
  const newest = new Map<string, Row>();
  for (const page of pages) {
    for (const row of page) {
      const known = newest.get(row.name);
      if (known === undefined || row.version > known.version) newest.set(row.name, row);
    }
  }
  const isWithin = (name: Buffer): boolean => horizon === undefined || sign * Buffer.compare(name, horizon) <= 0;
  const live: { key: Buffer; row: Row }[] = [];
  for (const row of newest.values()) {
    const key = Buffer.from(row.name);
    if (!row.isDeleted && isWithin(key)) live.push({ key, row });
  }
  live.sort((a, b) => sign * Buffer.compare(a.key, b.key));
  const missing: MissingRow[] = [];
  for (const [page, rows] of pages.entries()) {
    const held = new Map(rows.map((row) => [row.name, row.version]));
    for (const row of newest.values()) {
      if (held.get(row.name) !== row.version && isWithin(Buffer.from(row.name))) missing.push({ page, row });
    }
  }
  const all = [...newest.values()].filter((row) => isWithin(Buffer.from(row.name)));
  return { all, live: live.slice(0, limit).map(({ row }) => row), next: horizon?.toString("utf8"), missing };
};
