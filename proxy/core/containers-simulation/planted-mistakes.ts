import { type Ballot, type Incarnation, NO_INCARNATION } from "../../../common/ballot.ts";
import {
  type ContainerRecord,
  decodeContainerRecord,
  encodeContainerRecord,
  type Register,
} from "../../../storage-node/wire.ts";
import type { ContainerPlace, OpenContainer } from "../container-place.ts";
import { deleteContainer, readContainer } from "../container-script.ts";
import type { writeObject } from "../object-script.ts";
import type { WriteMode, WriteOutcome, WriteRecord } from "../register-write.ts";
import type { Effect, Script } from "../script.ts";
import {
  type ChangeSettings,
  copyShards,
  endShards,
  indexShards,
  leaveShards,
  makeShards,
  openShards,
} from "../shard-change.ts";
import { countRows } from "../list-rows.ts";
import { countContainer } from "../shard-list.ts";

/** A planted mistake: what a rule forbids, done. */
export type Mutation =
  | "rows are taken in any state of the container [B1]"
  | "a listing asks one replica [B2]"
  | "a listing drops deleted rows before merging [B2]"
  | "a container is deleted in one step [B3]"
  | "the rows are not looked at again at closing [B3]"
  | "a retry of closing looks at rows again [B4]"
  | "a row of a dead incarnation is answered as stored [B5]"
  | "a version is void unjudged [B5]"
  | "a version of unknown fate is void [B5]"
  | "the container of a refused row is read without a PREPARE [B5]"
  | "ballots compare without the incarnation [B6]"
  | "the row is written before the version is accepted"
  | "the answer does not wait for the row"
  | "an established version is served before its row is written"
  | "a metadata change keeps whatever body is there [A4]"
  | "a write of a joint phase needs the old members alone [M1]"
  | "answers of two epochs are counted together [M1]"
  | "what the old members agree on is served in a joint phase [M1]"
  | "a newcomer copies from members who have not heard of it [M2]"
  | "nobody is sealed before the members change [M3]"
  | "sealed replicas are read [M3]"
  | "a replica that lost its disk forgets that it was sealed [M3]"
  | "a partition has no floor [M5]"
  | "all members change at once [M6]"
  | "a configuration is written without a condition"
  | "a newcomer keeps nothing before it has caught up"
  | "first members that were emptied ask nobody but each other [M4]"
  | "a tombstone is removed before all members have it [E2]"
  | "the mark of registers is not raised [E2]"
  | "the mark of rows is not raised [E5]"
  | "what was asked for before a removal is installed after it [E3]"
  | ShardMutation;

/** What is done to the shards of a container, against the order of `shard-change.ts`. */
const CARELESS_CHANGES = [
  "a shard is gone before it was copied [S4]",
  "one of two shards is gone before the other was copied [S4]",
  "the index names what follows before the shards are gone [S6]",
] as const;

type CarelessChange = (typeof CARELESS_CHANGES)[number];

type ShardMutation =
  | CarelessChange
  | "a leaving shard takes rows that are nowhere else [S2]"
  | "a row goes to what follows its shard alone [S2]"
  | "a shard is copied where nobody has heard that it is leaving [S3]"
  | "one replica of a shard is copied [S3]"
  | "figures count a name where it is and where it goes [S4]"
  | "a deletion passes over the last shard [B3]";

export const isCarelessChange = (mutation: Mutation | undefined): mutation is CarelessChange =>
  CARELESS_CHANGES.some((one) => one === mutation);

/** Mistakes that are made by proposing something else. */
export const mutated = (mutation: Mutation | undefined, mode: WriteMode): WriteMode => {
  if (mode.kind !== "conditional") return mode;
  if (mutation === "a deletion passes over the last shard [B3]") return passingOver(mode);
  if (mutation !== "a container is deleted in one step [B3]") return mode;
  return {
    kind: "conditional",
    decide: (base, ballot, promises) => {
      const record = mode.decide(base, ballot, promises);
      return record !== "stop" && isClosing(record) ? { ...record, isTombstone: true } : record;
    },
  };
};

