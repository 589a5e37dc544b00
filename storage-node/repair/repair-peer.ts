import type { Ballot } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { RpcClient } from "../../common/rpc/client.ts";
import { DeviceClient } from "../client.ts";
import type { EntryStamp } from "../core/repair.ts";
import type { PartitionPlace } from "../wire.ts";
import {
  type Configuration,
  type EpochsPage,
  HeaderReader,
  METHOD_BUCKETS,
  METHOD_DIGESTS,
  METHOD_ENTRIES,
  METHOD_EPOCH,
  METHOD_FETCH,
  METHOD_RECLAIM,
  type Name,
  type Space,
  spaceCode,
  unpackConfiguration,
} from "../wire.ts";
import type { Doomed, ReclaimWord } from "../core/reclaim.ts";
import { type Marks, NO_MARKS } from "../reclaim-marks.ts";
import { isLife, type Life } from "../votes.ts";
import { type CarriedEntries, type CarriedPage, unpackCarried } from "./carried-entries.ts";
import { unpackStamps } from "./entry-list.ts";
import {
  type DeviceDigests,
  DIGEST_SEALED,
  DIGEST_STRANGER,
  DIGEST_VOTES,
  PARTITION_DIGEST_BYTES,
  RECLAIM_WORDS,
} from "./repair-operations.ts";
import type { KeyRange } from "./repair-source.ts";

/** Nobody waits for a repair: a busy replica is given time. */
const TIMEOUT_MS = 30_000;
/** All devices are asked at once, and the slowest is waited for. */
const EPOCHS_TIMEOUT_MS = 5000;

/** What a replica that repairs itself asks of another one. Its implementations: `RepairPeer`, `LocalSource`, and the simulation's. */
export type RepairSource = Pick<
  RepairPeer,
  "digests" | "configuration" | "epochs" | "confirmReclaims" | "buckets" | "entries" | "pull" | "fetch"
> & {
  readBody(name: Name, bodyVersion: Ballot, offset: number, length: number): Promise<Uint8Array>;
};

/** One device of another replica, as one that repairs itself asks it. Errors of every call: the RPC's, "no-such-device", "device-failed", "bad-message". */
export class RepairPeer {
  readonly device: string;
  readonly #rpc: RpcClient;
  readonly #client: DeviceClient;

  constructor(rpc: RpcClient, device: string) {
    this.device = device;
    this.#rpc = rpc;
    this.#client = new DeviceClient(rpc, device);
  }

