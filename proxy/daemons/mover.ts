import { RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import { OTHER_BASE_REMEDY } from "../../ring/base-ring.ts";
import type { Ring } from "../../ring/ring.ts";
import { ringDifference } from "../../ring/ring-difference.ts";
import type { Configuration, Space } from "../../storage-node/wire.ts";
import type { MoveOutcome } from "../core/partition-move.ts";
import type { DeviceEpochs } from "../object-service/device-epochs.ts";
import { type Left, surveyOf, type Unaware } from "./move-survey.ts";
import { TimeLeft } from "./time-left.ts";
import type { LeaseAnswer } from "../object-service/mover-lease.ts";
import type { Partition } from "../object-service/partition.ts";

/** Partitions on their way at once: each costs writes of it some messages more. */
const MOVING_LIMIT = 64;
/** Of those that one device enters, a share of whose disk each of them takes: one that is away keeps no other from getting what is its own. */
const ENTERING_LIMIT = 32;
/** A sealed partition whose newcomer does not answer waits for it so long, and goes on with those it had then. */
const SEALED_LIMIT_MS = 5000;
/** Between two looks at those whose newcomers copy. */
const COPYING_POLL_MS = 200;
/** What is given back in one go, before new rings are looked at again. */
const RELEASING_LIMIT_MS = 10_000;
/** After which one that too few devices answered for is tried again. */
const UNAVAILABLE_MS = 1000;
/** Between two looks at ring files. */
const LOOK_MS = 1000;
/** All devices are asked so often what they know: a proxy that met none of a partition's members still hears who they are. */
const FOLLOW_MS = 30_000;
/** Partitions that are looked at in one go: meanwhile no client is served. */
const YIELD_COUNT = 500;

const SPACES: readonly Space[] = ["account", "container", "object"];

/** The rings that say where data is to be. */
type MoveTargets = {
  readonly changes: number;
  look(): void;
  ringOf(space: Space): Ring;
  refusalOf(space: Space): string | undefined;
};

/** Moves partitions, and hears of those that were moved. */
type Moves = {
  move(partition: Partition, target: readonly string[]): Promise<MoveOutcome>;
  release(partition: Partition, id: string): Promise<boolean>;
  /** Tells a member who keeps the partition; whether it has heard. */
  inform(partition: Partition, id: string): Promise<boolean>;
  follow(): Promise<readonly DeviceEpochs[]>;
  /** A device that votes, and takes others for the first members than this process does. */
  readonly otherBase: { readonly id: string; readonly space: Space } | undefined;
};

export type MoverParts = {
  readonly targets: MoveTargets;
  readonly partitions: {
    /** Where partitions that were never moved are. */
    ringOf(space: Space): Ring;
    partition(space: Space, partition: number): Partition;
    replica(id: string): unknown;
  };
  readonly moves: Moves;
  /** Whether this process is the one that moves. */
  readonly lease: { take(versions: Readonly<Record<Space, number>>): Promise<LeaseAnswer>; give(): Promise<void> };
  readonly log: Log;
  /** Told of every change of what is to be told to operators. */
  readonly onProgress: (progress: MoveProgress) => void;
};

/** What an operator wants to know of one ring. */
export type RingProgress = {
  readonly version: number;
  readonly refusal: string | undefined;
  /** A device that serves and began with another ring than this process has as its base. */
  readonly otherBase: string | undefined;
  /** Partitions whose members are not those of the ring, those on their way among them. */
  readonly toMove: number;
  /** Those that are on their way to other members. */
  readonly moving: number;
  /** Partitions that were ever moved, and are where they are to be. */
  readonly done: number;
  /** Entries that devices hold of partitions that they do not keep any more. */
  readonly entriesToRelease: number;
};

/** `isMover`: whether this process moves them; `secondsLeft`: until it has moved all, where that can be told. */
export type MoveProgress = {
  readonly isMover: boolean;
  readonly secondsLeft: number | undefined;
  readonly rings: Readonly<Record<Space, RingProgress>>;
};

type Job = {
  readonly partition: Partition;
  readonly target: readonly string[];
  /** Members that it had, or still has. */
  readonly former: Set<string>;
  state: "waiting" | "moving";
  nextMs: number;
  /** Since when it waits for newcomers although it is sealed, and in which epoch; undefined where it is not. */
  stuck: { readonly epoch: number; readonly sinceMs: number } | undefined;
};

const idsOf = (ring: Ring, partition: number): readonly string[] =>
  ring.primaries(partition).map(({ device, node }) => `${node}/${device}`);

const enteringOf = ({ partition, target }: Job): readonly string[] =>
  target.filter((id) => !partition.configuration.old.some((member) => member.id === id));

const isAt = ({ next, old }: Configuration, target: readonly string[]): boolean =>
  next === undefined && old.length === target.length && old.every(({ id }) => target.includes(id));

/**
 * Brings partitions to where the rings say that they are to be, some at a time, while clients work (PROTOCOL section 8), and lets devices give back what is
 * elsewhere then. Every proxy has one, and the one with the lease works: any of them may die, and who comes next asks how far it had come.
 */
export class Mover implements Worker {
  readonly name = "mover";
  readonly #parts: MoverParts;
  #jobs: Job[] = [];
  /** What devices hold of partitions that are elsewhere: they were away when that was said, or died in the middle. */
  #left: Left[] = [];
  /** Devices that lost their disk after they became members. */
  #unaware: Unaware[] = [];
  /** Partitions that are sealed somewhere, as devices said last, with the epoch in which they were. */
  #sealed: ReadonlyMap<Partition, number> = new Map();
  /** Partitions that were ever moved. */
  readonly #ever: Readonly<Record<Space, Set<number>>> = {
    account: new Set(),
    container: new Set(),
    object: new Set(),
  };
  readonly #differences = new Map<Space, { readonly ring: Ring; readonly partitions: ReadonlySet<number> }>();
  #followAtMs = 0;
  #seenChanges = -1;
  #isMover = false;
  #outdated: Extract<LeaseAnswer, { readonly kind: "outdated" }> | undefined;
  #otherBase: Moves["otherBase"];
  readonly #timeLeft = new TimeLeft();
  #moved = 0;
  #releasedDevices = 0;
  #told = "";
  #last: MoveProgress | undefined;
  #toldAtMs = 0;

  constructor(parts: MoverParts) {
    this.#parts = parts;
  }

  status(): Record<string, unknown> {
    const { isMover, rings } = this.progress();
    return { isMover, moved: this.#moved, releasedDevices: this.#releasedDevices, ...rings };
  }

  /** What was told last. */
  get lastProgress(): MoveProgress {
    return this.#last ?? this.progress();
  }

  /** As it is now, as far as this process has heard. */
  progress(): MoveProgress {
    const of = (space: Space): RingProgress => {
      const jobs = this.#jobs.filter(({ partition }) => partition.place.space === space);
      const ever = this.#ever[space];
      return {
        version: this.#parts.targets.ringOf(space).version,
        refusal: this.#parts.targets.refusalOf(space) ?? this.#outdatedIn(space),
        otherBase: this.#otherBase?.space === space ? this.#otherBase.id : undefined,
        toMove: jobs.length,
        moving: jobs.filter(({ state }) => state === "moving").length,
        done: ever.size - jobs.filter(({ partition }) => ever.has(partition.place.partition)).length,
        entriesToRelease: this.#left.reduce((sum, one) => sum + (one.space === space ? one.entries : 0), 0),
      };
    };
    return {
      isMover: this.#isMover,
      secondsLeft: this.#isMover ? this.#timeLeft.seconds(this.#jobs.length, performance.now()) : undefined,
      rings: { account: of("account"), container: of("container"), object: of("object") },
    };
  }

  async work(signal: AbortSignal): Promise<"busy" | "idle"> {
    const { lease, targets } = this.#parts;
    targets.look();
    if (targets.changes !== this.#seenChanges || performance.now() >= this.#followAtMs) await this.#follow();
    const hasWork = this.#jobs.length > 0 || this.#left.length > 0 || this.#unaware.length > 0;
    const wasMover = this.#isMover;
    try {
      this.#isMover = hasWork && (await this.#takeLease());
    } catch (error) {
      this.#isMover = false;
      await this.#finishBegun();
      throw error;
    }
    if (this.#jobs.length === 0) this.#timeLeft.end();
    if (this.#isMover) {
      this.#timeLeft.begin(performance.now());
      // Another one may have died in the middle of what this one knows nothing of.
      if (!wasMover) await this.#follow();
      await this.#informUnaware(signal);
      await this.#moveSome(signal);
      if (this.#jobs.length === 0) await this.#releaseLeft(signal);
      if (this.#jobs.length === 0) await lease.give();
    }
    this.#tell();
    return "idle";
  }

  waitForWork(signal: AbortSignal): Promise<void> {
    return sleep(this.#isMover && this.#jobs.length > 0 ? COPYING_POLL_MS : LOOK_MS, signal);
  }

  async #takeLease(): Promise<boolean> {
    const { lease, log, targets } = this.#parts;
    const answer = await lease.take({
      account: targets.ringOf("account").version,
      container: targets.ringOf("container").version,
      object: targets.ringOf("object").version,
    });
    const outdated = answer.kind === "outdated" ? answer : undefined;
    if (outdated !== undefined && this.#outdated?.version !== outdated.version)
      log.error("this node has a ring that is older than one that data was moved by: nothing is moved from here", {
        ring: outdated.ring,
        version: outdated.version,
      });
    this.#outdated = outdated;
    return answer.kind === "taken";
  }

  #outdatedIn(space: Space): string | undefined {
    if (this.#outdated?.ring !== space) return undefined;
    return `data was moved by version ${this.#outdated.version} already: copy that ring from another node`;
  }

  /** Asks all devices, and looks at all partitions. */
  async #follow(): Promise<void> {
    const { partitions, targets } = this.#parts;
    this.#seenChanges = targets.changes;
    this.#followAtMs = performance.now() + FOLLOW_MS;
    for (const space of SPACES)
      for (const device of targets.ringOf(space).devices)
        if (device !== undefined) partitions.replica(`${device.node}/${device.device}`);
    await this.#ask();
    const before = this.#jobs.filter(({ state }) => state === "moving");
    const jobs: Job[] = [];
    let looked = 0;
    for (const space of SPACES) {
      const ring = targets.ringOf(space);
      for (const number of new Set([...this.#differing(space, ring), ...this.#ever[space]])) {
        if (++looked % YIELD_COUNT === 0) await sleep(0);
        const target = idsOf(ring, number);
        const partition = partitions.partition(space, number);
        const { configuration } = partition;
        if (isAt(configuration, target)) continue;
        const former = before.find((job) => job.partition === partition)?.former ?? new Set<string>();
        // What is half done is finished first: it may have been sealed.
        const state = configuration.next === undefined ? "waiting" : "moving";
        const stuck = before.find((job) => job.partition === partition)?.stuck;
        jobs.push({ partition, target, former, state, nextMs: 0, stuck });
      }
    }
    this.#jobs = jobs.toSorted((left, right) => Number(right.state === "moving") - Number(left.state === "moving"));
  }

  /** Partitions that are not where they were at the beginning, as the ring has it. */
  #differing(space: Space, ring: Ring): ReadonlySet<number> {
    const known = this.#differences.get(space);
    if (known?.ring === ring) return known.partitions;
    const { moves } = ringDifference(this.#parts.partitions.ringOf(space), ring);
    const partitions = new Set(moves.map(({ partition }) => partition));
    this.#differences.set(space, { ring, partitions });
    return partitions;
  }

  async #moveSome(signal: AbortSignal): Promise<void> {
    for (;;) {
      const nowMs = performance.now();
      const room = this.#room();
      const some = this.#jobs.filter((job) => job.nextMs <= nowMs && (job.state === "moving" || room(job)));
      if (some.length === 0) return;
      const over = new Set(await Promise.all(some.map(async (job) => ((await this.#step(job)) ? job : undefined))));
      if (over.delete(undefined) && over.size === 0) return;
      this.#jobs = this.#jobs.filter((job) => !over.has(job));
      if (performance.now() - this.#toldAtMs > LOOK_MS) this.#tell();
      if (signal.aborted || !(await this.#takeLease())) return;
    }
  }

  /** Says of one partition after the other whether it may begin too. */
  #room(): (job: Job) => boolean {
    let moving = 0;
    const entering = new Map<string, number>();
    const add = (job: Job): void => {
      moving += 1;
      for (const id of enteringOf(job)) entering.set(id, (entering.get(id) ?? 0) + 1);
    };
    for (const job of this.#jobs) if (job.state === "moving") add(job);
    return (job) => {
      const isFree = enteringOf(job).every((id) => (entering.get(id) ?? 0) < ENTERING_LIMIT);
      if (moving >= MOVING_LIMIT || !isFree) return false;
      add(job);
      return true;
    };
  }

  /**
   * Where the lease cannot be read it may be because its own partition was sealed by one that died: what has begun is brought on without it. Two that do so
   * at once decide nothing different (`core/partition-move.ts`).
   */
  async #finishBegun(): Promise<void> {
    for (const job of this.#jobs) {
      if (job.partition.configuration.next === undefined) continue;
      if (await this.#step(job)) this.#jobs = this.#jobs.filter((other) => other !== job);
    }
  }

  async #informUnaware(signal: AbortSignal): Promise<void> {
    const silent = new Set<string>();
    for (const { id, partition } of this.#unaware.splice(0)) {
      if (signal.aborted) return;
      if (!silent.has(id) && !(await this.#parts.moves.inform(partition, id))) silent.add(id);
    }
  }

  /** Goes on with one partition; whether it has come to its end. */
  async #step(job: Job): Promise<boolean> {
    const { moves } = this.#parts;
    const { partition, target } = job;
    for (const { id } of partition.configuration.old) job.former.add(id);
    job.state = "moving";
    const outcome = await moves.move(partition, target);
    for (const { id } of partition.configuration.old) job.former.add(id);
    switch (outcome) {
      case "copying": {
        const nowMs = performance.now();
        job.nextMs = nowMs + COPYING_POLL_MS;
        const { epoch, old } = partition.configuration;
        if (this.#sealed.get(partition) !== epoch) {
          // Clients are served meanwhile: however long its newcomers copy, what they have is not thrown away.
          job.stuck = undefined;
          return false;
        }
        if (job.stuck?.epoch !== epoch) job.stuck = { epoch, sinceMs: nowMs };
        if (nowMs - job.stuck.sinceMs < SEALED_LIMIT_MS) return false;
        // Its newcomer went after the sealing: those that it had serve again, and it begins anew.
        await moves.move(
          partition,
          old.map(({ id }) => id),
        );
        job.stuck = undefined;
        return false;
      }
      case "unavailable":
        job.nextMs = performance.now() + UNAVAILABLE_MS;
        return false;
      case "done": {
        this.#moved += 1;
        this.#timeLeft.note(performance.now());
        this.#ever[partition.place.space].add(partition.place.partition);
        for (const id of job.former) if (!target.includes(id)) await this.#release(partition, id);
        return true;
      }
    }
  }

  async #releaseLeft(signal: AbortSignal): Promise<void> {
    const { moves, partitions, targets } = this.#parts;
    const untilMs = performance.now() + RELEASING_LIMIT_MS;
    const silent = new Set<string>();
    for (const { id, partition: number, space } of this.#left) {
      if (signal.aborted || performance.now() > untilMs) return;
      if (silent.has(id)) continue;
      const partition = partitions.partition(space, number);
      // So that enough of the members know.
      if ((await moves.move(partition, idsOf(targets.ringOf(space), number))) !== "done") continue;
      if (!(await this.#release(partition, id))) silent.add(id);
    }
    await this.#ask();
  }

  async #ask(): Promise<void> {
    const { moves, partitions } = this.#parts;
    const { ever, left, sealed, unaware } = surveyOf(await moves.follow(), partitions);
    for (const space of SPACES) for (const number of ever[space]) this.#ever[space].add(number);
    this.#sealed = sealed;
    this.#left = left;
    this.#unaware = unaware;
    this.#noteOtherBase();
  }

  #noteOtherBase(): void {
    const { log, moves } = this.#parts;
    const other = moves.otherBase;
    if (other !== undefined && this.#otherBase?.id !== other.id)
      log.error("this node has another ring as its base than devices that serve: nobody answers it where they differ", {
        ring: other.space,
        device: other.id,
        remedy: OTHER_BASE_REMEDY,
      });
    this.#otherBase = other;
  }

  /** Where it is not done now, it is found again when devices are asked. */
  async #release(partition: Partition, id: string): Promise<boolean> {
    const isReleased = await this.#parts.moves.release(partition, id);
    if (isReleased) this.#releasedDevices += 1;
    return isReleased;
  }

  #tell(): void {
    this.#toldAtMs = performance.now();
    const progress = this.progress();
    this.#last = progress;
    const text = JSON.stringify(progress);
    if (text === this.#told) return;
    this.#told = text;
    this.#parts.onProgress(progress);
  }

  /** Gives the lease back, so that the next one need not wait. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#parts.lease.give();
    } catch (error) {
      if (!(error instanceof RingsteadError)) throw error;
    }
  }
}
