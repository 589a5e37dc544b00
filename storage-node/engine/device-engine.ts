import type { RingsteadError } from "../../common/errors.ts";

/** Where an entry's body lies: in the log, in a file of its own, or nowhere. */
export type BodyReference =
  | { readonly kind: "none" }
  | { readonly kind: "log"; readonly segment: number; readonly offset: number; readonly length: number }
  | { readonly kind: "file"; readonly file: string; readonly length: number };

/** One key's present value. `value` is small (at most 64 KiB) and opaque to the engine; the body is opaque bytes. */
export type Entry = { readonly value: Uint8Array; readonly body: BodyReference };

/** What one commit changes. A put without a body drops the body the key had, unless `keepBody` says to keep it. */
export type Mutation =
  | { readonly kind: "put"; readonly key: Uint8Array; readonly value: Uint8Array; readonly body: NewBody }
  | { readonly kind: "delete"; readonly key: Uint8Array };

/** The body of a put: none, bytes for the log, a staged file, or the body the key has already (a metadata change). */
export type NewBody =
  | { readonly kind: "none" }
  | { readonly kind: "bytes"; readonly bytes: Uint8Array }
  | { readonly kind: "staged"; readonly file: string; readonly length: number }
  | { readonly kind: "keep" };

/** A large body on its way to the disk, in checksummed blocks in a file of its own. */
export type StagedBody = {
  readonly file: string;
  /** Appends bytes; resolves when the next ones may come (back-pressure). */
  write(bytes: Uint8Array): Promise<void>;
  /** Syncs file and folder; after it the file may be named in a mutation. Resolves with the length in bytes. */
  seal(): Promise<number>;
  /** Removes the file. An unsealed or uncommitted file is also removed by recovery. */
  abandon(): Promise<void>;
};

export type DeviceState =
  | { readonly kind: "serving" }
  | { readonly kind: "full" }
  | { readonly kind: "failed"; readonly reason: RingsteadError };

/**
 * One device: a durable ordered map from keys to entries, in a folder.
 *
 * `apply` makes a mutation list visible to `get` and `scan` at once, in call order, and atomically; the returned promise resolves
 * after the `fdatasync` that covers it. Readers who must not show what could still be lost wait for `durable(key)`.
 */
export type DeviceEngine = AsyncDisposable & {
  readonly state: () => DeviceState;
  /** Requires: mutations.length ≥ 1. Errors: "device-full", "device-failed". */
  apply(mutations: readonly Mutation[]): Promise<void>;
  /** The newest applied entry of a key, synced or not; undefined when absent. */
  get(key: Uint8Array): Entry | undefined;
  /** Undefined when nothing about the key is unsynced (the common case), else a promise of its sync. */
  durable(key: Uint8Array): Promise<void> | undefined;
  /** Resolves when everything applied so far is synced. */
  sync(): Promise<void>;
  /**
   * The body's bytes from `offset`, at most `length`, checked against its checksums.
   * Errors: "body-damaged" (the caller sets the replica aside), "body-gone" (superseded and recycled: read the entry again).
   */
  readBody(body: BodyReference, offset: number, length: number): Promise<Uint8Array>;
  stage(): Promise<StagedBody>;
  /**
   * Entries with gte ≤ key < lt in key order (or reverse), applied ones included, at most `limit`, copies.
   * Requires: limit ≤ 10,000.
   */
  scan(range: {
    gte: Uint8Array;
    lt: Uint8Array;
    limit: number;
    reverse?: boolean;
  }): Promise<{ key: Uint8Array; value: Uint8Array }[]>;
  /** Figures for metrics and `status`. */
  figures(): Readonly<Record<string, number>>;
};

/** What opening needs. */
export type OpenDeviceOptions = {
  readonly path: string;
  /** Who the folder belongs to; a folder of another cluster, node or device is refused with "device-foreign". */
  readonly identity: { readonly clusterId: string; readonly node: string; readonly device: string };
};
