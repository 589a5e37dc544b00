import { timestampAfter, type HybridTimestamp, millisecondsOf, TIMESTAMP_ZERO } from "../common/hybrid-clock.ts";
import { type Ballot, type Incarnation, maxTimestamp, timestampIn } from "../common/ballot.ts";
import type { Clock } from "../common/clock.ts";
import { RingsteadError } from "../common/errors.ts";
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
import { admitToContainer } from "./core/row-admission.ts";
import type { BodyReference, DeviceEngine, Mutation, NewBody } from "./engine/device-engine.ts";
import { RowSpace } from "./row-space.ts";
import { CEILING_KEY, registerKey } from "./store/keys.ts";
import { decodeRegister, encodeRegister } from "./store/register-format.ts";
import {
  type AcceptReply,
  decodeContainerRecord,
  type Fate,
  type ListQuery,
  type ListReply,
  type Name,
  type PrepareReply,
  type Proposal,
  type Row,
  type RowReply,
} from "./wire.ts";

/** The ceiling of promises is raised in steps of this much, so that one small record a second covers them all. */
const CEILING_STEP_MS = 1000;
/** A ballot further ahead than this comes from a clock that is wrong. */
const CLOCK_AHEAD_LIMIT_MS = 30_000;
/** Names whose promises and overwritten versions are remembered; dropping one raises the floor. */
const MEMORY_LIMIT = 50_000;
/** Confirmations that wait in memory for an idle moment; they may lag ([A5]), so the oldest is written when there are more. */
const CONFIRMED_LIMIT = 20_000;
const CONFIRM_FLUSH_BATCH = 256;

type Stored = { readonly register: StoredRegister; readonly body: BodyReference };
type Confirmation = { readonly name: Name; readonly version: Ballot; readonly isVoid: boolean };

/**
 * One device's replica of every name on it: the pure decisions of `core/` over the engine.
 *
 * Every answer waits for the sync of what it rests on ([D1]); the decisions themselves are taken at once and in order, since
 * the engine shows applied mutations before they are synced.
 */
export class DeviceReplica {
  readonly engine: DeviceEngine;
  readonly #clock: Clock;
  readonly #rows: RowSpace;
  readonly #memory = new Map<string, VolatileRegister>();
  readonly #confirmed = new Map<string, Confirmation>();
  #floor: HybridTimestamp;
  #ceiling: HybridTimestamp;

  constructor(engine: DeviceEngine, clock: Clock, seeds: readonly [bigint, bigint]) {
    this.engine = engine;
    this.#clock = clock;
    this.#rows = new RowSpace(engine, seeds);
    const ceiling = engine.get(CEILING_KEY);
    this.#ceiling =
      ceiling === undefined ? TIMESTAMP_ZERO : (Buffer.from(ceiling.value).toString("latin1") as HybridTimestamp);
    this.#floor = this.#ceiling;
  }