  /** Undefined while that device counts its digests. @param life the asker's, whose device is `asker` */
  async digests(
    space: Space,
    partitionPower: number,
    partitions: readonly number[],
    life: Life,
    asker?: string,
  ): Promise<DeviceDigests | undefined> {
    const { reader, body } = await this.#ask([
      METHOD_DIGESTS,
      this.device,
      spaceCode(space),
      partitionPower,
      life,
      partitions,
      asker ?? null,
    ]);
    if (body.length !== partitions.length * PARTITION_DIGEST_BYTES) throw malformed();
    if (!reader.flag()) return undefined;
    const hasPromised = reader.flag();
    const isFounder = reader.flag();
    const itsLife = reader.any();
    if (!isLife(itsLife)) throw malformed();
    const marks = marksIn(reader, partitions.length);
    const found = partitions.map((partition, index) => {
      const at = index * PARTITION_DIGEST_BYTES;
      const bits = body[at] ?? 0;
      return {
        partition,
        isVoting: (bits & DIGEST_VOTES) !== 0,
        isSealed: (bits & DIGEST_SEALED) !== 0,
        isStranger: (bits & DIGEST_STRANGER) !== 0,
        entries: body.readUInt32BE(at + 1),
        sum: body.readBigUInt64BE(at + 5),
        epoch: body.readUInt32BE(at + 13),
        marks: marks.get(index) ?? NO_MARKS,
      };
    });
    return { hasPromised, isFounder, life: itsLife, partitions: found };
  }

  /** Who keeps the partition, as that device knows it. */
  async configuration({ space, partition, partitionPower }: PartitionPlace): Promise<Configuration> {
    const { reader } = await this.#ask([METHOD_EPOCH, this.device, spaceCode(space), partitionPower, partition]);
    reader.flag();
    return unpackConfiguration(reader);
  }

  /** One page of the partitions that were ever moved, as that device knows them. Errors also: "epoch-other-power". */
  epochs(space: Space, partitionPower: number, from: number): Promise<EpochsPage> {
    return this.#client.epochs(space, partitionPower, from, "", EPOCHS_TIMEOUT_MS);
  }

  /** Whether some deletions may go, as far as that device is concerned. Errors also: those of a vote in that epoch. Requires: at most `RECLAIM_LIMIT`. */
  async confirmReclaims(
    { space, partition, partitionPower }: PartitionPlace,
    epoch: number,
    doomed: readonly Doomed[],
  ): Promise<readonly ReclaimWord[]> {
    const [keys, ballots] = [doomed.map(({ key }) => key), doomed.map(({ ballot }) => ballot)];
    const header = [METHOD_RECLAIM, this.device, spaceCode(space), partitionPower, partition, epoch, keys, ballots];
    const { body } = await this.#ask(header);
    if (body.length !== doomed.length) throw new RingsteadError("bad-message", "malformed message: reclaim");
    return [...body].map((byte) => RECLAIM_WORDS[byte] ?? "kept");
  }

  /** The sums of the partition's buckets, 8 bytes each. */
  async buckets({ space, partition, partitionPower }: PartitionPlace): Promise<Buffer> {
    const header = [METHOD_BUCKETS, this.device, spaceCode(space), partitionPower, partition];
    return (await this.#ask(header)).body;
  }

  /** One page of the entries of a ring between two keys; `next`: where the next one begins. */
  async entries(
    space: Space,
    gte: Uint8Array,
    lt: Uint8Array,
  ): Promise<{ readonly entries: EntryStamp[]; readonly next: Uint8Array | undefined }> {
    const { reader, body } = await this.#ask([METHOD_ENTRIES, this.device, spaceCode(space), gte, lt, 0]);
    return { entries: unpackStamps(body), next: reader.isNull() ? undefined : reader.bytes() };
  }

  /** The same with the entries themselves and their small bodies, some of `limit`. */
  async pull(space: Space, { gte, lt }: KeyRange, limit: number): Promise<CarriedPage> {
    const { reader, body } = await this.#ask([METHOD_ENTRIES, this.device, spaceCode(space), gte, lt, limit]);
    const next = reader.isNull() ? undefined : reader.bytes();
    return { entries: unpackCarried(body), next, isOfVoter: votesAsTold(reader) };
  }

  /** Entries with small bodies: those of the first keys, as many as one answer holds; keys that are gone there are left out. */
  async fetch(keys: readonly Uint8Array[], isBare = false): Promise<CarriedEntries> {
    const { reader, body } = await this.#ask([METHOD_FETCH, this.device, keys, ...(isBare ? [1] : [])]);
    return { entries: unpackCarried(body), isOfVoter: votesAsTold(reader) };
  }

  /** A piece of a large body. Errors also: "body-gone", "body-damaged". */
  readBody(name: Name, bodyVersion: Ballot, offset: number, length: number): Promise<Buffer> {
    return this.#client.readBody(name, bodyVersion, offset, length, TIMEOUT_MS);
  }

  #ask(header: readonly unknown[]): Promise<{ readonly reader: HeaderReader; readonly body: Buffer }> {
    return new Promise((resolve, reject) => {
      this.#rpc.call(header, undefined, TIMEOUT_MS, (error, fields, body) => {
        if (error === undefined) resolve({ reader: new HeaderReader(fields), body });
        else reject(error);
      });
    });
  }
}

/** Devices of versions before do not say it here: what they said of their votes before counts. */
const votesAsTold = (reader: HeaderReader): boolean => reader.any() !== 0;

/** Of the partitions asked about, by their place in the question, those in which anything was forgotten. Devices of versions before say nothing of them. */
const marksIn = (reader: HeaderReader, count: number): ReadonlyMap<number, Marks> => {
  const told = reader.listOrNone(count);
  return new Map(told.map((one) => [one.count(), { registers: one.timestamp(), rows: one.timestamp() }]));
};

const malformed = (): RingsteadError => new RingsteadError("bad-message", "malformed message: digests");
