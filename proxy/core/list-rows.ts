import type { Incarnation } from "../../common/ballot.ts";
import type { ListQuery, Row, RowSummary } from "../../storage-node/wire.ts";
import { mergeRows } from "./merge-rows.ts";
import { list, type ListAnswer, type Script } from "./script.ts";

/** What a listing asks for; whether deleted rows come along is decided here. */
export type PageQuery = Omit<ListQuery, "withDeleted">;

/** Why there is no listing: the incarnation is over, a replica has yet to hear of it, too few answer. */
export type ListObstacle = Exclude<ListAnswer, { kind: "rows" }>["kind"];

const SUMMARY_ONLY: ListQuery = {
  marker: "",
  endMarker: "",
  prefix: "",
  isReverse: false,
  limit: 0,
  withDeleted: false,
};
/** Fewest rows per page while replicas that differ are merged name by name. */
const RECONCILE_PAGE = 1000;
const RECONCILE_PAGE_LIMIT = 5000;
/** Replicas that take rows just now differ at most moments, and not at all of them: they are asked again before all of their rows are read. */
const SUMMARY_ATTEMPTS = 4;
/** Rows that one listing writes back at most; the next one goes on. */
const REPAIR_LIMIT = 1000;

const areEqual = (pages: readonly { readonly summary: RowSummary }[]): boolean => {
  const first = pages[0]?.summary;
  return pages.every(({ summary }) => summary.setHash === first?.setHash && summary.rows === first.rows);
};

/** [B2]: live rows in name order. Fewer than `query.limit` means that there are no more. Replicas that differ get what they lack. */
export function* listRows<S>(set: S, incarnation: Incarnation, query: PageQuery): Script<S, Row[] | ListObstacle> {
  const first = yield* list(set, incarnation, { ...query, withDeleted: false }, false);
  if (first.kind !== "rows") return first.kind;
  if (first.isPartial !== true && areEqual(first.pages))
    return [...(first.pages.find(({ rows }) => rows.length > 0)?.rows ?? [])];
  const found: Row[] = [];
  const limit = Math.max(query.limit, RECONCILE_PAGE);
  let { marker } = query;
  const repairs = { left: REPAIR_LIMIT };
  while (found.length < query.limit) {
    const merged = yield* mergedPage(set, incarnation, { ...query, marker, limit }, repairs);
    if (typeof merged === "string") return merged;
    found.push(...merged.live);
    if (merged.next === undefined) break;
    marker = merged.next;
  }
  return found.slice(0, query.limit);
}

/** About how many live rows there are: a row may be on its way, or its deletion. */
export function* estimateRows<S>(set: S, incarnation: Incarnation): Script<S, number | ListObstacle> {
  const answer = yield* list(set, incarnation, SUMMARY_ONLY, false);
  if (answer.kind !== "rows") return answer.kind;
  return Math.max(0, ...answer.pages.map(({ summary }) => summary.rows));
}

/** Count and bytes of all live rows; exact also while replicas differ. */
export function* countRows<S>(set: S, incarnation: Incarnation): Script<S, RowSummary | ListObstacle> {
  for (let attempt = 0; attempt < SUMMARY_ATTEMPTS; attempt++) {
    const answer = yield* list(set, incarnation, SUMMARY_ONLY, false);
    if (answer.kind !== "rows") return answer.kind;
    if (answer.isPartial === true) break;
    const first = answer.pages[0];
    if (first !== undefined && areEqual(answer.pages)) return first.summary;
  }
  const total = { rows: 0, objects: 0, bytes: 0, setHash: "" };
  const repairs = { left: REPAIR_LIMIT };
  let marker = "";
  for (;;) {
    const query = { ...SUMMARY_ONLY, marker, limit: RECONCILE_PAGE_LIMIT };
    const merged = yield* mergedPage(set, incarnation, query, repairs);
    if (typeof merged === "string") return merged;
    for (const row of merged.live) {
      total.rows += 1;
      total.objects += row.objects;
      total.bytes += row.bytes;
    }
    if (merged.next === undefined) return total;
    marker = merged.next;
  }
}

function* mergedPage<S>(
  set: S,
  incarnation: Incarnation,
  query: PageQuery,
  repairs: { left: number },
): Script<S, { readonly live: readonly Row[]; readonly next: string | undefined } | ListObstacle> {
  const answer = yield* list(set, incarnation, { ...query, withDeleted: true }, true);
  if (answer.kind !== "rows") return answer.kind;
  const merged = mergeRows(
    answer.pages.map(({ rows }) => rows),
    query.limit,
    query.isReverse,
  );
  // A row is only written after its version is established, so that spreading it is safe; B1 is checked where it arrives.
  for (const { page, row } of merged.missing) {
    const replica = answer.pages[page]?.replica;
    if (replica === undefined || repairs.left <= 0) break;
    repairs.left -= 1;
    yield { kind: "repair", set, incarnation, replica, row };
  }
  return merged;
}
