import { setImmediate as nextTurn } from "node:timers/promises";
import type { Clock } from "../../common/clock.ts";
import { codeOf, messageOf, RingsteadError } from "../../common/errors.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import { type Doomed, type ReclaimWord, reclaimWitnesses } from "../core/reclaim.ts";
import type { DeviceReplica } from "../device-replica.ts";
import type { Pace } from "../repair/partition-repair.ts";
import { RECLAIM_LIMIT } from "../repair/repair-operations.ts";
import type { RepairSource } from "../repair/repair-peer.ts";
import { partitionSum } from "../repair/repair-source.ts";
import type { PartitionPlace, Space } from "../wire.ts";

const DAY_MS = 86_400_000;
const LOOK_MS = 1000;
/** So many rounds in a reclaim age: what is to go goes soon after it may, and each reads the whole index. */
const ROUNDS = 7;
const ROUND_MIN_MS = 10_000;
/** Before the first round others of the cluster have time to start. */
const FIRST_ROUND_MS = 60_000;
/** What asking about a deletion costs, for the pace of repair. */
const DELETION_BYTES = 200;

/** Partitions that are looked at in one go. */
const YIELD_COUNT = 256;

const SPACES: readonly Space[] = ["account", "container", "object"];

export type ReclaimerParts = {
  readonly device: string;
  readonly replica: DeviceReplica;
  readonly powers: Readonly<Record<Space, number>>;
  /** Deletions that are younger stay; 0: all of them. */
  readonly reclaimDays: number;
  /** Takes `node/device`. */
  readonly peerOf: (id: string) => Pick<RepairSource, "confirmReclaims">;
  readonly pace: Pace;
  readonly clock: Clock;
};

/** What an operator wants to know of it. */
export type ReclaimFigures = {
  /** Since the start. */
  reclaimedEntries: number;
  /** Deletions that were old enough in the last round, and which not every member confirmed. */
  unreclaimedEntries: number;
  reclaimRounds: number;
};

/**
 * Removes deletions that are older than the reclaim age from one device: [E2] and [E5]. A partition of which a member is away, or whose members change, keeps
 * its own, so that who comes back brings nothing to life. Whoever removed some tells the others, who then remove theirs.
 *
 *     for each partition: page of old deletions ──ask every other member──▶ ask those again who have forgotten it ──all confirm──▶ mark raised, gone ──▶ the others are told
 *                              ▲                        └─else─▶ counted, for the next round ◀─else─┘
 *                              └── next page
 */
export class Reclaimer implements Worker {
  readonly name: string;
  readonly figures: ReclaimFigures = { reclaimedEntries: 0, unreclaimedEntries: 0, reclaimRounds: 0 };
  readonly #parts: ReclaimerParts;
  #nextRoundMs: number;
  #lastError: string | undefined;

  constructor(parts: ReclaimerParts) {
    this.#parts = parts;
    this.name = `reclaimer ${parts.device}`;
    this.#nextRoundMs = parts.clock.nowMs() + FIRST_ROUND_MS;
  }

