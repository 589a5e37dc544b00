import { type Incarnation, incarnationMadeBy, maxTimestamp } from "../../common/ballot.ts";
import { type HybridTimestamp, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import type { ContainerRecord, ListQuery, Row, ShardChange, ShardRange, Shards } from "../../storage-node/wire.ts";
import { type ContainerPlace, type OpenContainer, setOf } from "./container-place.ts";
import { changeContainer, presentContainer } from "./container-script.ts";
import { mergeRows } from "./merge-rows.ts";
import { isFinal, list, read, rows, type Script, share, type Shared } from "./script.ts";
import { changeLeaf, leafIn, liveRecord, presentLeaf, recordOf, reopenLeaf } from "./shard-leaf.ts";
import { compareNames, rangeOfName, rangesIn, replaced, ROOT } from "./shard-ranges.ts";

/**
 * How a container's listing is split into two, or two neighbours are merged into one, while it is written and listed. Of each range of names one shard
 * has all rows; before the first split that is the container's own register (ROOT), which afterwards has the index of the others.
 *
 *     [S0] the plan, S → T, stands in the container's register: one at a time, under new numbers that are never used again
 *     [S1] T are made:   absent ──▶ filling
 *     [S2] each of S:    here ──▶ leaving      takes only rows that are at W of one of T; lists all, and counts
 *     [S3] rows of R replicas of S that are *leaving* go to T, deleted ones too
 *     [S4] each of S:    leaving ──▶ gone      once all of S were copied: T has the names from here on
 *     [S5] each of T:    filling ──▶ here
 *     [S6] the index names T, and the plan is over
 *     [S7] what S held is removed at every replica; a shard becomes a tombstone, ROOT is *dropped*
 *
 * Every step is a conditional write of one register, or repeats without harm, so anybody goes on from what the registers say, and two who do it at once do no harm.
 *
 * Why a row that was acknowledged is in T at [S4]: who wrote it to S alone had W replicas of S that were not leaving yet; one of them is among the R that are read,
 * and none of these takes such a row after it has begun to leave. All others are at W of T. *Else (reading replicas that have not heard of [S2]): lost.*
 * Why no listing is behind: it is answered by R replicas of S that are not *gone*, so gone is not established, and nobody was told yet that T alone is enough. Who finds
 * a replica gone makes sure that it is established first. *Else (an answer after T alone took the row): a listing of S lacks it.*
 * Why all of S go at once [S4]: who finds the first of them gone may end the others himself, and finds in T all rows of both or of none. *Else: figures
 * of a merge would count names twice, or not at all.*
 * Why *filling* is a state: versions in copies may be older than deletions that replicas have forgotten ([E5]). A listing that is filled forgets none, and copies
 * that come later are refused. A mark goes along with each page: what is late for a name whose deletion S has forgotten is refused as *old* by T, too.
 */
export type ChangeEnd = "done" | "absent" | "unavailable" | "no-space";

/** How it is done. */
export type ChangeSettings = {
  /** Rows that are read between two pauses. */
  readonly pageRows: number;
  /** Rows in one message, and so in one synced commit of each replica. */
  readonly messageRows: number;
};

/** Some milliseconds of a replica's time. With 20 rows in a message five times as many syncs stood in the way of clients', and PUTs took twice as long. */
export const COPY_SETTINGS: ChangeSettings = { pageRows: 100, messageRows: 100 };

/** What a single step came to. */
type Step = "done" | "again" | Exclude<ChangeEnd, "done">;

/** A change begins anew where somebody else goes on with it meanwhile. */
const RETRY_LIMIT = 20;
/** Copies of one page: who has yet to hear of the shard is told. */
const COPY_ATTEMPTS = 5;

const NO_SHARDS: Shards = { rows: "here", index: undefined, change: undefined };

const shardsOf = ({ shards }: ContainerRecord): Shards => shards ?? NO_SHARDS;

const isSame = (left: ShardChange | undefined, right: ShardChange): boolean => left?.to[0]?.id === right.to[0]?.id;

/**
 * [S0]. `choose` gives which neighbours make place for how many ranges, each but the last one ending where it says, or undefined for no change. Gives the container as it is
 * then, be it with this plan or with another one.
 */
export function* planChange<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  choose: (
    ranges: readonly ShardRange[],
  ) => { readonly from: readonly string[]; readonly pivots: readonly string[] } | undefined,
): Script<S, OpenContainer | Exclude<ChangeEnd, "done">> {
  return yield* changeContainer(place, incarnation, (record, ballot) => {
    const shards = shardsOf(record);
    if (shards.change !== undefined) return undefined;
    const ranges = rangesIn(record);
    const chosen = choose(ranges);
    if (chosen !== undefined && chosen.pivots.length > 0 && indexBytes(ranges) > INDEX_BYTES_LIMIT) return undefined;
    const last = ranges.find(({ id }) => id === chosen?.from.at(-1));
    if (chosen === undefined || last === undefined) return undefined;
    // Numbers of this very proposal: a ballot is nobody else's.
    const to = [...chosen.pivots, last.upTo].map((upTo, index) => ({
      upTo,
      id: `${incarnationMadeBy(ballot)}${index}`,
    }));
    return { ...record, shards: { ...shards, change: { from: chosen.from, to } } };
  });
}

