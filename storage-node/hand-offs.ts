import type { Ballot, Incarnation } from "../common/ballot.ts";
import { timestampIn } from "../common/ballot.ts";
import type { Clock } from "../common/clock.ts";
import { RingsteadError } from "../common/errors.ts";
import { millisecondsOf } from "../common/hybrid-clock.ts";
import { isNewsToKeeper } from "./core/hand-off.ts";
import type { BodyReference, DeviceEngine, NewBody, ScannedEntry, ScanRange } from "./engine/device-engine.ts";
import { KEPT_KEYS, keptRegisterKey, keptRowKey } from "./store/kept-keys.ts";
import { decodeRegister, encodeRegister } from "./store/register-format.ts";
import { decodeRowValue, encodeRowValue, type ListQuery, type Name, type Register, type Row } from "./wire.ts";

/** A ballot further ahead than this comes from a clock that is wrong. */
const CLOCK_AHEAD_LIMIT_MS = 30_000;
const DELETED = 1;
/**
 * Left for what the device keeps as a member: more than any segment of the log, so that nothing is kept for others where the device would get no further one for what
 * grows.
 */
const RESERVE_BYTES = 1024 * 1024 * 1024;
/** Entries that are counted at once. */
const COUNT_PAGE = 1000;

/** The ballot that is kept now, and whether that is what was given: else its body was not needed. */
type Kept = { readonly ballot: Ballot; readonly isStored: boolean };

export type KeptRegister = { readonly register: Register; readonly body: BodyReference };

/** A kept row's value (FORMAT.md). */
const encodeKeptRow = (row: Row): Buffer =>
  Buffer.concat([Buffer.of(row.isDeleted ? DELETED : 0), encodeRowValue(row)]);

export const decodeKeptRow = (rowName: string, value: Uint8Array): Row =>
  decodeRowValue(rowName, value[0] === DELETED, value.subarray(1));

/**
 * What one device keeps for absent members of partitions that others keep: the newest version of each name and row, under keys of its own, durable as everything else
 * (`proxy/core/hand-off-keep.ts` has the rules, `daemons/hand-off-sender.ts` sends it on).
 */
export class HandOffs {
  readonly #engine: DeviceEngine;
  readonly #clock: Clock;
  #left = 0;

  constructor(engine: DeviceEngine, clock: Clock) {
    this.#engine = engine;
    this.#clock = clock;
  }

  /** Registers and rows that are kept, those from before the start once they were counted. */
  get left(): number {
    return this.#left;
  }

  /** Counts what was kept before the start. To be called once, before anything is kept. */
  async count(): Promise<void> {
    for (let from: Uint8Array = KEPT_KEYS.gte; ; ) {
      const page = await this.page(from, COUNT_PAGE);
      this.#left += page.length;
      const last = page.at(-1)?.key;
      if (last === undefined || page.length < COUNT_PAGE) return;
      from = Buffer.concat([last, Buffer.of(0)]);
    }
  }

  /**
   * Keeps a version unless a higher ballot is kept: that one is for its writer to go above ([H2]). Resolves when what is kept is durable.
   * @param body undefined where the writer says that it lies here already
   * Errors: "body-gone" where it does not, "clock-ahead", "device-full", the engine's.
   */
  async keep(name: Name, register: Register, body: NewBody | undefined): Promise<Kept> {
    this.#checkClock(register.ballot);
    const key = keptRegisterKey(name);
    const kept = this.#engine.get(key);
    const held = kept === undefined ? undefined : decodeRegister(kept.value);
    if (held !== undefined && !isNewsToKeeper(held.ballot, register.ballot)) {
      await this.#engine.durable(key);
      return { ballot: held.ballot, isStored: false };
    }
    const isHere = held !== undefined && !held.isTombstone && held.bodyVersion === register.bodyVersion;
    if (body === undefined && !isHere) throw new RingsteadError("body-gone", "the body is not kept here");
    this.#requireRoom(body?.kind === "bytes" ? body.bytes.length : 0);
    const given: NewBody = body ?? { kind: "keep" };
    const applied = this.#engine.apply([{ kind: "put", key, value: encodeRegister(register), body: given }]);
    if (held === undefined) this.#left += 1;
    await applied;
    return { ballot: register.ballot, isStored: true };
  }

