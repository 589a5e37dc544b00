import { type Ballot, type Incarnation, NO_INCARNATION } from "../../common/ballot.ts";
import type { Register, Row } from "../../storage-node/wire.ts";
import type { ContainerPlace } from "./container-place.ts";
import { presentContainer } from "./container-script.ts";
import type { Proposed, WriteMode, WriteOutcome, WriteRecord } from "./register-write.ts";
import { confirm, row, type Script, write } from "./script.ts";
import { placeRow } from "./shard-row.ts";

/** A row of the index of due times: which row space it stands in, and the row. */
export type DueRow<S> = { readonly set: S; readonly row: Row };

/** What a version shows outside its register. */
export type Shown = {
  readonly version: Ballot;
  readonly isTombstone: boolean;
  readonly bodyLength: number;
  readonly metadata: Uint8Array;
};

/** Where an object lives, and how its versions are shown; the metadata is the caller's. */
export type ObjectPlace<S> = {
  readonly object: S;
  readonly container: ContainerPlace<S>;
  rowOf(shown: Shown): Row;
  dueRowOf(shown: Shown): DueRow<S> | undefined;
};

export type ObjectWrite =
  | { readonly kind: "plain"; readonly record: WriteRecord }
  | { readonly kind: "conditional"; readonly decide: (base: Register | undefined) => WriteRecord | "stop" };

export type ObjectWriteResult =
  | { readonly kind: "done"; readonly version: Ballot; readonly record: WriteRecord }
  | { readonly kind: "stopped" }
  | { readonly kind: "no-container" }
  | { readonly kind: "no-space" }
  /** [W3]: 503. */
  | { readonly kind: "unknown" };

const RETRY_LIMIT = 10;

const incarnationIn = (ballot: Ballot): Incarnation => ballot.slice(0, 24) as Incarnation;

/**
 * PUT, POST, DELETE of an object: register at W, its rows at W, CONFIRM, answer.
 *
 * `incarnation` may come from a memory that is out of date: a version of a dead incarnation is judged by [B5], and the write goes on
 * in the container that is there now. `isBodyStaged`: the body was handed over with the first ACCEPT, and is kept from there on.
 */
export function* writeObject<S>(
  place: ObjectPlace<S>,
  incarnation: Incarnation,
  given: ObjectWrite,
  isBodyStaged: boolean,
): Script<S, ObjectWriteResult> {
  let life = incarnation;
  let bodyVersion: Ballot | undefined;
  let earlier: Proposed | undefined;
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const proposal = proposalOf(given, bodyVersion, earlier);
    earlier = undefined;
    const outcome = yield* write(place.object, proposal.mode, life);
    switch (outcome.kind) {
      case "established": {
        const { version } = outcome;
        const record = proposal.recordOf(version);
        if (record === undefined) throw new Error("a version was established that was not proposed");
        if (outcome.isConfirmed) return { kind: "done", version, record };
        const end = yield* showVersion(place, { version, ...record }, outcome.isKept === true);
        if (end === "shown") return { kind: "done", version, record };
        if (end === "unknown" || end === "superseded") return { kind: "unknown" };
        if (end.present === undefined) return { kind: "no-container" };
        life = end.present;
        if (isBodyStaged) bodyVersion = version;
        continue;
      }
      case "outdated": {
        // A later incarnation has written this name: the container that this write is for is gone.
        for (const version of outcome.own) {
          const verdict = yield* judgeVersion(place, version, incarnationIn(outcome.seen));
          if (verdict === "confirmed") {
            const record = proposal.recordOf(version);
            return record === undefined ? { kind: "unknown" } : { kind: "done", version, record };
          }
          if (verdict !== "void") return { kind: "unknown" };
          yield* confirm(place.object, version, true);
          if (isBodyStaged) bodyVersion = version;
        }
        const present = yield* presentContainer(place.container);
        if (present === "absent") return { kind: "no-container" };
        if (present === "unavailable") return { kind: "unknown" };
        life = present.record.incarnation;
        continue;
      }
      case "stopped":
      case "no-space":
        return { kind: outcome.kind };
      case "unfinished":
        if ((yield* finishObject(place, outcome.base, false)) === "unavailable") return { kind: "unknown" };
        earlier = outcome.own;
        continue;
      case "superseded":
      case "inspected":
        continue;
      case "unknown":
        return { kind: "unknown" };
    }
  }
  return { kind: "unknown" };
}

