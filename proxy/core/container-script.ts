import { type Ballot, type Incarnation, incarnationMadeBy, NO_INCARNATION } from "../../common/ballot.ts";
import {
  type ContainerRecord,
  decodeContainerRecord,
  type Register,
  type Row,
  type RowSummary,
} from "../../storage-node/wire.ts";
import { listRows } from "./list-rows.ts";
import type { Proposed, WriteOutcome, WriteRecord } from "./register-write.ts";
import { confirm, isFinal, read, row, type Script, write } from "./script.ts";
import { askLeaf, buryLeaf, closeLeaf, finishMode, liveRecord, recordOf, reopenLeaf } from "./shard-leaf.ts";
import { ROOT } from "./shard-ranges.ts";

/**
 * A container's life (PROTOCOL section 5):
 *
 *     absent ──put──▶ open{incarnation} ──delete: no live row in W promises──▶ closing{incarnation}   [B3]
 *       ▲                  ▲                                                     │ look at the rows once more
 *       │                  └─────────────────────── one is live ────────────────┤
 *       └────────────────────────────── none: tombstone ────────────────────────┘
 *
 * Every change: register at W, then its account's row at W, then CONFIRM, then the answer.
 *
 * A container whose listing was split (`shard-change.ts`) closes its shards, too, while it is *closing*; what becomes of them is decided by its own register alone,
 * and they follow: of two who look at shards, each for itself, one may see a live row that reached a minority, and the other not.
 */
export type ContainerPlace<S> = {
  readonly container: S;
  readonly account: S;
  readonly name: string;
  /** The replicas of one of its shards. */
  shardOf(incarnation: Incarnation, id: string): S;
  readonly memory: RouteMemory;
};

/** What a process remembers of where a container's rows are; it may be out of date, or nothing. */
export type RouteMemory = {
  /** The container's record. */
  route(): ContainerRecord | undefined;
  learn(found: OpenContainer): void;
  /** Whether a shard's rows are known to be elsewhere, which they stay. */
  isGone(incarnation: Incarnation, id: string): boolean;
  noteGone(incarnation: Incarnation, id: string): void;
};

/** Where a part of a container's rows is. */
export const setOf = <S>(place: ContainerPlace<S>, incarnation: Incarnation, id: string): S =>
  id === ROOT ? place.container : place.shardOf(incarnation, id);

export type OpenContainer = { readonly record: ContainerRecord; readonly version: Ballot };

/** A quorum did not answer, or the register stayed contended: nothing can be said. */
type Unavailable = "unavailable";

/** Rounds of one operation: each ends because somebody else changed the container meanwhile. */
const RETRY_LIMIT = 10;
const HIGHEST_STAMP = "ffffffffffffffffffffffff";
const NOTHING = new Uint8Array();
const EMPTY: RowSummary = { rows: 0, objects: 0, bytes: 0, setHash: "" };

/** The container's row in its account. `version` begins with the incarnation: no late figure of one life covers a later one. */
export const accountRow = (name: string, version: Ballot, summary: RowSummary): Row => ({
  name,
  version,
  isDeleted: false,
  objects: summary.rows,
  bytes: summary.bytes,
  payload: NOTHING,
});

/** With the stamp of the making, lower than every version that carries figures: where it is listed already, nothing changes. */
/** What became of a closing. */
type ClosingEnd = "gone" | "reopened" | "unclear" | Unavailable;

/** In a tombstone's headers, where no client's are: the version of *closing* that it ends. */
const CLOSED_BY = ".closed-by";

const firstAccountRow = (name: string, incarnation: Incarnation): Row =>
  accountRow(name, (incarnation + incarnation) as Ballot, EMPTY);

const lastAccountRow = (name: string, incarnation: Incarnation): Row => ({
  ...accountRow(name, (incarnation + HIGHEST_STAMP) as Ballot, EMPTY),
  isDeleted: true,
});

