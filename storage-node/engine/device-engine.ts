import type { RingsteadError } from "../../common/errors.ts";
import type { DigestScheme, DigestView } from "./digest-table.ts";

/** Where an entry's body lies: in the log, in a file of its own, or nowhere. */
export type BodyReference =
  | { readonly kind: "none" }
  | { readonly kind: "log"; readonly segment: number; readonly offset: number; readonly length: number }
  | { readonly kind: "file"; readonly file: string; readonly length: number };

/** One key's present value. `value` is small (at most 64 KiB) and opaque to the engine; the body is opaque bytes. */
export type Entry = { readonly value: Uint8Array; readonly body: BodyReference };

/** What one commit changes. A put without a body drops the body the key had, unless its body says "keep". */
export type Mutation =
  | { readonly kind: "put"; readonly key: Uint8Array; readonly value: Uint8Array; readonly body: NewBody }
  | { readonly kind: "delete"; readonly key: Uint8Array }
  | LateMutation;

/**
 * A put of a value that many commits change and whoever owns it keeps in memory, such as statistics: one record per batch and key,
 * encoded when the batch is closed, however many commits of the batch asked for it. All commits of such a batch become durable
 * together or not at all, so what they stored and the late value agree after any power loss.
 *
 * Until the batch is closed `get` and `scan` show what `value()` gives then. A key that is changed late gets no body, and belongs in
 * no other mutation: within a batch the late put comes last.
 */
export type LateMutation = {
  readonly kind: "late";
  readonly key: Uint8Array;
  /** Reserved for the value; at most 64 KiB. */
  readonly maxBytes: number;
  /** Called in `apply`, once it is certain that the commit is taken and before it is seen: a refused commit changes nothing. */
  readonly change: () => void;
  /** The present value, at most `maxBytes`; that of the last commit of a batch is called, once when the batch is closed and by reads. */
  readonly value: () => Uint8Array;
};

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

/** Entries with gte ≤ key < lt in key order (or reverse), at most `limit`. Requires: limit ≤ 10,000. */
export type ScanRange = {
  readonly gte: Uint8Array;
  readonly lt: Uint8Array;
  readonly limit: number;
  readonly reverse?: boolean;
};

export type ScannedEntry = { readonly key: Uint8Array; readonly value: Uint8Array };

export type DeviceState =
  | { readonly kind: "serving" }
  | { readonly kind: "full" }
  | { readonly kind: "failed"; readonly reason: RingsteadError };

/** Figures that `status` relies on; engines have more. The first three are 0 or 1. */
export type DeviceFigures = Readonly<Record<string, number>> & {
  readonly isFull: number;
  readonly isFailed: number;
  /** The file system turned read-only; then `isFailed` is 1 as well. */
  readonly isReadOnly: number;
  /** Left of the file system. */
  readonly freeBytes: number;
  /** Log bytes, live or not, large bodies not counted. */
  readonly usedBytes: number;
  /** Log bytes per byte of it that is still needed. */
  readonly amplification: number;
  /** Reads that found something damaged, since the device was opened. */
  readonly damagedReads: number;
};

/**
 * One device: a durable ordered map from keys to entries, in a folder.
 *
 * `apply` makes a mutation list visible to `get` and `scan` at once, in call order, and atomically; the returned promise resolves
 * after the `fdatasync` that covers it. Readers who must not show what could still be lost wait for `durable(key)`.
 */
export type DeviceEngine = AsyncDisposable & {
  readonly state: () => DeviceState;
  /**
   * Requires: mutations.length ≥ 1. Errors: "device-full" (not for small records that supersede something: a full device takes what
   * empties it), "device-overloaded", "device-failed", "device-read-only".
   */
  apply(mutations: readonly Mutation[]): Promise<void>;
  /**
   * Whether `bytes` more would be taken now; nothing is set aside for them. Errors (thrown): "device-full", "device-failed",
   * "device-read-only".
   */
  requireRoom(bytes: number): void;
  /** The newest applied entry of a key, synced or not; undefined when absent. */
  get(key: Uint8Array): Entry | undefined;
  /** Undefined when nothing about the key is unsynced (the common case), else a promise of its sync. */
  durable(key: Uint8Array): Promise<void> | undefined;
  /** Resolves when everything applied so far is synced. */
  sync(): Promise<void>;
  /**
   * The body's bytes from `offset`, at most `length`, checked against its checksums, in memory that is the caller's alone.
   * Errors: "body-damaged" (the caller sets the replica aside), "body-gone" (superseded and recycled: read the entry again).
   */
  readBody(body: BodyReference, offset: number, length: number): Promise<Uint8Array>;
  stage(): Promise<StagedBody>;
  /** The entries of a range, applied ones included, copies. */
  scan(range: ScanRange): Promise<ScannedEntry[]>;
  /** The same in pages, none empty: what is done with one page is done while the next is read. */
  scanPages(range: ScanRange): AsyncIterable<ScannedEntry[]>;
  /** What it holds, in a few sums that every change keeps up: applied entries, synced or not. Its arrays are read, not kept. */
  readonly digests: DigestView;
  /** Looks at what is on the disk already, and puts right what it has twice. */
  readonly scrub: DeviceScrub;
  /** Figures for metrics and `status`. */
  figures(): DeviceFigures;
};

