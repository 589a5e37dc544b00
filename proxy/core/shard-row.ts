import type { Incarnation } from "../../common/ballot.ts";
import type { ContainerRecord, Row } from "../../storage-node/wire.ts";
import { type ContainerPlace, type OpenContainer, setOf } from "./container-place.ts";
import { presentContainer, readContainer } from "./container-script.ts";
import type { RowOutcome } from "./row-write.ts";
import { row, type Script, share } from "./script.ts";
import { presentLeaf, reopenLeaf } from "./shard-leaf.ts";
import { establishedState } from "./shard-list.ts";
import { rangeOfName, rangesIn, ROOT, successorOf } from "./shard-ranges.ts";

/** Rounds of one row: each ends because the container, or one of its shards, changed meanwhile. */
const RETRY_LIMIT = 10;
/** Rounds in which it is believed what others find out; after them only a PREPARE is. */
const NEWS_LIMIT = 3;

/**
 * [B1], [B5]: the row at W of where its name is listed, or the sure knowledge that its incarnation is over, with the one that there is now.
 *
 * While a shard's names are on their way to another one the row goes to that one first, then to where it is listed still; once that is gone, and a quorum says so,
 * the first is enough (`shard-change.ts`).
 *
 * Whenever a shard changes its state all writes under way in a proxy are refused at once. One of them, or who changes it, finds out what it is by now, and the others join it: they
 * may get what is out of date, which costs one more refusal. *When each of them read and finished the container's record:* some got past each other only after 100 ms and more.
 */
export function* placeRow<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  given: Row,
): Script<S, "stored" | "kept" | "old" | "unavailable" | { readonly present: Incarnation | undefined }> {
  let record = place.memory.route();
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    if (record?.incarnation !== incarnation) record = undefined;
    const outcome = yield* rowInShards(place, incarnation, record, given);
    if (outcome === "stored" || outcome === "kept" || outcome === "old" || outcome === "unavailable") return outcome;
    // That names are elsewhere is the common reason; everything else takes a PREPARE to be believed.
    const news = outcome === "split" && attempt < NEWS_LIMIT ? yield* newsOf(place, incarnation, record) : undefined;
    if (news !== undefined) {
      record = news;
      continue;
    }
    const present = yield* presentContainer(place);
    if (present === "unavailable") return "unavailable";
    if (present === "absent") return { present: undefined };
    if (present.record.incarnation !== incarnation) return { present: present.record.incarnation };
    place.memory.learn(present);
    if (outcome !== "split") yield* mendShard(place, present, given.name);
    record = present.record;
  }
  return "unavailable";
}

/** The record of a container of that life, where it tells something new of its shards: what this process has learnt meanwhile, or what somebody is about to. */
function* newsOf<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  known: ContainerRecord | undefined,
): Script<S, ContainerRecord | undefined> {
  const isNews = (record: ContainerRecord | undefined): boolean =>
    record !== known &&
    record?.incarnation === incarnation &&
    record.shards !== undefined &&
    JSON.stringify(record.shards) !== JSON.stringify(known?.shards);
  const learnt = place.memory.route();
  if (isNews(learnt)) return learnt;
  const found = yield* share(place.container, "join", () => readContainer(place));
  if (typeof found === "string" || found.record.incarnation !== incarnation) return undefined;
  place.memory.learn(found);
  // Somebody else may have learnt of more than what was joined.
  const latest = place.memory.route();
  return isNews(latest) ? latest : undefined;
}

/** A shard that refused the row for another reason than that: replicas are told how it stands, and it goes on where it was left closing. */
function* mendShard<S>(place: ContainerPlace<S>, { record, version }: OpenContainer, name: string): Script<S, void> {
  const { id } = rangeOfName(rangesIn(record), name);
  if (id === ROOT) return;
  const set = setOf(place, record.incarnation, id);
  yield* presentLeaf(set);
  yield* reopenLeaf(set, version);
}

function* rowInShards<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  record: ContainerRecord | undefined,
  given: Row,
): Script<S, RowOutcome> {
  const { id } = rangeOfName(rangesIn(record), given.name);
  const shard = setOf(place, incarnation, id);
  const next = record === undefined ? undefined : successorOf(record, id, given.name);
  if (next === undefined) return yield* row(shard, incarnation, given);
  const successor = setOf(place, incarnation, next);
  const there = yield* row(successor, incarnation, given);
  if (there === "behind") {
    // It may not have been made yet, and then nothing has left.
    const plain = yield* row(shard, incarnation, given);
    if (plain === "split") yield* presentLeaf(successor);
    return plain;
  }
  if (there !== "stored") return there;
  if (place.memory.isGone(incarnation, id)) return "stored";
  const here = yield* row(shard, incarnation, given, true);
  if (here !== "split" && here !== "moved") return here;
  // Who ended it may have done so in this process, and know.
  if (place.memory.isGone(incarnation, id)) return "stored";
  // What one replica says need not be established; before it is, a listing may yet do without that replica.
  const state = yield* establishedState(place, incarnation, id);
  if (state === "unavailable") return state;
  if (state !== "gone" && state !== "dropped") return here;
  place.memory.noteGone(incarnation, id);
  return "stored";
}
