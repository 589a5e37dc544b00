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
import { RateMeter } from "../repair/rate-meter.ts";
import { partitionSum } from "../repair/repair-source.ts";
import type { Life } from "../votes.ts";
import type { Space } from "../wire.ts";

/** Between two rounds of a device that votes. */
const ROUND_MS = 30_000;
/** Between two rounds of a newcomer: it is missed. */
const JOIN_ROUND_MS = 250;
/** The same when it has everything and only waits for forgotten promises. */
const WAITING_ROUND_MS = 1000;
const YOUNG_MS = 10_000;
/** Partitions that are repaired at once: while one waits for its sync another one reads. */
const CONCURRENCY = 8;
/** Partitions that are compared at once: what is known of them is in memory until they are done. */
const COMPARED_AT_ONCE = 1024;
const REPAIRED_AT_ONCE = 128;

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
  /** Told of everything that could not be pulled or asked. */
  readonly onFailure?: (reason: string) => void;
};

/** What an operator wants to know of a device's repair. */
export type RepairFigures = {
  /** Partitions whose replica here differs from another's, or does not vote yet, as the round under way knows them. */
  partitionsLeft: number;
  /** Of them those in which this device does not vote. */
  joiningPartitions: number;
  /** Of those the ones that have everything and wait until forgotten promises bind nobody any more, after the last round. */
  waitingPartitions: number;
  /** Of all partitions left, as far as numbers of entries tell. */
  entriesLeft: number;
  repairedEntries: number;
  repairedBytes: number;
  rounds: number;
  /** Pulls that failed, be it for a peer that is away. */
  failures: number;
};

/** How fast a device is repaired, and for how long; undefined where that cannot be told. */
export type RepairRate = {
  readonly entriesPerSecond: number;
  readonly bytesPerSecond: number;
  readonly bytesLeft: number;
  readonly secondsLeft: number | undefined;
};