/** Every message about the container carries it. */
const INDEX_BYTES_LIMIT = 256 * 1024;

const indexBytes = (ranges: readonly ShardRange[]): number =>
  ranges.reduce((bytes, { id, upTo }) => bytes + id.length + Buffer.byteLength(upTo), 0);

/** Cuts one range behind a name of it; undefined where that is none any more, or the name does not lie within. */
export const splitAt =
  (id: string, pivot: string) =>
  (
    ranges: readonly ShardRange[],
  ): { readonly from: readonly string[]; readonly pivots: readonly string[] } | undefined => {
    const at = ranges.findIndex((range) => range.id === id);
    const [before, range] = [ranges[at - 1], ranges[at]];
    if (range === undefined || (before !== undefined && compareNames(pivot, before.upTo) <= 0)) return undefined;
    return range.upTo !== "" && compareNames(pivot, range.upTo) >= 0 ? undefined : { from: [id], pivots: [pivot] };
  };

/** Makes one of two neighbours; undefined where they are none. */
export const mergeOf =
  (id: string) =>
  (
    ranges: readonly ShardRange[],
  ): { readonly from: readonly string[]; readonly pivots: readonly string[] } | undefined => {
    const at = ranges.findIndex((range) => range.id === id);
    const next = ranges[at + 1];
    return at < 0 || next === undefined ? undefined : { from: [id, next.id], pivots: [] };
  };

/** Ends the change that a container's record tells of. */
export function* runChange<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  settings: ChangeSettings,
): Script<S, ChangeEnd> {
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const found = yield* changeContainer(place, incarnation, () => undefined);
    if (typeof found === "string") return found;
    const { change } = shardsOf(found.record);
    if (change === undefined) return "done";
    const end = yield* runOnce(place, found, change, settings);
    if (end !== "again" && end !== "done") return end;
  }
  return "unavailable";
}

function* runOnce<S>(
  place: ContainerPlace<S>,
  { record, version }: OpenContainer,
  change: ShardChange,
  settings: ChangeSettings,
): Script<S, Step> {
  const { incarnation } = record;
  for (const id of change.from) {
    // Left closing by a deletion that was given up.
    if (id !== ROOT) yield* reopenLeaf(setOf(place, incarnation, id), version);
  }
  const steps = [
    () => makeShards(place, incarnation, change),
    () => leaveShards(place, incarnation, change),
    () => copyShards(place, incarnation, change, settings),
    () => endShards(place, incarnation, change),
    () => openShards(place, incarnation, change),
    () => indexShards(place, incarnation, change),
  ];
  for (const step of steps) {
    const end = yield* step();
    if (end !== "done") return end;
  }
  return "done";
}

/** [S1]. */
export function* makeShards<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  { to }: ShardChange,
): Script<S, Step> {
  for (const { id } of to) {
    const made = yield* changeLeaf(setOf(place, incarnation, id), (record, isTombstone) =>
      record === undefined && !isTombstone ? recordOf(leafIn(incarnation, "filling")) : undefined,
    );
    if (made === "unavailable" || made === "no-space") return made;
    // Its time is over.
    if (made === "absent") return "again";
  }
  return "done";
}