/** What is proposed, and which record a version carries that came of it. */
type ProposedWrite = { readonly mode: WriteMode; recordOf(version: Ballot): WriteRecord | undefined };

/** `bodyVersion`: an earlier version of this write, whose body the replicas have. `earlier`: those whose fate is open. */
const proposalOf = (
  given: ObjectWrite,
  bodyVersion: Ballot | undefined,
  earlier: Proposed | undefined,
): ProposedWrite => {
  const resent = (record: WriteRecord): WriteRecord =>
    record.body === "given" && bodyVersion !== undefined ? { ...record, body: "keep", bodyVersion } : record;
  if (given.kind === "plain") {
    const record = resent(given.record);
    return { mode: { kind: "plain", record }, recordOf: () => record };
  }
  const records = new Map<Ballot, WriteRecord>(earlier);
  const mode: WriteMode = {
    kind: "conditional",
    earlier,
    decide: (base, ballot) => {
      const record = given.decide(base);
      if (record === "stop") return "stop";
      records.set(ballot, resent(record));
      return resent(record);
    },
  };
  return { mode, recordOf: (version) => records.get(version) };
};

/**
 * [R2] for an object: the version found is accepted at W, its rows are written, then it is confirmed, or void where its container is
 * gone ([B5]). `isEstablished`: W replicas were seen to hold it; only its rows may be missing. "shown": a reader that found it the highest may give it, or
 * else it would run after writers who do not rest; "again": the caller looks again.
 */
export function* finishObject<S>(
  place: ObjectPlace<S>,
  register: Register,
  isEstablished: boolean,
): Script<S, "shown" | "again" | "unavailable"> {
  const { version } = register;
  if (!isEstablished) {
    const hasBody = register.bodyLength > 0 && !register.isTombstone;
    const record: WriteRecord = {
      isTombstone: register.isTombstone,
      bodyLength: register.bodyLength,
      metadata: register.metadata,
      body: hasBody ? "keep" : "none",
      bodyVersion: register.bodyVersion,
    };
    const mode: WriteMode = { kind: "finish", version, ballot: register.ballot, record };
    const outcome = yield* write(place.object, mode, incarnationIn(register.ballot));
    if (outcome.kind === "unknown") return "unavailable";
    if (outcome.kind !== "established") return "again";
    if (outcome.isConfirmed) {
      yield* confirm(place.object, version);
      return "shown";
    }
  }
  const end = yield* showVersion(place, register);
  if (end === "shown") return end;
  return end === "unknown" ? "unavailable" : "again";
}

/**
 * Brings replicas that lag to what the others hold: what is the highest is accepted once more under a ballot that no floor or promise
 * refuses, at all replicas. For workers: a reader has no need of it.
 */
export function* settleObject<S>(
  place: ObjectPlace<S>,
  incarnation: Incarnation,
): Script<S, "shown" | "again" | "unavailable"> {
  const outcome = yield* inspect(place.object, undefined, incarnation);
  if (outcome === "unavailable") return "unavailable";
  const { highest, ballot } = outcome;
  return highest === undefined ? "again" : yield* finishObject(place, { ...highest, ballot }, false);
}

/**
 * Rows at W, then CONFIRM, unless a hand-off counted for any of it ([H4]); `present`: the version is void, and this is the container's incarnation now.
 * @param isKept hand-offs counted for the version
 */
