import type { Incarnation } from "../../common/ballot.ts";
import type { ContainerRecord, Row, RowsState, RowSummary, ShardRange } from "../../storage-node/wire.ts";
import { type ContainerPlace, setOf } from "./container-place.ts";
import { readContainer } from "./container-script.ts";
import { countRows, type ListObstacle, listRows, type PageQuery } from "./list-rows.ts";
import { type Script, share, type Shared } from "./script.ts";
import { endShards } from "./shard-change.ts";
import { askLeaf, presentLeaf, readLeaf } from "./shard-leaf.ts";
import { compareNames, nextName, rangeOfName, rangesIn, replaced, ROOT } from "./shard-ranges.ts";

/**
 * Listings and figures of a container over its shards, in the order of names. Whoever asks has the container's record by an established read; where that is out of date
 * by the time a shard is asked the answer is an obstacle, and he asks again with the present one.
 */

/** Where the names of a range are to be asked for: itself, or, where it is gone in a change under way, what follows it. */
type Asked = { readonly ranges: readonly ShardRange[]; readonly isLate: boolean };

/** Live rows in name order. Fewer than `query.limit` means that there are no more. */
export function* listContainer<S>(
  place: ContainerPlace<S>,
  record: ContainerRecord,
  query: PageQuery,
): Script<S, Row[] | ListObstacle> {
  const found: Row[] = [];
  let { marker } = query;
  let ranges = rangesIn(record);
  let at = firstAsked(ranges, query);
  for (let steps = 0; steps <= 2 * ranges.length + 2; steps++) {
    const range = ranges[at];
    if (range === undefined || found.length >= query.limit || !isAskedFor(ranges, at, query)) return found;
    const limit = query.limit - found.length;
    const set = setOf(place, record.incarnation, range.id);
    const page = { ...query, marker, limit };
    const rows = yield* askLeaf(set, range.id, () => listRows(set, record.incarnation, page));
    if (rows === "split") {
      const late = yield* askedInstead(place, record, ranges, range.id);
      if (typeof late === "string") return late;
      if (!late.isLate) continue;
      // Names that were given already are behind the marker, wherever they stand now.
      ranges = late.ranges;
      at = firstAsked(ranges, { ...query, marker });
      continue;
    }
    if (typeof rows === "string") return rows;
    found.push(...rows);
    if (rows.length >= limit) return found;
    if (query.isReverse) {
      const before = ranges[at - 1];
      marker = before === undefined ? marker : nextName(before.upTo);
      at -= 1;
    } else {
      marker = range.upTo;
      at += 1;
    }
  }
  return "split";
}

/** Count and bytes of all live rows. */
export function* countContainer<S>(
  place: ContainerPlace<S>,
  record: ContainerRecord,
): Script<S, RowSummary | ListObstacle> {
  let ranges = rangesIn(record);
  const counted = new Map<string, RowSummary>();
  for (let round = 0; round < 3; round++) {
    let isWhole = true;
    for (const { id } of ranges) {
      if (counted.has(id)) continue;
      const set = setOf(place, record.incarnation, id);
      const summary = yield* askLeaf(set, id, () => countRows(set, record.incarnation));
      if (summary === "split") {
        const late = yield* askedInstead(place, record, ranges, id);
        if (typeof late === "string") return late;
        // What was counted of the others that went with it counts no more: their names are in what follows them.
        ranges = late.ranges;
        isWhole = false;
        break;
      }
      if (typeof summary === "string") return summary;
      counted.set(id, summary);
    }
    if (isWhole) return sumOf(ranges.flatMap(({ id }) => counted.get(id) ?? []));
  }
  return "split";
}

/** A shard `id` said that its names are elsewhere: where they are to be asked for now. Whoever finds the first of a change gone ends the others [S4]. */
function* askedInstead<S>(
  place: ContainerPlace<S>,
  { incarnation, shards }: ContainerRecord,
  ranges: readonly ShardRange[],
  id: string,
): Script<S, Asked | ListObstacle> {
  const change = shards?.change;
  const [first] = change?.from ?? [];
  if (change === undefined || first === undefined || !change.from.includes(id)) return "split";
  const state = yield* establishedState(place, incarnation, first);
  if (state === "unavailable") return state;
  if (state === undefined) return "split";
  if (state !== "gone" && state !== "dropped") {
    // One replica has taken what is not established, or is yet to be overtaken: all are told how it stands.
    if (first === ROOT) return "split";
    const told = yield* presentLeaf(setOf(place, incarnation, first));
    return told === "unavailable" ? told : { ranges, isLate: false };
  }
  const end = yield* endShards(place, incarnation, change);
  if (end === "unavailable" || end === "no-space") return "unavailable";
  return end === "done" ? { ranges: replaced(ranges, change.from, change.to), isLate: true } : "split";
}

/**
 * What a quorum says of a shard's rows; undefined where there is no such shard any more. What others ask at the same time is as good: that a shard is gone stays so, and in any
 * other state who asks looks again.
 */
export function* establishedState<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  id: string,
): Script<S, RowsState | undefined | "unavailable"> {
  const set = setOf(place, incarnation, id);
  const found = yield* share<S, Shared>(set, "join", () => (id === ROOT ? readContainer(place) : readLeaf(set)));
  if (found === "unavailable" || found === "no-space") return "unavailable";
  if (found === "absent" || found.record.incarnation !== incarnation) return undefined;
  return found.record.shards?.rows ?? "here";
}

const HIGHEST_CHARACTER = "\u{10ffff}";

const indexOf = (ranges: readonly ShardRange[], name: string): number => ranges.indexOf(rangeOfName(ranges, name));

/** Where the first name that is asked for would be. */
const firstAsked = (ranges: readonly ShardRange[], { isReverse, marker, prefix }: PageQuery): number => {
  if (!isReverse)
    return indexOf(ranges, marker !== "" && compareNames(marker, prefix) >= 0 ? nextName(marker) : prefix);
  const end = prefix === "" ? undefined : prefix + HIGHEST_CHARACTER;
  if (marker !== "" && (end === undefined || compareNames(marker, end) < 0)) return indexOf(ranges, marker);
  return end === undefined ? ranges.length - 1 : indexOf(ranges, end);
};

/** Whether any name of a range may be asked for. */
const isAskedFor = (
  ranges: readonly ShardRange[],
  at: number,
  { endMarker, isReverse, prefix }: PageQuery,
): boolean => {
  if (isReverse) {
    const upTo = ranges[at]?.upTo ?? "";
    if (upTo === "") return true;
    return compareNames(upTo, prefix) >= 0 && (endMarker === "" || compareNames(upTo, endMarker) > 0);
  }
  // All names of the range are behind this one.
  const behind = ranges[at - 1]?.upTo ?? "";
  if (behind === "") return true;
  if (endMarker !== "" && compareNames(behind, endMarker) >= 0) return false;
  return behind.startsWith(prefix) || compareNames(behind, prefix) < 0;
};

/** Figures of several listings together. */
export const sumOf = (summaries: readonly RowSummary[]): RowSummary => {
  const [first] = summaries;
  if (summaries.length === 1 && first !== undefined) return first;
  const sum = { rows: 0, objects: 0, bytes: 0, setHash: "" };
  for (const { bytes, objects, rows } of summaries) {
    sum.rows += rows;
    sum.objects += objects;
    sum.bytes += bytes;
  }
  return sum;
};
