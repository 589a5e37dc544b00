import { type Ballot, type Incarnation, NO_INCARNATION } from "../../common/ballot.ts";
import {
  type ContainerRecord,
  decodeContainerRecord,
  encodeContainerRecord,
  type Register,
  type Row,
  type RowsState,
} from "../../storage-node/wire.ts";
import type { ListObstacle } from "./list-rows.ts";
import type { WriteMode, WriteRecord } from "./register-write.ts";
import { confirm, isFinal, read, type Script, write } from "./script.ts";
import { ROOT } from "./shard-ranges.ts";

/**
 * The register of one shard, a container's record of its own:
 *
 *     absent ──▶ filling ──▶ here ──▶ leaving ──▶ gone ──▶ tombstone
 *                            │  ▲
 *                            ▼  │ the container's deletion was given up
 *                          closing ──▶ tombstone, once the container is one
 *
 * It has no row in any account. What it is one of stands in its name.
 */
export type Leaf = { readonly record: ContainerRecord; readonly version: Ballot };

/** Rounds of one operation: each ends because somebody else changed the shard meanwhile. */
const RETRY_LIMIT = 10;

/** Of a shard that is closing: the version of its container's *closing*, while which it is. */
const CLOSING_OF = ".closing-of";

export const recordOf = (record: ContainerRecord, isTombstone = false): WriteRecord => ({
  isTombstone,
  bodyLength: 0,
  metadata: encodeContainerRecord(record),
  body: "none",
  bodyVersion: undefined,
});

/** What a container's register says; undefined where there is none. */
export const liveRecord = (register: Register | undefined): ContainerRecord | undefined =>
  register === undefined || register.isTombstone || register.state === "void"
    ? undefined
    : decodeContainerRecord(register.metadata);

/** [R2]: the version found is accepted again. */
export const finishMode = (register: Register, ballot: Ballot): WriteMode => ({
  kind: "finish",
  version: register.version,
  ballot,
  record: {
    isTombstone: register.isTombstone,
    bodyLength: 0,
    metadata: register.metadata,
    body: "none",
    bodyVersion: register.bodyVersion,
  },
});

/** A shard's record in a state. */
export const leafIn = (incarnation: Incarnation, rows: RowsState): ContainerRecord => ({
  status: "open",
  incarnation,
  headers: {},
  shards: { rows, index: undefined, change: undefined },
});

/** While which version of its container's *closing* a shard is closing; undefined where it is not. */
const closingOf = ({ headers, status }: ContainerRecord): Ballot | undefined =>
  status === "closing" ? (headers[CLOSING_OF] as Ballot | undefined) : undefined;

function* finish<S>(set: S, register: Register): Script<S, "finished" | "again" | "unavailable"> {
  const outcome = yield* write(set, finishMode(register, register.ballot), NO_INCARNATION);
  if (outcome.kind === "unknown") return "unavailable";
  if (outcome.kind !== "established") return "again";
  yield* confirm(set, register.version);
  return "finished";
}

/** The shard by an established read; what is found half done is finished first. */
export function* readLeaf<S>(set: S): Script<S, Leaf | "absent" | "unavailable"> {
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const found = yield* read(set);
    if (found === undefined) return "unavailable";
    const { register } = found;
    if (register !== undefined && !isFinal(found)) {
      const end = yield* finish(set, register);
      if (end === "unavailable") return "unavailable";
      // What was finished is what is established: read again, a replica may be as far behind as before.
      if (end === "again") continue;
    }
    const record = liveRecord(register);
    return record === undefined || register === undefined ? "absent" : { record, version: register.version };
  }
  return "unavailable";
}

/** The same after a PREPARE, which stops older changes that are under way; replicas that have yet to hear of this state are told it. */
export function* presentLeaf<S>(set: S): Script<S, Leaf | "absent" | "unavailable"> {
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const outcome = yield* write(set, { kind: "inspect", version: undefined }, NO_INCARNATION);
    if (outcome.kind !== "inspected") return "unavailable";
    const { highest, ballot } = outcome;
    if (highest === undefined) return "absent";
    const told = yield* write(set, finishMode(highest, ballot), NO_INCARNATION);
    if (told.kind === "unknown") return "unavailable";
    if (told.kind !== "established") continue;
    yield* confirm(set, highest.version);
    const record = liveRecord(highest);
    return record === undefined ? "absent" : { record, version: highest.version };
  }
  return "unavailable";
}

