import { codeOf, RingsteadError } from "../../common/errors.ts";
import { type EntryStamp, laterThere, settledThere } from "../core/repair.ts";
import type { DeviceReplica, PulledRegister } from "../device-replica.ts";
import type { NewBody } from "../engine/device-engine.ts";
import type { PartitionPlace } from "../wire.ts";
import { nameOfRegisterKey, rowPlaceOf } from "../store/keys.ts";
import { decodeRegister } from "../store/register-format.ts";
import { decodeRowValue, type Name, type Register, type Row, TRANSFER_BLOCK_BYTES } from "../wire.ts";
import type { CarriedEntries, CarriedEntry } from "./carried-entries.ts";
import { stampOf } from "./entry-list.ts";
import type { RepairSource } from "./repair-peer.ts";
import {
  bucketSums,
  ENTRIES_LIMIT,
  FETCH_LIMIT,
  type KeyRange,
  partitionSum,
  rangeOfPartition,
  rangesThatDiffer,
  scanSpace,
} from "./repair-source.ts";

/** How fast a repair may go. */
export type Pace = {
  /** Entries that one message may ask for just now: what is done with one page is done in one go. */
  readonly pageEntries: number;
  /** Resolves when the next page, or piece of a large body, may be pulled. Errors: the signal's reason. */
  admit(signal: AbortSignal): Promise<void>;
  /** Resolves when everybody who waits for this process had his turn. */
  turn(): Promise<void>;
  /** So many entries and bytes were pulled: the next ones wait for it. */
  account(operations: number, bytes: number): void;
};

/** As fast as it goes. */
export const UNPACED: Pace = { pageEntries: FETCH_LIMIT, admit: async () => {}, turn: async () => {}, account() {} };

export type RepairParts = {
  readonly replica: DeviceReplica;
  readonly place: PartitionPlace;
  /** What this device knew of the partition when the peer was asked what it has. */
  readonly epoch: number;
  readonly peer: RepairSource;
  /** It said then that it votes there, in that epoch. */
  readonly isPeerVoting: boolean;
  /** How many entries it said that it has there. */
  readonly thereEntries: number;
  readonly pace: Pace;
  /** Entries whose stamp is later than this are still on their way to all replicas. */
  readonly isYoung: (stamp: string) => boolean;
  readonly signal: AbortSignal;
  /** Told of the entries and bytes that are here since the last time. */
  readonly onProgress: (entries: number, bytes: number) => void;
};

/** Entries that are looked at in one turn: some milliseconds where the index has to read them. A page in one go held up everybody for 70 ms and more. */
const TURN_ENTRIES = 64;
/** Commits of the engine have at most 4 MiB, all in. */
const COMMIT_BYTES = 2 * 1024 * 1024;

/**
 * Brings one partition of a device up to what a peer has of it. Where nothing is here, everything is pulled. Else the sums of buckets are
 * compared, then the entries of those that differ, and what is later there is pulled. What this device has and the peer lacks is the
 * peer's to pull.
 *
 *     nothing here ─────────────────────────────────────────────▶ pull, page by page ──▶ install
 *     sums of buckets ──differ──▶ entries, page by page ──later there──▶ fetch ──────────┘
 *
 * A page is one message, 512 entries or 2 MiB, and is installed in one commit. An object of 4 KiB takes some 80 µs on both sides
 * together, a row 25 (`bench/repair.ts`).
 */
export class PartitionRepair {
  readonly #parts: RepairParts;
  readonly #replica: DeviceReplica;
  readonly #place: PartitionPlace;
  readonly #removals: number;
  #isWhole = true;

  constructor(parts: RepairParts) {
    this.#parts = parts;
    this.#replica = parts.replica;
    this.#place = parts.place;
    this.#removals = parts.replica.deletions.removalsIn(parts.place);
  }

