import type { Clock } from "../../common/clock.ts";
import { millisecondsOf } from "../../common/hybrid-clock.ts";
import { type Ballot, timestampIn } from "../../common/ballot.ts";
import { codeOf, messageOf, RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type { RingDevice } from "../../ring/device.ts";
import type { Ring } from "../../ring/ring.ts";
import { judgeJoin, type MemberAnswer } from "../core/repair.ts";
import type { DeviceReplica } from "../device-replica.ts";
import type { PartitionPlace } from "../partition-copy.ts";
import { type Pace, PartitionRepair } from "../repair/partition-repair.ts";
import type { RepairSource } from "../repair/repair-peer.ts";
import { DIGESTS_LIMIT } from "../repair/repair-operations.ts";
import { partitionSum } from "../repair/repair-source.ts";
import type { Life } from "../votes.ts";
import type { Space } from "../wire.ts";

/** Between two rounds of a device that votes. */
const ROUND_MS = 30_000;
/** Between two rounds of a newcomer: it is missed. */
const JOIN_ROUND_MS = 250;
const YOUNG_MS = 10_000;
/** Partitions that are repaired at once. */
const CONCURRENCY = 4;

/** Which devices keep a partition, for each ring. */
export type SpaceRings = Readonly<Record<Space, Pick<Ring, "partitionCount" | "partitionPower" | "primaries">>>;

export type ReplicatorParts = {
  readonly node: string;
  readonly device: string;
  readonly replica: DeviceReplica;
  readonly rings: SpaceRings;
  /** Called once for each device. */
  readonly peerOf: (device: RingDevice) => RepairSource;
  readonly pace: Pace;
  readonly clock: Clock;
  readonly log: Log;
  /** What was written within this time is on its way to all replicas, and is no difference yet. */
  readonly youngMs?: number;
};

/** What an operator wants to know of a device's repair. */
export type RepairFigures = {
  /** Partitions whose replica here differs from another's, or does not vote yet, as the round under way knows them. */
  partitionsLeft: number;
  /** Of them those in which this device does not vote. */
  joiningPartitions: number;
  repairedEntries: number;
  repairedBytes: number;
  rounds: number;
  /** Pulls that failed, be it for a peer that is away. */
  failures: number;
};

type Member = { readonly peer: RepairSource; readonly answer: MemberAnswer; readonly sum: bigint; readonly life: Life };
/** A partition with what its other members said of it in this round. */
type Compared = { readonly place: PartitionPlace; readonly others: number; readonly members: Member[] };

const SPACES: readonly Space[] = ["account", "container", "object"];

/**
 * Keeps one device's replicas equal to their peers': it asks the other members of its partitions for their sums, one message for each peer
 * and some thousands of partitions, and pulls what is later there. A newcomer gets its votes back here, partition by partition ([M4]).
 */
export class Replicator implements Worker {
  readonly name: string;
  readonly figures: RepairFigures = {
    partitionsLeft: 0,
    joiningPartitions: 0,
    repairedEntries: 0,
    repairedBytes: 0,
    rounds: 0,
    failures: 0,
  };
  readonly #parts: ReplicatorParts;
  readonly #peers = new Map<string, RepairSource>();
  #lastError: string | undefined;

  constructor(parts: ReplicatorParts) {
    this.#parts = parts;
    this.name = `replicator ${parts.device}`;
    if (parts.replica.votes.isNewcomer) this.figures.joiningPartitions = this.#places().length;
  }

  status(): Record<string, unknown> {
    return { ...this.figures, lastError: this.#lastError };
  }

  async work(signal: AbortSignal): Promise<"busy" | "idle"> {
    const { engine, votes } = this.#parts.replica;
    if (!engine.digests.isCertain || engine.state().kind === "failed") return "idle";
    const wasNewcomer = votes.isNewcomer;
    const left: Compared[] = [];
    for (const space of SPACES) for (const one of await this.#compare(space)) if (this.#needsWork(one)) left.push(one);
    // Where it does not vote a partition has one replica less than it should.
    left.sort((one, other) => Number(this.#votesIn(one.place)) - Number(this.#votesIn(other.place)));
    this.figures.partitionsLeft = left.length;
    await this.#repairAll(left, signal);
    if (wasNewcomer) await this.#finishJoining();
    this.figures.rounds += 1;
    return "idle";
  }

  waitForWork(signal: AbortSignal): Promise<void> {
    return sleep(this.#parts.replica.votes.isNewcomer ? JOIN_ROUND_MS : ROUND_MS, signal);
  }

  #votesIn({ space, partition, partitionPower }: PartitionPlace): boolean {
    return this.#parts.replica.votes.votesIn(space, partition * 2 ** (32 - partitionPower));
  }

  #needsWork({ place, members }: Compared): boolean {
    if (!this.#votesIn(place)) return true;
    const own = partitionSum(this.#parts.replica.engine, place).sum;
    return members.some(({ sum }) => sum !== own);
  }

  /** Every partition of a ring that this device is a member of. */
  *#placesOf(space: Space): Generator<{ readonly place: PartitionPlace; readonly others: readonly RingDevice[] }> {
    const { node, device, rings } = this.#parts;
    const ring = rings[space];
    const { partitionPower } = ring;
    for (let partition = 0; partition < ring.partitionCount; partition++) {
      const members = ring.primaries(partition);
      const isMine = (one: RingDevice): boolean => one.node === node && one.device === device;
      if (!members.some(isMine)) continue;
      yield { place: { space, partition, partitionPower }, others: members.filter((one) => !isMine(one)) };
    }
  }

  #places(): PartitionPlace[] {
    return SPACES.flatMap((space) => [...this.#placesOf(space)].map(({ place }) => place));
  }

  /** What the other members say of each partition of a ring; one that cannot be asked says nothing. */
  async #compare(space: Space): Promise<Iterable<Compared>> {
    const compared = new Map<number, Compared>();
    const byPeer = new Map<RepairSource, number[]>();
    for (const { place, others } of this.#placesOf(space)) {
      compared.set(place.partition, { place, others: others.length, members: [] });
      for (const other of others) {
        const peer = this.#peer(other);
        const partitions = byPeer.get(peer);
        if (partitions === undefined) byPeer.set(peer, [place.partition]);
        else partitions.push(place.partition);
      }
    }
    const { partitionPower } = this.#parts.rings[space];
    for (const [peer, partitions] of byPeer) {
      for (let at = 0; at < partitions.length; at += DIGESTS_LIMIT) {
        const said = await this.#try(() =>
          peer.digests(space, partitionPower, partitions.slice(at, at + DIGESTS_LIMIT), this.#parts.replica.votes.life),
        );
        // What it has not said for some it will not say for the rest.
        if (said === undefined) break;
        const { hasPromised, isFounder, life } = said;
        for (const { partition, isVoting, entries, sum } of said.partitions) {
          const answer = { isVoting, entries, hasPromised, isFounder };
          compared.get(partition)?.members.push({ peer, answer, sum, life });
        }
      }
    }
    return compared.values();
  }

  #peer(device: RingDevice): RepairSource {
    const id = `${device.node}/${device.device}`;
    let peer = this.#peers.get(id);
    if (peer === undefined) {
      peer = this.#parts.peerOf(device);
      this.#peers.set(id, peer);
    }
    return peer;
  }

  async #repairAll(left: readonly Compared[], signal: AbortSignal): Promise<void> {
    const queue = left.values();
    const take = async (): Promise<void> => {
      for (const compared of queue) {
        if (signal.aborted) return;
        await this.#repair(compared, signal);
        this.figures.partitionsLeft -= 1;
      }
    };
    await Promise.all(Array.from({ length: CONCURRENCY }, take));
  }

  /** Pulls from every member that differs; a newcomer's vote is judged by those from which nothing is missing any more. */
  async #repair({ place, others, members }: Compared, signal: AbortSignal): Promise<void> {
    const { replica, pace, youngMs = YOUNG_MS } = this.#parts;
    const isVoting = this.#votesIn(place);
    const settledMs = isVoting ? this.#parts.clock.nowMs() - youngMs : Number.POSITIVE_INFINITY;
    const isYoung = (stamp: string): boolean => millisecondsOf(timestampIn(stamp as Ballot)) > settledMs;
    const pulledFrom: MemberAnswer[] = [];
    for (const { peer, answer, sum } of members) {
      if (sum !== partitionSum(replica.engine, place).sum) {
        const repair = new PartitionRepair(replica, peer, place, pace, isYoung, signal, answer.entries);
        const pulled = await this.#try(() => repair.run());
        this.figures.repairedEntries += pulled?.entries ?? 0;
        this.figures.repairedBytes += pulled?.bytes ?? 0;
        if (pulled?.isWhole !== true) continue;
      }
      pulledFrom.push(answer);
    }
    if (isVoting) return;
    const { entries } = partitionSum(replica.engine, place);
    const verdict = judgeJoin(others + 1, entries, pulledFrom, replica.votes.isSafe);
    if (verdict.kind !== "joined") return;
    if (verdict.isFounding) replica.votes.foundWith(members.map(({ life }) => life));
    replica.join(place);
    this.figures.joiningPartitions -= 1;
  }

  async #finishJoining(): Promise<void> {
    const { device, log, replica } = this.#parts;
    this.figures.joiningPartitions = this.#places().filter((place) => !this.#votesIn(place)).length;
    if (this.figures.joiningPartitions > 0) return;
    await replica.joinAll();
    const { repairedBytes, repairedEntries } = this.figures;
    log.info("a device has caught up and votes", { device, entries: repairedEntries, bytes: repairedBytes });
  }

  /** A peer that is away, and a device that fails, are for a later round. */
  async #try<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof RingsteadError)) throw error;
      this.#lastError = `${codeOf(error)}: ${messageOf(error)}`;
      this.figures.failures += 1;
      return undefined;
    }
  }
}
