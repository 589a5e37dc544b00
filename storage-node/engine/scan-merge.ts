import { RingsteadError } from "../../common/errors.ts";
import type { IndexCursor } from "./index-port.ts";
import { type LiveEntry, decodeLiveEntry } from "./index-format.ts";
import { BODY_NONE } from "./format.ts";
import type { LateRecord, Pending } from "./log-writer.ts";

const PAGE_ENTRIES = 1000;

/** A key as latin1 string: such strings compare like the bytes, and are what maps are keyed by. */
export const nameOf = (key: Uint8Array): string =>
  (Buffer.isBuffer(key) ? key : Buffer.from(key.buffer, key.byteOffset, key.byteLength)).toString("latin1");

/** A late change as it would be written now; it has no place yet. */
export const lateEntry = ({ key, value: valueNow }: LateRecord): LiveEntry => {
  const value = valueNow();
  const place = { segment: 0, offset: 0, size: 0, bodyKind: BODY_NONE, bodySegment: 0, bodyOffset: 0, bodyLength: 0 };
  return { ...place, keyLength: key.length, valueLength: value.length, value };
};

/**
 * The first `limit` entries of the index with the changes that it lacks laid over it, in the cursor's order.
 * Requires: `overlay` is sorted in that order, and holds every change in the range that the cursor does not see.
 * Errors: "entry-damaged".
 */
export const mergeScan = async (
  cursor: IndexCursor,
  overlay: readonly Pending[],
  limit: number,
  reverse: boolean,
): Promise<[Uint8Array, LiveEntry][]> => {
  const found: [Uint8Array, LiveEntry][] = [];
  let at = 0;
  /** Takes the changes before `name`, or all that are left. */
  const takeOverlay = (name: string | undefined): void => {
    for (let next = overlay[at]; next !== undefined && found.length < limit; next = overlay[at]) {
      if (name !== undefined && (reverse ? next.name <= name : next.name >= name)) return;
      at++;
      if (next.live !== undefined) found.push([Buffer.from(next.name, "latin1"), next.live]);
    }
  };
  while (found.length < limit) {
    const page = await cursor.next(Math.min(PAGE_ENTRIES, limit - found.length + overlay.length - at));
    for (const [key, bytes] of page) {
      if (key.length === 0) continue;
      const name = at < overlay.length ? nameOf(key) : "";
      if (at < overlay.length) takeOverlay(name);
      if (found.length >= limit) return found;
      const change = overlay[at];
      if (change?.name === name) {
        at++;
        if (change.live !== undefined) found.push([key, change.live]);
        continue;
      }
      const live = decodeLiveEntry(bytes);
      if (live === undefined) throw new RingsteadError("entry-damaged", "the index holds a damaged entry");
      found.push([key, live]);
    }
    if (page.length > 0) continue;
    takeOverlay(undefined);
    break;
  }
  return found;
};