/** *Closing* that does not name the last shard. */
const passingOver = (mode: Extract<WriteMode, { kind: "conditional" }>): WriteMode => ({
  ...mode,
  decide: (base, ballot, promises) => {
    const record = mode.decide(base, ballot, promises);
    if (record === "stop" || !isClosing(record)) return record;
    const closing = decodeContainerRecord(record.metadata);
    const { shards } = closing;
    if (shards?.index === undefined) return record;
    const metadata = encodeContainerRecord({ ...closing, shards: { ...shards, index: shards.index.slice(0, -1) } });
    return { ...record, metadata };
  },
});

/** Figures that are summed over everything that a container's record names. */
export function* countTwice<S>(
  place: ContainerPlace<S>,
  record: ContainerRecord,
): ReturnType<typeof countContainer<S>> {
  const summary = yield* countContainer(place, record);
  const { change } = record.shards ?? {};
  if (typeof summary === "string" || change === undefined) return summary;
  let { rows } = summary;
  for (const { id } of change.to) {
    const more = yield* countRows(place.shardOf(record.incarnation, id), record.incarnation);
    if (typeof more !== "string") rows += more.rows;
  }
  return { ...summary, rows };
}

/** A change of shards whose steps are done in another order, or for one shard after the other. */
export function* changeCarelessly<S>(
  place: ContainerPlace<S>,
  incarnation: Incarnation,
  settings: ChangeSettings,
  mutation: CarelessChange,
): Script<S, void> {
  const found = yield* readContainer(place);
  const change = typeof found === "string" ? undefined : found.record.shards?.change;
  if (change === undefined) return;
  yield* makeShards(place, incarnation, change);
  yield* leaveShards(place, incarnation, change);
  switch (mutation) {
    case "a shard is gone before it was copied [S4]":
      yield* endShards(place, incarnation, change);
      yield* copyShards(place, incarnation, change, settings);
      break;
    case "one of two shards is gone before the other was copied [S4]":
      for (const id of change.from) {
        yield* copyShards(place, incarnation, { ...change, from: [id] }, settings);
        yield* endShards(place, incarnation, { ...change, from: [id] });
      }
      break;
    case "the index names what follows before the shards are gone [S6]":
      yield* copyShards(place, incarnation, change, settings);
      yield* openShards(place, incarnation, change);
      yield* indexShards(place, incarnation, change);
      yield* endShards(place, incarnation, change);
      return;
  }
  yield* openShards(place, incarnation, change);
  yield* indexShards(place, incarnation, change);
}

const isClosing = (record: WriteRecord): boolean => {
  if (record.bodyLength > 0 || record.isTombstone || record.metadata.length < 8) return false;
  try {
    return decodeContainerRecord(record.metadata).status === "closing";
  } catch {
    return false;
  }
};

/** The deletion of a container that forgets, whenever it decides, that it has proposed *closing* before: [B4] undone. */
export function* deleteLookingAgain<S>(place: ContainerPlace<S>): ReturnType<typeof deleteContainer<S>> {
  let script = deleteContainer(place);
  let step = script.next();
  while (step.done !== true) {
    const effect: Effect<S> = step.value;
    const answer = yield effect.kind === "write" && effect.mode.kind === "conditional"
      ? { ...effect, mode: lookingAgain(effect.mode, place, (fresh) => (script = fresh)) }
      : effect;
    step = script.next(answer);
  }
  return step.value;
}

type Deletion<S> = ReturnType<typeof deleteContainer<S>>;

const lookingAgain = <S>(
  mode: Extract<WriteMode, { kind: "conditional" }>,
  place: ContainerPlace<S>,
  goOnWith: (script: Deletion<S>) => void,
): WriteMode => ({
  ...mode,
  decide: (base, ballot, promises) => {
    const record = mode.decide(base, ballot, promises);
    if (record === "stop" || !isClosing(record)) return record;
    const fresh = deleteContainer(place);
    const first = fresh.next();
    if (first.done === true || first.value.kind !== "write" || first.value.mode.kind !== "conditional") return record;
    const verdict = first.value.mode.decide(base, ballot, promises);
    if (verdict === "stop") goOnWith(fresh);
    return verdict;
  },
});