/** [S2]. */
export function* leaveShards<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  change: ShardChange,
): Script<S, Step> {
  return yield* turnShards(place, incarnation, change, change.from, "here", "leaving", ["gone"]);
}

/** [S4]: also for whoever finds the first of them gone. Requires: all were copied. */
export function* endShards<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  change: ShardChange,
): Script<S, Step> {
  const end = yield* turnShards(place, incarnation, change, change.from, "leaving", "gone", []);
  if (end === "done") for (const id of change.from) place.memory.noteGone(incarnation, id);
  return end;
}

/** [S5]. */
export function* openShards<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  change: ShardChange,
): Script<S, Step> {
  return yield* turnShards(
    place,
    incarnation,
    change,
    change.to.map(({ id }) => id),
    "filling",
    "here",
    [],
  );
}

/** Each of them in turn from one state to the next; "again" where one is in neither, nor in one of `beyond`. */
function* turnShards<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  change: ShardChange,
  ids: readonly string[],
  from: Shards["rows"],
  to: Shards["rows"],
  beyond: readonly Shards["rows"][],
): Script<S, Step> {
  const turned = (record: ContainerRecord | undefined): ContainerRecord | undefined =>
    record === undefined || shardsOf(record).rows !== from
      ? undefined
      : { ...record, shards: { ...shardsOf(record), rows: to } };
  for (const id of ids) {
    const set = setOf(place, incarnation, id);
    // Writes that are refused meanwhile wait for it, instead of finding out by themselves.
    const changed = yield* share<S, Shared>(set, "lead", () =>
      id === ROOT
        ? changeContainer(place, incarnation, (record) =>
            isSame(record.shards?.change, change) ? turned(record) : undefined,
          )
        : changeLeaf(set, (record) => {
            const next = record?.status === "open" ? turned(record) : undefined;
            return next === undefined ? undefined : recordOf(next);
          }),
    );
    if (changed === "unavailable" || changed === "no-space") return changed;
    if (changed === "absent") return id === ROOT ? "absent" : "again";
    const { rows: state } = shardsOf(changed.record);
    if (state !== to && !beyond.includes(state)) return "again";
  }
  return "done";
}

/** [S3]. Nothing where one of them is gone: then all were copied. */
export function* copyShards<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  change: ShardChange,
  settings: ChangeSettings,
): Script<S, Step> {
  for (const id of change.from) {
    let marker: string | undefined = "";
    while (marker !== undefined) {
      const page: CopiedPage | Step = yield* copyPage(place, incarnation, change, id, marker, settings);
      // One that is gone was copied, and the others with it.
      if (page === "done") return "done";
      if (typeof page === "string") return page;
      marker = page.next;
      yield { kind: "pause", set: setOf(place, incarnation, id) };
    }
  }
  return "done";
}

type CopiedPage = { readonly next: string | undefined };

function* copyPage<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  change: ShardChange,
  id: string,
  marker: string,
  { messageRows, pageRows }: ChangeSettings,
): Script<S, CopiedPage | Step> {
  const set = setOf(place, incarnation, id);
  const query: ListQuery = {
    marker,
    endMarker: "",
    prefix: "",
    isReverse: false,
    limit: pageRows,
    withDeleted: true,
    isCopy: true,
  };
  const answer = yield* list(set, incarnation, query, true);
  if (answer.kind === "unavailable") return answer.kind;
  if (answer.kind === "split") return "done";
  if (answer.kind !== "rows") {
    // Too few have heard that they are leaving.
    return yield* tell(place, incarnation, id);
  }
  const pages = answer.pages.map((page) => page.rows);
  const { all, next } = mergeRows(pages, pageRows, false);
  let mark = TIMESTAMP_ZERO;
  for (const page of answer.pages) mark = maxTimestamp(mark, page.mark ?? TIMESTAMP_ZERO);
  for (const range of change.to) {
    const copied = all.filter(({ name }) => rangeOfName(change.to, name).id === range.id);
    const end = yield* copyTo(setOf(place, incarnation, range.id), incarnation, { copied, mark }, messageRows);
    if (end !== "done") return end;
  }
  return { next };
}

