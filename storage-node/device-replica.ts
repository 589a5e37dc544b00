import {
  timestampAfter,
  timestampAt,
  type HybridTimestamp,
  millisecondsOf,
  TIMESTAMP_ZERO,
} from "../common/hybrid-clock.ts";
import { type Ballot, type Incarnation, maxTimestamp, timestampIn } from "../common/ballot.ts";
import type { Clock } from "../common/clock.ts";
import { codeOf, RingsteadError } from "../common/errors.ts";
import {
  decideAccept,
  decideConfirm,
  decidePrepare,
  fateOf,
  floorWithout,
  rememberOverwritten,
  type StoredRegister,
  type VolatileRegister,
} from "./core/register.ts";
import { admitListing, admitRow, type KnownContainer } from "./core/row-admission.ts";
import type { BodyReference, DeviceEngine, Entry, Mutation, NewBody } from "./engine/device-engine.ts";
import { LentBodies } from "./lent-bodies.ts";
import { type EpochState, type EpochUse, isMember, sinceOf } from "./core/partition-epoch.ts";
import { isAtOrBelow } from "./core/reclaim.ts";
import { decideInstall } from "./core/repair.ts";
import { ballotOfTake, decideTake, isLifeForgotten, isTakeSettled, type Taken } from "./core/hand-off.ts";
import { HandOffs } from "./hand-offs.ts";
import type { PartitionPlace } from "./wire.ts";
import { type Marks, ReclaimMarks } from "./reclaim-marks.ts";
import { ReplicaReclaim } from "./replica-reclaim.ts";
import { erasePartition } from "./partition-erasure.ts";
import { PartitionArrivals } from "./partition-arrivals.ts";
import { PartitionEpochs } from "./partition-epochs.ts";
import { RowShards } from "./row-shards.ts";
import { RowSpace } from "./row-space.ts";
import { CEILING_KEY, nameOfRegisterKey, registerKey } from "./store/keys.ts";
import { decodeRegister, encodeRegister } from "./store/register-format.ts";
import {
  type AcceptReply,
  type Configuration,
  CONFIGURATION_PATH,
  configurationName,
  type ContainerRecord,
  decodeContainerRecord,
  type Fate,
  type ListQuery,
  type ListReply,
  type Name,
  type PrepareReply,
  type Proposal,
  type Register,
  type Row,
  type RowReply,
  UNSETTLED_LIMIT,
  type UnsettledReply,
} from "./wire.ts";
import { ceilingMutation, Votes } from "./votes.ts";

/** The ceiling of promises is raised in steps of this much, so that one small record a second covers them all. */
const CEILING_STEP_MS = 1000;
/** A ballot further ahead than this comes from a clock that is wrong. */
const CLOCK_AHEAD_LIMIT_MS = 30_000;
/** Names whose promises and overwritten versions are remembered; dropping one raises the floor. */
const MEMORY_LIMIT = 50_000;
/** Confirmations written in one go, within a millisecond in which nobody is served. They may lag ([A5]). */
const CONFIRM_FLUSH_BATCH = 64;
/** Names that wait for their confirmation; more than are ever under way at once. */
const UNSETTLED_NAMES_LIMIT = 50_000;
/** Entries that one page of the scan looks at. */
const UNSETTLED_SCAN_LIMIT = 1000;
/** A key's fifth byte is its kind, below this. */
const BEHIND_ALL_KEYS = Buffer.alloc(5, 0xff);

type Stored = { readonly register: StoredRegister; readonly body: BodyReference };
/** A register that was pulled from another replica, with its body. */
export type PulledRegister = { readonly name: Name; readonly register: Register; readonly body: NewBody };
type Confirmation = { readonly name: Name; readonly version: Ballot; readonly isVoid: boolean };

/**
 * One device's replica of every name on it: the pure decisions of `core/` over the engine.
 *
 * Every answer waits for the sync of what it rests on ([D1]); the decisions themselves are taken at once and in order, since
 * the engine shows applied mutations before they are synced.
 */
