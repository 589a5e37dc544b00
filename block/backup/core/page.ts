/**
 * What a backup knows of 64 MiB of a volume. Pages are the leaves of a backup: two backups that have the same bytes there have the same page,
 * and an increment writes new pages only where something changed. Nothing else has to be read to restore it, so that any backup may go before
 * those that were made after it.
 *
 *     volume   |········ page 0 ········|········ page 1 ········| …        64 MiB each
 *     page     [ piece ][ piece ]  zeros  [ piece ]                          whole grains of 64 KiB, in order, none upon another
 *     piece    grains `first` … of the page are grains `chunkFirst` … of the chunk `chunk`
 */

/** The least that an increment stores: a cluster of the overlays that tell what changed. */
export const GRAIN_BYTES = 64 * 1024;
export const PAGE_GRAINS = 1024;
export const PAGE_BYTES = GRAIN_BYTES * PAGE_GRAINS;
/** The most in one object of the store: 1 MiB lies in the log of its devices, with no file of its own. */
export const CHUNK_GRAINS = 16;
export const CHUNK_BYTES = GRAIN_BYTES * CHUNK_GRAINS;
/** Of a volume that can be backed up: as many as its list of pages may name. 32 TiB. */
export const PAGES_LIMIT = 512 * 1024;

export type Piece = {
  readonly first: number;
  readonly count: number;
  /** Name of the chunk: 64 hexadecimal digits. */
  readonly chunk: string;
  readonly chunkFirst: number;
};

/** In order of `first`; grains that no piece has are zeros. */
export type Page = readonly Piece[];

/** What grains hold now: the chunk from its first grain on, or zeros. */
export type Change = { readonly first: number; readonly count: number; readonly chunk: string | undefined };

/** What is left of a piece below a change: what lies before it, and what lies behind it. */
const rest = (piece: Piece, { first, count }: Change): Piece[] => {
  const [from, to] = [piece.first, piece.first + piece.count];
  if (to <= first || from >= first + count) return [piece];
  const before = { ...piece, count: first - from };
  const behind = {
    ...piece,
    first: first + count,
    count: to - first - count,
    chunkFirst: piece.chunkFirst + (first + count - from),
  };
  return [before, behind].filter((one) => one.count > 0);
};

/** The page after the changes, later ones over earlier ones. Pure. */
export const changedPage = (page: Page, changes: readonly Change[]): Page => {
  let pieces: Piece[] = [...page];
  for (const change of changes) {
    pieces = pieces.flatMap((piece) => rest(piece, change));
    const { first, count, chunk } = change;
    if (chunk !== undefined) pieces.push({ first, count, chunk, chunkFirst: 0 });
  }
  return pieces.toSorted((one, other) => one.first - other.first);
};

/** How many pages a volume of that size has. */
export const pageCountOf = (sizeBytes: number): number => Math.ceil(sizeBytes / PAGE_BYTES);