/** What a change of a shard's record came to: the record that stands there then, be it by this write or before it. */
export type LeafChange = Leaf | "absent" | "unavailable" | "no-space";

/** Changes a shard's record where `decide` gives another one; `decide` judges what is established ([C1]). */
export function* changeLeaf<S>(
  set: S,
  decide: (record: ContainerRecord | undefined, isTombstone: boolean) => WriteRecord | undefined,
): Script<S, LeafChange> {
  const proposed = new Map<Ballot, WriteRecord>();
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const outcome = yield* write(
      set,
      {
        kind: "conditional",
        decide: (base, ballot) => {
          const record = decide(liveRecord(base), base?.isTombstone === true) ?? "stop";
          if (record !== "stop") proposed.set(ballot, record);
          return record;
        },
      },
      NO_INCARNATION,
    );
    switch (outcome.kind) {
      case "established": {
        const { version } = outcome;
        yield* confirm(set, version);
        const record = proposed.get(version);
        if (record === undefined) continue;
        return record.isTombstone ? "absent" : { record: decodeContainerRecord(record.metadata), version };
      }
      case "stopped": {
        const { base } = outcome;
        const record = liveRecord(base);
        return record === undefined || base === undefined ? "absent" : { record, version: base.version };
      }
      case "unfinished":
        if (!(yield* finish(set, outcome.base))) return "unavailable";
        continue;
      case "no-space":
        return "no-space";
      case "unknown":
      case "outdated":
        return "unavailable";
      case "superseded":
      case "inspected":
    }
  }
  return "unavailable";
}

/** A shard that is closing for a deletion that is over goes on. `version`: an open one of its container, read after the shard. */
export function* reopenLeaf<S>(set: S, version: Ballot): Script<S, LeafChange> {
  return yield* changeLeaf(set, (record) => {
    const since = record === undefined ? undefined : closingOf(record);
    return record === undefined || since === undefined || since >= version
      ? undefined
      : recordOf({ ...record, status: "open", headers: {} });
  });
}

/**
 * [B3] for one shard: it takes no row while its container is closing in that version, and what R replicas hold now is all that counts. Gives the
 * first live rows of the replicas that are closing; "over" where that *closing* is not the present one any more.
 */
export function* closeLeaf<S>(set: S, version: Ballot): Script<S, readonly Row[] | "over" | "unavailable"> {
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const closed = yield* changeLeaf(set, (record) => {
      if (record === undefined || (closingOf(record) ?? "") >= version) return undefined;
      return recordOf({ ...record, status: "closing", headers: { [CLOSING_OF]: version } });
    });
    if (closed === "no-space") return "unavailable";
    if (typeof closed === "string") return closed === "absent" ? "over" : closed;
    if (closingOf(closed.record) !== version) return "over";
    const found = yield* read(set);
    if (found?.register === undefined) return "unavailable";
    if (found.register.version !== closed.version) continue;
    const look = yield* write(set, finishMode(found.register, found.register.ballot), NO_INCARNATION);
    if (look.kind === "unknown") return "unavailable";
    if (look.kind !== "established" || look.liveRows === undefined) continue;
    yield* confirm(set, closed.version);
    return look.liveRows;
  }
  return "unavailable";
}

/** Nothing is left of a shard. */
export function* buryLeaf<S>(set: S): Script<S, LeafChange> {
  return yield* changeLeaf(set, (record) => (record === undefined ? undefined : recordOf(record, true)));
}

/**
 * What `ask` gives of a shard. A replica that missed the shard's making says that it is behind; it is told, and asked once more: without it there may be too few.
 */
export function* askLeaf<S, T>(
  set: S,
  id: string,
  ask: () => Script<S, T | ListObstacle>,
): Script<S, T | ListObstacle> {
  const answer = yield* ask();
  if (answer !== "behind" || id === ROOT) return answer;
  const told = yield* presentLeaf(set);
  return told === "unavailable" ? told : yield* ask();
}
