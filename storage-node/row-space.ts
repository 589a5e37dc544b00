import { RingsteadError, codeOf } from "../common/errors.ts";
import { type Ballot, maxTimestamp, timestampIn } from "../common/ballot.ts";
import { xxh64OfString } from "../common/hash.ts";
import { type HybridTimestamp, TIMESTAMP_ZERO } from "../common/hybrid-clock.ts";
import { decideRow } from "./core/row-admission.ts";
import type { DeviceEngine, Mutation, ScanRange, ScannedEntry } from "./engine/device-engine.ts";
import { COUNTERS_BYTES, type Counters, decodeCounters, encodeCounters, noCounters } from "./store/counters-format.ts";
import { PAGE_ROWS, RowPages, type RowRun } from "./row-pages.ts";
import { countersKey, rowKey, rowNameOffset, rowPrefixEnd } from "./store/keys.ts";
import {
  decodeRowValue,
  encodeRowValue,
  type ListQuery,
  type Name,
  type PartitionPlace,
  PACKED_ROW_OVERHEAD_BYTES,
  packRows,
  type Row,
  type RowReply,
  type RowSummary,
} from "./wire.ts";

/** Pages of a listing with more live rows than that would push each other out, so it is read as it is asked for. */
const PAGED_ROWS_LIMIT = 30_000;
/** Row spaces whose statistics stay in memory; a colder one is read again from its record. */
const CACHED_COUNTERS_LIMIT = 20_000;
/** Rows of one commit, about; the last one may be of 64 KiB more. */
const COMMIT_BYTES = 512 * 1024;
/** What a row takes in a commit beside name and payload, about. */
const ROW_OVERHEAD_BYTES = 256;
const MASK_64 = (1n << 64n) - 1n;

/** A row space's counters with what its commits need of them; one of each as long as they are cached. */
type Statistics = {
  readonly owner: Name;
  readonly key: Uint8Array;
  readonly counters: Counters;
  readonly value: () => Uint8Array;
};

/** The listings of one device: rows of containers and accounts with their statistics, in the engine's log like everything else. */
export class RowSpace {
  readonly #engine: DeviceEngine;
  readonly #seeds: readonly [bigint, bigint];
  readonly #statistics = new Map<string, Statistics>();
  readonly #pages = new RowPages();

  constructor(engine: DeviceEngine, seeds: readonly [bigint, bigint]) {
    this.#engine = engine;
    this.#seeds = seeds;
  }

  /**
   * Stores a row and the statistics it changes in one commit. Resolves after the sync; a refused commit leaves the statistics as they
   * were. The counters' record is written once per batch of the log, however many rows of the batch change it.
   *
   * @param mark [E5]: at or below it a row is taken only where one of its name is held
   */
  async put(owner: Name, row: Row, mark: HybridTimestamp = TIMESTAMP_ZERO): Promise<RowReply> {
    const id = idOf(owner);
    const statistics = this.#statisticsOf(owner, id);
    const { reply, stored, mutations, count } = this.#change(owner, id, statistics.counters, row, mark);
    if (count === undefined) {
      const durable = this.#durable(stored);
      if (durable !== undefined) await durable;
      return reply;
    }
    mutations.push(lateOf(statistics, count));
    await this.#engine.apply(mutations);
    return reply;
  }

  /**
   * Stores rows of one owner, some hundred in a commit; each is decided in the turn in which it is applied. Resolves when all of them
   * are synced. They are another replica's, and come late where this one lacks them.
   *
   * @param mark at or below it deleted ones are about to go there, and are not taken where none of their name is held
   * @param check called in the turn of each commit; what it throws ends it there
   * @param liveMark the same of live ones [E6]; else they are taken however old they are
   */
  async putAll(
    owner: Name,
    rows: readonly Row[],
    mark: HybridTimestamp = TIMESTAMP_ZERO,
    check: () => void = () => {},
    liveMark: HybridTimestamp = TIMESTAMP_ZERO,
  ): Promise<void> {
    const id = idOf(owner);
    for (let at = 0; at < rows.length; ) {
      check();
      const statistics = this.#statisticsOf(owner, id);
      const mutations: Mutation[] = [];
      const counts: (() => void)[] = [];
      let durable: Promise<void> | undefined;
      let bytes = 0;
      // A row is decided by what was there before its commit, so a name comes once in each.
      const names = new Set<string>();
      for (let row = rows[at]; row !== undefined && bytes < COMMIT_BYTES && !names.has(row.name); row = rows[at]) {
        at += 1;
        names.add(row.name);
        bytes += row.payload.length + row.name.length + ROW_OVERHEAD_BYTES;
        const change = this.#change(owner, id, statistics.counters, row, row.isDeleted ? mark : liveMark);
        if (change.count === undefined) durable = this.#durable(change.stored) ?? durable;
        else {
          mutations.push(...change.mutations);
          counts.push(change.count);
        }
      }
      const countAll = (): void => {
        for (const count of counts) count();
      };
      // Commits become durable in their order, and what is here already is earlier than this one.
      if (counts.length > 0) await this.#engine.apply([...mutations, lateOf(statistics, countAll)]);
      else if (durable !== undefined) await durable;
    }
  }

