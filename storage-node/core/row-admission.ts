import { type Incarnation, timestampIn } from "../../common/ballot.ts";
import { type HybridTimestamp, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import type { ContainerRecord, Row, RowReply, RowsState } from "../wire.ts";

/** What a replica knows of a container when a row or a listing asks for it. */
export type KnownContainer = {
  readonly record: ContainerRecord;
  readonly isTombstone: boolean;
  /** Whether it is known here that what the register says took effect. */
  readonly isConfirmed: boolean;
};

/** What stands in the way of a row or a listing, or nothing. "split": names are elsewhere by now, or are on their way there. */
export type Admission = "open" | "closing" | "moved" | "behind" | "split";

/**
 * [B1]: rows are taken, and listings given, only in the incarnation that the container has here and while it is open.
 * "behind" means that this replica has yet to hear of the incarnation; "moved" that the incarnation is over.
 */
const admitToLife = (
  known: KnownContainer | undefined,
  incarnation: Incarnation,
): { readonly record: ContainerRecord; readonly rows: RowsState } | "moved" | "behind" => {
  if (known === undefined || known.record.incarnation < incarnation) return "behind";
  if (known.record.incarnation > incarnation || known.isTombstone) return "moved";
  return { record: known.record, rows: known.record.shards?.rows ?? "here" };
};

const isElsewhere = (rows: RowsState): boolean => rows === "gone" || rows === "dropped";

/**
 * One row. `isPlaced`: the writer has it at a quorum of the listing that is to follow this one. Any other is refused while rows are leaving: who copies them
 * may have passed its name already.
 */
export const admitRow = (known: KnownContainer | undefined, incarnation: Incarnation, isPlaced: boolean): Admission => {
  const life = admitToLife(known, incarnation);
  if (typeof life === "string") return life;
  if (isElsewhere(life.rows)) return "split";
  if (life.record.status === "closing") return "closing";
  return life.rows === "leaving" && !isPlaced ? "split" : "open";
};

/** Copies, whose versions may be older than deletions that were forgotten since: taken only by a listing that is being filled, which forgets none. */
export const admitCopies = (known: KnownContainer | undefined, incarnation: Incarnation): Admission => {
  const life = admitToLife(known, incarnation);
  if (typeof life === "string") return life;
  return life.rows === "filling" ? "open" : "split";
};

/** A listing; one that is to be copied only where no row is taken any more that is not copied, or placed, elsewhere. */
export const admitListing = (
  known: KnownContainer | undefined,
  incarnation: Incarnation,
  isCopy: boolean,
): Admission => {
  const life = admitToLife(known, incarnation);
  if (typeof life === "string") return life;
  if (isElsewhere(life.rows)) return "split";
  if (isCopy && life.rows !== "leaving") return "behind";
  return life.record.status;
};

/** Whether what is held of a life is for nobody any more. */
export const areRowsOver = (known: KnownContainer | undefined, incarnation: Incarnation): boolean => {
  const life = admitToLife(known, incarnation);
  return typeof life !== "string" && isElsewhere(life.rows);
};

/**
 * Whether a life of a container is over for good: a later one began, which is made upon an established tombstone alone, or its tombstone is established. No listing and no
 * look at *closing* asks for its rows any more, and no row is taken in it. (*While its tombstone is of open outcome:* the container may be reopened with what is here.)
 */
export const isLifeOver = (known: KnownContainer | undefined, incarnation: Incarnation): boolean =>
  known !== undefined &&
  (known.record.incarnation > incarnation ||
    (known.isTombstone && known.isConfirmed && known.record.incarnation === incarnation));

/** How the statistics of a row space change. */
export type RowChange = {
  readonly reply: RowReply;
  readonly stores: boolean;
  readonly removesLive: Row | undefined;
  readonly addsLive: Row | undefined;
};

/**
 * The higher version of a name wins; a repetition changes nothing and is acknowledged. [E5]: of a name that no row is held of a later deletion may have been
 * removed, so what is at or below `mark` does not come back; a deletion has nothing to hide, and is as good as stored.
 */
export const decideRow = (
  live: Row | undefined,
  deleted: Row | undefined,
  row: Row,
  mark: HybridTimestamp = TIMESTAMP_ZERO,
): RowChange => {
  const held = live !== undefined && (deleted === undefined || live.version > deleted.version) ? live : deleted;
  if (held !== undefined && held.version >= row.version) {
    return { reply: { kind: "stored" }, stores: false, removesLive: undefined, addsLive: undefined };
  }
  if (held === undefined && mark > TIMESTAMP_ZERO && timestampIn(row.version) <= mark) {
    return {
      reply: { kind: row.isDeleted ? "stored" : "old" },
      stores: false,
      removesLive: undefined,
      addsLive: undefined,
    };
  }
  return { reply: { kind: "stored" }, stores: true, removesLive: live, addsLive: row.isDeleted ? undefined : row };
};
