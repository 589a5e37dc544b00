import { type Ballot, type Incarnation, NO_INCARNATION } from "../../common/ballot.ts";
import { type ContainerRecord, decodeContainerRecord, type Register, type Row } from "../../storage-node/wire.ts";
import { listInAccount, removeFromAccount } from "./container-account.ts";
import { type ContainerPlace, setOf } from "./container-place.ts";
import { listRows } from "./list-rows.ts";
import type { WriteOutcome } from "./register-write.ts";
import { confirm, isFinal, read, type ReadAnswer, row, type Script, write } from "./script.ts";
import { askLeaf, buryLeaf, closeLeaf, finishMode, recordOf, reopenLeaf } from "./shard-leaf.ts";
import { ROOT } from "./shard-ranges.ts";

/** How what was found half done of a container is brought to its end: a version that is not established yet, and a *closing* ([B3]). */

/** A quorum did not answer, or the register stayed contended: nothing can be said. */
type Unavailable = "unavailable";

/** Rounds of one operation: each ends because somebody else changed the container meanwhile. */
const RETRY_LIMIT = 10;

/** What became of a closing. */
type ClosingEnd = "gone" | "reopened" | "unclear" | Unavailable;

/** In a tombstone's headers, where no client's are: the version of *closing* that it ends. */
const CLOSED_BY = ".closed-by";

/** [R2] for a container: the version found is accepted at W, its account's row follows it, then it is confirmed. */
export function* finishContainer<S>(
  place: ContainerPlace<S>,
  register: Register,
): Script<S, "finished" | "again" | Unavailable> {
  const outcome = yield* write(place.container, finishMode(register, register.ballot), NO_INCARNATION);
  if (outcome.kind === "unknown") return "unavailable";
  if (outcome.kind !== "established") return "again";
  const record = decodeContainerRecord(register.metadata);
  if (!outcome.isConfirmed) {
    if (register.isTombstone) {
      if (!(yield* removeFromAccount(place, record.incarnation))) return "unavailable";
    } else if (record.status === "open" && !(yield* listInAccount(place, record.incarnation))) {
      return "unavailable";
    }
  }
  yield* confirm(place.container, register.version);
  return "finished";
}

/**
 * What is established by a read: as it was read where it `isFinal`, else it is finished, and is what is established then. Nobody reads again for that: the same
 * replicas may answer, one of them as far behind as before.
 */
export function* finishWhatWasRead<S>(
  place: ContainerPlace<S>,
  found: ReadAnswer,
): Script<S, "finished" | "again" | Unavailable> {
  const { register } = found;
  return register === undefined || isFinal(found) ? "finished" : yield* finishContainer(place, register);
}

/** After a write that was not established: false when nothing can be said of the outcome, true where another one may be begun. */
export function* afterFailure<S>(place: ContainerPlace<S>, outcome: WriteOutcome): Script<S, boolean> {
  if (outcome.kind === "unknown" || outcome.kind === "outdated" || outcome.kind === "no-space") return false;
  if (outcome.kind !== "unfinished") return true;
  return (yield* finishContainer(place, outcome.base)) !== "unavailable";
}

/** The first row that is live after merging: one replica alone may have missed its deletion. */
export function* firstLiveRow<S>(
  set: S,
  id: string,
  incarnation: Incarnation,
): Script<S, Row | undefined | "again" | Unavailable> {
  const query = { marker: "", endMarker: "", prefix: "", isReverse: false, limit: 1 };
  const rows = yield* askLeaf(set, id, () => listRows(set, incarnation, query));
  if (typeof rows !== "string") return rows[0];
  return rows === "unavailable" ? "unavailable" : "again";
}

/** The row that keeps a container, and the shard that it is in. */
type Keeping = { readonly id: string; readonly live: Row };

/** Closes the shards of a container that is closing in `version`, and looks for a live row in them. */
function* closeShards<S>(
  place: ContainerPlace<S>,
  { incarnation, shards }: ContainerRecord,
  version: Ballot,
): Script<S, Keeping | undefined | "again" | Unavailable> {
  for (const { id } of shards?.index ?? []) {
    const set = setOf(place, incarnation, id);
    const told = yield* closeLeaf(set, version);
    if (told === "unavailable") return told;
    if (told === "over") return "again";
    if (told.length === 0) continue;
    const live = yield* firstLiveRow(set, id, incarnation);
    // Some have yet to hear of the shard.
    if (live === "unavailable" || live === "again") return "unavailable";
    if (live !== undefined) return { id, live };
  }
  return undefined;
}