export class DeviceReplica {
  /** Bodies that are read piece by piece. */
  readonly lent = new LentBodies();
  readonly engine: DeviceEngine;
  readonly votes: Votes;
  readonly epochs: PartitionEpochs;
  readonly deletions: ReplicaReclaim;
  readonly shards: RowShards;
  /** What it keeps for members of other partitions. */
  readonly handOffs: HandOffs;
  readonly #clock: Clock;
  readonly #rows: RowSpace;
  readonly #arrivals: PartitionArrivals;
  readonly #marks: ReclaimMarks;
  readonly #memory = new Map<string, VolatileRegister>();
  readonly #confirmed = new Map<string, Confirmation>();
  /** Names accepted here since the start and not confirmed, oldest first ([B7]); what does not fit is found by the scan. */
  readonly #unsettled = new Map<string, Name>();
  #known: { readonly value: Uint8Array; readonly container: KnownContainer } | undefined;
  #floor: HybridTimestamp;
  #ceiling: HybridTimestamp;
  /** No ballot that was accepted or promised here is above it; the ceiling goes ahead of it. */
  #highest: HybridTimestamp;

  /**
   * @param votes where it answers as a replica; else only those ask it that repair
   * @param epochs who else keeps its partitions
   * @param marks how late deletions were that it has removed
   */
  constructor(
    engine: DeviceEngine,
    clock: Clock,
    seeds: readonly [bigint, bigint],
    votes = Votes.recorded(engine, clock),
    epochs = PartitionEpochs.none(engine),
    marks = new ReclaimMarks(),
  ) {
    this.#marks = marks;
    this.engine = engine;
    this.votes = votes;
    this.epochs = epochs;
    this.#clock = clock;
    this.handOffs = new HandOffs(engine, clock);
    this.#rows = new RowSpace(engine, seeds);
    this.shards = new RowShards({
      rows: this.#rows,
      enter: (name, epoch, use) => void this.#enter(name, epoch, use),
      known: (name) => this.#knownAs(name),
      settled: (name) => this.engine.durable(placeOf(name).key),
      lifeOf,
      adopt: (place, rows) => this.deletions.adopt(place, { registers: TIMESTAMP_ZERO, rows }),
      markOf: (name) => this.#marksOf(name).rows,
      putAll: (life, rows, check) => this.#rows.putAll(life, rows, TIMESTAMP_ZERO, check),
    });
    this.deletions = new ReplicaReclaim({
      engine,
      marks,
      rows: this.#rows,
      mayForget: (owner) => this.shards.mayForget(owner),
      hasRowsLeft: (name, record) => this.shards.hasRowsLeft(name, record),
      stored: (key, id) => this.#stored(key, id)?.register,
      forget: (id) => void this.#confirmed.delete(id),
      enter: (place, epoch) => void this.#enter(nameIn(place), epoch, "vote"),
    });
    this.#arrivals = new PartitionArrivals(engine, epochs, (place) => this.#noteErased(place));
    const ceiling = engine.get(CEILING_KEY);
    this.#ceiling =
      ceiling === undefined ? TIMESTAMP_ZERO : (Buffer.from(ceiling.value).toString("latin1") as HybridTimestamp);
    this.#floor = this.#ceiling;
    this.#highest = this.#ceiling;
  }

