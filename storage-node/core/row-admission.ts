import { type Incarnation, timestampIn } from "../../common/ballot.ts";
import { type HybridTimestamp, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import type { ContainerRecord, Row, RowReply } from "../wire.ts";

/** What a replica knows of a container when a row or a listing asks for it. */
export type KnownContainer = { readonly record: ContainerRecord; readonly isTombstone: boolean };

/**
 * [B1]: rows are taken, and listings given, only in the incarnation that the container has here and while it is open.
 * "behind" means that this replica has yet to hear of the incarnation; "moved" that the incarnation is over.
 */
export const admitToContainer = (
  known: KnownContainer | undefined,
  incarnation: Incarnation,
): "open" | "closing" | "moved" | "behind" => {
  if (known === undefined || known.record.incarnation < incarnation) return "behind";
  if (known.record.incarnation > incarnation || known.isTombstone) return "moved";
  return known.record.status;
};

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