/** The container by an established read; whatever is found half done is finished first. */
export function* readContainer<S>(place: ContainerPlace<S>): Script<S, OpenContainer | "absent" | Unavailable> {
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const found = yield* read(place.container);
    if (found === undefined) return "unavailable";
    const { register } = found;
    if (register !== undefined && !isFinal(found)) {
      if ((yield* finishContainer(place, register)) === "unavailable") return "unavailable";
      continue;
    }
    const record = liveRecord(register);
    if (record === undefined || register === undefined) return "absent";
    if (record.status === "open") return { record, version: register.version };
    if ((yield* finishClosing(place, register)) === "unavailable") return "unavailable";
  }
  return "unavailable";
}

/** Makes the container, or changes the headers of the one that is there; "absent" where it must exist and does not. */
export function* putContainer<S>(
  place: ContainerPlace<S>,
  change: (headers: Readonly<Record<string, string>>) => Record<string, string>,
  mustExist: boolean,
): Script<S, (OpenContainer & { readonly isNew: boolean }) | "absent" | "no-space" | "unknown"> {
  let earlier: Proposed | undefined;
  // By version, since what an attempt before proposed may be what takes effect.
  const proposed = new Map<Ballot, { readonly written: ContainerRecord; readonly isNew: boolean }>();
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const outcome = yield* write(
      place.container,
      {
        kind: "conditional",
        earlier,
        decide: (base, ballot) => {
          const record = liveRecord(base);
          if (record?.status === "closing" || (record === undefined && mustExist)) return "stop";
          const incarnation = record?.incarnation ?? incarnationMadeBy(ballot);
          const written: ContainerRecord = {
            ...record,
            status: "open",
            incarnation,
            headers: change(record?.headers ?? {}),
          };
          proposed.set(ballot, { written, isNew: record === undefined });
          return recordOf(written);
        },
      },
      NO_INCARNATION,
    );
    const done = outcome.kind === "established" ? proposed.get(outcome.version) : undefined;
    if (outcome.kind === "established" && done !== undefined) {
      const { version } = outcome;
      const { written, isNew } = done;
      if (!(yield* listInAccount(place, written.incarnation))) return "unknown";
      yield* confirm(place.container, version);
      return { record: written, version, isNew };
    }
    if (outcome.kind === "stopped") {
      if (outcome.base === undefined || liveRecord(outcome.base) === undefined) return "absent";
      if ((yield* finishClosing(place, outcome.base)) === "unavailable") return "unknown";
    } else if (outcome.kind === "no-space") {
      return "no-space";
    } else if (!(yield* afterFailure(place, outcome))) {
      return "unknown";
    }
    earlier = outcome.kind === "unfinished" ? outcome.own : undefined;
  }
  return "unknown";
}