  status(): Record<string, unknown> {
    return { ...this.figures, reclaimDays: this.#parts.reclaimDays, lastError: this.#lastError };
  }

  async work(signal: AbortSignal): Promise<"busy" | "idle"> {
    const { clock, reclaimDays, replica } = this.#parts;
    if (reclaimDays === 0) return "idle";
    const ageMs = reclaimDays * DAY_MS;
    const told = replica.deletions.takeTold();
    if (clock.nowMs() >= this.#nextRoundMs) {
      this.#nextRoundMs = clock.nowMs() + Math.max(ROUND_MIN_MS, ageMs / ROUNDS);
      await this.round(clock.nowMs() - ageMs, signal);
    } else for (const place of told) await this.look(place, clock.nowMs() - ageMs, signal);
    return "idle";
  }

  waitForWork(signal: AbortSignal): Promise<void> {
    return sleep(LOOK_MS, signal);
  }

  /** Looks at all partitions of the device once. */
  async round(olderThanMs: number, signal: AbortSignal): Promise<void> {
    let kept = 0;
    for (const space of SPACES) {
      const partitionPower = this.#parts.powers[space];
      for (let partition = 0; partition < 2 ** partitionPower; partition++) {
        signal.throwIfAborted();
        // Most have nothing to go, and nobody is served meanwhile.
        if (partition % YIELD_COUNT === 0) await nextTurn();
        kept += await this.look({ space, partition, partitionPower }, olderThanMs, signal);
      }
    }
    this.figures.unreclaimedEntries = kept;
    this.figures.reclaimRounds += 1;
  }

  /** Removes what may go of one partition. Gives how many old deletions stay. */
  async look(place: PartitionPlace, olderThanMs: number, signal: AbortSignal): Promise<number> {
    const { pace, replica } = this.#parts;
    const { engine, epochs } = replica;
    if (partitionSum(engine, place).entries === 0) return 0;
    const { epoch } = epochs.configurationOf(place);
    const witnesses = reclaimWitnesses(epochs.configurationOf(place), epochs.self);
    const hash32 = place.partition * 2 ** (32 - place.partitionPower);
    if (witnesses === undefined || !replica.votes.votesIn(place.space, hash32) || !epochs.hasCaughtUp(place)) return 0;
    let kept = 0;
    let hasRemoved = false;
    for (let from: Uint8Array | undefined; ; ) {
      await pace.admit(signal);
      const { doomed, next } = await replica.deletions.page(place, from, olderThanMs);
      for (let at = 0; at < doomed.length; at += RECLAIM_LIMIT) {
        const some = doomed.slice(at, at + RECLAIM_LIMIT);
        const removed = await this.#removeSome(place, epoch, some, witnesses);
        kept += some.length - removed;
        hasRemoved ||= removed > 0;
        pace.account(some.length, some.length * DELETION_BYTES);
      }
      if (next === undefined) break;
      from = next;
    }
    // They hold the same, and may remove it too by now.
    if (hasRemoved) await Promise.all(witnesses.map((id) => this.#ask(place, epoch, [], id)));
    return kept;
  }

  async #removeSome(
    place: PartitionPlace,
    epoch: number,
    doomed: readonly Doomed[],
    witnesses: readonly string[],
  ): Promise<number> {
    const confirmed = await this.#confirmed(place, epoch, doomed, witnesses);
    if (confirmed.length === 0) return 0;
    try {
      const removed = await this.#parts.replica.deletions.remove(place, epoch, confirmed);
      this.figures.reclaimedEntries += removed;
      return removed;
    } catch (error) {
      return this.#note(error) ?? 0;
    }
  }

  /** Those of some deletions that all others hold, or hold nothing of: and nothing older came to these while the rest was asked. */
  async #confirmed(
    place: PartitionPlace,
    epoch: number,
    doomed: readonly Doomed[],
    witnesses: readonly string[],
  ): Promise<readonly Doomed[]> {
    const said = await Promise.all(witnesses.map((id) => this.#ask(place, epoch, doomed, id)));
    const confirmed = doomed.flatMap((one, index) => {
      const words = said.map((words) => words?.[index] ?? "kept");
      return words.includes("kept") ? [] : [{ one, words }];
    });
    const left = new Set(confirmed.map(({ one }) => one));
    for (const [witness, id] of witnesses.entries()) {
      const unsure = confirmed.flatMap(({ one, words }) => (words[witness] === "forgotten" ? [one] : []));
      if (unsure.length === 0) continue;
      const again = await this.#ask(place, epoch, unsure, id);
      for (const [index, one] of unsure.entries()) if (again?.[index] !== "forgotten") left.delete(one);
    }
    return [...left];
  }

  /** Undefined where the member cannot be asked, or does not vote in that epoch. */
  async #ask(
    place: PartitionPlace,
    epoch: number,
    doomed: readonly Doomed[],
    id: string,
  ): Promise<readonly ReclaimWord[] | undefined> {
    try {
      return await this.#parts.peerOf(id).confirmReclaims(place, epoch, doomed);
    } catch (error) {
      return this.#note(error);
    }
  }

  #note(error: unknown): undefined {
    if (!(error instanceof RingsteadError)) throw error;
    this.#lastError = `${codeOf(error)}: ${messageOf(error)}`;
    return undefined;
  }
}
