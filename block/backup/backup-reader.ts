import { RingsteadError } from "../../common/errors.ts";
import type { BackupStore } from "./backup-store.ts";
import { GRAIN_BYTES, type Page, PAGE_BYTES, type Piece } from "./core/page.ts";
import type { PageList } from "./format.ts";

/** Chunks of a MiB that are kept, of all readers together: who reads in order asks for each several times. */
const CHUNKS_LIMIT = 64;
/** Where so many are on their way, none is fetched before it is asked for. */
const FETCHES_LIMIT = 32;
/** Each is what 64 MiB of the volume are. */
const PAGES_LIMIT = 64;
/** Chunks that are fetched before they are asked for, where somebody reads in order. */
const AHEAD_CHUNKS = 4;

/** A part of what is read: bytes, or zeros that nobody has to carry. */
export type BackupPart =
  | { readonly offset: number; readonly bytes: Buffer }
  | { readonly offset: number; readonly zeroBytes: number };

/** The last used of what was fetched; what is on its way is waited for, and what failed is fetched again. */
class Recent<Value> {
  readonly #values = new Map<string, Promise<Value>>();
  readonly #limit: number;
  #fetches = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#values.size;
  }

  /** How many are on their way, those included that are not kept any more. */
  get fetches(): number {
    return this.#fetches;
  }

  get(name: string, fetch: () => Promise<Value>): Promise<Value> {
    const there = this.#values.get(name);
    const value = there ?? this.#fetched(fetch);
    this.#values.delete(name);
    this.#values.set(name, value);
    if (there === undefined) value.catch(() => this.#forget(name, value));
    const [oldest] = this.#values.keys();
    if (this.#values.size > this.#limit && oldest !== undefined) this.#values.delete(oldest);
    return value;
  }

  async #fetched(fetch: () => Promise<Value>): Promise<Value> {
    this.#fetches += 1;
    try {
      return await fetch();
    } finally {
      this.#fetches -= 1;
    }
  }

  #forget(name: string, value: Promise<Value>): void {
    if (this.#values.get(name) === value) this.#values.delete(name);
  }
}

/** What readers keep together, however many there are. */
export class BackupChunks extends Recent<Buffer> {
  constructor() {
    super(CHUNKS_LIMIT);
  }
}

/** Reads any range of one backup: fetches the chunks that it needs, each of which is checked. */
export class BackupReader {
  readonly #store: BackupStore;
  readonly #list: PageList;
  readonly #chunks: BackupChunks;
  readonly #pages = new Recent<Page>(PAGES_LIMIT);
  /** Where the last reader ended. */
  #nextOffset = 0;

  private constructor(store: BackupStore, list: PageList, chunks: BackupChunks) {
    this.#store = store;
    this.#list = list;
    this.#chunks = chunks;
  }

  /** Errors: "backup-damaged", "backup-key-unknown". */
  static async opened(store: BackupStore, backupId: string, chunks: BackupChunks): Promise<BackupReader> {
    return new BackupReader(store, await store.getList(backupId), chunks);
  }

  get sizeBytes(): number {
    return this.#list.sizeBytes;
  }

  /** In order, without gaps. Requires: the range is within the volume. Errors: "backup-damaged", and those of the object store. */
  async read(offset: number, length: number): Promise<readonly BackupPart[]> {
    const isInOrder = offset === this.#nextOffset;
    this.#nextOffset = offset + length;
    const parts: BackupPart[] = [];
    for (let at = offset; at < offset + length; ) {
      const end = Math.min(offset + length, (Math.floor(at / PAGE_BYTES) + 1) * PAGE_BYTES);
      parts.push(...(await this.#readPage(at, end, isInOrder)));
      at = end;
    }
    return parts;
  }

  async #page(offset: number): Promise<Page> {
    const name = this.#list.pages[Math.floor(offset / PAGE_BYTES)];
    return name === undefined ? [] : this.#pages.get(name, () => this.#store.getPage(name));
  }

  /** Of one page. */
  async #readPage(from: number, end: number, isInOrder: boolean): Promise<readonly BackupPart[]> {
    const start = Math.floor(from / PAGE_BYTES) * PAGE_BYTES;
    const page = await this.#page(from);
    const parts: BackupPart[] = [];
    let at = from;
    for (const [index, piece] of page.entries()) {
      const first = Math.max(at, start + piece.first * GRAIN_BYTES);
      const last = Math.min(end, start + (piece.first + piece.count) * GRAIN_BYTES);
      if (first >= last) continue;
      if (isInOrder) this.#fetchAhead(page.slice(index + 1, index + 1 + AHEAD_CHUNKS));
      if (first > at) parts.push({ offset: at, zeroBytes: first - at });
      parts.push({ offset: first, bytes: await this.#bytes(piece, first - start, last - first) });
      at = last;
    }
    if (at < end) parts.push({ offset: at, zeroBytes: end - at });
    return parts;
  }

  /** `offset`: within the page. */
  async #bytes({ first, chunk, chunkFirst }: Piece, offset: number, length: number): Promise<Buffer> {
    const bytes = await this.#chunk(chunk);
    const from = offset - (first - chunkFirst) * GRAIN_BYTES;
    if (bytes.length < from + length)
      throw new RingsteadError(
        "backup-damaged",
        `chunk ${chunk} of backup ${this.#list.backupId} is shorter than what is in it`,
      );
    const part = bytes.subarray(from, from + length);
    // What is kept of a chunk is what was asked for, and not all of it.
    return length === bytes.length ? part : Buffer.from(part);
  }

  #chunk(name: string): Promise<Buffer> {
    // Names are a project's own.
    return this.#chunks.get(`${this.#list.backupId}/${name}`, () => this.#store.getChunk(name));
  }

  /** What fails then fails again for whoever needs it. */
  #fetchAhead(pieces: readonly Piece[]): void {
    for (const { chunk } of pieces) if (this.#chunks.fetches < FETCHES_LIMIT) this.#chunk(chunk).catch(() => undefined);
  }
}
