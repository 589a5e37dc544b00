import { codeOf, RingsteadError } from "../../common/errors.ts";
import { laterThere } from "../core/repair.ts";
import type { DeviceReplica } from "../device-replica.ts";
import type { NewBody } from "../engine/device-engine.ts";
import type { PartitionPlace } from "../partition-copy.ts";
import { BUCKET_POWER } from "../store/entry-digest.ts";
import { nameOfRegisterKey, rowPlaceOf } from "../store/keys.ts";
import { decodeRegister } from "../store/register-format.ts";
import { decodeRowValue, type Name, type Register, TRANSFER_BLOCK_BYTES } from "../wire.ts";
import type { CarriedEntry } from "./carried-entries.ts";
import { stampOf } from "./entry-list.ts";
import type { RepairSource } from "./repair-peer.ts";
import { bucketSums, ENTRIES_LIMIT, FETCH_LIMIT, firstKeyOfBucket, scanSpace } from "./repair-source.ts";

/** What is asked before anything is pulled: how many keys and bytes there may be now; resolves when they may be pulled. */
export type Pace = (operations: number, bytes: number) => Promise<void>;

/** What one pull came to. `isWhole` false: something could not be had from this peer. */
export type Pulled = { readonly entries: number; readonly bytes: number; readonly isWhole: boolean };

type KeyRange = { readonly gte: Uint8Array; readonly lt: Uint8Array };

/** Neighbouring buckets that differ make one range. */
const rangesThatDiffer = (place: PartitionPlace, here: Buffer, there: Buffer): KeyRange[] => {
  const width = 2 ** (BUCKET_POWER - place.partitionPower);
  const first = place.partition * width;
  const ranges: KeyRange[] = [];
  let start: number | undefined;
  for (let bucket = 0; bucket <= width; bucket++) {
    const at = bucket * 8;
    const differs = bucket < width && here.compare(there, at, at + 8, at, at + 8) !== 0;
    if (differs) start ??= bucket;
    else if (start !== undefined) {
      ranges.push({ gte: firstKeyOfBucket(first + start), lt: firstKeyOfBucket(first + bucket) });
      start = undefined;
    }
  }
  return ranges;
};

/**
 * Brings one partition of a device up to what a peer has of it: compares bucket sums, then the entries of the buckets that differ, and
 * pulls what is later there. What this device has and the peer lacks is the peer's to pull.
 *
 *     sums of buckets ──differ──▶ entries, page by page ──later there──▶ fetch ──▶ install
 *
 * Messages per differing range: one of entries for 2,000 of them, one fetch for 256 keys or 2 MiB of bodies.
 */
export class PartitionRepair {
  readonly #replica: DeviceReplica;
  readonly #peer: RepairSource;
  readonly #place: PartitionPlace;
  readonly #pace: Pace;
  readonly #signal: AbortSignal;
  readonly #thereEntries: number;
  /** Entries whose stamp is later than this are still on their way to all replicas. */
  readonly #isYoung: (stamp: string) => boolean;
  #entries = 0;
  #bytes = 0;
  #isWhole = true;

  constructor(
    replica: DeviceReplica,
    peer: RepairSource,
    place: PartitionPlace,
    pace: Pace,
    isYoung: (stamp: string) => boolean,
    signal: AbortSignal,
    /** How many entries the peer has in the partition. */
    thereEntries: number,
  ) {
    this.#thereEntries = thereEntries;
    this.#replica = replica;
    this.#peer = peer;
    this.#place = place;
    this.#pace = pace;
    this.#isYoung = isYoung;
    this.#signal = signal;
  }

