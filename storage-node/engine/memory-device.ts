import { RingsteadError } from "../../common/errors.ts";
import type {
  BodyReference,
  DeviceEngine,
  DeviceFigures,
  Entry,
  Mutation,
  ScanRange,
  ScannedEntry,
  StagedBody,
} from "./device-engine.ts";
import { nothingToScrub } from "./device-scrub.ts";
import { type DigestScheme, DigestTable } from "./digest-table.ts";

const countsNothing: DigestScheme = {
  id: 0n,
  bucketCount: 0,
  groupSize: 1,
  bucketOf: () => -1,
  digestOf: () => 0n,
  firstKeyOf: () => new Uint8Array(0),
};

/** Decides when the sync of a commit is over; simulation uses its virtual clock. */
export type SyncAfter = (done: () => void) => void;

/**
 * A device without a disk, for simulation of what stands above the engine: commits become durable in order some time after they
 * were applied, and a crash drops those that were not. Bodies are kept as values.
 */
export class MemoryDevice implements DeviceEngine {
  readonly digests: DigestTable;
  readonly scrub = nothingToScrub();
  readonly #syncAfter: SyncAfter;
  readonly #entries = new Map<string, Entry & { readonly bytes: Uint8Array | undefined }>();
  readonly #durable: Map<string, Entry & { readonly bytes: Uint8Array | undefined }>;
  #hasCrashed = false;
  #unsynced: { readonly mutations: readonly SettledMutation[]; readonly done: Promise<void> }[] = [];

  constructor(
    syncAfter: SyncAfter,
    durable = new Map<string, Entry & { readonly bytes: Uint8Array | undefined }>(),
    scheme = countsNothing,
  ) {
    this.digests = new DigestTable(scheme);
    this.#syncAfter = syncAfter;
    this.#durable = durable;
    for (const [key, entry] of durable) {
      this.#entries.set(key, entry);
      this.#count(Buffer.from(key, "latin1"), undefined, entry.value);
    }
  }

  /** The device as it is after power loss: what was not synced is gone. Whoever still works with the old object waits for ever, and changes nothing. */
  afterCrash(): MemoryDevice {
    this.#hasCrashed = true;
    return new MemoryDevice(this.#syncAfter, this.#durable, this.digests.scheme);
  }

  state(): { readonly kind: "serving" } {
    return { kind: "serving" };
  }

  apply(mutations: readonly Mutation[]): Promise<void> {
    if (this.#hasCrashed) return new Promise(() => {});
    const settled = mutations.map(settle);
    for (const mutation of settled) {
      const value = mutation.kind === "put" ? mutation.value : undefined;
      this.#count(mutation.key, this.#entries.get(Buffer.from(mutation.key).toString("latin1"))?.value, value);
      change(this.#entries, mutation);
    }
    const done = new Promise<void>((resolve) => {
      this.#syncAfter(() => {
        if (this.#hasCrashed) return;
        const index = this.#unsynced.findIndex((commit) => commit.mutations === settled);
        for (const commit of this.#unsynced.splice(0, index + 1))
          for (const mutation of commit.mutations) change(this.#durable, mutation);
        resolve();
      });
    });
    this.#unsynced.push({ mutations: settled, done });
    return done;
  }

  #count(key: Uint8Array, from: Uint8Array | undefined, to: Uint8Array | undefined): void {
    const { scheme } = this.digests;
    const bucket = scheme.bucketOf(key);
    if (bucket < 0) return;
    const digestOf = (value: Uint8Array | undefined): bigint | undefined =>
      value === undefined ? undefined : scheme.digestOf(key, value);
    this.digests.replace(bucket, digestOf(from), digestOf(to));
  }

  get(key: Uint8Array): Entry | undefined {
    return this.#entries.get(Buffer.from(key).toString("latin1"));
  }

  durable(key: Uint8Array): Promise<void> | undefined {
    return this.#unsynced.findLast(({ mutations }) =>
      mutations.some((mutation) => Buffer.compare(mutation.key, key) === 0),
    )?.done;
  }

  async sync(): Promise<void> {
    await this.#unsynced.at(-1)?.done;
  }

  requireRoom(): void {}

  readBody(body: BodyReference, offset: number, length: number): Promise<Uint8Array> {
    for (const entry of this.#entries.values()) {
      if (entry.body !== body || entry.bytes === undefined) continue;
      return Promise.resolve(new Uint8Array(entry.bytes.subarray(offset, offset + length)));
    }
    return Promise.reject(new RingsteadError("body-gone", "the body was superseded"));
  }

  stage(): Promise<StagedBody> {
    return Promise.reject(new RingsteadError("device-full", "the memory device stages no bodies"));
  }

  async *scanPages(range: ScanRange): AsyncGenerator<ScannedEntry[]> {
    const entries = await this.scan(range);
    if (entries.length > 0) yield entries;
  }

  async scan(range: ScanRange): Promise<ScannedEntry[]> {
    const found: { key: Buffer; value: Uint8Array }[] = [];
    for (const [text, entry] of this.#entries) {
      const key = Buffer.from(text, "latin1");
      if (Buffer.compare(key, range.gte) >= 0 && Buffer.compare(key, range.lt) < 0)
        found.push({ key, value: entry.value });
    }
    found.sort((a, b) => Buffer.compare(a.key, b.key) * (range.reverse === true ? -1 : 1));
    return found.slice(0, range.limit);
  }

  figures(): DeviceFigures {
    const size = this.#entries.size;
    return { isFull: 0, isFailed: 0, isReadOnly: 0, freeBytes: 0, usedBytes: size, amplification: 1, damagedReads: 0 };
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

type SettledMutation = Exclude<Mutation, { kind: "late" }>;

/** Here every commit is a batch of its own, so that a late put is a put of the value after its commit's change. */
const settle = (mutation: Mutation): SettledMutation => {
  if (mutation.kind !== "late") return mutation;
  mutation.change();
  return { kind: "put", key: mutation.key, value: mutation.value(), body: { kind: "none" } };
};

const change = (
  entries: Map<string, Entry & { readonly bytes: Uint8Array | undefined }>,
  mutation: SettledMutation,
): void => {
  const key = Buffer.from(mutation.key).toString("latin1");
  if (mutation.kind === "delete") {
    entries.delete(key);
    return;
  }
  const bytes =
    mutation.body.kind === "bytes"
      ? mutation.body.bytes
      : mutation.body.kind === "keep"
        ? entries.get(key)?.bytes
        : undefined;
  const body: BodyReference =
    bytes === undefined ? { kind: "none" } : { kind: "log", segment: 0, offset: 0, length: bytes.length };
  entries.set(key, { value: mutation.value, body, bytes });
};