  #durable(keys: readonly Uint8Array[]): Promise<void> | undefined {
    for (const key of keys) {
      const durable = this.#engine.durable(key);
      if (durable !== undefined) return durable;
    }
    return undefined;
  }

  /** What a row changes; `count` undefined where that is nothing, since what lies under the keys `stored` is as late. */
  #change(
    owner: Name,
    id: string,
    counters: Counters,
    row: Row,
    mark: HybridTimestamp,
  ): { reply: RowReply; stored: readonly Uint8Array[]; mutations: Mutation[]; count: (() => void) | undefined } {
    const liveKey = rowKey(owner, row.name, false);
    const deletedKey = row.isDeleted || counters.deletedRows > 0 ? rowKey(owner, row.name, true) : undefined;
    const live = this.#rowAt(liveKey, row.name, false);
    const deleted =
      deletedKey !== undefined && counters.deletedRows > 0 ? this.#rowAt(deletedKey, row.name, true) : undefined;
    const change = decideRow(live, deleted, row, mark);
    const mutations: Mutation[] = [];
    if (!change.stores) {
      const stored = deletedKey === undefined ? [liveKey] : [liveKey, deletedKey];
      return { reply: change.reply, stored, mutations, count: undefined };
    }
    const put = row.isDeleted && deletedKey !== undefined ? deletedKey : liveKey;
    mutations.push({ kind: "put", key: put, value: valueOf(row), body: { kind: "none" } });
    if (row.isDeleted && live !== undefined) mutations.push({ kind: "delete", key: liveKey });
    if (!row.isDeleted && deleted !== undefined && deletedKey !== undefined)
      mutations.push({ kind: "delete", key: deletedKey });
    const count = (): void => {
      this.#pages.touch(id, row.name);
      if (change.removesLive !== undefined) this.#count(counters, change.removesLive, -1);
      if (change.addsLive !== undefined) this.#count(counters, change.addsLive, 1);
      if (row.isDeleted !== (deleted !== undefined)) counters.deletedRows += row.isDeleted ? 1 : -1;
    };
    return { reply: change.reply, stored: [], mutations, count };
  }

  /** The version of the later one of the two rows of a name; undefined where there is none. */
  versionOf(owner: Name, name: string): Ballot | undefined {
    const versions = [false, true].flatMap((isDeleted) => {
      const row = this.#rowAt(rowKey(owner, name, isDeleted), name, isDeleted);
      return row === undefined ? [] : [row.version];
    });
    return versions.toSorted().at(-1);
  }

  /** What takes deleted rows away that are still there in that version: to be applied in this turn. `highest` of their timestamps. */
  removal(rows: readonly { readonly owner: Name; readonly name: string; readonly ballot: Ballot }[]): {
    readonly mutations: readonly Mutation[];
    readonly count: number;
    readonly highest: HybridTimestamp;
  } {
    const deletions: Mutation[] = [];
    const counts = new Map<Statistics, number>();
    let highest = TIMESTAMP_ZERO;
    for (const { ballot, name, owner } of rows) {
      const key = rowKey(owner, name, true);
      if (this.#rowAt(key, name, true)?.version !== ballot) continue;
      const statistics = this.#statisticsOf(owner, idOf(owner));
      counts.set(statistics, (counts.get(statistics) ?? 0) + 1);
      highest = maxTimestamp(highest, timestampIn(ballot));
      deletions.push({ kind: "delete", key });
    }
    const late = [...counts].map(([statistics, count]) =>
      lateOf(statistics, () => (statistics.counters.deletedRows -= count)),
    );
    return { mutations: [...deletions, ...late], count: deletions.length, highest };
  }

  /** What takes rows away, live ones too, that are still there in that version: to be applied in this turn. */
  discard(
    rows: readonly {
      readonly owner: Name;
      readonly name: string;
      readonly isDeleted: boolean;
      readonly version: Ballot;
    }[],
  ): { readonly mutations: readonly Mutation[]; readonly count: number } {
    const deletions: Mutation[] = [];
    const counts = new Map<Statistics, (() => void)[]>();
    for (const { isDeleted, name, owner, version } of rows) {
      const key = rowKey(owner, name, isDeleted);
      const row = this.#rowAt(key, name, isDeleted);
      if (row?.version !== version) continue;
      const id = idOf(owner);
      const statistics = this.#statisticsOf(owner, id);
      deletions.push({ kind: "delete", key });
      const count = (): void => {
        this.#pages.touch(id, name);
        if (isDeleted) statistics.counters.deletedRows -= 1;
        else this.#count(statistics.counters, row, -1);
      };
      counts.set(statistics, [...(counts.get(statistics) ?? []), count]);
    }
    const late = [...counts].map(([statistics, all]) =>
      lateOf(statistics, () => {
        for (const count of all) count();
      }),
    );
    return { mutations: [...deletions, ...late], count: deletions.length };
  }

  /** The first live row, if there is one. */
  async firstLive(owner: Name): Promise<Row | undefined> {
    const range = { gte: rowKey(owner, "", false), lt: rowPrefixEnd(owner, "", false), limit: 1 };
    const page = rowsOf(await this.#engine.scan(range), rowNameOffset(owner), false);
    const first = page[0];
    return first === undefined ? undefined : decodeRowValue(first.name.toString("utf8"), false, first.value);
  }

  summary(owner: Name): RowSummary {
    const { rows, objects, bytes, setHash } = this.#statisticsOf(owner, idOf(owner)).counters;
    return { rows, objects, bytes, setHash: setHash.toString(16) };
  }

  /** One page of rows in packed runs, after everything in it is synced. */
  async list(owner: Name, query: ListQuery): Promise<readonly Buffer[]> {
    if (query.limit > 0 && !query.isReverse && !query.withDeleted && this.#isShort(owner)) {
      const runs = await this.#livePage(owner, query);
      await this.#engine.sync();
      return runs;
    }
    const runs: Buffer[] = [];
    if (query.withDeleted) {
      const rows = merge(await this.#rows(owner, query, false), await this.#rows(owner, query, true), query);
      if (rows.length > 0) runs.push(packRows(rows));
    } else {
      const range = rangeOf(owner, query, false);
      const nameAt = rowNameOffset(owner);
      if (range !== undefined)
        for await (const page of this.#engine.scanPages(range)) runs.push(packRows(rowsOf(page, nameAt, false)));
    }
    await this.#engine.sync();
    return runs;
  }

  /** Statistics that cannot be read are no reason not to list. */
  #isShort(owner: Name): boolean {
    try {
      return this.#statisticsOf(owner, idOf(owner)).counters.rows <= PAGED_ROWS_LIMIT;
    } catch (error) {
      const code = codeOf(error);
      if (code !== "counters-damaged" && code !== "entry-damaged") throw error;
      return false;
    }
  }

  /** The common listing: live rows, forward, out of pages that are kept. */
  #livePage(owner: Name, query: ListQuery): Promise<readonly Buffer[]> {
    const prefix = bytesOf(query.prefix);
    const marker = query.marker === "" ? "" : `${bytesOf(query.marker)}\0`;
    const from = marker > prefix ? marker : prefix;
    const endMarker = query.endMarker === "" ? undefined : bytesOf(query.endMarker);
    const prefixEnd = endOfPrefix(prefix);
    const to = endMarker === undefined || (prefixEnd !== undefined && prefixEnd < endMarker) ? prefixEnd : endMarker;
    const start = rowKey(owner, "", false);
    const keyOf = (name: string): Buffer => Buffer.concat([start, Buffer.from(name, "latin1")]);
    return this.#pages.list(idOf(owner), from, to, query.limit, async (first, end, limit) => {
      const lt = end === undefined ? rowPrefixEnd(owner, "", false) : keyOf(end);
      const entries = await this.#engine.scan({ gte: keyOf(first), lt, limit });
      const runs: RowRun[] = [];
      for (let at = 0; at < entries.length; at += PAGE_ROWS)
        runs.push(runOf(entries.slice(at, at + PAGE_ROWS), start.length));
      return runs;
    });
  }

  async #rows(owner: Name, query: ListQuery, isDeleted: boolean): Promise<PackableRow[]> {
    const range = rangeOf(owner, query, isDeleted);
    return range === undefined ? [] : rowsOf(await this.#engine.scan(range), rowNameOffset(owner), isDeleted);
  }

  /** The name of the live row `skip` rows behind `marker`, "" for the first; undefined where there are not so many. */
  async nameAt(owner: Name, marker: string, skip: number): Promise<string | undefined> {
    const query = { marker, endMarker: "", prefix: "", isReverse: false, limit: skip + 1, withDeleted: false };
    const range = rangeOf(owner, query, false);
    if (range === undefined) return undefined;
    let left = skip;
    for await (const page of this.#engine.scanPages(range)) {
      const entry = page[left];
      if (entry !== undefined) return Buffer.from(entry.key).toString("utf8", rowNameOffset(owner));
      left -= page.length;
    }
    return undefined;
  }

  /** Removes up to `limit` rows of a row space that nobody lists any more, in the end its statistics. Resolves after the sync, with how many rows went. */
  async drop(owner: Name, limit: number): Promise<number> {
    const id = idOf(owner);
    const mutations: Mutation[] = [];
    for (const isDeleted of [false, true]) {
      const left = limit - mutations.length;
      if (left === 0) break;
      const range = { gte: rowKey(owner, "", isDeleted), lt: rowPrefixEnd(owner, "", isDeleted), limit: left };
      for (const { key } of await this.#engine.scan(range)) mutations.push({ kind: "delete", key });
    }
    const count = mutations.length;
    const key = countersKey(owner);
    if (count < limit && this.#engine.get(key) !== undefined) mutations.push({ kind: "delete", key });
    this.#statistics.delete(id);
    this.#pages.forget(id);
    if (mutations.length > 0) await this.#engine.apply(mutations);
    return count;
  }

  /** Removes up to `limit` live rows, if `isAllowed` says so in the turn in which they go. Resolves after the sync, with how many went. */
  async dropLive(owner: Name, limit: number, isAllowed: () => boolean): Promise<number> {
    const range = { gte: rowKey(owner, "", false), lt: rowPrefixEnd(owner, "", false), limit };
    const page = rowsOf(await this.#engine.scan(range), rowNameOffset(owner), false);
    const doomed = page.map(({ name: bytes, value }) => {
      const name = bytes.toString("utf8");
      return { owner, name, isDeleted: false, version: decodeRowValue(name, false, value).version };
    });
    const { count, mutations } = this.discard(doomed);
    if (count === 0 || !isAllowed()) return 0;
    await this.#engine.apply(mutations);
    return count;
  }

  /** Those whose statistics are in memory. */
  *counted(): Generator<{ readonly owner: Name; readonly rows: number }> {
    for (const { counters, owner } of this.#statistics.values()) yield { owner, rows: counters.rows };
  }

  /** The rows of a partition went in another way, and nobody wrote any meanwhile: what is remembered of them is read again. */
  forget({ partition, partitionPower, space }: PartitionPlace): void {
    for (const [id, { key }] of this.#statistics) {
      const hash32 = Buffer.from(key.buffer, key.byteOffset, key.length).readUInt32BE(0);
      if (hash32 >>> (32 - partitionPower) !== partition || !id.startsWith(`${space} `)) continue;
      this.#statistics.delete(id);
      this.#pages.forget(id);
    }
  }

  #rowAt(key: Uint8Array, name: string, isDeleted: boolean): Row | undefined {
    const entry = this.#engine.get(key);
    return entry === undefined ? undefined : decodeRowValue(name, isDeleted, entry.value);
  }

  /** Errors (thrown): "counters-damaged" for a record that cannot be understood; counting on from nothing would hide it. */
  #statisticsOf(owner: Name, id: string): Statistics {
    const cached = this.#statistics.get(id);
    if (cached !== undefined) return cached;
    const key = countersKey(owner);
    const entry = this.#engine.get(key);
    const counters = entry === undefined ? noCounters() : decodeCounters(entry.value);
    if (counters === undefined) {
      throw new RingsteadError("counters-damaged", "the statistics of a listing cannot be decoded", { ...owner });
    }
    if (this.#statistics.size >= CACHED_COUNTERS_LIMIT) {
      const oldest = this.#statistics.keys().next();
      if (!oldest.done) this.#statistics.delete(oldest.value);
    }
    const statistics: Statistics = { owner, key, counters, value: () => encodeCounters(counters) };
    this.#statistics.set(id, statistics);
    return statistics;
  }

  #count(counters: Counters, row: Row, sign: 1 | -1): void {
    counters.rows += sign;
    counters.objects += sign * row.objects;
    counters.bytes += sign * row.bytes;
    const text = `${row.version}${row.name}`;
    const hash = xxh64OfString(text, this.#seeds[0]) + xxh64OfString(text, this.#seeds[1]);
    counters.setHash = (sign === 1 ? counters.setHash + hash : counters.setHash - hash) & MASK_64;
  }
}

const lateOf = ({ key, value }: Statistics, change: () => void): Mutation => ({
  kind: "late",
  key,
  maxBytes: COUNTERS_BYTES,
  change,
  value,
});

/** One message gives one row to several devices, one after the other: what it is to all of them is made once. */
const idOf = (owner: Name): string => {
  if (lastOwner?.owner !== owner) lastOwner = { owner, id: `${owner.space} ${owner.path}` };
  return lastOwner.id;
};

let lastOwner: { readonly owner: Name; readonly id: string } | undefined;

const valueOf = (row: Row): Uint8Array => {
  if (lastRow?.row !== row) lastRow = { row, value: encodeRowValue(row) };
  return lastRow.value;
};

let lastRow: { readonly row: Row; readonly value: Uint8Array } | undefined;

const bytesOf = (text: string): string => Buffer.from(text).toString("latin1");

/** The first name behind all that begin with `prefix`; undefined where none is. UTF-8 has no byte 255. */
const endOfPrefix = (prefix: string): string | undefined =>
  prefix === "" ? undefined : prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);