/** [B3], [B4]. "changing": its rows are on their way to other shards, which has to end first. */
export function* deleteContainer<S>(
  place: ContainerPlace<S>,
): Script<S, "deleted" | "absent" | "not-empty" | "changing" | "no-space" | "unknown"> {
  // Set once the rows of promises have been looked into: after *closing* was proposed the base alone decides ([B4]), and a live row
  // that a merged listing does not show is one that its replica missed the deletion of; the look at *closing* judges it again.
  let decidesOnBase = false;
  let earlier: Proposed | undefined;
  // By version, since what an attempt before proposed may be what takes effect.
  const proposed = new Map<Ballot, ContainerRecord>();
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    let seen: ContainerRecord | undefined;
    let isChanging = false;
    const outcome = yield* write(
      place.container,
      {
        kind: "conditional",
        earlier,
        decide: (base, ballot, promises) => {
          const record = liveRecord(base);
          if (record === undefined || record.status === "closing") return "stop";
          // A *closing* that was proposed before was upon an older base: nobody finds it any more beneath this one.
          isChanging = record.shards?.change !== undefined;
          if (isChanging) return "stop";
          // Promises tell of the container's own rows only.
          const mayBeLive =
            record.shards?.index !== undefined ||
            promises.some(
              ({ liveRow, register }) =>
                liveRow !== undefined && liveRecord(register)?.incarnation === record.incarnation,
            );
          if (mayBeLive && !decidesOnBase) {
            seen = record;
            return "stop";
          }
          decidesOnBase = true;
          const closing: ContainerRecord = { ...record, status: "closing" };
          proposed.set(ballot, closing);
          return recordOf(closing);
        },
      },
      NO_INCARNATION,
    );
    earlier = outcome.kind === "unfinished" ? outcome.own : undefined;
    if (outcome.kind === "stopped") {
      const { base } = outcome;
      if (isChanging) return "changing";
      if (base === undefined || liveRecord(base) === undefined) return "absent";
      if (seen === undefined) {
        if ((yield* finishClosing(place, base)) === "unavailable") return "unknown";
        continue;
      }
      const verdict = yield* showLiveRow(place, seen);
      if (verdict === "shown") return "not-empty";
      if (verdict === "unavailable") return "unknown";
      decidesOnBase = verdict === "none";
      continue;
    }
    const closing = outcome.kind === "established" ? proposed.get(outcome.version) : undefined;
    if (outcome.kind === "established" && closing !== undefined) {
      yield* confirm(place.container, outcome.version);
      const end = yield* finishClosing(place, registerOf(outcome, recordOf(closing)), outcome.liveRows);
      if (end === "unavailable" || end === "unclear") return "unknown";
      return end === "gone" ? "deleted" : "not-empty";
    }
    if (outcome.kind === "no-space") return "no-space";
    if (!(yield* afterFailure(place, outcome))) return "unknown";
  }
  return "unknown";
}

/** [B3]: what refuses a deletion is in a listing before the refusal goes out. */
function* showLiveRow<S>(
  place: ContainerPlace<S>,
  { incarnation, shards }: ContainerRecord,
): Script<S, "shown" | "none" | "again" | Unavailable> {
  for (const { id } of shards?.index ?? [{ id: ROOT }]) {
    const set = setOf(place, incarnation, id);
    const found = yield* firstLiveRow(set, id, incarnation);
    if (found === "again" || found === "unavailable") return found;
    if (found === undefined) continue;
    const outcome = yield* row(set, incarnation, found);
    if (outcome === "stored") return "shown";
    // [E5]: those that lack it cannot take it from a proxy; their repair brings it.
    return outcome === "unavailable" || outcome === "old" ? "unavailable" : "again";
  }
  return "none";
}

/** The first row that is live after merging: one replica alone may have missed its deletion. */
function* firstLiveRow<S>(
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
function* finishClosing<S>(
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
    if (register !== undefined && !isFinal(found)) {
      if ((yield* finishContainer(place, register)) === "unavailable") return "unavailable";
      continue;
    }
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

/**
 * [B5]: the container as it is after a PREPARE, which stops older changes that are still under way. Replicas that have yet to hear of
 * this state are told it.
 */
export function* presentContainer<S>(place: ContainerPlace<S>): Script<S, OpenContainer | "absent" | Unavailable> {
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const outcome = yield* write(place.container, { kind: "inspect", version: undefined }, NO_INCARNATION);
    if (outcome.kind !== "inspected") return "unavailable";
    const { highest, ballot } = outcome;
    if (highest === undefined) return "absent";
    if (highest.state === "accepted") {
      if ((yield* finishContainer(place, highest)) === "unavailable") return "unavailable";
      continue;
    }
    const record = liveRecord(highest);
    if (record === undefined) return "absent";
    if (record.status === "closing") {
      if ((yield* finishClosing(place, highest)) === "unavailable") return "unavailable";
      continue;
    }
    const told = yield* write(place.container, finishMode(highest, ballot), NO_INCARNATION);
    if (told.kind === "unknown") return "unavailable";
    if (told.kind !== "established") continue;
    yield* confirm(place.container, highest.version);
    return { record, version: highest.version };
  }
  return "unavailable";
}

/**
 * Changes what is said of a container's rows where `decide` gives another record of the life that it is of. Gives the record that stands there then, be it by this
 * write or before it.
 */
export function* changeContainer<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  decide: (record: ContainerRecord, ballot: Ballot) => ContainerRecord | undefined,
): Script<S, OpenContainer | "absent" | "no-space" | Unavailable> {
  const proposed = new Map<Ballot, ContainerRecord>();
  let earlier: Proposed | undefined;
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const outcome = yield* write(
      place.container,
      {
        kind: "conditional",
        earlier,
        decide: (base, ballot) => {
          const record = liveRecord(base);
          if (record?.status !== "open" || record.incarnation !== incarnation) return "stop";
          const changed = decide(record, ballot);
          if (changed === undefined) return "stop";
          proposed.set(ballot, changed);
          return recordOf(changed);
        },
      },
      NO_INCARNATION,
    );
    earlier = outcome.kind === "unfinished" ? outcome.own : undefined;
    if (outcome.kind === "established") {
      yield* confirm(place.container, outcome.version);
      const record = proposed.get(outcome.version);
      if (record === undefined) continue;
      const found = { record, version: outcome.version };
      place.memory.learn(found);
      return found;
    }
    if (outcome.kind === "stopped") {
      const { base } = outcome;
      const record = liveRecord(base);
      if (record === undefined || base === undefined || record.incarnation !== incarnation) return "absent";
      if (record.status === "open") return { record, version: base.version };
      if ((yield* finishClosing(place, base)) === "unavailable") return "unavailable";
      continue;
    }
    if (outcome.kind === "no-space") return "no-space";
    if (!(yield* afterFailure(place, outcome))) return "unavailable";
  }
  return "unavailable";
}

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