  async accept(
    name: Name,
    version: Ballot,
    ballot: Ballot,
    proposal: Proposal,
    body: NewBody,
    own: readonly Ballot[],
    epoch = 0,
  ): Promise<AcceptReply> {
    const partition = this.#enter(name, epoch, "store");
    this.#checkClock(ballot);
    const { key, id } = placeOf(name);
    const stored = this.#stored(key, id);
    let memory = this.#memory.get(id);
    const record = {
      ...proposal,
      body: proposal.body === "none" || proposal.body === "keep" ? proposal.body : ("given" as const),
    };
    const epochFloor = partition?.configuration.floor;
    const decision = decideAccept(stored?.register, memory, this.#ownFloor(name), version, ballot, record, epochFloor);
    switch (decision.kind) {
      case "refused": {
        await this.engine.durable(key);
        const fates = this.#fates(name, id, key, own, partition);
        return { kind: "refused", seen: decision.seen, floor: this.#floorIn(name, partition), fates };
      }
      case "nodata":
        return { kind: "nodata" };
      case "repeated":
        await this.engine.durable(key);
        return { kind: "accepted", liveRow: await this.#liveRow(name, stored?.register) };
      case "store":
        break;
    }
    if (stored !== undefined) {
      if (stored.register.version !== version) {
        memory = this.#remember(id);
        rememberOverwritten(memory, stored.register);
      }
      this.#confirmed.delete(id);
    }
    if (memory !== undefined) memory.promise = undefined;
    this.#leaveUnsettled(id, name);
    const mutations: Mutation[] = [
      {
        kind: "put",
        key,
        value: encodeRegister(decision.register),
        body: decision.body === "keep" ? { kind: "keep" } : decision.body === "none" ? { kind: "none" } : body,
      },
    ];
    const raise = this.#raiseCeiling(ballot);
    if (raise !== undefined) mutations.push(raise);
    await this.engine.apply(mutations);
    return {
      kind: "accepted",
      liveRow: isContainer(name) ? await this.#liveRow(name, decision.register) : undefined,
    };
  }

  async prepare(name: Name, ballot: Ballot, own: readonly Ballot[], epoch = 0): Promise<PrepareReply> {
    const partition = this.#enter(name, epoch, "vote");
    this.#checkClock(ballot);
    const { key, id } = placeOf(name);
    const stored = this.#stored(key, id);
    const floor = this.#floorIn(name, partition);
    const decision = decidePrepare(stored?.register, this.#memory.get(id), floor, ballot);
    const fates = this.#fates(name, id, key, own, partition);
    if (decision.kind === "refused") {
      await this.engine.durable(key);
      return { kind: "refused", seen: decision.seen, floor, fates };
    }
    this.#remember(id).promise = ballot;
    const raise = this.#raiseCeiling(ballot);
    if (raise !== undefined) await this.engine.apply([raise]);
    await this.engine.durable(CEILING_KEY);
    await this.engine.durable(key);
    return {
      kind: "promised",
      register: stored?.register,
      fates,
      liveRow: await this.#liveRow(name, stored?.register),
    };
  }

  /** The register and where its body lies, after its sync. */
  read(name: Name, epoch = 0): Promise<Stored | undefined> {
    this.#enter(name, epoch, "vote");
    return this.held(name);
  }

  /** The same from a replica that does not vote: what it has it has, what it lacks says nothing. */
  async held(name: Name): Promise<Stored | undefined> {
    const { key, id } = placeOf(name);
    const stored = this.#stored(key, id);
    const durable = this.engine.durable(key);
    if (durable !== undefined) await durable;
    return stored;
  }

  confirm(name: Name, version: Ballot, isVoid: boolean): void {
    const { key, id } = placeOf(name);
    const changed = decideConfirm(this.#stored(key, id)?.register, this.#memory.get(id), version, isVoid);
    if (changed === undefined) return;
    this.#confirmed.set(id, { name, version, isVoid });
    // A confirmed container may be one that is closing: `lately` looks.
    if (name.space !== "container") this.#unsettled.delete(id);
  }

  /** [B7]: what was accepted since the start and is still neither confirmed nor void, from before `olderThanMs`. */
  lately(olderThanMs: number): UnsettledReply {
    const registers: { name: Name; register: StoredRegister }[] = [];
    for (const [id, name] of this.#unsettled) {
      const register = this.#stored(registerKey(name), id)?.register;
      if (register === undefined || !isUnsettled(name, register) || !this.#keeps(name)) this.#unsettled.delete(id);
      else if (millisecondsOf(timestampIn(register.ballot)) < olderThanMs) registers.push({ name, register });
      if (registers.length === UNSETTLED_LIMIT) break;
    }
    return { registers, next: undefined };
  }

  /** [B7]: one page of everything on the device, for what was left before the last start. Bounded by entries looked at. */
  async unsettled(from: Uint8Array, olderThanMs: number): Promise<UnsettledReply> {
    const entries = await this.engine.scan({ gte: from, lt: BEHIND_ALL_KEYS, limit: UNSETTLED_SCAN_LIMIT });
    const registers: { name: Name; register: StoredRegister }[] = [];
    let last = entries.length < UNSETTLED_SCAN_LIMIT ? undefined : entries.at(-1)?.key;
    for (const { key, value } of entries) {
      const name = nameOfRegisterKey(key);
      if (name === undefined || !mayBeUnsettled(name, value) || !this.#keeps(name)) continue;
      const register = this.#stored(key, Buffer.from(key).toString("latin1"))?.register;
      if (register === undefined || !isUnsettled(name, register)) continue;
      if (millisecondsOf(timestampIn(register.ballot)) < olderThanMs) registers.push({ name, register });
      if (registers.length === UNSETTLED_LIMIT) {
        last = key;
        break;
      }
    }
    return { registers, next: last === undefined ? undefined : Buffer.concat([last, Buffer.of(0)]) };
  }

  /** What a key holds, waiting confirmations included: for other replicas. Not yet synced, maybe. */
  entry(key: Uint8Array): Entry | undefined {
    const entry = this.engine.get(key);
    if (entry === undefined || nameOfRegisterKey(key) === undefined) return entry;
    const confirmation = this.#confirmed.get(Buffer.from(key).toString("latin1"));
    if (confirmation === undefined) return entry;
    const register = decodeRegister(entry.value);
    if (register.version !== confirmation.version) return entry;
    return {
      value: encodeRegister({ ...register, state: confirmation.isVoid ? "void" : "confirmed" }),
      body: entry.body,
    };
  }

  /** Whether a pulled register would be kept, and whether its body is here already. @param isOfVoter who gave it votes ([E6]) */
  weighs(name: Name, pulled: Register, isOfVoter = true): "install" | "install-keeping-body" | "confirm" | "skip" {
    const { key, id } = placeOf(name);
    return this.#weigh(name, id, this.#stored(key, id), pulled, isOfVoter);
  }

  #weigh(
    name: Name,
    id: string,
    stored: Stored | undefined,
    pulled: Register,
    isOfVoter: boolean,
  ): ReturnType<DeviceReplica["weighs"]> {
    // It was asked for before the partition went elsewhere, and would stay here for nobody ([E3]).
    if (!this.#keeps(name)) return "skip";
    const partition = this.epochs.of(name.space, name.hash32);
    if (stored === undefined && this.#skipsUnheld(name, partition, pulled.isTombstone, isOfVoter)) {
      if (isAtOrBelow(pulled.ballot, this.#marksOf(name).registers)) return "skip";
    }
    const isPresent = partition === undefined || isVoter(partition, this.epochs.self);
    const isVoting = isPresent && this.votes.votesIn(name.space, name.hash32);
    const floor = this.#floorIn(name, partition);
    const decision = decideInstall(stored?.register, this.#memory.get(id), floor, pulled, isVoting);
    if (decision !== "install" || stored === undefined || stored.body.kind === "none") return decision;
    const isSameBody = !stored.register.isTombstone && stored.register.bodyVersion === pulled.bodyVersion;
    return isSameBody && !pulled.isTombstone ? "install-keeping-body" : decision;
  }

  /**
   * Of what is at or below the partition's mark, and nothing is held of its name: whether it is not taken. What a device without votes kept is maybe from before a
   * deletion that was forgotten ([E6]). A deletion is about to go from the others too ([E2]), but who has not caught up may have lost what not all others have
   * yet. And who lost its votes takes everything: what nobody answers for goes before it votes.
   */
  #skipsUnheld(name: Name, partition: EpochState | undefined, isDeletion: boolean, isOfVoter: boolean): boolean {
    if (!this.votes.votesIn(name.space, name.hash32)) return false;
    if (!isOfVoter) return true;
    return isDeletion && (partition === undefined || isMember(partition, this.epochs.self));
  }

  /**
   * Installs registers that were pulled from another replica ([E1]), each `body` as it came from there: in one commit, decided and applied
   * in one turn. Resolves after the sync with those that were installed; of the others something later is here by now.
   *
   * Requires: different names; values and bodies of at most 3 MiB together.
   */
  async install(pulled: readonly PulledRegister[], isOfVoter = true): Promise<readonly PulledRegister[]> {
    const installed: PulledRegister[] = [];
    const mutations: Mutation[] = [];
    let highest: Ballot | undefined;
    for (const one of pulled) {
      const { name, register, body } = one;
      const { key, id } = placeOf(name);
      const stored = this.#stored(key, id);
      const decision = this.#weigh(name, id, stored, register, isOfVoter);
      if (decision === "confirm") this.confirm(name, register.version, register.state === "void");
      if (decision === "confirm" || decision === "skip") continue;
      if (stored !== undefined && stored.register.version !== register.version)
        rememberOverwritten(this.#remember(id), stored.register);
      this.#confirmed.delete(id);
      if (register.state === "accepted") this.#leaveUnsettled(id, name);
      const kept: NewBody = decision === "install-keeping-body" ? { kind: "keep" } : body;
      mutations.push({ kind: "put", key, value: encodeRegister(register), body: kept });
      installed.push(one);
      if (highest === undefined || timestampIn(register.ballot) > timestampIn(highest)) highest = register.ballot;
    }
    if (highest === undefined) return installed;
    const raise = this.#raiseCeiling(highest);
    if (raise !== undefined) mutations.push(raise);
    await this.engine.apply(mutations);
    return installed;
  }

  /**
   * Takes a version that a hand-off kept, as an accepted one that somebody is to finish. Resolves, when that is durable, with whether the hand-off needs its copy as
   * far as this member goes. Errors: those of an ACCEPT in that epoch.
   */
  async take(name: Name, copy: Register, body: NewBody | undefined, epoch = 0): Promise<Taken> {
    this.#enter(name, epoch, "store");
    const { key, id } = placeOf(name);
    const stored = this.#stored(key, id);
    if (decideTake(stored?.register, this.#marksOf(name).registers, copy) !== "take") {
      const promise = this.#memory.get(id)?.promise;
      const isSettled = stored === undefined || isTakeSettled(stored.register, promise);
      await this.engine.durable(key);
      return { answer: isSettled ? "settled" : "unsettled", hasUsedBody: false };
    }
    const ballot = ballotOfTake(copy, stored?.register.ballot);
    const register: StoredRegister = { ...copy, ballot, state: "accepted" };
    const hasBody = stored !== undefined && stored.body.kind !== "none" && isSameBody(stored.register, register);
    if (!hasBody && body === undefined) return { answer: "wanted", hasUsedBody: false };
    if (stored !== undefined) rememberOverwritten(this.#remember(id), stored.register);
    this.#confirmed.delete(id);
    this.#leaveUnsettled(id, name);
    const kept: NewBody = hasBody ? { kind: "keep" } : (body ?? { kind: "none" });
    const mutations: Mutation[] = [{ kind: "put", key, value: encodeRegister(register), body: kept }];
    const raise = this.#raiseCeiling(register.ballot);
    if (raise !== undefined) mutations.push(raise);
    const isSettled = isTakeSettled(register, this.#memory.get(id)?.promise);
    await this.engine.apply(mutations);
    return { answer: isSettled ? "settled" : "unsettled", hasUsedBody: !hasBody };
  }

  /**
   * [M4] Votes in a partition from now on. What it may have promised there and forgotten lies below its floor. Requires: `judgeJoin`
   * says so.
   */
  join({ space, partitionPower, partition }: PartitionPlace): void {
    this.#floor = maxTimestamp(this.#floor, timestampAt(this.#clock.nowMs()));
    this.votes.join(space, partitionPower, partition);
  }

  /** Votes everywhere from now on. Requires: every partition was joined. Resolves when that is durable. */
  async joinAll(): Promise<void> {
    this.#floor = maxTimestamp(this.#floor, timestampAt(this.#clock.nowMs()));
    this.#ceiling = maxTimestamp(this.#ceiling, this.#floor);
    await this.votes.joinAll(ceilingMutation(this.#ceiling));
  }

  /**
   * Puts what others have in the place of a register that cannot be read here: for this name the device is like one that was emptied ([M4]).
   * What it may have accepted or promised of it is from before `lostBeforeMs`, and lies below the floor from now on. Resolves after the sync;
   * false where it can be read again. Requires: all other members were asked, after that moment, and vote; `pulled` is the highest of theirs.
   */
  async relearn(name: Name, pulled: Register | undefined, body: NewBody, lostBeforeMs: number): Promise<boolean> {
    const { key, id } = placeOf(name);
    try {
      this.engine.get(key);
      return false;
    } catch (error) {
      if (codeOf(error) !== "entry-damaged") throw error;
    }
    this.#floor = maxTimestamp(this.#floor, timestampAt(lostBeforeMs));
    this.#confirmed.delete(id);
    if (pulled === undefined) {
      await this.engine.apply([{ kind: "delete", key }]);
      return true;
    }
    if (pulled.state === "accepted") this.#leaveUnsettled(id, name);
    const mutations: Mutation[] = [{ kind: "put", key, value: encodeRegister(pulled), body }];
    const raise = this.#raiseCeiling(pulled.ballot);
    if (raise !== undefined) mutations.push(raise);
    await this.engine.apply(mutations);
    return true;
  }

  /** Takes rows that were pulled from another replica, if it keeps the partition still; `owner` names the life that they belong to. Resolves after the sync. */
  async installRows(owner: Name, rows: readonly Row[], check: () => void = () => {}, isOfVoter = true): Promise<void> {
    if (!this.#keeps(owner) || this.shards.areOver(owner)) return;
    // Who has live ones of a life that is over drops them himself; else all would have them for ever.
    const taken = this.shards.isLifeOver(owner) ? rows.filter(({ isDeleted }) => isDeleted) : rows;
    const mark = this.#marksOf(owner).rows;
    const partition = this.epochs.of(owner.space, owner.hash32);
    const [live, deleted] = [false, true].map((isDeletion) =>
      this.#skipsUnheld(owner, partition, isDeletion, isOfVoter) ? mark : TIMESTAMP_ZERO,
    );
    await this.#rows.putAll(owner, taken, deleted, check, live);
  }

  /** Confirmations that wait to be written. */
  get waitingConfirmations(): number {
    return this.#confirmed.size;
  }

  /** Writes some of the waiting confirmations. */
  flushConfirmations(): void {
    if (this.engine.state().kind !== "serving") return;
    let count = CONFIRM_FLUSH_BATCH;
    const mutations: Mutation[] = [];
    for (const [id, { name, version, isVoid }] of this.#confirmed) {
      if (count-- <= 0) break;
      const key = registerKey(name);
      const stored = this.#stored(key, id);
      this.#confirmed.delete(id);
      if (stored === undefined || stored.register.version !== version) continue;
      const register: StoredRegister = { ...stored.register, state: isVoid ? "void" : "confirmed" };
      mutations.push({ kind: "put", key, value: encodeRegister(register), body: { kind: "keep" } });
    }
    if (mutations.length === 0) return;
    // A lost confirmation is only a slower read later; a failing device says so to the next write.
    this.engine.apply(mutations).catch(() => {});
  }

  /**
   * @param isPlaced the row is in the listing that is to follow this one
   * @param isKept a hand-off kept it: "moved" also of a life whose deletion is forgotten here ([H7])
   */
  async row(
    owner: Name,
    incarnation: Incarnation,
    row: Row,
    epoch = 0,
    isPlaced = false,
    isKept = false,
  ): Promise<RowReply> {
    this.#enter(owner, epoch, "store");
    const partitionMark = this.#marksOf(owner).rows;
    if (owner.space !== "container") return this.#rows.put(owner, row, partitionMark);
    // Decided and applied in one turn: a *closing* that comes in between would look at rows before this one is there ([B1], [B3]).
    const known = this.#knownAs(owner);
    const admitted = admitRow(known, incarnation, isPlaced);
    // What a deletion deleted may yet be copied here, however old it is.
    const isFilling = known?.record.shards?.rows === "filling";
    const mark = isFilling && row.isDeleted ? TIMESTAMP_ZERO : partitionMark;
    const stored = admitted === "open" ? this.#rows.put(lifeOf(owner, incarnation), row, mark) : undefined;
    const durable = this.engine.durable(placeOf(owner).key);
    const [reply] = durable === undefined ? [stored] : await Promise.all([stored, durable]);
    const isForgotten =
      isKept &&
      this.votes.votesIn(owner.space, owner.hash32) &&
      isLifeForgotten(known, incarnation, this.#marksOf(owner).registers);
    return reply ?? { kind: admitted === "open" || isForgotten ? "moved" : admitted };
  }

  async list(
    owner: Name,
    incarnation: Incarnation,
    query: ListQuery,
    epoch = 0,
  ): Promise<{ reply: Exclude<ListReply, { kind: "rows" }> | undefined; runs: readonly Buffer[] }> {
    this.#enter(owner, epoch, "vote");
    if (owner.space === "container") {
      const admitted = admitListing(this.#knownAs(owner), incarnation, query.isCopy === true);
      const durable = this.engine.durable(placeOf(owner).key);
      if (durable !== undefined) await durable;
      if (admitted !== "open" && admitted !== "closing") return { reply: { kind: admitted }, runs: [] };
    }
    return { reply: undefined, runs: await this.#rows.list(lifeOf(owner, incarnation), query) };
  }

  summary(owner: Name, incarnation: Incarnation): ReturnType<RowSpace["summary"]> {
    return this.#rows.summary(lifeOf(owner, incarnation));
  }

  /** A container's record is decoded once, as long as the engine gives the same bytes: each row asks. */
  #knownAs(owner: Name): KnownContainer | undefined {
    const entry = this.engine.get(placeOf(owner).key);
    if (entry === undefined) return undefined;
    if (this.#known?.value !== entry.value) {
      const register = decodeRegister(entry.value);
      const record = decodeContainerRecord(register.metadata);
      const isConfirmed = register.state === "confirmed";
      this.#known = { value: entry.value, container: { record, isTombstone: register.isTombstone, isConfirmed } };
    }
    return this.#known.container;
  }

  /** The first live row of the container's incarnation that `register` names; of one whose rows are elsewhere there is none here. */
  async #liveRow(name: Name, register: StoredRegister | undefined): Promise<Row | undefined> {
    if (!isContainer(name) || register === undefined || register.isTombstone) return undefined;
    const { incarnation, shards } = decodeContainerRecord(register.metadata);
    if (shards?.rows === "gone" || shards?.rows === "dropped") return undefined;
    return this.#rows.firstLive(lifeOf(name, incarnation));
  }

  #stored(key: Uint8Array, id: string): Stored | undefined {
    const entry = this.engine.get(key);
    if (entry === undefined) return undefined;
    const register = decodeRegister(entry.value);
    const confirmation = this.#confirmed.get(id);
    if (confirmation !== undefined && confirmation.version === register.version) {
      return { register: { ...register, state: confirmation.isVoid ? "void" : "confirmed" }, body: entry.body };
    }
    return { register, body: entry.body };
  }

  #fates(
    name: Name,
    id: string,
    key: Uint8Array,
    versions: readonly Ballot[],
    partition: EpochState | undefined,
  ): Fate[] {
    const stored = this.#stored(key, id)?.register;
    const own = this.#ownFloor(name);
    const floor = partition === undefined ? own : maxTimestamp(own, partition.fateFloor);
    return versions.map((version) => fateOf(stored, this.#memory.get(id), floor, version));
  }

  /** Lets a message in where this device is a member in its epoch, and votes if that is asked for. Errors (thrown): those of `PartitionEpochs.admit`. */
  #enter(name: Name, epoch: number, use: EpochUse): EpochState | undefined {
    if (this.#arrivals.isClearing(name)) throw new RingsteadError("device-joining", "this replica begins anew here");
    const partition = this.epochs.admit(name, epoch, use);
    if (partition === undefined || isVoter(partition, this.epochs.self)) this.votes.require(name.space, name.hash32);
    return partition;
  }

  /** Whether its partition was not moved away: what is left of it here is for nobody to finish. */
  #keeps(name: Name): boolean {
    if (this.#arrivals.isClearing(name)) return false;
    const partition = this.epochs.of(name.space, name.hash32);
    return partition === undefined || sinceOf(partition.configuration, this.epochs.self) !== undefined;
  }

  /** Ballots at or below it are refused. */
  #floorIn(name: Name, partition: EpochState | undefined): HybridTimestamp {
    const floor = this.#ownFloor(name);
    return partition === undefined ? floor : maxTimestamp(floor, partition.configuration.floor);
  }

  /** That of this device: of its restarts, of what it forgot, and of what it removed. */
  #ownFloor({ hash32, space }: Name): HybridTimestamp {
    return maxTimestamp(this.#floor, this.#marks.of(space, hash32).registers);
  }

  #marksOf({ hash32, space }: Name): Marks {
    return this.#marks.of(space, hash32);
  }

  #leaveUnsettled(id: string, name: Name): void {
    if (this.#unsettled.size < UNSETTLED_NAMES_LIMIT) this.#unsettled.set(id, name);
  }

  /** Takes a configuration that was decided, if it is a newer one. Resolves, when that is durable, with the one that it has then. Errors: those of `PartitionArrivals`. */
  async configure(place: PartitionPlace, configuration: Configuration): Promise<Configuration> {
    return this.#arrivals.configure(place, configuration);
  }

  /**
   * [M3]: answers nothing more in this epoch. Resolves, when that is durable, with a timestamp that no ballot which was accepted or promised here in
   * this epoch exceeds. Errors: "epoch-behind", "epoch-ahead", "device-joining".
   */
  async seal(place: PartitionPlace, epoch: number): Promise<HybridTimestamp> {
    const name = nameIn(place);
    this.#enter(name, epoch, "vote");
    await this.epochs.change(place, { kind: "seal", epoch });
    // Another epoch may have come meanwhile.
    this.#enter(name, epoch, "vote");
    return maxTimestamp(this.#highest, this.#floor);
  }

  /**
   * Gives back what it holds of a partition that has other members in that stable epoch. Resolves after the sync, with the number of entries; after a crash in
   * between it is asked again. Errors: "still-a-member", also where another epoch comes meanwhile.
   */
  async release(place: PartitionPlace, epoch: number): Promise<number> {
    const check = (): void => {
      const { configuration } = this.epochs.stateOf(place);
      const isOver = configuration.epoch === epoch && configuration.next === undefined;
      if (isOver && sinceOf(configuration, this.epochs.self) === undefined) return;
      throw new RingsteadError(
        "still-a-member",
        "as far as this device knows it keeps that partition, or is to keep it",
      );
    };
    check();
    try {
      return await erasePartition(this.engine, place, check);
    } finally {
      this.#noteErased(place);
    }
  }

  #noteErased(place: PartitionPlace): void {
    // What was asked for before would come back ([E3]).
    this.deletions.noteRemoval(place);
    this.#rows.forget(place);
    this.epochs.noteReleased();
  }

  #remember(id: string): VolatileRegister {
    let memory = this.#memory.get(id);
    if (memory === undefined) {
      memory = { promise: undefined, overwritten: [], floor: TIMESTAMP_ZERO };
      if (this.#memory.size >= MEMORY_LIMIT) this.#forgetOldest();
      this.#memory.set(id, memory);
    }
    return memory;
  }

  #forgetOldest(): void {
    for (const [id, memory] of this.#memory) {
      this.#memory.delete(id);
      this.#floor = maxTimestamp(this.#floor, floorWithout(memory));
      return;
    }
  }

  /** [D2]: no promise and no acceptance above the durable ceiling. */
  #raiseCeiling(ballot: Ballot): Mutation | undefined {
    const timestamp = timestampIn(ballot);
    if (timestamp > this.#highest) this.#highest = timestamp;
    if (timestamp <= this.#ceiling) return undefined;
    this.#ceiling = timestampAfter(timestamp, CEILING_STEP_MS);
    return ceilingMutation(this.#ceiling);
  }

  #checkClock(ballot: Ballot): void {
    const aheadMs = millisecondsOf(timestampIn(ballot)) - this.#clock.nowMs();
    if (aheadMs > CLOCK_AHEAD_LIMIT_MS) {
      throw new RingsteadError("clock-ahead", "the sender's clock is too far ahead of this node's", { aheadMs });
    }
  }
}

/**
 * The row space of one life of a container: each incarnation has keys and counters of its own, so that rows which reached a minority
 * before a deletion are in no listing, figure or look of the next life. Accounts live for ever.
 */
const lifeOf = (owner: Name, incarnation: Incarnation): Name => {
  if (owner.space !== "container") return owner;
  if (lastLife?.owner !== owner || lastLife.incarnation !== incarnation) {
    const life = { space: owner.space, hash32: owner.hash32, path: `${owner.path}\0${incarnation}` };
    lastLife = { owner, incarnation, life };
  }
  return lastLife.life;
};

let lastLife: { readonly owner: Name; readonly incarnation: Incarnation; readonly life: Name } | undefined;

const isSameBody = (one: StoredRegister, other: StoredRegister): boolean =>
  !one.isTombstone && !other.isTombstone && one.bodyVersion === other.bodyVersion;

/** A name in a partition: that of its configuration. */
const nameIn = ({ partition, partitionPower, space }: PartitionPlace): Name =>
  configurationName(space, partition * 2 ** (32 - partitionPower));

/** Where a register lies, as key and as text. One message asks several devices about one name, one after the other. */
const placeOf = (name: Name): { readonly key: Buffer; readonly id: string } => {
  if (lastPlace?.name !== name) {
    const key = registerKey(name);
    lastPlace = { name, key, id: key.toString("latin1") };
  }
  return lastPlace;
};

let lastPlace: { readonly name: Name; readonly key: Buffer; readonly id: string } | undefined;

/** What the scan saw says so; a confirmation may wait in memory. What cannot be decoded is not for this to report. */
const mayBeUnsettled = (name: Name, value: Uint8Array): boolean => {
  try {
    return isUnsettled(name, decodeRegister(value));
  } catch (error) {
    if (error instanceof RingsteadError) return false;
    throw error;
  }
};

/** Whether a register is a container's: one register of each partition is that of its configuration. */
const isContainer = ({ path, space }: Name): boolean => space === "container" && path !== CONFIGURATION_PATH;

/** Whether a device is one of the present members, who promise and are read. */
const isVoter = ({ configuration }: EpochState, self: string): boolean =>
  configuration.old.some(({ id }) => id === self);

/** Left for somebody to finish: a version of open outcome, a container on its way to be deleted ([B3]), a listing on its way to others. */
const isUnsettled = (name: Name, register: StoredRegister): boolean =>
  register.state === "accepted" ||
  (isContainer(name) &&
    !register.isTombstone &&
    register.state === "confirmed" &&
    isOnItsWay(decodeContainerRecord(register.metadata)));

const isOnItsWay = ({ shards, status }: ContainerRecord): boolean =>
  status === "closing" ||
  (shards !== undefined && (shards.change !== undefined || (shards.rows !== "here" && shards.rows !== "dropped")));
