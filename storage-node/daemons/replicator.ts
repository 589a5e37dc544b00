import type { Clock } from "../../common/clock.ts";
import { millisecondsOf } from "../../common/hybrid-clock.ts";
import { type Ballot, timestampIn } from "../../common/ballot.ts";
import { codeOf, messageOf, RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import { membersOf } from "../core/partition-epoch.ts";
import { EpochHearing, type HearingCircle, wordsOf } from "./epoch-hearing.ts";
import { countOf, OwnPartitions, type Queue, slicesOf, type SpaceRings, SPACES } from "./own-partitions.ts";
import { type Compared, type Member, PartitionJoining } from "./partition-joining.ts";
import type { DeviceReplica } from "../device-replica.ts";
import type { PartitionPlace } from "../wire.ts";
import { type Pace, PartitionRepair } from "../repair/partition-repair.ts";
import type { RepairSource } from "../repair/repair-peer.ts";
import { RateMeter } from "../repair/rate-meter.ts";
import { partitionSum } from "../repair/repair-source.ts";
import type { Configuration } from "../wire.ts";

/** Between two rounds of a device that votes. */
const ROUND_MS = 30_000;
/** Between two rounds of a newcomer: it is missed. */
const JOIN_ROUND_MS = 250;
/** The same when it has everything and only waits for forgotten promises. */
const WAITING_ROUND_MS = 1000;
/** How often is looked whether the device enters partitions, between two rounds: those who move them wait for it. */
const ENTERING_POLL_MS = 50;
const YOUNG_MS = 10_000;
/** Further ahead is no clock. */
const AHEAD_MS = 3_600_000;
/** Partitions that are repaired at once: while one waits for its sync another one reads. */
const CONCURRENCY = 8;
/** Partitions that are compared at once: what is known of them is in memory until they are done. */
const COMPARED_AT_ONCE = 1024;
const REPAIRED_AT_ONCE = 128;
/** A device by its node and its name there. */
export type DevicePlace = { readonly node: string; readonly device: string };

export type ReplicatorParts = {
  readonly node: string;
  readonly device: string;
  readonly replica: DeviceReplica;
  readonly rings: SpaceRings;
  /** Who may know of later members of a partition than this device does. */
  readonly circle: () => HearingCircle;
  /** Called once for each device. */
  readonly peerOf: (device: DevicePlace) => RepairSource;
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
  readonly #partitions: OwnPartitions;
  readonly #joining: PartitionJoining;
  /** The partitions of each ring that this device is a member of. */
  #own: readonly Queue[];
  #lastError: string | undefined;
  #nextRoundMs = 0;
  /** The next round is about those partitions alone that the device enters. */
  #isForEntering = false;
  readonly #hearing: EpochHearing;
  /** Some partition waits for what all devices know. */
  #isUnheard = false;

  constructor(parts: ReplicatorParts) {
    this.#parts = parts;
    const { account, container, object } = parts.rings;
    this.#hearing = new EpochHearing({
      replica: parts.replica,
      circle: parts.circle,
      powers: {
        account: account.partitionPower,
        container: container.partitionPower,
        object: object.partitionPower,
      },
      peerOf: (id) => this.#peer(id),
    });
    this.name = `replicator ${parts.device}`;
    this.#partitions = new OwnPartitions(this.#self, parts.replica.epochs, parts.rings);
    this.#joining = new PartitionJoining({
      self: this.#self,
      replica: parts.replica,
      configurationOf: (place) => this.#partitions.configurationOf(place),
      hasHeardAll: () => this.#hearing.verdict.kind === "heard",
      attempt: (work) => this.#try(work),
      fail: (words) => this.#fail(words),
    });
    this.#own = this.#partitions.now();
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
    if (!engine.digests.isCertain || engine.state().kind === "failed") {
      this.#nextRoundMs = this.#parts.clock.nowMs() + ROUND_MS;
      return "idle";
    }
    const wasNewcomer = votes.isNewcomer;
    this.#own = this.#partitions.now();
    const isForEntering = this.#isForEntering && !wasNewcomer;
    if (!isForEntering) this.#nextRoundMs = this.#parts.clock.nowMs() + ROUND_MS;
    const { joining, differing } = await this.#findWork(
      isForEntering ? this.#partitions.entering() : this.#own,
      signal,
    );
    this.figures.partitionsLeft = countOf(joining) + countOf(differing);
    this.figures.joiningPartitions = countOf(joining);
    // While repair is paused it is still known what is missing.
    if (this.figures.partitionsLeft > 0) await pace.admit(signal);
    // Where it does not vote a partition has one replica less than it should.
    const waiting = await this.#repairAll([...joining, ...differing], signal);
    this.figures.waitingPartitions = waiting;
    this.figures.entriesLeft = 0;
    if (this.#isUnheard) await this.#hearAll();
    if (wasNewcomer) await this.#finishJoining();
    this.figures.rounds += 1;
    return "idle";
  }

  async waitForWork(signal: AbortSignal): Promise<void> {
    const { joiningPartitions, waitingPartitions } = this.figures;
    const { clock, replica } = this.#parts;
    const { epochs, votes } = replica;
    this.#isForEntering = false;
    if (votes.isNewcomer) {
      return sleep(joiningPartitions === waitingPartitions ? WAITING_ROUND_MS : JOIN_ROUND_MS, signal);
    }
    do await sleep(ENTERING_POLL_MS, signal);
    while (!signal.aborted && !epochs.isEntering && clock.nowMs() < this.#nextRoundMs);
    this.#isForEntering = clock.nowMs() < this.#nextRoundMs;
  }

  /** Whether it has what the other members have: else it votes on nothing there, be it that it lost its disk or that it is new. */
  #votesIn(place: PartitionPlace): boolean {
    const { epochs, votes } = this.#parts.replica;
    const hash32 = place.partition * 2 ** (32 - place.partitionPower);
    return votes.votesIn(place.space, hash32) && epochs.hasCaughtUp(place);
  }

  get #self(): string {
    return `${this.#parts.node}/${this.#parts.device}`;
  }

  /** Of some partitions those in which this device does not vote, and others that differ from a peer's. */
  async #findWork(
    queues: readonly Queue[],
    signal: AbortSignal,
  ): Promise<{ readonly joining: Queue[]; readonly differing: Queue[] }> {
    const joining: Queue[] = SPACES.map((space) => ({ space, partitions: [] }));
    const differing: Queue[] = SPACES.map((space) => ({ space, partitions: [] }));
    let entriesLeft = 0;
    for (const [index, own] of queues.entries()) {
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

  /** The other members of a partition. */
  #othersOf(place: PartitionPlace): readonly { readonly id: string; readonly peer: RepairSource }[] {
    return membersOf(this.#partitions.configurationOf(place))
      .filter(({ id }) => id !== this.#self)
      .map(({ id }) => ({ id, peer: this.#peer(id) }));
  }

  /** What the other members say of each of some partitions; one that cannot be asked says nothing. */
  async #compare({ space, partitions }: Queue): Promise<Iterable<Compared>> {
    const { partitionPower } = this.#parts.rings[space];
    const { votes } = this.#parts.replica;
    const compared = new Map<number, Compared>();
    const byPeer = new Map<RepairSource, { readonly id: string; readonly asked: number[] }>();
    for (const partition of partitions) {
      const place = { space, partition, partitionPower };
      compared.set(partition, { place, configuration: this.#partitions.configurationOf(place), members: [] });
      for (const { id, peer } of this.#othersOf(place)) {
        const known = byPeer.get(peer);
        if (known === undefined) byPeer.set(peer, { id, asked: [partition] });
        else known.asked.push(partition);
      }
    }
    for (const [peer, { asked, id }] of byPeer) {
      const said = await this.#try(() => peer.digests(space, partitionPower, asked, votes.life, this.#self));
      if (said === undefined) continue;
      const { hasPromised, isFounder, life } = said;
      for (const { partition, isVoting, entries, ...rest } of said.partitions) {
        const answer = { isVoting, entries, hasPromised, isFounder };
        compared.get(partition)?.members.push({ ...rest, id, peer, answer, life });
      }
    }
    return compared.values();
  }

  #peer(id: string): RepairSource {
    let peer = this.#peers.get(id);
    if (peer === undefined) {
      const slash = id.indexOf("/");
      peer = this.#parts.peerOf({ node: id.slice(0, slash), device: id.slice(slash + 1) });
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
  async #repair(compared: Compared, signal: AbortSignal): Promise<boolean> {
    const { place, configuration, members } = compared;
    const { clock, replica, pace, youngMs = YOUNG_MS } = this.#parts;
    await this.#learnEpoch(place, configuration, members);
    const isVoting = this.#votesIn(place);
    const nowMs = clock.nowMs();
    const isYoung = isVoting ? youngAt(nowMs, youngMs) : () => false;
    const onProgress = (entries: number, bytes: number): void => this.#progressed(entries, bytes);
    const pulledFrom = new Set<string>();
    if (!isVoting && !(await this.#joining.adoptMarks(compared))) return false;
    for (const { id, peer, answer, sum, epoch } of members) {
      if (hasMore({ answer, sum }, partitionSum(replica.engine, place).sum)) {
        const isPeerVoting = answer.isVoting && epoch === configuration.epoch;
        const asked = { replica, place, epoch: configuration.epoch, peer, isPeerVoting, thereEntries: answer.entries };
        const repair = new PartitionRepair({ ...asked, pace, isYoung, signal, onProgress });
        const isWhole = await this.#try(() => repair.run());
        if (isWhole !== true) continue;
      }
      pulledFrom.add(id);
    }
    if (isVoting) return false;
    const verdict = await this.#joining.join(compared, pulledFrom);
    if (verdict === "unheard") this.#isUnheard = true;
    if (verdict === "joined") this.figures.joiningPartitions -= 1;
    return verdict === "waiting";
  }

  /** Who was away, or lost its disk, hears of later epochs here. */
  async #learnEpoch(place: PartitionPlace, known: Configuration, members: readonly Member[]): Promise<void> {
    const ahead = members.toSorted((a, b) => b.epoch - a.epoch)[0];
    if (ahead === undefined || ahead.epoch <= known.epoch) return;
    await this.#try(async () => this.#parts.replica.configure(place, await ahead.peer.configuration(place)));
  }

  /** All who may know of later members of some partition. What is still missing then is for the next round. */
  async #hearAll(): Promise<void> {
    this.#isUnheard = false;
    await this.#hearing.listen();
    const { verdict } = this.#hearing;
    if (verdict.kind === "heard") return;
    const words = wordsOf(verdict);
    if (words !== this.#lastError)
      this.#parts.log.error("a device cannot vote yet", { device: this.#parts.device, why: words });
    this.#fail(words);
  }

  #fail(words: string): void {
    this.#lastError = words;
    this.figures.failures += 1;
    this.#parts.onFailure?.(words);
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
    // What it promised in a partition that it has yet to hear of again binds until then.
    if (left > 0 || (countOf(this.#own) === 0 && !replica.votes.isSafe)) return;
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
      this.#fail(`${codeOf(error)}: ${messageOf(error)}`);
      return undefined;
    }
  }
}

/**
 * Whether an entry's stamp is of a moment ago. One that is far ahead is no time: the row that says of a container that it is gone has the highest stamp there is, and would be on its way
 * for ever.
 */
const youngAt =
  (nowMs: number, youngMs: number) =>
  (stamp: string): boolean => {
    const stampMs = millisecondsOf(timestampIn(stamp as Ballot));
    return stampMs > nowMs - youngMs && stampMs < nowMs + AHEAD_MS;
  };

/** Whether there may be something to pull. Of one that is empty there is not: it may be one that has lost all, and pulls itself. */
const hasMore = ({ answer, sum }: Pick<Member, "answer" | "sum">, own: bigint): boolean =>
  answer.entries > 0 && sum !== own;
