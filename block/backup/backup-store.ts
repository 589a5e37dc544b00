import { messageOf, RingsteadError } from "../../common/errors.ts";
import { CHUNK_BYTES, type Page } from "./core/page.ts";
import {
  decodeList,
  decodePage,
  encodeList,
  encodePage,
  LIST_LIMIT_BYTES,
  type PageList,
  PAGE_LIMIT_BYTES,
} from "./format.ts";
import type { BackupKeys } from "./keys.ts";
import { LISTED_LIMIT, type ObjectStore, type StoredObject } from "./object-store.ts";
import { seal, type Sealing, unseal } from "./sealed.ts";

/** What sealing adds at most, and a byte more, so that what is too long shows. */
const SEALED_MORE_BYTES = 1024;

export type BackupStoreOptions = {
  readonly objects: ObjectStore;
  /** Whose backups they are. */
  readonly projectId: string;
  readonly keys: BackupKeys;
  readonly compression: Sealing["compression"];
  readonly isEncrypted: boolean;
};

/** Bytes that one call sent; 0 where they were there already. */
type Stored = { readonly name: string; readonly sentBytes: number };

/**
 * The backups of one project in the object store: chunks, pages, and a list of pages for each backup (FORMAT.md). What is read is what was
 * written: everything is checked against the name that it is asked for by.
 */
export class BackupStore {
  readonly container: string;
  readonly #options: BackupStoreOptions;

  constructor(options: BackupStoreOptions) {
    this.#options = options;
    this.container = containerOf(options.projectId);
  }

  putChunk(bytes: Buffer): Promise<Stored> {
    return this.#put("chunk", bytes);
  }

  /** Errors: "backup-damaged", which names the chunk. */
  getChunk(name: string): Promise<Buffer> {
    return this.#get("chunk", name, CHUNK_BYTES);
  }

  hasChunk(name: string): Promise<boolean> {
    return this.#options.objects.has(this.container, pathOf("chunk", name));
  }

  putPage(page: Page): Promise<Stored> {
    return this.#put("page", encodePage(page));
  }

  /** Errors: "backup-damaged", which names the page. */
  async getPage(name: string): Promise<Page> {
    const bytes = await this.#get("page", name, PAGE_LIMIT_BYTES);
    return this.#named(`page ${name}`, () => decodePage(bytes));
  }

  async putList(list: PageList): Promise<number> {
    const bytes = encodeList(list, this.#options.keys);
    await this.#options.objects.put(this.container, listPath(list.backupId), bytes);
    return bytes.length;
  }

  /** Errors: "backup-damaged", "backup-key-unknown". */
  async getList(backupId: string): Promise<PageList> {
    const what = `backup ${backupId}`;
    const bytes = await this.#options.objects.get(this.container, listPath(backupId), LIST_LIMIT_BYTES);
    if (bytes === undefined) throw new RingsteadError("backup-damaged", `${what} is not in the object store`);
    return this.#named(what, () => {
      const list = decodeList(bytes, this.#options.keys);
      if (list.backupId !== backupId) throw new RingsteadError("backup-damaged", `it is that of ${list.backupId}`);
      return list;
    });
  }

  /** After this the backup is not there any more; what only it needed is swept later. */
  removeList(backupId: string): Promise<void> {
    return this.#options.objects.remove(this.container, listPath(backupId));
  }

  /** Everything whose name begins so, in order. */
  async *list(kind: "chunk" | "page" | "backup"): AsyncGenerator<readonly StoredObject[]> {
    const prefix = kind === "backup" ? LISTS : FOLDERS[kind];
    for (let marker = ""; ; ) {
      const found = await this.#options.objects.list(this.container, prefix, marker);
      if (found.length > 0) yield found;
      if (found.length < LISTED_LIMIT) return;
      marker = found.at(-1)?.name ?? "";
    }
  }

  removeObject(name: string): Promise<void> {
    return this.#options.objects.remove(this.container, name);
  }

  async #put(kind: "chunk" | "page", bytes: Buffer): Promise<Stored> {
    const { objects, keys, compression, isEncrypted } = this.#options;
    const name = keys.nameOf(kind, bytes);
    const path = pathOf(kind, name);
    if (await objects.has(this.container, path)) return { name, sentBytes: 0 };
    const sealed = await seal(bytes, { compression, encryptionKey: isEncrypted ? keys.encryption : undefined });
    await objects.put(this.container, path, sealed);
    return { name, sentBytes: sealed.length };
  }

  async #get(kind: "chunk" | "page", name: string, limitBytes: number): Promise<Buffer> {
    const { objects, keys } = this.#options;
    const what = `${kind} ${name}`;
    const sealed = await objects.get(this.container, pathOf(kind, name), limitBytes + SEALED_MORE_BYTES);
    if (sealed === undefined) throw new RingsteadError("backup-damaged", `${what} is missing in the object store`);
    let bytes: Buffer;
    try {
      bytes = await unseal(sealed, keys.encryption, limitBytes);
    } catch (error) {
      throw damagedAs(what, error);
    }
    if (keys.nameOf(kind, bytes) !== name) throw new RingsteadError("backup-damaged", `${what} holds something else`);
    return bytes;
  }

  #named<Result>(what: string, read: () => Result): Result {
    try {
      return read();
    } catch (error) {
      throw damagedAs(what, error);
    }
  }
}

const FOLDERS = { chunk: "chunks/", page: "pages/" } as const;
const LISTS = "backups/";

const pathOf = (kind: "chunk" | "page", name: string): string => `${FOLDERS[kind]}${name}`;
const listPath = (backupId: string): string => `${LISTS}${backupId}`;

/** In the account of the block service. */
const containerOf = (projectId: string): string => `volume-backups-${projectId}`;

/** The id or the name behind the folder. */
export const nameIn = (path: string): string => path.slice(path.indexOf("/") + 1);

const damagedAs = (what: string, error: unknown): unknown =>
  error instanceof RingsteadError ? new RingsteadError(error.code, `${what} is damaged: ${messageOf(error)}`) : error;