/** The write of an object that reads the container of a refused row as any reader would, promises or not: [B5] undone. */
export function* readingContainer<S>(
  script: ReturnType<typeof writeObject<S>>,
  place: ContainerPlace<S>,
): ReturnType<typeof writeObject<S>> {
  let step = script.next();
  while (step.done !== true) {
    const { value: effect } = step;
    if (effect.kind !== "write" || effect.mode.kind !== "inspect" || effect.mode.version !== undefined) {
      step = script.next(yield effect);
      continue;
    }
    const found = yield* readContainer(place);
    if (found === "unavailable") {
      step = script.next({ kind: "unknown" });
      continue;
    }
    const highest = found === "absent" ? undefined : confirmed(found);
    const ballot = highest?.ballot ?? LOWEST;
    step = script.next({ kind: "inspected", highest, ballot, verdict: "never" });
    // What was read is told to nobody.
    if (highest !== undefined) step = script.next({ ...TOLD, version: highest.version, ballot });
  }
  return step.value;
}

const LOWEST = "0".repeat(48) as Ballot;
const TOLD = { kind: "established", base: undefined, isConfirmed: true, liveRows: undefined } as const;

const confirmed = ({ record, version }: OpenContainer): Register => ({
  version,
  ballot: version,
  state: "confirmed",
  bodyVersion: version,
  isTombstone: false,
  bodyLength: 0,
  metadata: encodeContainerRecord(record),
});

/**
 * Ballots of objects as if [B6] were not: beneath the scripts an object's ballots all are of one incarnation, so that time alone ranks them.
 * Scripts see the whole ones, since rows and listings are about those.
 */
export class BlindBallots {
  readonly #whole = new Map<Ballot, Ballot>();

  readonly blind = (ballot: Ballot): Ballot => {
    const rest = (NO_INCARNATION + ballot.slice(NO_INCARNATION.length)) as Ballot;
    this.#whole.set(rest, ballot);
    return rest;
  };

  readonly whole = (ballot: Ballot): Ballot => this.#whole.get(ballot) ?? ballot;

  readonly wholeRegister = <R extends Register | undefined>(register: R): R =>
    register === undefined
      ? register
      : {
          ...register,
          version: this.whole(register.version),
          ballot: this.whole(register.ballot),
          bodyVersion: this.whole(register.bodyVersion),
        };

  blindMode(mode: WriteMode): WriteMode {
    switch (mode.kind) {
      case "plain":
        return { ...mode, record: withBallots(mode.record, this.blind) };
      case "finish":
        return {
          ...mode,
          version: this.blind(mode.version),
          ballot: this.blind(mode.ballot),
          record: withBallots(mode.record, this.blind),
        };
      case "inspect":
        return { ...mode, version: mode.version === undefined ? undefined : this.blind(mode.version) };
      case "conditional":
        return {
          kind: "conditional",
          earlier: mode.earlier === undefined ? undefined : eachOf(mode.earlier, this.blind),
          decide: (base, ballot, promises) => {
            const told = promises.map((promise) => ({ ...promise, register: this.wholeRegister(promise.register) }));
            const record = mode.decide(this.wholeRegister(base), this.whole(ballot), told);
            return record === "stop" ? "stop" : withBallots(record, this.blind);
          },
        };
    }
  }

  wholeOutcome(outcome: WriteOutcome): WriteOutcome {
    switch (outcome.kind) {
      case "established":
        return {
          ...outcome,
          version: this.whole(outcome.version),
          ballot: this.whole(outcome.ballot),
          base: this.wholeRegister(outcome.base),
        };
      case "inspected":
        return { ...outcome, highest: this.wholeRegister(outcome.highest), ballot: this.whole(outcome.ballot) };
      case "stopped":
        return { ...outcome, base: this.wholeRegister(outcome.base) };
      case "unfinished":
        return { ...outcome, base: this.wholeRegister(outcome.base), own: eachOf(outcome.own, this.whole) };
      case "outdated":
        return { ...outcome, seen: this.whole(outcome.seen), own: outcome.own.map(this.whole) };
      case "superseded":
      case "no-space":
      case "unknown":
        return outcome;
    }
  }
}

const withBallots = (record: WriteRecord, change: (ballot: Ballot) => Ballot): WriteRecord =>
  record.bodyVersion === undefined ? record : { ...record, bodyVersion: change(record.bodyVersion) };

const eachOf = (proposed: ReadonlyMap<Ballot, WriteRecord>, change: (ballot: Ballot) => Ballot) =>
  new Map([...proposed].map(([version, record]) => [change(version), withBallots(record, change)] as const));