/** Asked before bytes are read for a check; resolves when they may be. */
export type Allow = (bytes: number) => Promise<void>;

/** A segment of the log, and where its records end. */
export type SegmentExtent = { readonly number: number; readonly bytes: number };

/** Bytes of a segment that are no valid record. */
export type DamagedRange = { readonly segment: number; readonly from: number; readonly to: number };

/**
 * An entry that a check found something wrong with: its value in the index, a record or body in a damaged range of the log, or its large
 * body. What it comes to is for `mend` to say.
 */
export type DamagedEntry = {
  readonly key: Uint8Array;
  readonly damage: "index" | "record" | "body";
};

/** Some entries after their check. `next`: the first key behind them, undefined at the end. */
export type ScrubbedPage = {
  readonly entries: number;
  /** Of their large bodies. */
  readonly bytes: number;
  readonly damaged: readonly DamagedEntry[];
  readonly next: Uint8Array | undefined;
};

/** What became of a damaged entry. "lost" means that only other replicas can have it. */
export type Mended =
  /** Nothing is wrong with it, or it is gone by now. */
  | { readonly kind: "whole" }
  /** What was damaged was there twice; it is written anew, and synced. */
  | { readonly kind: "mended" }
  /** The index has lost its place: `mendFromLog` finds it. */
  | { readonly kind: "place-lost" }
  /** Its record cannot be read; the digest tells which version it was. */
  | { readonly kind: "value-lost"; readonly digest: bigint; readonly body: BodyReference }
  | { readonly kind: "body-lost"; readonly body: BodyReference };

/**
 * Checks everything that a device keeps, past the page cache, piece by piece: first the log's segments, then the entries with their large
 * bodies, which tells whose the damaged ranges of the log are.
 */
export type DeviceScrub = {
  /** Called for each entry that a read of whoever it be found damaged; its value, not its body. In the turn of that read. */
  onDamaged: (key: Uint8Array, cause: string) => void;
  /** Those in use, by ascending number. */
  segments(): readonly SegmentExtent[];
  /** Checks every record of a segment. Nothing where it was recycled meanwhile. */
  checkSegment(number: number, allow: Allow): Promise<readonly DamagedRange[]>;
  /** After it everything that was applied is among the entries that `checkEntries` looks at. */
  settle(): Promise<void>;
  /** Checks some entries from `from` on, and their large bodies. Errors: "index-unreadable". */
  checkEntries(from: Uint8Array, ranges: readonly DamagedRange[], allow: Allow): Promise<ScrubbedPage>;
  /** Counts the digests anew; how many buckets were wrong. Undefined where somebody counts already, or the index cannot be read. */
  recount(): Promise<number | undefined>;
  /**
   * Sets the damaged bytes of an entry aside and puts right what is readable in another place.
   *
   * @param isSuspect its record or body lies in a damaged range: it is written anew also where it can be read, which may be thanks to a cache
   */
  mend(key: Uint8Array, cause: string, isSuspect: boolean): Promise<Mended>;
  /** Finds the entries of keys in the log and puts them into the index again; those that a hole in the log may have swallowed stay damaged, and are given back. */
  mendFromLog(keys: readonly Uint8Array[]): Promise<readonly Uint8Array[]>;
};

/** What opening needs. */
export type OpenDeviceOptions = {
  readonly path: string;
  /** Who the folder belongs to; a folder of another cluster, node or device is refused with "device-foreign". */
  readonly identity: { readonly clusterId: string; readonly node: string; readonly device: string };
  /** How its entries are counted; whoever opens it with another one waits until its index is made anew. */
  readonly digests: DigestScheme;
};
