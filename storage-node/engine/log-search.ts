import type { DigestScheme } from "./digest-table.ts";
import { KIND_DELETE, RECORD_HEAD_BYTES, SEGMENT_DATA_START } from "./format.ts";
import type { LiveEntry } from "./index-format.ts";
import { entryOf } from "./recovery.ts";
import { nameOf } from "./scan-merge.ts";
import { SegmentReader } from "./segment-reader.ts";
import type { Segment, SegmentStore } from "./segment-store.ts";

const RECORDS_PER_TURN = 256;

/** What the log says of a key. "unknown": a hole in it may have held something newer. */
export type LogPlace =
  | { readonly kind: "put"; readonly live: LiveEntry }
  | { readonly kind: "absent" }
  | { readonly kind: "unknown" };

type Newest = { sequence: number; live: LiveEntry | undefined };

/**
 * Finds the present entries of keys that the index has lost: the log is the truth, and the newest record of a key its entry. Reads the whole
 * log once, for any number of keys.
 */
export class LogSearch {
  readonly #store: SegmentStore;
  readonly #scheme: DigestScheme;

  constructor(store: SegmentStore, scheme: DigestScheme) {
    this.#store = store;
    this.#scheme = scheme;
  }

  /** By the keys' names, as of the call; what is applied meanwhile the caller looks for. */
  async find(keys: readonly Uint8Array[], sync: () => Promise<void>): Promise<ReadonlyMap<string, LogPlace>> {
    const newest = new Map<string, Newest>(keys.map((key) => [nameOf(key), { sequence: 0, live: undefined }]));
    /** The newest sequence number that a hole may have had. */
    let lostBefore = 0;
    const segments = [...this.#store.segments.values()].toSorted((left, right) => left.number - right.number);
    const ends = segments.map(({ used }) => used);
    await sync();
    for (const [index, segment] of segments.entries()) {
      const end = ends[index] ?? SEGMENT_DATA_START;
      const behind = segments[index + 1]?.firstSequence ?? Number.MAX_SAFE_INTEGER;
      lostBefore = Math.max(lostBefore, await this.#readSegment(segment, end, behind, newest));
    }
    const places = new Map<string, LogPlace>();
    for (const [name, { sequence, live }] of newest) {
      if (sequence < lostBefore) places.set(name, { kind: "unknown" });
      else places.set(name, live === undefined ? { kind: "absent" } : { kind: "put", live });
    }
    return places;
  }

  /** The sequence number behind the last hole, 0 where there is none; `behind`: that of the next segment. */
  async #readSegment(segment: Segment, end: number, behind: number, newest: Map<string, Newest>): Promise<number> {
    if (segment.slot === undefined) return 0;
    const { file } = segment.slot;
    const reader = new SegmentReader(file, segment.seed, end);
    let lostBefore = 0;
    let records = 0;
    for (let offset = SEGMENT_DATA_START; offset < end; ) {
      const size = await reader.read(offset);
      if (size === 0) {
        const next = await reader.find(offset + 8);
        lostBefore = next === undefined ? behind : reader.fields.sequence;
        offset = next ?? end;
        continue;
      }
      this.#take(reader, segment.number, offset, size, newest);
      offset += size;
      if (++records % RECORDS_PER_TURN === 0) await new Promise(setImmediate);
    }
    // Recycled meanwhile: what lived in it was written anew elsewhere, maybe in a segment that was read already.
    return this.#store.segments.get(segment.number) === segment ? lostBefore : Number.MAX_SAFE_INTEGER;
  }

  #take(reader: SegmentReader, segment: number, offset: number, size: number, newest: Map<string, Newest>): void {
    const { fields, region, at } = reader;
    const keyEnd = at + RECORD_HEAD_BYTES + fields.keyLength;
    const key = region.bytes.subarray(at + RECORD_HEAD_BYTES, keyEnd);
    const known = newest.get(nameOf(key));
    if (known === undefined || known.sequence >= fields.sequence) return;
    known.sequence = fields.sequence;
    if (fields.kind === KIND_DELETE) {
      known.live = undefined;
      return;
    }
    const value = new Uint8Array(region.bytes.subarray(keyEnd, keyEnd + fields.valueLength));
    const digest = this.#scheme.bucketOf(key) < 0 ? 0n : this.#scheme.digestOf(key, value);
    known.live = entryOf(segment, offset, size, fields, value, digest);
  }
}
