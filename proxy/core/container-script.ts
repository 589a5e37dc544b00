import { type Ballot, type Incarnation, incarnationMadeBy, NO_INCARNATION } from "../../common/ballot.ts";
import type { ContainerRecord, Register } from "../../storage-node/wire.ts";
import { listInAccount } from "./container-account.ts";
import { afterFailure, finishClosing, finishContainer, finishWhatWasRead, firstLiveRow } from "./container-closing.ts";
import { type ContainerPlace, type OpenContainer, setOf } from "./container-place.ts";
import type { Promised, Proposed, WriteOutcome, WriteRecord } from "./register-write.ts";
import { confirm, read, row, type Script, write } from "./script.ts";
import { finishMode, liveRecord, recordOf } from "./shard-leaf.ts";
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

/** A quorum did not answer, or the register stayed contended: nothing can be said. */
type Unavailable = "unavailable";

/** Rounds of one operation: each ends because somebody else changed the container meanwhile. */
const RETRY_LIMIT = 10;

/** The container by an established read; whatever is found half done is finished first. */
export function* readContainer<S>(place: ContainerPlace<S>): Script<S, OpenContainer | "absent" | Unavailable> {
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const found = yield* read(place.container);
    if (found === undefined) return "unavailable";
    const { register } = found;
    const end = yield* finishWhatWasRead(place, found);
    if (end === "unavailable") return "unavailable";
    if (end === "again") continue;
    const record = liveRecord(register);
    if (record === undefined || register === undefined) return "absent";
    if (record.status === "open") return { record, version: register.version };
    if ((yield* finishClosing(place, register)) === "unavailable") return "unavailable";
  }
  return "unavailable";
}

type Established = Extract<WriteOutcome, { kind: "established" }>;

/** What an operation makes of a container's register. */
type ContainerWrite<S, T> = {
  /** What is to stand there; judges what is established ([C1]), maybe several times. */
  readonly decide: (
    base: Register | undefined,
    ballot: Ballot,
    promises: readonly Promised[],
  ) => ContainerRecord | "stop";
  /** Ends the operation after that took effect: of what several attempts proposed it may be what an earlier one did. */
  readonly established: (written: ContainerRecord, outcome: Established) => Script<S, T>;
  /** After `decide` has stopped: ends the operation, or begins anew. */
  readonly stopped: (base: Register | undefined) => Script<S, T | "again">;
};

/** A conditional write of a container's register, begun anew after everything that was in its way, until it can be said what became of it. */
function* writeContainer<S, T>(
  place: ContainerPlace<S>,
  { decide, established, stopped }: ContainerWrite<S, T>,
): Script<S, T | "no-space" | Unavailable> {
  let earlier: Proposed | undefined;
  // By version, since what an attempt before proposed may be what takes effect.
  const proposed = new Map<Ballot, ContainerRecord>();
  const decideOnce = (
    base: Register | undefined,
    ballot: Ballot,
    promises: readonly Promised[],
  ): WriteRecord | "stop" => {
    const record = decide(base, ballot, promises);
    if (record === "stop") return record;
    proposed.set(ballot, record);
    return recordOf(record);
  };
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const outcome = yield* write(place.container, { kind: "conditional", earlier, decide: decideOnce }, NO_INCARNATION);
    earlier = outcome.kind === "unfinished" ? outcome.own : undefined;
    const written = outcome.kind === "established" ? proposed.get(outcome.version) : undefined;
    if (outcome.kind === "established" && written !== undefined) return yield* established(written, outcome);
    if (outcome.kind === "stopped") {
      const end = yield* stopped(outcome.base);
      if (end !== "again") return end;
    } else if (outcome.kind === "no-space") {
      return "no-space";
    } else if (!(yield* afterFailure(place, outcome))) {
      return "unavailable";
    }
  }
  return "unavailable";
}