type Member = { readonly peer: RepairSource; readonly answer: MemberAnswer; readonly sum: bigint; readonly life: Life };
/** A partition with what its other members said of it in this round. */
type Compared = { readonly place: PartitionPlace; readonly others: number; readonly members: Member[] };
/** Numbers of partitions of one ring. */
type Queue = { readonly space: Space; readonly partitions: number[] };

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
    waitingPartitions: 0,
    entriesLeft: 0,
    repairedEntries: 0,
    repairedBytes: 0,
    rounds: 0,
    failures: 0,
  };
  readonly #parts: ReplicatorParts;
  readonly #peers = new Map<string, RepairSource>();
  readonly #meter = new RateMeter();
  /** The partitions of each ring that this device is a member of. */
  readonly #own: readonly Queue[];
  #lastError: string | undefined;

  constructor(parts: ReplicatorParts) {
    this.#parts = parts;
    this.name = `replicator ${parts.device}`;
    this.#own = SPACES.map((space) => ({ space, partitions: [...this.#partitionsOf(space)] }));
    if (parts.replica.votes.isNewcomer) this.figures.joiningPartitions = countOf(this.#own);
  }

  status(): Record<string, unknown> {
    return { ...this.figures, ...this.rate(), lastError: this.#lastError };
  }

  /** As it is now. */
  rate(): RepairRate {
    const { entriesLeft, repairedBytes, repairedEntries } = this.figures;
    const { entries, bytes } = this.#meter.rate(this.#parts.clock.nowMs(), repairedEntries, repairedBytes);
    const pullSeconds = entriesLeft === 0 ? 0 : entries === 0 ? undefined : entriesLeft / entries;
    const voteSeconds = this.#parts.replica.votes.safeInMs / 1000;
    return {
      entriesPerSecond: entries,
      bytesPerSecond: bytes,
      bytesLeft: repairedEntries === 0 ? 0 : (entriesLeft * repairedBytes) / repairedEntries,
      secondsLeft: pullSeconds === undefined ? undefined : Math.max(pullSeconds, voteSeconds),
    };
  }

  async work(signal: AbortSignal): Promise<"busy" | "idle"> {
    const { pace, replica } = this.#parts;
    const { engine, votes } = replica;
    if (!engine.digests.isCertain || engine.state().kind === "failed") return "idle";
    const wasNewcomer = votes.isNewcomer;
    const { joining, differing } = await this.#findWork(signal);
    this.figures.partitionsLeft = countOf(joining) + countOf(differing);
    // While repair is paused it is still known what is missing.
    if (this.figures.partitionsLeft > 0) await pace.admit(signal);
    // Where it does not vote a partition has one replica less than it should.
    const waiting = await this.#repairAll([...joining, ...differing], signal);
    this.figures.waitingPartitions = waiting;
    this.figures.entriesLeft = 0;
    if (wasNewcomer) await this.#finishJoining();
    this.figures.rounds += 1;
    return "idle";
  }

  waitForWork(signal: AbortSignal): Promise<void> {
    if (!this.#parts.replica.votes.isNewcomer) return sleep(ROUND_MS, signal);
    const { joiningPartitions, waitingPartitions } = this.figures;
    return sleep(joiningPartitions === waitingPartitions ? WAITING_ROUND_MS : JOIN_ROUND_MS, signal);
  }

  #votesIn({ space, partition, partitionPower }: PartitionPlace): boolean {
    return this.#parts.replica.votes.votesIn(space, partition * 2 ** (32 - partitionPower));
  }

  /** Partitions in which this device does not vote, and others that differ from a peer's. */
  async #findWork(signal: AbortSignal): Promise<{ readonly joining: Queue[]; readonly differing: Queue[] }> {
    const joining: Queue[] = SPACES.map((space) => ({ space, partitions: [] }));
    const differing: Queue[] = SPACES.map((space) => ({ space, partitions: [] }));
    let entriesLeft = 0;
    for (const [index, own] of this.#own.entries()) {
      for (const some of slicesOf(own, COMPARED_AT_ONCE)) {
        signal.throwIfAborted();
        for (const { place, members } of await this.#compare(some)) {
          const { sum, entries } = partitionSum(this.#parts.replica.engine, place);
          const isVoting = this.#votesIn(place);
          if (isVoting && !members.some((member) => hasMore(member, sum))) continue;
          (isVoting ? differing : joining)[index]?.partitions.push(place.partition);
          entriesLeft += Math.max(0, ...members.map(({ answer }) => answer.entries - entries));
        }
      }
    }
    this.figures.entriesLeft = entriesLeft;
    return { joining, differing };
  }

  *#partitionsOf(space: Space): Generator<number> {
    const ring = this.#parts.rings[space];
    for (let partition = 0; partition < ring.partitionCount; partition++)
      if (ring.primaries(partition).some((one) => this.#isMine(one))) yield partition;
  }

  #isMine({ node, device }: RingDevice): boolean {
    return node === this.#parts.node && device === this.#parts.device;
  }

  /** What the other members say of each of some partitions; one that cannot be asked says nothing. */
  async #compare({ space, partitions }: Queue): Promise<Iterable<Compared>> {
    const { primaries, partitionPower } = this.#parts.rings[space];
    const compared = new Map<number, Compared>();
    const byPeer = new Map<RepairSource, number[]>();
    for (const partition of partitions) {
      const others = primaries(partition).filter((one) => !this.#isMine(one));
      compared.set(partition, { place: { space, partition, partitionPower }, others: others.length, members: [] });
      for (const other of others) {
        const peer = this.#peer(other);
        const asked = byPeer.get(peer);
        if (asked === undefined) byPeer.set(peer, [partition]);
        else asked.push(partition);
      }
    }
    const own = this.#parts.replica.votes.life;
    for (const [peer, asked] of byPeer) {
      const said = await this.#try(() => peer.digests(space, partitionPower, asked, own));
      if (said === undefined) continue;
      const { hasPromised, isFounder, life } = said;
      for (const { partition, isVoting, entries, sum } of said.partitions) {
        const answer = { isVoting, entries, hasPromised, isFounder };
        compared.get(partition)?.members.push({ peer, answer, sum, life });
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

  /** Gives in how many partitions only the time for forgotten promises is to be waited for. */
  async #repairAll(queues: readonly Queue[], signal: AbortSignal): Promise<number> {
    let waiting = 0;
    for (const queue of queues) {
      for (const some of slicesOf(queue, REPAIRED_AT_ONCE)) {
        const next = (await this.#compare(some))[Symbol.iterator]();
        const take = async (): Promise<void> => {
          for (let one = next.next(); one.done !== true; one = next.next()) {
            signal.throwIfAborted();
            if (await this.#repair(one.value, signal)) waiting += 1;
            this.figures.partitionsLeft -= 1;
          }
        };
        await Promise.all(Array.from({ length: CONCURRENCY }, take));
      }
    }
    return waiting;
  }

  /**
   * Pulls from every member that differs; a newcomer's vote is judged by those from which nothing is missing any more. Gives whether it
   * has everything and waits.
   */
  async #repair({ place, others, members }: Compared, signal: AbortSignal): Promise<boolean> {
    const { clock, replica, pace, youngMs = YOUNG_MS } = this.#parts;
    const isVoting = this.#votesIn(place);
    const settledMs = isVoting ? clock.nowMs() - youngMs : Number.POSITIVE_INFINITY;
    const isYoung = (stamp: string): boolean => millisecondsOf(timestampIn(stamp as Ballot)) > settledMs;
    const progress = (entries: number, bytes: number): void => this.#progressed(entries, bytes);
    const pulledFrom: MemberAnswer[] = [];
    for (const { peer, answer, sum } of members) {
      if (hasMore({ answer, sum }, partitionSum(replica.engine, place).sum)) {
        const repair = new PartitionRepair(replica, peer, place, pace, isYoung, signal, progress, answer.entries);
        const isWhole = await this.#try(() => repair.run());
        if (isWhole !== true) continue;
      }
      pulledFrom.push(answer);
    }
    if (isVoting) return false;
    const { entries } = partitionSum(replica.engine, place);
    const verdict = judgeJoin(others + 1, entries, pulledFrom, replica.votes.isSafe);
    if (verdict.kind !== "joined") return verdict.kind === "waiting";
    if (verdict.isFounding) replica.votes.foundWith(members.map(({ life }) => life));
    replica.join(place);
    this.figures.joiningPartitions -= 1;
    return false;
  }

  #progressed(entries: number, bytes: number): void {
    const { figures } = this;
    this.#meter.note(this.#parts.clock.nowMs(), figures.repairedEntries, figures.repairedBytes);
    figures.repairedEntries += entries;
    figures.repairedBytes += bytes;
    figures.entriesLeft = Math.max(0, figures.entriesLeft - entries);
  }

  async #finishJoining(): Promise<void> {
    const { device, log, replica } = this.#parts;
    let left = 0;
    for (const { space, partitions } of this.#own) {
      const { partitionPower } = this.#parts.rings[space];
      for (const partition of partitions) if (!this.#votesIn({ space, partition, partitionPower })) left += 1;
    }
    this.figures.joiningPartitions = left;
    if (left > 0) return;
    this.figures.waitingPartitions = 0;
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
      this.#parts.onFailure?.(this.#lastError);
      return undefined;
    }
  }
}

/** Whether there may be something to pull. Of one that is empty there is not: it may be one that has lost all, and pulls itself. */
const hasMore = ({ answer, sum }: Pick<Member, "answer" | "sum">, own: bigint): boolean =>
  answer.entries > 0 && sum !== own;

const countOf = (queues: readonly Queue[]): number =>
  queues.reduce((sum, { partitions }) => sum + partitions.length, 0);

function* slicesOf({ space, partitions }: Queue, count: number): Generator<Queue> {
  for (let at = 0; at < partitions.length; at += count) yield { space, partitions: partitions.slice(at, at + count) };
}
