import type { Clock } from "../common/clock.ts";
import { sleep, type Worker } from "../common/worker.ts";
import type { DeviceReplica } from "./device-replica.ts";
import { partitionSum, rangeOfPartition } from "./repair/repair-source.ts";
import type { WantedCounts } from "./row-shards.ts";
import { decodeCounters } from "./store/counters-format.ts";
import { BUCKET_POWER } from "./store/entry-digest.ts";
import { behindRowsOf, listingOf } from "./store/keys.ts";
import type { Name } from "./wire.ts";

/** Entries that are looked at in one go: about a millisecond. */
const PAGE_ENTRIES = 500;
/** Between two pages, and how many times as long as a page took. */
const PAUSE_MS = 20;
const PAUSE_SHARE = 9;
/** Between two walks, and how many times as long as the one before took. */
const REST_MS = 600_000;
const REST_SHARE = 10;
/** A walk that nobody has asked for is begun so long after the start. */
const FIRST_MS = 60_000;
const LOOK_MS = 1000;
const BUCKETS = 2 ** BUCKET_POWER;

/** Where a walk is: a bucket of names, and the first key that was not looked at. */
export type WalkPosition = { readonly bucket: number; readonly from: Uint8Array | undefined };

export const WALK_START: WalkPosition = { bucket: 0, from: undefined };

/** A page of a walk: the listings of containers on it, with their rows, and where it goes on; undefined at the end. */
export type WalkedPage = {
  readonly listings: readonly { readonly owner: Name; readonly rows: number }[];
  readonly next: WalkPosition | undefined;
};

/**
 * Looks at the listings of all containers of a device, in pages of bounded work: buckets in which no container has anything are passed over, and so are all rows of a
 * listing behind the first page. What is memory's of listings is those that were asked for lately; this finds the others.
 */
export const walkPage = async ({ engine }: DeviceReplica, position: WalkPosition): Promise<WalkedPage> => {
  const placeOf = (partition: number) => ({ space: "container", partition, partitionPower: BUCKET_POWER }) as const;
  let { bucket, from } = position;
  while (bucket < BUCKETS && from === undefined && partitionSum(engine, placeOf(bucket)).entries === 0) bucket += 1;
  if (bucket === BUCKETS) return { listings: [], next: undefined };
  const { gte, lt } = rangeOfPartition(placeOf(bucket));
  const entries = await engine.scan({ gte: from ?? gte, lt, limit: PAGE_ENTRIES });
  const listings = entries.flatMap(({ key, value }) => {
    const owner = listingOf(key);
    const rows = owner === undefined ? undefined : decodeCounters(value)?.rows;
    return owner === undefined || rows === undefined ? [] : [{ owner, rows }];
  });
  const last = entries.length < PAGE_ENTRIES ? undefined : entries.at(-1)?.key;
  from = last === undefined ? undefined : (behindRowsOf(last) ?? Buffer.concat([last, Buffer.of(0)]));
  return { listings, next: { bucket: from === undefined ? bucket + 1 : bucket, from } };
};

/**
 * Walks over the listings of a device in the background: those that are larger or smaller than the sharder wants are told to it with the others, and of lives that are over
 * for good, live rows are removed. It begins anew as soon as somebody asks for other sizes than before, the first time after a start among them.
 */
export class RowWalk implements Worker {
  readonly name: string;
  readonly #replica: DeviceReplica;
  readonly #clock: Clock;
  #position = WALK_START;
  #wanted: WantedCounts | undefined;
  #startMs: number;
  #nextMs: number;
  #walks = 0;
  #dropped = 0;

  /** @param device whose listings these are */
  constructor(device: string, replica: DeviceReplica, clock: Clock) {
    this.name = `row-walk ${device}`;
    this.#replica = replica;
    this.#clock = clock;
    this.#startMs = clock.nowMs();
    this.#nextMs = this.#startMs + FIRST_MS;
  }

  status(): Record<string, unknown> {
    return { walks: this.#walks, droppedRows: this.#dropped, bucket: this.#position.bucket };
  }

  async work(signal: AbortSignal): Promise<"busy" | "idle"> {
    const { wanted } = this.#replica.shards;
    if (wanted !== this.#wanted) {
      this.#wanted = wanted;
      this.#nextMs = 0;
      this.#position = WALK_START;
    }
    const nowMs = this.#clock.nowMs();
    if (nowMs < this.#nextMs) return "idle";
    if (this.#position === WALK_START) this.#startMs = nowMs;
    const sinceMs = performance.now();
    const { listings, next } = await walkPage(this.#replica, this.#position);
    for (const { owner, rows } of listings) this.#replica.shards.noteWalked(owner, rows);
    await pause(sinceMs, signal);
    for (const { owner, rows } of listings) if (rows > 0) await this.#dropOver(owner, signal);
    if (next !== undefined) {
      this.#position = next;
      return "busy";
    }
    this.#walks += 1;
    this.#position = WALK_START;
    const endMs = this.#clock.nowMs();
    this.#nextMs = endMs + Math.max(REST_MS, REST_SHARE * (endMs - this.#startMs));
    return "idle";
  }

  waitForWork(signal: AbortSignal): Promise<void> {
    return sleep(LOOK_MS, signal);
  }

  async #dropOver(owner: Name, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const sinceMs = performance.now();
      const dropped = await this.#replica.shards.dropOver(owner);
      if (dropped === 0) return;
      this.#dropped += dropped;
      await pause(sinceMs, signal);
    }
  }
}

/** Clients go first. */
const pause = (sinceMs: number, signal: AbortSignal): Promise<void> =>
  sleep(Math.max(PAUSE_MS, PAUSE_SHARE * (performance.now() - sinceMs)), signal);
