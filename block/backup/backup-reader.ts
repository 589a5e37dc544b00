import { RingsteadError } from "../../common/errors.ts";
import type { BackupStore } from "./backup-store.ts";
import { GRAIN_BYTES, type Page, PAGE_BYTES, type Piece } from "./core/page.ts";
import type { PageList } from "./format.ts";

/** Chunks of a MiB that are kept: who reads in order asks for each several times. */
const CHUNKS_LIMIT = 16;
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

  constructor(limit: number) {
    this.#limit = limit;
  }

  get(name: string, fetch: () => Promise<Value>): Promise<Value> {
    const there = this.#values.get(name);
    const value = there ?? fetch();
    this.#values.delete(name);
    this.#values.set(name, value);
    if (there === undefined) value.catch(() => this.#forget(name, value));
    const [oldest] = this.#values.keys();
    if (this.#values.size > this.#limit && oldest !== undefined) this.#values.delete(oldest);
    return value;
  }

  #forget(name: string, value: Promise<Value>): void {
    if (this.#values.get(name) === value) this.#values.delete(name);
  }
}

/** Reads any range of one backup: fetches the chunks that it needs, each of which is checked. */
export class BackupReader {
  readonly #store: BackupStore;
  readonly #list: PageList;
  readonly #chunks = new Recent<Buffer>(CHUNKS_LIMIT);
  readonly #pages = new Recent<Page>(PAGES_LIMIT);
  /** Where the last reader ended. */
  #nextOffset = 0;

  private constructor(store: BackupStore, list: PageList) {
    this.#store = store;
    this.#list = list;
  }

  /** Errors: "backup-damaged", "backup-key-unknown". */
  static async opened(store: BackupStore, backupId: string): Promise<BackupReader> {
    return new BackupReader(store, await store.getList(backupId));
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
    return bytes.subarray(from, from + length);
  }

  #chunk(name: string): Promise<Buffer> {
    return this.#chunks.get(name, () => this.#store.getChunk(name));
  }

  /** What fails then fails again for whoever needs it. */
  #fetchAhead(pieces: readonly Piece[]): void {
    for (const { chunk } of pieces) this.#chunk(chunk).catch(() => undefined);
  }
}
