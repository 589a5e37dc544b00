import { xxh64OfString } from "../../common/hash.ts";
import type { DeviceEngine, Mutation, ScannedEntry } from "../engine/device-engine.ts";
import { type Counters, encodeCounters, noCounters } from "../store/counters-format.ts";
import { isRegisterKey, spaceOfReplicated } from "../store/key-space.ts";
import { countersKey, rowKey, rowPlaceOf } from "../store/keys.ts";
import { decodeRowValue, type Row } from "../wire.ts";

/** Entries that are looked at in one go. */
const PAGE = 1000;
const BEHIND_ALL_KEYS = Buffer.alloc(6, 0xff);
const MASK_64 = (1n << 64n) - 1n;
const KIND_OFFSET = 4;
const KIND_COUNTERS = countersKey({ space: "container", hash32: 0, path: "" })[KIND_OFFSET];

/** The counters of a listing under their key in latin1, with what is to be written for it. */
type Recount = { readonly counters: Map<string, Counters>; readonly removals: Mutation[] };

/**
 * Makes the row spaces of a device agree with themselves again after its log lost a part: there may be a live row beside the later tombstone that
 * replaced it, or the other way round, and counters of an earlier day. Repair alone brings neither right: each replica holds something that
 * the other takes for old, so that their digests never agree, and a tombstone that the counters deny is not looked for. Resolves when
 * everything is durable, with how many rows went; a device that died in between does it once more, as long as it is a newcomer.
 *
 * Requires: nobody else uses the device yet. @param seeds those of the set-hashes of rows
 */
export const recountRows = async (engine: DeviceEngine, seeds: readonly [bigint, bigint]): Promise<number> => {
  let removed = 0;
  let hash32 = "";
  let recount: Recount = { counters: new Map(), removals: [] };
  const write = async (): Promise<void> => {
    const puts = [...recount.counters].map(([key, counters]): Mutation => {
      return { kind: "put", key: Buffer.from(key, "latin1"), value: encodeCounters(counters), body: { kind: "none" } };
    });
    removed += recount.removals.length;
    const mutations = [...recount.removals, ...puts];
    for (let at = 0; at < mutations.length; at += PAGE) await engine.apply(mutations.slice(at, at + PAGE));
    recount = { counters: new Map(), removals: [] };
  };
  for (let gte: Uint8Array = Buffer.of(0); ; ) {
    const page = await engine.scan({ gte, lt: BEHIND_ALL_KEYS, limit: PAGE });
    for (const entry of page) {
      // What belongs together lies under one hash; some owners may share it.
      const next = Buffer.from(entry.key.subarray(0, KIND_OFFSET)).toString("latin1");
      if (next !== hash32) await write();
      hash32 = next;
      count(engine, seeds, recount, entry);
    }
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE) break;
    gte = Buffer.concat([last.key, Buffer.of(0)]);
  }
  await write();
  return removed;
};

const countersAt = ({ counters }: Recount, key: Uint8Array): Counters => {
  const name = Buffer.from(key).toString("latin1");
  let found = counters.get(name);
  if (found === undefined) counters.set(name, (found = noCounters()));
  return found;
};

const count = (
  engine: DeviceEngine,
  seeds: readonly [bigint, bigint],
  recount: Recount,
  { key, value }: ScannedEntry,
): void => {
  if (key[KIND_OFFSET] === KIND_COUNTERS) {
    countersAt(recount, key);
    return;
  }
  const space = isRegisterKey(key) ? undefined : spaceOfReplicated(key);
  const place = space === undefined ? undefined : rowPlaceOf(key, space);
  if (place === undefined) return;
  const { isDeleted, name, owner } = place;
  const row = decodeRowValue(name, isDeleted, value);
  const other = engine.get(rowKey(owner, name, !isDeleted));
  if (other !== undefined && decodeRowValue(name, !isDeleted, other.value).version > row.version) {
    recount.removals.push({ kind: "delete", key });
    return;
  }
  const counters = countersAt(recount, countersKey(owner));
  if (isDeleted) counters.deletedRows += 1;
  else addLive(counters, seeds, row);
};

/** As `RowSpace` counts. */
const addLive = (counters: Counters, [first, second]: readonly [bigint, bigint], row: Row): void => {
  const text = `${row.version}${row.name}`;
  counters.rows += 1;
  counters.objects += row.objects;
  counters.bytes += row.bytes;
  counters.setHash = (counters.setHash + xxh64OfString(text, first) + xxh64OfString(text, second)) & MASK_64;
};