/** For workers: replicas that lag are brought to what the others hold, under a ballot that no floor or promise refuses; a closing ends. */
export function* settleContainer<S>(place: ContainerPlace<S>): Script<S, "settled" | Unavailable> {
  const outcome = yield* write(place.container, { kind: "inspect", version: undefined }, NO_INCARNATION);
  if (outcome.kind !== "inspected") return "unavailable";
  const { highest, ballot } = outcome;
  if (highest === undefined) return "settled";
  if ((yield* finishContainer(place, { ...highest, ballot })) === "unavailable") return "unavailable";
  return (yield* readContainer(place)) === "unavailable" ? "unavailable" : "settled";
}

/** False when nothing can be said of the outcome. */
function* afterFailure<S>(place: ContainerPlace<S>, outcome: WriteOutcome): Script<S, boolean> {
  if (outcome.kind === "unknown" || outcome.kind === "outdated" || outcome.kind === "no-space") return false;
  if (outcome.kind !== "unfinished") return true;
  return (yield* finishContainer(place, outcome.base)) !== "unavailable";
}

function* listInAccount<S>(place: ContainerPlace<S>, incarnation: Incarnation): Script<S, boolean> {
  const outcome = yield* row(place.account, NO_INCARNATION, firstAccountRow(place.name, incarnation));
  if (outcome !== "old") return outcome === "stored";
  // [E5]: a version of now is none of those that may have been deleted since; what is reported later is later still.
  const seen = yield* write(place.container, { kind: "inspect", version: undefined }, NO_INCARNATION);
  if (seen.kind !== "inspected") return false;
  const version = (incarnation + incarnationMadeBy(seen.ballot)) as Ballot;
  return (yield* row(place.account, NO_INCARNATION, accountRow(place.name, version, EMPTY))) === "stored";
}

function* removeFromAccount<S>(place: ContainerPlace<S>, incarnation: Incarnation): Script<S, boolean> {
  return (yield* row(place.account, NO_INCARNATION, lastAccountRow(place.name, incarnation))) === "stored";
}

const registerOf = (outcome: { readonly version: Ballot; readonly ballot: Ballot }, record: WriteRecord): Register => ({
  version: outcome.version,
  ballot: outcome.ballot,
  state: "confirmed",
  bodyVersion: outcome.version,
  isTombstone: record.isTombstone,
  bodyLength: 0,
  metadata: record.metadata,
});
