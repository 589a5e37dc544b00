import { RingsteadError } from "../../common/errors.ts";
import type { IndexCursor } from "./index-port.ts";
import { type LiveEntry, decodeLiveEntry, inlineValueOf } from "./index-format.ts";
import { BODY_NONE } from "./format.ts";
import type { LateRecord, Pending } from "./log-writer.ts";

const PAGE_ENTRIES = 250;

/** A key as latin1 string: such strings compare like the bytes, and are what maps are keyed by. */
export const nameOf = (key: Uint8Array): string =>
  (Buffer.isBuffer(key) ? key : Buffer.from(key.buffer, key.byteOffset, key.byteLength)).toString("latin1");

/** "entry-damaged", of an entry whose key is known. */
export class DamagedEntryError extends RingsteadError {
  readonly key: Uint8Array;

  constructor(message: string, key: Uint8Array) {
    super("entry-damaged", message);
    this.key = key;
  }
}

/** A late change as it would be written now; it has no place yet. */
export const lateEntry = ({ key, value: valueNow }: LateRecord): LiveEntry => {
  const value = valueNow();
  const place = { segment: 0, offset: 0, size: 0, bodyKind: BODY_NONE, bodySegment: 0, bodyOffset: 0, bodyLength: 0 };
  return { ...place, keyLength: key.length, valueLength: value.length, value, digest: 0n };
};

/** An entry of a scan. */
export type Found = {
  readonly key: Uint8Array;
  /** Undefined where it is to be read from the log; then there is `live`. */
  readonly value: Uint8Array | undefined;
  readonly live: LiveEntry | undefined;
};

/**
 * The first `limit` entries of the index with the changes that it lacks laid over it, in the cursor's order, page by page; the index
 * reads the next page while the caller has this one. A page dies young that way: a thousand rows at once outlive the collections that
 * their own number brings about.
 * Requires: `overlay` is sorted in that order, and holds every change in the range that the cursor does not see. Closes the cursor.
 * Errors: "entry-damaged".
 */
export async function* mergeScan(
  cursor: IndexCursor,
  overlay: readonly Pending[],
  limit: number,
  reverse: boolean,
): AsyncGenerator<Found[]> {
  let left = limit;
  let at = 0;
  let found: Found[] = [];
  /** Takes the changes before `name`, or all that are left. */
  const takeOverlay = (name: string | undefined): void => {
    for (let next = overlay[at]; next !== undefined && found.length < left; next = overlay[at]) {
      if (name !== undefined && (reverse ? next.name <= name : next.name >= name)) return;
      at++;
      if (next.live !== undefined) found.push(changed(Buffer.from(next.name, "latin1"), next.live));
    }
  };
  const takeIndexed = (key: Uint8Array, bytes: Uint8Array): void => {
    const name = at < overlay.length ? nameOf(key) : "";
    if (at < overlay.length) takeOverlay(name);
    if (found.length >= left) return;
    const change = overlay[at];
    if (change?.name === name) {
      at++;
      if (change.live !== undefined) found.push(changed(key, change.live));
      return;
    }
    const value = inlineValueOf(bytes);
    const live = value === undefined ? decodeLiveEntry(bytes) : undefined;
    if (value === undefined && live === undefined) throw new DamagedEntryError("the index holds a damaged entry", key);
    found.push({ key, value, live });
  };
  const next = (): ReturnType<IndexCursor["next"]> => {
    const page = cursor.next(Math.min(PAGE_ENTRIES, left + overlay.length - at));
    // Its failure shows when it is waited for, if it is.
    page.catch(() => {});
    return page;
  };
  let coming: ReturnType<IndexCursor["next"]> | undefined;
  try {
    while (left > 0) {
      const page = await (coming ?? next());
      coming = page.length > 0 && page.length < left ? next() : undefined;
      for (const [key, bytes] of page) if (key.length > 0 && found.length < left) takeIndexed(key, bytes);
      if (page.length === 0) takeOverlay(undefined);
      left -= found.length;
      if (found.length > 0) yield found;
      if (page.length === 0) return;
      found = [];
    }
  } finally {
    await coming?.catch(() => {});
    await cursor.close();
  }
}

const changed = (key: Uint8Array, live: LiveEntry): Found => ({ key, value: live.value, live });