  /** Whether what the peer gave is from one who votes, as far as anybody knows here ([E6]): it may have been killed, and lost something, since it was asked first. */
  #isOfVoter({ isOfVoter }: CarriedEntries): boolean {
    const { epoch, isPeerVoting } = this.#parts;
    if (!isPeerVoting) return false;
    const isSo = isOfVoter && this.#replica.epochs.configurationOf(this.#place).epoch === epoch;
    if (!isSo) this.#isWhole = false;
    return isSo;
  }

  /** [E3]: what a peer answered before something was removed here may bring that back. Errors (thrown): "reclaimed-meanwhile"; the next round asks anew. */
  #checkRemovals(): void {
    if (this.#replica.deletions.removalsIn(this.#place) === this.#removals) return;
    throw new RingsteadError("reclaimed-meanwhile", "deletions were removed here since the peer was asked");
  }

  /**
   * Resolves when what was pulled is synced: whether nothing is missing that could be had from this peer. Errors: those of the peer and
   * of the device.
   */
  async run(): Promise<boolean> {
    const isVoting = this.#replica.votes.votesIn(this.#place.space, hash32Of(this.#place));
    // A voter lets young entries arrive by themselves, so it has to look at what it asks for.
    if (!isVoting && partitionSum(this.#replica.engine, this.#place).entries === 0) {
      await this.#pullAll(rangeOfPartition(this.#place));
      return this.#isWhole;
    }
    const there = await this.#parts.peer.buckets(this.#place);
    const here = bucketSums(this.#replica.engine, this.#place);
    const ranges = rangesThatDiffer(this.#place, here, [there]);
    const [first, last] = [ranges[0], ranges.at(-1)];
    // Of a partition that fits into a page one page is cheaper than several.
    if (first !== undefined && last !== undefined && this.#parts.thereEntries <= ENTRIES_LIMIT)
      await this.#pullRange({ gte: first.gte, lt: last.lt });
    else for (const range of ranges) await this.#pullRange(range);
    return this.#isWhole;
  }

  /** Everything, page by page. */
  async #pullAll({ gte, lt }: KeyRange): Promise<void> {
    for (let from = gte; ; ) {
      await this.#parts.pace.admit(this.#parts.signal);
      const page = await this.#parts.peer.pull(this.#place.space, { gte: from, lt }, this.#parts.pace.pageEntries);
      await this.#install(page);
      if (page.next === undefined || Buffer.compare(page.next, from) <= 0) return;
      from = page.next;
    }
  }

  async #pullRange({ gte, lt }: KeyRange): Promise<void> {
    const { space } = this.#place;
    for (let from = gte; ; ) {
      this.#parts.signal.throwIfAborted();
      const page = await this.#parts.peer.entries(space, from, lt);
      const to = page.next ?? lt;
      const here = [];
      for (let at: Uint8Array | undefined = from; at !== undefined && Buffer.compare(at, to) < 0; ) {
        const own = await scanSpace(this.#replica.engine, space, { gte: at, lt: to });
        for (const { key, value } of own.entries) {
          here.push(stampOf(key, value));
          if (here.length % TURN_ENTRIES === 0) await this.#parts.pace.turn();
        }
        at = own.next;
      }
      const there = page.entries.filter(({ stamp }) => !this.#parts.isYoung(stamp));
      await this.#pullLater(laterThere(here, there), there);
      if (page.next === undefined || Buffer.compare(page.next, from) <= 0) return;
      from = page.next;
    }
  }

  /**
   * Those of some keys that are later there than what is here with all confirmations that wait to be written. A body that is here does not come again: after a
   * kill all that was confirmed in the last seconds lacks no more than that, and what was accepted once more under a later ballot is the same body, too.
   */
  async #pullLater(keys: readonly string[], there: readonly EntryStamp[]): Promise<void> {
    const asked = new Set(keys);
    const here: EntryStamp[] = [];
    const withBody = new Set<string>();
    for (const [index, key] of keys.entries()) {
      if (index > 0 && index % TURN_ENTRIES === 0) await this.#parts.pace.turn();
      const bytes = Buffer.from(key, "latin1");
      const entry = this.#replica.entry(bytes);
      if (entry === undefined) continue;
      here.push(stampOf(bytes, entry.value));
      if (entry.body.kind !== "none") withBody.add(key);
    }
    const later = laterThere(
      here,
      there.filter(({ key }) => asked.has(key)),
    );
    const settled = settledThere(later, here, there);
    const isBare = (key: string): boolean => settled.has(key) || withBody.has(key);
    const lacking = await this.#pullBare(later.filter(isBare).map(bytesOf));
    for await (const carried of this.#fetched(
      later.filter((key) => !isBare(key) || lacking.has(key)).map(bytesOf),
      false,
    ))
      await this.#install(carried);
  }

  /** What the peer gives of some keys, page by page. */
  async *#fetched(keys: readonly Buffer[], isBare: boolean): AsyncGenerator<CarriedEntries> {
    for (let at = 0; at < keys.length; ) {
      await this.#parts.pace.admit(this.#parts.signal);
      const asked = keys.slice(at, at + this.#parts.pace.pageEntries);
      const carried = await this.#parts.peer.fetch(asked, isBare);
      // Those behind the last one given were too many for one answer; those between are gone there.
      const last = carried.entries.at(-1)?.key;
      const reached = last === undefined ? asked.length : asked.findIndex((key) => key.equals(last)) + 1;
      if (reached === 0) throw new RingsteadError("bad-message", "an entry that was not asked for");
      at += reached;
      yield carried;
    }
  }

  /** Takes what can be had of some keys without a body, and gives those of which another one is to come. */
  async #pullBare(keys: readonly Buffer[]): Promise<ReadonlySet<string>> {
    const lacking = new Set<string>();
    for await (const carried of this.#fetched(keys, true))
      for (const key of await this.#installBare(carried)) lacking.add(key);
    return lacking;
  }

  /**
   * Resolves when all is synced that can be had without a body, with the keys of the others. All are weighed in the turn in which they are installed, so
   * that none is another one by then.
   */
  async #installBare(carried: CarriedEntries): Promise<readonly string[]> {
    const isOfVoter = this.#isOfVoter(carried);
    const lacking: string[] = [];
    const taken: PulledRegister[] = [];
    let bytes = 0;
    for (const { bodyLength, key, value } of carried.entries) {
      const name = nameOfRegisterKey(key);
      if (name?.space !== this.#place.space) throw new RingsteadError("bad-message", "an entry of another ring");
      const register = decodeRegister(value);
      const wish = this.#replica.weighs(name, register, isOfVoter);
      if (wish === "skip") continue;
      if (wish === "install" && (bodyLength > 0 || register.bodyLength > 0)) lacking.push(latin1Of(key));
      else {
        taken.push({ name, register, body: { kind: "none" } });
        bytes += value.length;
      }
    }
    if (taken.length === 0) return lacking;
    this.#checkRemovals();
    const { length } = await this.#replica.install(taken, isOfVoter);
    this.#parts.onProgress(length, bytes);
    this.#parts.pace.account(taken.length, bytes);
    return lacking;
  }

  /** Resolves when those that are later than what is here are synced. */
  async #install(carried: CarriedEntries): Promise<void> {
    const commit = new Pulled(this.#isOfVoter(carried));
    let before: Uint8Array | undefined;
    for (const entry of carried.entries) {
      // Nothing may come twice in one commit.
      if (before !== undefined && Buffer.compare(before, entry.key) >= 0)
        throw new RingsteadError("bad-message", "entries that are not in order");
      before = entry.key;
      const row = rowPlaceOf(entry.key, this.#place.space);
      if (row !== undefined)
        commit.addRow(row.owner, decodeRowValue(row.name, row.isDeleted, entry.value), entry.value.length);
      else await this.#addRegister(commit, entry);
      if (commit.bytes >= COMMIT_BYTES) await this.#commit(commit);
    }
    await this.#commit(commit);
  }

  async #addRegister(commit: Pulled, entry: CarriedEntry): Promise<void> {
    const name = nameOfRegisterKey(entry.key);
    if (name?.space !== this.#place.space) throw new RingsteadError("bad-message", "an entry of another ring");
    const register = decodeRegister(entry.value);
    if (entry.isBodyHere && entry.bodyLength === register.bodyLength) {
      const body: NewBody = entry.bodyLength === 0 ? { kind: "none" } : { kind: "bytes", bytes: entry.body };
      commit.addRegister({ name, register, body }, entry.value.length + entry.bodyLength);
      return;
    }
    const { isOfVoter } = commit;
    const wish = this.#replica.weighs(name, register, isOfVoter);
    if (wish === "skip") return;
    if (wish !== "install" || register.isTombstone) {
      // In the turn in which it was found that no body is wanted.
      this.#checkRemovals();
      const { length } = await this.#replica.install([{ name, register, body: { kind: "none" } }], isOfVoter);
      this.#parts.onProgress(length, entry.value.length * length);
      return;
    }
    const staged = await this.#stage(name, register, entry.bodyLength);
    // It is damaged there, or gone: another replica has it, or the next round does.
    if (staged === undefined) this.#isWhole = false;
    else await this.#commitStaged({ name, register, body: staged.body }, isOfVoter, entry.value.length, staged.abandon);
  }

  async #commitStaged(
    pulled: PulledRegister,
    isOfVoter: boolean,
    valueBytes: number,
    abandon: () => Promise<void>,
  ): Promise<void> {
    let isTaken = false;
    try {
      this.#checkRemovals();
      isTaken = (await this.#replica.install([pulled], isOfVoter)).length > 0;
    } finally {
      if (!isTaken) await abandon();
    }
    if (isTaken) this.#parts.onProgress(1, valueBytes);
  }

  async #commit(pulled: Pulled): Promise<void> {
    const { isOfVoter } = pulled;
    const { registers, rows, entries, bytes } = pulled.take();
    if (entries === 0) return;
    this.#checkRemovals();
    const installs = [...rows].map(([owner, some]) =>
      this.#replica.installRows(owner, some, () => this.#checkRemovals(), isOfVoter),
    );
    const [installed] = await Promise.all([this.#replica.install(registers, isOfVoter), ...installs]);
    this.#parts.onProgress(entries - registers.length + installed.length, bytes);
    this.#parts.pace.account(entries, bytes);
  }

  /** A large body, in pieces, into a file of its own; undefined where this peer does not have it. */
  async #stage(name: Name, register: Register, length: number): Promise<StagedPull | undefined> {
    if (length !== register.bodyLength) return undefined;
    const staged = await this.#replica.engine.stage();
    const pieceAt = (offset: number): Promise<Uint8Array> => {
      const piece = this.#parts.peer.readBody(
        name,
        register.bodyVersion,
        offset,
        Math.min(TRANSFER_BLOCK_BYTES, length - offset),
      );
      // Its failure shows when it is waited for, if it is.
      piece.catch(() => {});
      return piece;
    };
    try {
      let next = pieceAt(0);
      for (let offset = 0; offset < length; ) {
        await this.#parts.pace.admit(this.#parts.signal);
        const piece = await next;
        if (piece.length === 0) throw new RingsteadError("body-damaged", "a body came in another length");
        offset += piece.length;
        // The next piece is read while this one is written.
        if (offset < length) next = pieceAt(offset);
        await staged.write(piece);
        this.#parts.onProgress(0, piece.length);
        this.#parts.pace.account(0, piece.length);
      }
      const sealed = await staged.seal();
      if (sealed !== length) throw new RingsteadError("body-damaged", "a body came in another length");
      return { body: { kind: "staged", file: staged.file, length }, abandon: () => staged.abandon() };
    } catch (error) {
      await staged.abandon();
      if (codeOf(error) === "body-damaged" || codeOf(error) === "body-gone") return undefined;
      throw error;
    }
  }
}

/** A large body as it is to be committed; `abandon` where it is not after all. */
type StagedPull = { readonly body: NewBody; readonly abandon: () => Promise<void> };

const bytesOf = (key: string): Buffer => Buffer.from(key, "latin1");
const latin1Of = (key: Uint8Array): string => Buffer.from(key.buffer, key.byteOffset, key.length).toString("latin1");

/** The first 32 bits of the partition's keys. */
const hash32Of = ({ partition, partitionPower }: PartitionPlace): number => partition * 2 ** (32 - partitionPower);

/** What is to be committed next. */
class Pulled {
  readonly isOfVoter: boolean;
  #registers: PulledRegister[] = [];
  #rows = new Map<Name, Row[]>();
  #owner: Name | undefined;
  #entries = 0;
  bytes = 0;

  constructor(isOfVoter: boolean) {
    this.isOfVoter = isOfVoter;
  }

  addRegister(register: PulledRegister, bytes: number): void {
    this.#registers.push(register);
    this.#entries += 1;
    this.bytes += bytes;
  }

  /** Those of one owner follow one another. */
  addRow(owner: Name, row: Row, bytes: number): void {
    if (this.#owner?.path !== owner.path || this.#owner.hash32 !== owner.hash32) this.#owner = owner;
    const rows = this.#rows.get(this.#owner);
    if (rows === undefined) this.#rows.set(this.#owner, [row]);
    else rows.push(row);
    this.#entries += 1;
    this.bytes += bytes;
  }

  /** Hands all of it over. */
  take(): {
    readonly registers: readonly PulledRegister[];
    readonly rows: ReadonlyMap<Name, readonly Row[]>;
    readonly entries: number;
    readonly bytes: number;
  } {
    const taken = { registers: this.#registers, rows: this.#rows, entries: this.#entries, bytes: this.bytes };
    this.#registers = [];
    this.#rows = new Map();
    this.#entries = 0;
    this.bytes = 0;
    return taken;
  }
}