const runOf = (entries: readonly ScannedEntry[], nameAt: number): RowRun => {
  const rows = rowsOf(entries, nameAt, false);
  const offsets = [0];
  let end = 0;
  for (const { name, value } of rows) {
    end += PACKED_ROW_OVERHEAD_BYTES + name.length + value.length;
    offsets.push(end);
  }
  return { names: rows.map(({ name }) => name.toString("latin1")), packed: packRows(rows), offsets };
};

const rowsOf = (entries: readonly ScannedEntry[], nameAt: number, isDeleted: boolean): PackableRow[] =>
  entries.map(({ key, value }) => ({
    name: Buffer.from(key.buffer, key.byteOffset + nameAt, key.length - nameAt),
    value,
    isDeleted,
  }));

/** The part of a row space that a query asks for; undefined where that is nothing. */
const rangeOf = (owner: Name, query: ListQuery, isDeleted: boolean): ScanRange | undefined => {
  const { prefix, limit, isReverse: reverse } = query;
  let gte = rowKey(owner, prefix, isDeleted);
  let lt = rowPrefixEnd(owner, prefix, isDeleted);
  const [lower, upper] = reverse ? [query.endMarker, query.marker] : [query.marker, query.endMarker];
  if (lower !== "") {
    const after = Buffer.concat([rowKey(owner, lower, isDeleted), Buffer.of(0)]);
    if (Buffer.compare(after, gte) > 0) gte = after;
  }
  if (upper !== "") {
    const before = rowKey(owner, upper, isDeleted);
    if (Buffer.compare(before, lt) < 0) lt = before;
  }
  return Buffer.compare(gte, lt) >= 0 || limit === 0 ? undefined : { gte, lt, limit, reverse };
};

type PackableRow = { readonly name: Buffer; readonly value: Uint8Array; readonly isDeleted: boolean };

const merge = (live: readonly PackableRow[], deleted: readonly PackableRow[], query: ListQuery): PackableRow[] => {
  const sign = query.isReverse ? -1 : 1;
  return [...live, ...deleted].sort((a, b) => sign * Buffer.compare(a.name, b.name)).slice(0, query.limit);
};