/** Those who have yet to hear of a shard's state, or a container's, are told. */
function* tell<S>(place: ContainerPlace<S>, incarnation: Incarnation, id: string): Script<S, Step> {
  const present = id === ROOT ? yield* presentContainer(place) : yield* presentLeaf(setOf(place, incarnation, id));
  return present === "unavailable" ? "unavailable" : "again";
}

function* copyTo<S>(
  set: S,
  incarnation: Incarnation,
  { copied, mark }: { readonly copied: readonly Row[]; readonly mark: HybridTimestamp },
  messageRows: number,
): Script<S, Step> {
  // What was forgotten leaves no row to be copied, and has to be known.
  const isTold = mark > TIMESTAMP_ZERO;
  for (let at = 0; at < copied.length || (at === 0 && isTold); at += messageRows) {
    const part = copied.slice(at, at + messageRows);
    for (let attempt = 0; ; attempt++) {
      const outcome = yield* rows(set, incarnation, part, mark);
      if (outcome === "stored") break;
      if (outcome === "unavailable") return outcome;
      // It is not filled any more: somebody else ended the change.
      if (outcome !== "behind" || attempt === COPY_ATTEMPTS) return "again";
      if ((yield* presentLeaf(set)) === "unavailable") return "unavailable";
    }
  }
  return "done";
}

/** [S6]. */
export function* indexShards<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  change: ShardChange,
): Script<S, Step> {
  const found = yield* changeContainer(place, incarnation, (record) => {
    if (!isSame(record.shards?.change, change)) return undefined;
    const index = replaced(rangesIn(record), change.from, change.to);
    return { ...record, shards: { ...shardsOf(record), index, change: undefined } };
  });
  return typeof found === "string" ? found : "done";
}

/** What becomes of a shard by what its container says; ROOT included. */
export type LeafFate = "used" | "changing" | "over";

/** Whether a container's record still has use for a shard. A shard is named there before it is made, and never again once it is not. */
const fateOfShard = (record: ContainerRecord, incarnation: Incarnation, id: string): LeafFate => {
  if (record.incarnation !== incarnation) return "over";
  const { change, rows: state } = shardsOf(record);
  if (change !== undefined && (change.from.includes(id) || change.to.some((range) => range.id === id)))
    return "changing";
  if (id === ROOT) return state === "gone" ? "over" : "used";
  return rangesIn(record).some((range) => range.id === id) ? "used" : "over";
};

/** [S7] of ROOT: nothing is left of its own rows. */
export function* noteRootDropped<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
): Script<S, OpenContainer | Exclude<ChangeEnd, "done">> {
  return yield* changeContainer(place, incarnation, (record) =>
    fateOfShard(record, incarnation, ROOT) === "over"
      ? { ...record, shards: { ...shardsOf(record), rows: "dropped" } }
      : undefined,
  );
}

/**
 * [B7] of a shard: whoever finds it in between does what its container says of it. "over": its rows may go, and then it is buried. The container is only read: shards of a
 * change that goes on are reported all the while, and every PREPARE, or what finishes a version that is under way, would refuse what a living sharder is about to write.
 * A version or a *closing* that a dead one left is reported by itself. And a read is enough, since a container that does not name a shard which was there never will again.
 */
export function* settleShard<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  id: string,
): Script<S, LeafFate | "unavailable"> {
  const found = yield* read(place.container);
  if (found === undefined) return "unavailable";
  const { register } = found;
  if (!isFinal(found)) return "changing";
  const record = liveRecord(register);
  if (record === undefined || register === undefined) return "over";
  const fate = fateOfShard(record, incarnation, id);
  if (id === ROOT || fate !== "used") return fate;
  if (record.status === "closing") return "changing";
  const set = setOf(place, incarnation, id);
  const told = yield* presentLeaf(set);
  const reopened = told === "unavailable" ? told : yield* reopenLeaf(set, register.version);
  return reopened === "unavailable" ? reopened : fate;
}
