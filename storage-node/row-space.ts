import { xxh64OfString } from "../common/hash.ts";
import { decideRow } from "./core/row-admission.ts";
import type { DeviceEngine, Mutation } from "./engine/device-engine.ts";
import { type Counters, decodeCounters, encodeCounters } from "./store/counters-format.ts";
import { countersKey, rowKey, rowNameOffset, rowPrefixEnd } from "./store/keys.ts";
import {
  decodeRowValue,
  encodeRowValue,
  type ListQuery,
  type Name,
  packRows,
  type Row,
  type RowReply,
  type RowSummary,
} from "./wire.ts";

/** Row spaces whose statistics stay in memory; a colder one is read again from its record. */
const CACHED_COUNTERS_LIMIT = 20_000;
const MASK_64 = (1n << 64n) - 1n;

/** The listings of one device: rows of containers and accounts with their statistics, in the engine's log like everything else. */
export class RowSpace {
  readonly #engine: DeviceEngine;
  readonly #seeds: readonly [bigint, bigint];
  readonly #counters = new Map<string, Counters>();

  constructor(engine: DeviceEngine, seeds: readonly [bigint, bigint]) {
    this.#engine = engine;
    this.#seeds = seeds;
  }

  /** Stores a row and the statistics it changes in one commit. Resolves after the sync. */
  async put(owner: Name, row: Row): Promise<RowReply> {
    const liveKey = rowKey(owner, row.name, false);
    const deletedKey = rowKey(owner, row.name, true);
    const live = this.#rowAt(liveKey, row.name, false);
    const deleted = this.#rowAt(deletedKey, row.name, true);
    const change = decideRow(live, deleted, row);
    if (!change.stores) {
      await (this.#engine.durable(liveKey) ?? this.#engine.durable(deletedKey));
      return change.reply;
    }
    const counters = this.#countersOf(owner);
    if (change.removesLive !== undefined) this.#count(counters, change.removesLive, -1);
    if (change.addsLive !== undefined) this.#count(counters, change.addsLive, 1);
    const mutations: Mutation[] = [];
    const none = { kind: "none" } as const;
    mutations.push({ kind: "put", key: row.isDeleted ? deletedKey : liveKey, value: encodeRowValue(row), body: none });
    if (row.isDeleted && live !== undefined) mutations.push({ kind: "delete", key: liveKey });
    if (!row.isDeleted && deleted !== undefined) mutations.push({ kind: "delete", key: deletedKey });
    mutations.push({ kind: "put", key: countersKey(owner), value: encodeCounters(counters), body: none });
    await this.#engine.apply(mutations);
    return change.reply;
  }

  /** The first live row, if there is one. */
  async firstLive(owner: Name): Promise<Row | undefined> {
    const page = await this.#page(owner, {
      prefix: "",
      gte: rowKey(owner, "", false),
      limit: 1,
      isReverse: false,
      isDeleted: false,
    });
    const first = page[0];
    return first === undefined ? undefined : decodeRowValue(first.name.toString("utf8"), false, first.value);
  }

  summary(owner: Name): RowSummary {
    const { rows, objects, bytes, setHash } = this.#countersOf(owner);
    return { rows, objects, bytes, setHash: setHash.toString(16) };
  }

  /** One page of rows, packed, after everything in it is synced. */
  async list(owner: Name, query: ListQuery): Promise<Buffer> {
    const live = await this.#rows(owner, query, false);
    const rows = query.withDeleted ? merge(live, await this.#rows(owner, query, true), query) : live;
    await this.#engine.sync();
    return packRows(rows);
  }

  async #rows(owner: Name, query: ListQuery, isDeleted: boolean): Promise<PackedRow[]> {
    const start = rowKey(owner, query.prefix, isDeleted);
    const end = rowPrefixEnd(owner, query.prefix, isDeleted);
    const [lower, upper] = query.isReverse ? [query.endMarker, query.marker] : [query.marker, query.endMarker];
    let gte: Buffer = start;
    if (lower !== "") {
      const after = Buffer.concat([rowKey(owner, lower, isDeleted), Buffer.of(0)]);
      if (Buffer.compare(after, start) > 0) gte = after;
    }
    let lt: Buffer = end;
    if (upper !== "") {
      const before = rowKey(owner, upper, isDeleted);
      if (Buffer.compare(before, end) < 0) lt = before;
    }
    if (Buffer.compare(gte, lt) >= 0 || query.limit === 0) return [];
    return this.#page(owner, {
      prefix: query.prefix,
      gte,
      lt,
      limit: query.limit,
      isReverse: query.isReverse,
      isDeleted,
    });
  }

  async #page(
    owner: Name,
    range: { prefix: string; gte: Buffer; lt?: Buffer; limit: number; isReverse: boolean; isDeleted: boolean },
  ): Promise<PackedRow[]> {
    const lt = range.lt ?? rowPrefixEnd(owner, range.prefix, range.isDeleted);
    const entries = await this.#engine.scan({ gte: range.gte, lt, limit: range.limit, reverse: range.isReverse });
    const offset = rowNameOffset(owner);
    return entries.map(({ key, value }) => ({
      name: Buffer.from(key.buffer, key.byteOffset + offset, key.length - offset),
      value,
      isDeleted: range.isDeleted,
    }));
  }

  #rowAt(key: Uint8Array, name: string, isDeleted: boolean): Row | undefined {
    const entry = this.#engine.get(key);
    return entry === undefined ? undefined : decodeRowValue(name, isDeleted, entry.value);
  }

  #countersOf(owner: Name): Counters {
    const id = `${owner.space} ${owner.path}`;
    let counters = this.#counters.get(id);
    if (counters === undefined) {
      const entry = this.#engine.get(countersKey(owner));
      counters = (entry && decodeCounters(entry.value)) ?? { rows: 0, objects: 0, bytes: 0, setHash: 0n };
      if (this.#counters.size >= CACHED_COUNTERS_LIMIT) {
        const oldest = this.#counters.keys().next();
        if (!oldest.done) this.#counters.delete(oldest.value);
      }
      this.#counters.set(id, counters);
    }
    return counters;
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

type PackedRow = { readonly name: Buffer; readonly value: Uint8Array; readonly isDeleted: boolean };

const merge = (live: readonly PackedRow[], deleted: readonly PackedRow[], query: ListQuery): PackedRow[] => {
  const sign = query.isReverse ? -1 : 1;
  return [...live, ...deleted].sort((a, b) => sign * Buffer.compare(a.name, b.name)).slice(0, query.limit);
};