  async accept(
    name: Name,
    version: Ballot,
    ballot: Ballot,
    proposal: Proposal,
    body: NewBody,
    own: readonly Ballot[],
  ): Promise<AcceptReply> {
    this.#checkClock(ballot);
    const key = registerKey(name);
    const id = key.toString("latin1");
    const stored = this.#stored(key, id);
    const memory = this.#memory.get(id);
    const record = {
      ...proposal,
      body: proposal.body === "none" || proposal.body === "keep" ? proposal.body : ("given" as const),
    };
    const decision = decideAccept(stored?.register, memory, this.#floor, version, ballot, record);
    switch (decision.kind) {
      case "refused":
        await this.engine.durable(key);
        return { kind: "refused", seen: decision.seen, floor: this.#floor, fates: this.#fates(id, key, own) };
      case "nodata":
        return { kind: "nodata" };
      case "repeated":
        await this.engine.durable(key);
        return { kind: "accepted", liveRow: await this.#liveRow(name) };
      case "store":
        break;
    }
    if (stored !== undefined && stored.register.version !== version) this.#rememberOverwritten(id, stored.register);
    const remembered = this.#memory.get(id);
    if (remembered !== undefined) remembered.promise = undefined;
    this.#confirmed.delete(id);
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
    return { kind: "accepted", liveRow: name.space === "container" ? await this.#liveRow(name) : undefined };
  }

  async prepare(name: Name, ballot: Ballot, own: readonly Ballot[]): Promise<PrepareReply> {
    this.#checkClock(ballot);
    const key = registerKey(name);
    const id = key.toString("latin1");
    const stored = this.#stored(key, id);
    const decision = decidePrepare(stored?.register, this.#memory.get(id), this.#floor, ballot);
    const fates = this.#fates(id, key, own);
    if (decision.kind === "refused") {
      await this.engine.durable(key);
      return { kind: "refused", seen: decision.seen, floor: this.#floor, fates };
    }
    this.#remember(id).promise = ballot;
    const raise = this.#raiseCeiling(ballot);
    if (raise !== undefined) await this.engine.apply([raise]);
    await this.engine.durable(CEILING_KEY);
    await this.engine.durable(key);
    return { kind: "promised", register: stored?.register, fates, liveRow: await this.#liveRow(name) };
  }

  /** The register and where its body lies, after its sync. */
  async read(name: Name): Promise<Stored | undefined> {
    const key = registerKey(name);
    const stored = this.#stored(key, key.toString("latin1"));
    const durable = this.engine.durable(key);
    if (durable !== undefined) await durable;
    return stored;
  }

  confirm(name: Name, version: Ballot, isVoid: boolean): void {
    const key = registerKey(name);
    const id = key.toString("latin1");
    const changed = decideConfirm(this.#stored(key, id)?.register, this.#memory.get(id), version, isVoid);
    if (changed === undefined) return;
    this.#confirmed.set(id, { name, version, isVoid });
  }

  /** Writes some of the waiting confirmations; called when the device is idle, or when there are too many. */
  flushConfirmations(isIdle: boolean): void {
    const excess = this.#confirmed.size - CONFIRMED_LIMIT;
    let count = isIdle ? CONFIRM_FLUSH_BATCH : Math.min(Math.max(0, excess), 4 * CONFIRM_FLUSH_BATCH);
    if (this.engine.state().kind !== "serving") return;
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

  async row(owner: Name, incarnation: Incarnation, row: Row): Promise<RowReply> {
    if (owner.space === "container") {
      const admitted = await this.#admit(owner, incarnation);
      if (admitted !== "open") return { kind: admitted };
    }
    return this.#rows.put(owner, row);
  }

  async list(
    owner: Name,
    incarnation: Incarnation,
    query: ListQuery,
  ): Promise<{ reply: Exclude<ListReply, { kind: "rows" }> | undefined; body: Buffer }> {
    if (owner.space === "container") {
      const admitted = await this.#admit(owner, incarnation);
      if (admitted !== "open" && admitted !== "closing") return { reply: { kind: admitted }, body: Buffer.alloc(0) };
    }
    return { reply: undefined, body: await this.#rows.list(owner, query) };
  }

  summary(owner: Name): ReturnType<RowSpace["summary"]> {
    return this.#rows.summary(owner);
  }

  async #admit(owner: Name, incarnation: Incarnation): Promise<"open" | "closing" | "moved" | "behind"> {
    const key = registerKey(owner);
    const entry = this.engine.get(key);
    const durable = this.engine.durable(key);
    if (durable !== undefined) await durable;
    if (entry === undefined) return admitToContainer(undefined, incarnation);
    const register = decodeRegister(entry.value);
    return admitToContainer(
      { record: decodeContainerRecord(register.metadata), isTombstone: register.isTombstone },
      incarnation,
    );
  }

  async #liveRow(name: Name): Promise<Row | undefined> {
    return name.space === "container" ? this.#rows.firstLive(name) : undefined;
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

  #fates(id: string, key: Uint8Array, versions: readonly Ballot[]): Fate[] {
    const stored = this.#stored(key, id)?.register;
    return versions.map((version) => fateOf(stored, this.#memory.get(id), this.#floor, version));
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

  #rememberOverwritten(id: string, stored: StoredRegister): void {
    rememberOverwritten(this.#remember(id), stored);
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
    if (timestamp <= this.#ceiling) return undefined;
    this.#ceiling = timestampAfter(timestamp, CEILING_STEP_MS);
    return { kind: "put", key: CEILING_KEY, value: Buffer.from(this.#ceiling, "latin1"), body: { kind: "none" } };
  }

  #checkClock(ballot: Ballot): void {
    const aheadMs = millisecondsOf(timestampIn(ballot)) - this.#clock.nowMs();
    if (aheadMs > CLOCK_AHEAD_LIMIT_MS) {
      throw new RingsteadError("clock-ahead", "the sender's clock is too far ahead of this node's", { aheadMs });
    }
  }
}