/** Makes the container, or changes the headers of the one that is there; "absent" where it must exist and does not. */
export function* putContainer<S>(
  place: ContainerPlace<S>,
  change: (headers: Readonly<Record<string, string>>, isNew: boolean) => Record<string, string>,
  mustExist: boolean,
): Script<S, (OpenContainer & { readonly isNew: boolean }) | "absent" | "no-space" | "unknown"> {
  const end = yield* writeContainer<S, (OpenContainer & { readonly isNew: boolean }) | "absent" | Unavailable>(place, {
    decide: (base, ballot) => {
      const record = liveRecord(base);
      if (record?.status === "closing" || (record === undefined && mustExist)) return "stop";
      const incarnation = record?.incarnation ?? incarnationMadeBy(ballot);
      return { ...record, status: "open", incarnation, headers: change(record?.headers ?? {}, record === undefined) };
    },
    *established(record, { version }) {
      if (!(yield* listInAccount(place, record.incarnation))) return "unavailable";
      yield* confirm(place.container, version);
      return { record, version, isNew: record.incarnation === incarnationMadeBy(version) };
    },
    *stopped(base) {
      if (base === undefined || liveRecord(base) === undefined) return "absent";
      return (yield* finishClosing(place, base)) === "unavailable" ? "unavailable" : "again";
    },
  });
  return end === "unavailable" ? "unknown" : end;
}

/** What a deletion that stopped before it proposed anything has met. */
type Stop = { readonly kind: "changing" } | { readonly kind: "maybe-live"; readonly record: ContainerRecord };

/** [B3], [B4]. "changing": its rows are on their way to other shards, which has to end first. */
export function* deleteContainer<S>(
  place: ContainerPlace<S>,
): Script<S, "deleted" | "absent" | "not-empty" | "changing" | "no-space" | "unknown"> {
  // Set once the rows of promises have been looked into: after *closing* was proposed the base alone decides ([B4]), and a live row
  // that a merged listing does not show is one that its replica missed the deletion of; the look at *closing* judges it again.
  let decidesOnBase = false;
  let stop: Stop | undefined;
  const end = yield* writeContainer<S, "deleted" | "absent" | "not-empty" | "changing" | Unavailable>(place, {
    decide: (base, _, promises) => {
      stop = undefined;
      const record = liveRecord(base);
      if (record === undefined || record.status === "closing") return "stop";
      // A *closing* that was proposed before was upon an older base: nobody finds it any more beneath this one.
      if (record.shards?.change !== undefined) {
        stop = { kind: "changing" };
        return "stop";
      }
      if (!decidesOnBase && mayBeLive(record, promises)) {
        stop = { kind: "maybe-live", record };
        return "stop";
      }
      decidesOnBase = true;
      return { ...record, status: "closing" };
    },
    *established(closing, outcome) {
      yield* confirm(place.container, outcome.version);
      const closed = yield* finishClosing(place, registerOf(outcome, recordOf(closing)), outcome.liveRows);
      if (closed === "unavailable" || closed === "unclear") return "unavailable";
      return closed === "gone" ? "deleted" : "not-empty";
    },
    *stopped(base) {
      const met = stop;
      if (met?.kind === "changing") return "changing";
      if (base === undefined || liveRecord(base) === undefined) return "absent";
      if (met === undefined) return (yield* finishClosing(place, base)) === "unavailable" ? "unavailable" : "again";
      const verdict = yield* showLiveRow(place, met.record);
      if (verdict === "shown") return "not-empty";
      if (verdict === "unavailable") return "unavailable";
      decidesOnBase = verdict === "none";
      return "again";
    },
  });
  return end === "unavailable" ? "unknown" : end;
}

/** Promises tell of the container's own rows only, and only those of its life count. */
const mayBeLive = ({ incarnation, shards }: ContainerRecord, promises: readonly Promised[]): boolean =>
  shards?.index !== undefined ||
  promises.some(({ liveRow, register }) => liveRow !== undefined && liveRecord(register)?.incarnation === incarnation);

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
  return yield* writeContainer<S, OpenContainer | "absent" | Unavailable>(place, {
    decide: (base, ballot) => {
      const record = liveRecord(base);
      if (record?.status !== "open" || record.incarnation !== incarnation) return "stop";
      return decide(record, ballot) ?? "stop";
    },
    *established(record, { version }) {
      yield* confirm(place.container, version);
      place.memory.learn({ record, version });
      return { record, version };
    },
    *stopped(base) {
      const record = liveRecord(base);
      if (record === undefined || base === undefined || record.incarnation !== incarnation) return "absent";
      if (record.status === "open") return { record, version: base.version };
      return (yield* finishClosing(place, base)) === "unavailable" ? "unavailable" : "again";
    },
  });
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

const registerOf = (outcome: { readonly version: Ballot; readonly ballot: Ballot }, record: WriteRecord): Register => ({
  version: outcome.version,
  ballot: outcome.ballot,
  state: "confirmed",
  bodyVersion: outcome.version,
  isTombstone: record.isTombstone,
  bodyLength: 0,
  metadata: record.metadata,
});