  /** The same of a row; resolves when that version, or a later one, is durable. A later one is as good: the object's own version decides. */
  async keepRow(owner: Name, incarnation: Incarnation, row: Row): Promise<void> {
    this.#checkClock(row.version);
    const key = keptRowKey(owner, incarnation, row.name);
    const kept = this.#engine.get(key);
    const version = kept === undefined ? undefined : decodeKeptRow(row.name, kept.value).version;
    if (isNewsToKeeper(version, row.version)) {
      this.#requireRoom(0);
      const applied = this.#engine.apply([{ kind: "put", key, value: encodeKeptRow(row), body: { kind: "none" } }]);
      if (version === undefined) this.#left += 1;
      return applied;
    }
    await this.#engine.durable(key);
  }

  /** What is kept of a name, after its sync. */
  async find(name: Name): Promise<KeptRegister | undefined> {
    const key = keptRegisterKey(name);
    const entry = this.#engine.get(key);
    await this.#engine.durable(key);
    return entry === undefined ? undefined : { register: decodeRegister(entry.value), body: entry.body };
  }

  /** Kept rows of one page of a listing, deleted ones too, after their sync. */
  async rows(owner: Name, incarnation: Incarnation, query: ListQuery): Promise<readonly Row[]> {
    const start = keptRowKey(owner, incarnation, "");
    const range = rangeOf(start, query);
    if (range === undefined) return [];
    const found = await this.#engine.scan(range);
    await this.#engine.sync();
    return found.map(({ key, value }) => decodeKeptRow(Buffer.from(key).toString("utf8", start.length), value));
  }

  /** Some of what is kept, from a key on. */
  page(from: Uint8Array | undefined, limit: number): Promise<readonly ScannedEntry[]> {
    return this.#engine.scan({ gte: from ?? KEPT_KEYS.gte, lt: KEPT_KEYS.lt, limit });
  }

  /** The body beside a kept register, as it is now. */
  bodyAt(key: Uint8Array): BodyReference | undefined {
    return this.#engine.get(key)?.body;
  }

  /** Drops an entry if it still is the one that was sent on: a later one stays. Requires: [H6]. */
  async drop(key: Uint8Array, value: Uint8Array): Promise<void> {
    const entry = this.#engine.get(key);
    if (entry === undefined || Buffer.compare(entry.value, value) !== 0) return;
    this.#left -= 1;
    await this.#engine.apply([{ kind: "delete", key }]);
  }

  /** What is kept for others leaves room for what the device keeps as a member. Errors (thrown): "device-full". */
  #requireRoom(bytes: number): void {
    this.#engine.requireRoom(bytes + RESERVE_BYTES);
  }

  #checkClock(ballot: Ballot): void {
    const aheadMs = millisecondsOf(timestampIn(ballot)) - this.#clock.nowMs();
    if (aheadMs > CLOCK_AHEAD_LIMIT_MS)
      throw new RingsteadError("clock-ahead", "the sender's clock is too far ahead of this node's", { aheadMs });
  }
}

/** Behind all names that begin with `prefix`, as bytes; undefined where there is none. */
const behind = (prefix: Buffer): Buffer | undefined => {
  let last = prefix.length - 1;
  while (last >= 0 && prefix[last] === 0xff) last -= 1;
  if (last < 0) return undefined;
  const end = Buffer.from(prefix.subarray(0, last + 1));
  end[last] = (end[last] ?? 0) + 1;
  return end;
};

/** The keys of a page behind `start`, the owner's first; undefined where no name can be in it. */
const rangeOf = (start: Buffer, query: ListQuery): ScanRange | undefined => {
  const after = query.isReverse ? query.endMarker : query.marker;
  const before = query.isReverse ? query.marker : query.endMarker;
  const prefix = Buffer.concat([start, Buffer.from(query.prefix)]);
  let gte = prefix;
  if (after !== "") {
    const from = Buffer.concat([start, Buffer.from(`${after}\0`)]);
    if (Buffer.compare(from, gte) > 0) gte = from;
  }
  let lt = behind(prefix) ?? KEPT_KEYS.lt;
  if (before !== "") {
    const to = Buffer.concat([start, Buffer.from(before)]);
    if (Buffer.compare(to, lt) < 0) lt = to;
  }
  return Buffer.compare(gte, lt) < 0 && query.limit > 0
    ? { gte, lt, limit: query.limit, reverse: query.isReverse }
    : undefined;
};