function* showVersion<S>(
  place: ObjectPlace<S>,
  shown: Shown,
  isKept = false,
): Script<S, "shown" | "superseded" | "unknown" | { readonly present: Incarnation | undefined }> {
  const { version } = shown;
  const end = yield* placeRow(place.container, incarnationIn(version), place.rowOf(shown));
  if (end === "unavailable") return "unknown";
  let isWhole = !isKept && end !== "kept";
  if (end === "old") return yield* renewVersion(place, version);
  if (typeof end !== "string" && !shown.isTombstone) {
    const verdict = yield* judgeVersion(place, version, end.present ?? incarnationIn(version));
    if (verdict === "unavailable") return "unknown";
    if (verdict === "unclear") return "superseded";
    if (verdict === "void") {
      yield* confirm(place.object, version, true);
      return end;
    }
  } else {
    const due = place.dueRowOf(shown);
    const dueEnd = due === undefined ? "stored" : yield* row(due.set, NO_INCARNATION, due.row);
    if (dueEnd === "old") return yield* renewVersion(place, version);
    if (dueEnd !== "stored" && dueEnd !== "kept") return "unknown";
    if (dueEnd === "kept") isWhole = false;
  }
  if (isWhole) yield* confirm(place.object, version);
  return "shown";
}

/**
 * [E5]: a live version so old that replicas cannot tell its row from one that was deleted and forgotten is written once more, the same under a new version,
 * whose row is none of those. That the old one is not confirmed is no matter: whether it took effect makes no difference to what is there then.
 */
function* renewVersion<S>(place: ObjectPlace<S>, version: Ballot): Script<S, "shown" | "superseded" | "unknown"> {
  let renewed: WriteRecord | undefined;
  const decide = (base: Register | undefined): WriteRecord | "stop" => {
    if (base?.version !== version) return "stop";
    const { bodyLength, bodyVersion, metadata } = base;
    renewed = { isTombstone: false, bodyLength, metadata, body: bodyLength > 0 ? "keep" : "none", bodyVersion };
    return renewed;
  };
  const outcome = yield* write(place.object, { kind: "conditional", decide, over: version }, incarnationIn(version));
  if (outcome.kind === "stopped" || outcome.kind === "unfinished" || outcome.kind === "outdated") return "superseded";
  if (outcome.kind !== "established" || renewed === undefined) return "unknown";
  const shown = { version: outcome.version, ...renewed };
  if ((yield* placeRow(place.container, incarnationIn(version), place.rowOf(shown))) !== "stored") return "unknown";
  const due = place.dueRowOf(shown);
  if (due !== undefined && (yield* row(due.set, NO_INCARNATION, due.row)) !== "stored") return "unknown";
  yield* confirm(place.object, outcome.version);
  return "shown";
}

/**
 * [B5]: what became of a version whose incarnation is known to be over. Still the highest and unconfirmed: its row never was at W, for then
 * the container could not have been deleted before a later version; so it never took effect.
 */
function* judgeVersion<S>(
  place: ObjectPlace<S>,
  version: Ballot,
  atLeast: Incarnation,
): Script<S, "confirmed" | "void" | "unclear" | "unavailable"> {
  const outcome = yield* inspect(place.object, version, atLeast);
  if (outcome === "unavailable") return "unavailable";
  return outcome.verdict === "never" ? "void" : outcome.verdict;
}

type Inspected = Extract<WriteOutcome, { kind: "inspected" }>;

/** A later incarnation in the register only takes a ballot of its own. */
function* inspect<S>(
  object: S,
  version: Ballot | undefined,
  atLeast: Incarnation,
): Script<S, Inspected | "unavailable"> {
  let incarnation = atLeast;
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const outcome = yield* write(object, { kind: "inspect", version }, incarnation);
    if (outcome.kind === "inspected") return outcome;
    if (outcome.kind !== "outdated") return "unavailable";
    incarnation = incarnationIn(outcome.seen);
  }
  return "unavailable";
}