/** What kept a container is shown before anybody is refused for it, as in the first look; its shards are open again. */
function* reopenShards<S>(
  place: ContainerPlace<S>,
  { incarnation, shards }: ContainerRecord,
  version: Ballot,
  { id, live }: Keeping,
): Script<S, void> {
  for (const range of shards?.index ?? []) yield* reopenLeaf(setOf(place, incarnation, range.id), version);
  yield* row(setOf(place, incarnation, id), incarnation, live);
}

/** What is left of the shards of a container that is deleted; whom this does not reach, a worker buries. */
function* buryShards<S>(place: ContainerPlace<S>, { incarnation, shards }: ContainerRecord): Script<S, void> {
  for (const { id } of shards?.index ?? []) yield* buryLeaf(setOf(place, incarnation, id));
}

/**
 * After *closing* is established: no row can reach W any more, so the rows that R replicas hold now are all that count. Looking binds to
 * the version looked at: another *closing* of the same incarnation may stand after a reopening that took rows in.
 * `liveRows`: what the replicas that accepted this version told; undefined to ask them.
 */
export function* finishClosing<S>(
  place: ContainerPlace<S>,
  register: Register,
  liveRows?: readonly Row[],
): Script<S, ClosingEnd> {
  const closing = decodeContainerRecord(register.metadata);
  let told = liveRows;
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    if (told === undefined) {
      const look = yield* write(place.container, finishMode(register, register.ballot), NO_INCARNATION);
      if (look.kind === "unknown") return "unavailable";
      if (look.kind === "superseded") return yield* endOf(place, closing.incarnation, register.version);
      if (look.kind !== "established") continue;
      yield* confirm(place.container, register.version);
      told = look.liveRows;
      if (told === undefined) return yield* endOf(place, closing.incarnation, register.version);
    }
    let keeping: Keeping | undefined;
    const isSharded = closing.shards?.index !== undefined;
    if (isSharded || told.length > 0) {
      const found = isSharded
        ? yield* closeShards(place, closing, register.version)
        : yield* firstLiveRow(place.container, ROOT, closing.incarnation);
      if (found === "unavailable") return "unavailable";
      if (found === "again") return yield* endOf(place, closing.incarnation, register.version);
      if (found !== undefined) keeping = "live" in found ? found : { id: ROOT, live: found };
    }
    const next =
      keeping === undefined
        ? recordOf({ ...closing, headers: { ...closing.headers, [CLOSED_BY]: register.version } }, true)
        : recordOf({ ...closing, status: "open" });
    const outcome = yield* write(
      place.container,
      { kind: "conditional", decide: (base) => (base?.version === register.version ? next : "stop") },
      NO_INCARNATION,
    );
    if (outcome.kind === "stopped") return yield* endOf(place, closing.incarnation, register.version);
    if (outcome.kind === "established") {
      if (keeping === undefined && !(yield* removeFromAccount(place, closing.incarnation))) return "unavailable";
      yield* confirm(place.container, outcome.version);
      if (keeping === undefined) yield* buryShards(place, closing);
      else yield* reopenShards(place, closing, outcome.version, keeping);
      return keeping === undefined ? "gone" : "reopened";
    }
    if (!(yield* afterFailure(place, outcome))) return "unavailable";
  }
  return "unavailable";
}

/**
 * Somebody else ended this closing: how? A tombstone says which closing it ends: of another one of the same life the container was deleted after it had been
 * reopened, by somebody who answers for that. Where a later life, or nothing, stands there nobody knows any more.
 */
function* endOf<S>(place: ContainerPlace<S>, incarnation: Incarnation, version: Ballot): Script<S, ClosingEnd> {
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const found = yield* read(place.container);
    if (found === undefined) return "unavailable";
    const { register } = found;
    const end = yield* finishWhatWasRead(place, found);
    if (end === "unavailable") return "unavailable";
    if (end === "again") continue;
    if (register === undefined) return "unclear";
    const record = decodeContainerRecord(register.metadata);
    if (record.incarnation !== incarnation) return "unclear";
    if (register.isTombstone) {
      // A proxy of a version before does not say which closing it ended: it may be this one.
      const closedBy = record.headers[CLOSED_BY];
      if (closedBy === undefined) return "unclear";
      return closedBy === version ? "gone" : "reopened";
    }
    if (record.status === "open") return "reopened";
    // Closed once more by another deletion: whoever met it first goes on with it; here it only has to be waited for.
    if ((yield* finishClosing(place, register)) === "unavailable") return "unavailable";
  }
  return "unavailable";
}