  /** Resolves when what was pulled is synced. Errors: those of the peer and of the device. */
  async run(): Promise<Pulled> {
    const there = await this.#peer.buckets(this.#place);
    const here = bucketSums(this.#replica.engine, this.#place);
    if (there.length !== here.length) throw new RingsteadError("bad-message", "malformed message: buckets");
    const ranges = rangesThatDiffer(this.#place, here, there);
    const [first, last] = [ranges[0], ranges.at(-1)];
    // Of a partition that fits into a page one page is cheaper than several.
    if (first !== undefined && last !== undefined && this.#thereEntries <= ENTRIES_LIMIT)
      await this.#pullRange({ gte: first.gte, lt: last.lt });
    else for (const range of ranges) await this.#pullRange(range);
    return { entries: this.#entries, bytes: this.#bytes, isWhole: this.#isWhole };
  }

  async #pullRange({ gte, lt }: KeyRange): Promise<void> {
    const { space } = this.#place;
    let from = gte;
    for (;;) {
      this.#signal.throwIfAborted();
      const page = await this.#peer.entries(space, from, lt);
      const to = page.next ?? lt;
      const here = [];
      for (let at: Uint8Array | undefined = from; at !== undefined && Buffer.compare(at, to) < 0; ) {
        const own = await scanSpace(this.#replica.engine, space, at, to);
        for (const { key, value } of own.entries) here.push(stampOf(key, value));
        at = own.next;
      }
      const wanted = laterThere(
        here,
        page.entries.filter(({ stamp }) => !this.#isYoung(stamp)),
      );
      await this.#pullKeys(wanted.map((key) => Buffer.from(key, "latin1")));
      if (page.next === undefined || Buffer.compare(page.next, from) <= 0) return;
      from = page.next;
    }
  }

  async #pullKeys(keys: readonly Buffer[]): Promise<void> {
    for (let at = 0; at < keys.length; ) {
      this.#signal.throwIfAborted();
      const asked = keys.slice(at, at + FETCH_LIMIT);
      await this.#pace(asked.length, 0);
      const carried = await this.#peer.fetch(asked);
      // Those behind the last one given were too many for one answer; those between are gone there.
      const last = carried.at(-1)?.key;
      const reached = last === undefined ? asked.length : asked.findIndex((key) => key.equals(last)) + 1;
      if (reached === 0) throw new RingsteadError("bad-message", "an entry that was not asked for");
      at += reached;
      await this.#pace(
        0,
        carried.reduce((sum, { body }) => sum + body.length, 0),
      );
      await Promise.all(carried.map((entry) => this.#install(entry)));
    }
  }

  async #install(entry: CarriedEntry): Promise<void> {
    const { key, value, bodyLength } = entry;
    const row = rowPlaceOf(key, this.#place.space);
    if (row !== undefined) {
      await this.#replica.installRow(row.owner, decodeRowValue(row.name, row.isDeleted, value));
      this.#count(value.length);
      return;
    }
    const name = nameOfRegisterKey(key);
    if (name?.space !== this.#place.space) throw new RingsteadError("bad-message", "an entry of another ring");
    const register = decodeRegister(value);
    const wish = this.#replica.weighs(name, register);
    if (wish === "skip") return;
    const needsBody = wish === "install" && bodyLength > 0;
    const brought = needsBody ? await this.#body(name, register, entry) : WITHOUT_BODY;
    // It is damaged there, or gone: another replica has it, or the next round does.
    if (brought === undefined) {
      this.#isWhole = false;
      return;
    }
    if (await this.#replica.install(name, register, brought.body))
      this.#count(value.length + (needsBody ? bodyLength : 0));
    else await brought.abandon();
  }

  #count(bytes: number): void {
    this.#entries += 1;
    this.#bytes += bytes;
  }

  async #body(name: Name, register: Register, entry: CarriedEntry): Promise<BroughtBody | undefined> {
    if (entry.bodyLength !== register.bodyLength) return undefined;
    if (entry.isBodyHere) return { ...WITHOUT_BODY, body: { kind: "bytes", bytes: entry.body } };
    const staged = await this.#replica.engine.stage();
    try {
      for (let offset = 0; offset < entry.bodyLength; offset += TRANSFER_BLOCK_BYTES) {
        this.#signal.throwIfAborted();
        const length = Math.min(TRANSFER_BLOCK_BYTES, entry.bodyLength - offset);
        await this.#pace(0, length);
        await staged.write(await this.#peer.readBody(name, register.bodyVersion, offset, length));
      }
      const length = await staged.seal();
      if (length !== entry.bodyLength) throw new RingsteadError("body-damaged", "a body came in another length");
      return { body: { kind: "staged", file: staged.file, length }, abandon: () => staged.abandon() };
    } catch (error) {
      await staged.abandon();
      if (codeOf(error) === "body-damaged" || codeOf(error) === "body-gone") return undefined;
      throw error;
    }
  }
}

/** A body as it is to be committed; `abandon` where it is not after all. */
type BroughtBody = { readonly body: NewBody; readonly abandon: () => Promise<void> };

const WITHOUT_BODY: BroughtBody = { body: { kind: "none" }, abandon: async () => {} };
