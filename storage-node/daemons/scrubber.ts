import type { Clock } from "../../common/clock.ts";
import { codeOf, messageOf, RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type { DamagedEntry, DamagedRange, DeviceEngine } from "../engine/device-engine.ts";
import type { LastScrub, ScrubRecord, ScrubRecordStore, ScrubRound } from "./scrubber-position.ts";

const DAY_MS = 86_400_000;
/** The share of the schedule that a round is to take: the rest is for what nobody foresaw. */
const SCHEDULE_SHARE = 0.8;
/** A round of a small device need not take a week. */
const MIN_BYTES_PER_SECOND = 1024 * 1024;
/** What a device may grow by while a round goes on. */
const GROWTH = 1.25;
/** The place is saved this often; what lies between is looked at again after a restart. */
const SAVE_MS = 5_000;
/** How long one that waits for its rate or for its day sleeps, at most. */
const WAIT_MS = 1_000;
/** Damaged ranges that are told apart; beyond it those of a segment become one. */
const RANGES_LIMIT = 1_000;
/** What the rate is told over. */
const RATE_WINDOW_MS = 5_000;

const CAUSES: Readonly<Record<DamagedEntry["damage"], string>> = {
  index: "the scrubber found its place in the index damaged",
  record: "the scrubber found damage in the log where it lies",
  body: "the scrubber found blocks of its body damaged",
};

export type ScrubberParts = {
  readonly device: string;
  readonly engine: DeviceEngine;
  readonly store: ScrubRecordStore;
  /** Days in which everything is read once; 0: only on demand. */
  readonly scrubDays: number;
  /** Asked before bytes are read: what clients leave. */
  readonly allow: (bytes: number, signal: AbortSignal) => Promise<void>;
  readonly onDamaged: (key: Uint8Array, cause: string, isSuspect: boolean) => void;
  readonly clock: Clock;
  readonly log: Log;
};

/** What an operator is told of a device. */
export type ScrubReport = {
  readonly scrubDays: number;
  readonly state: "scrubbing" | "waiting" | "off";
  readonly isDemanded: boolean;
  /** Of the round under way; estimates where a total is not known yet. */
  readonly bytes: number;
  readonly totalBytes: number;
  readonly entries: number;
  readonly damaged: number;
  readonly bytesPerSecond: number;
  readonly startedMs: number | undefined;
  /** When the next one is due. */
  readonly nextMs: number | undefined;
  readonly last: LastScrub | undefined;
  readonly lastError: string | undefined;
};

/**
 * Reads all that a device keeps and hands what is damaged over to be healed: every few days at a rate that fits, or when an operator asks
 * for it as fast as clients leave room. It goes on where it was after a restart.
 *
 *     waiting ──due or asked for──▶ log, segment by segment ──▶ entries and large bodies, page by page ──▶ digests counted ──▶ waiting
 */
export class Scrubber implements Worker {
  readonly name: string;
  readonly #parts: ScrubberParts;
  #record: ScrubRecord | undefined;
  #round: ScrubRound | undefined;
  #savedMs = 0;
  #isStopped = false;
  #isDemanded = false;
  #stopping = new AbortController();
  #wake: () => void = () => {};
  #lastError: string | undefined;
  /** The byte that may be read at this time, by the rate of the schedule. */
  #paidUntilMs = 0;
  #damagedEntries = 0;
  readonly #rate: { atMs: number; bytes: number }[] = [];

  constructor(parts: ScrubberParts) {
    this.#parts = parts;
    this.name = `scrubber ${parts.device}`;
  }

  status(): Record<string, unknown> {
    return { ...this.report() };
  }

  /** Begins a round, or lets the one under way go as fast as it can. */
  start(): void {
    this.#isStopped = false;
    this.#isDemanded = true;
    if (this.#round !== undefined) this.#round.isDemanded = true;
    this.#wake();
  }

  /** Gives the round under way up; the next one comes when it is due or asked for. */
  stop(): void {
    this.#isDemanded = false;
    this.#isStopped = this.#round !== undefined;
    this.#stopping.abort(new RingsteadError("scrub-stopped", "an operator has stopped the round"));
    this.#stopping = new AbortController();
    this.#wake();
  }

  /** Entries that were handed over to be healed, since the start. */
  get damagedEntries(): number {
    return this.#damagedEntries + (this.#round?.damaged ?? 0);
  }

  report(): ScrubReport {
    const { scrubDays } = this.#parts;
    const round = this.#round;
    const last = this.#record?.last;
    const isActive = round !== undefined || this.#isDemanded;
    return {
      scrubDays,
      state: isActive ? "scrubbing" : scrubDays === 0 ? "off" : "waiting",
      isDemanded: this.#isDemanded || round?.isDemanded === true,
      bytes: round?.bytes ?? 0,
      totalBytes: round === undefined ? 0 : Math.max(round.bytes, this.#totalBytes()),
      entries: round?.entries ?? 0,
      damaged: round?.damaged ?? 0,
      bytesPerSecond: this.#bytesPerSecond(),
      startedMs: round?.startedMs,
      nextMs: isActive || this.#record === undefined ? undefined : this.#nextMs(this.#record),
      last,
      lastError: this.#lastError,
    };
  }

  /** What the last round read, or the log has: large bodies are counted when they are read. */
  #totalBytes(): number {
    const inLog = this.#parts.engine.scrub.segments().reduce((sum, { bytes }) => sum + bytes, 0);
    return Math.max(this.#record?.last?.bytes ?? 0, inLog);
  }

  #bytesPerSecond(): number {
    const sinceMs = this.#parts.clock.nowMs() - RATE_WINDOW_MS;
    while ((this.#rate[0]?.atMs ?? sinceMs) < sinceMs) this.#rate.shift();
    const [first] = this.#rate;
    if (first === undefined) return 0;
    const bytes = this.#rate.reduce((sum, one) => sum + one.bytes, 0);
    return Math.round((bytes * 1000) / Math.max(100, this.#parts.clock.nowMs() - first.atMs));
  }

  #nextMs({ lastStartedMs }: ScrubRecord): number | undefined {
    const { scrubDays } = this.#parts;
    return scrubDays === 0 ? undefined : lastStartedMs + scrubDays * DAY_MS;
  }

  async work(signal: AbortSignal): Promise<"busy" | "idle"> {
    const { engine, clock } = this.#parts;
    const record = (this.#record ??= await this.#load());
    if (this.#isStopped) await this.#giveUp(record);
    if (engine.state().kind === "failed") return "idle";
    if (this.#round === undefined) {
      const nextMs = this.#nextMs(record);
      if (!this.#isDemanded && (nextMs === undefined || nextMs > clock.nowMs())) return "idle";
      await this.#begin(record);
    }
    const round = this.#round;
    if (round === undefined) return "idle";
    try {
      if (round.phase === "log") await this.#checkLog(round, signal);
      else await this.#checkEntries(round, signal);
      this.#lastError = undefined;
    } catch (error) {
      if (signal.aborted) {
        await this.#save();
        return "idle";
      }
      if (codeOf(error) === "scrub-stopped") return "busy";
      if (!(error instanceof RingsteadError)) throw error;
      this.#lastError = messageOf(error);
      throw error;
    }
    if (clock.nowMs() - this.#savedMs >= SAVE_MS) await this.#save();
    return "busy";
  }

  async waitForWork(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    if (this.#isDemanded || this.#isStopped) return;
    await Promise.race([promise, sleep(WAIT_MS, signal)]);
  }

  async #load(): Promise<ScrubRecord> {
    const record = await this.#parts.store.load();
    this.#round = record.round === undefined ? undefined : structuredClone(record.round);
    this.#isDemanded ||= this.#round?.isDemanded === true;
    if (record.lastStartedMs > 0) return record;
    // The first round of a new device comes after as long as the others: its first bytes need no second look at once.
    const first = { ...record, lastStartedMs: this.#parts.clock.nowMs() };
    await this.#parts.store.save(first);
    return first;
  }

  async #begin(record: ScrubRecord): Promise<void> {
    const { engine, clock } = this.#parts;
    const startedMs = clock.nowMs();
    this.#round = {
      startedMs,
      isDemanded: this.#isDemanded,
      phase: "log",
      segment: 0,
      lastSegment: engine.scrub.segments().at(-1)?.number ?? 0,
      key: "",
      ranges: [],
      bytes: 0,
      entries: 0,
      damaged: 0,
    };
    this.#record = { ...record, lastStartedMs: startedMs };
    this.#paidUntilMs = startedMs;
    await this.#save();
  }

  async #giveUp(record: ScrubRecord): Promise<void> {
    this.#isStopped = false;
    if (this.#round === undefined) return;
    this.#damagedEntries += this.#round.damaged;
    this.#round = undefined;
    this.#record = { ...record, round: undefined };
    await this.#save();
  }

  async #save(): Promise<void> {
    this.#savedMs = this.#parts.clock.nowMs();
    const { last, lastStartedMs = 0 } = this.#record ?? {};
    await this.#parts.store.save({ round: this.#round, last, lastStartedMs });
  }

  /** One segment. */
  async #checkLog(round: ScrubRound, signal: AbortSignal): Promise<void> {
    const { engine, log, device } = this.#parts;
    const next = engine.scrub.segments().find(({ number }) => number >= round.segment && number <= round.lastSegment);
    if (next === undefined) {
      await engine.scrub.settle();
      round.phase = "entries";
      return;
    }
    const allow = this.#allowOf(round, signal);
    const found = await engine.scrub.checkSegment(next.number, allow);
    for (const { segment, from, to } of found) {
      round.ranges.push([segment, from, to]);
      log.warn("a range of the log is damaged; whose it is shows when the entries are looked at", {
        device,
        segment,
        from,
        to,
      });
    }
    if (round.ranges.length > RANGES_LIMIT) round.ranges = joined(round.ranges);
    round.segment = next.number + 1;
  }

  /** One page. */
  async #checkEntries(round: ScrubRound, signal: AbortSignal): Promise<void> {
    const { engine, onDamaged } = this.#parts;
    const ranges = round.ranges.map(([segment, from, to]): DamagedRange => ({ segment, from, to }));
    const page = await engine.scrub.checkEntries(Buffer.from(round.key, "hex"), ranges, this.#allowOf(round, signal));
    for (const { key, damage } of page.damaged) onDamaged(key, CAUSES[damage], damage !== "body");
    round.entries += page.entries;
    round.damaged += page.damaged.length;
    if (page.next === undefined) await this.#end(round);
    else round.key = Buffer.from(page.next).toString("hex");
  }

  async #end(round: ScrubRound): Promise<void> {
    const { engine, clock, device, log } = this.#parts;
    const wrongDigests = await engine.scrub.recount();
    if (wrongDigests !== undefined && wrongDigests > 0)
      log.error("the device's digests were not what its entries add up to, and were counted right", {
        device,
        buckets: wrongDigests,
      });
    const { startedMs, bytes, entries, damaged } = round;
    const last: LastScrub = {
      startedMs,
      endedMs: clock.nowMs(),
      bytes,
      entries,
      damaged,
      ...(wrongDigests === undefined ? {} : { wrongDigests }),
    };
    this.#round = undefined;
    this.#isDemanded = false;
    this.#damagedEntries += damaged;
    this.#record = { round: undefined, last, lastStartedMs: startedMs };
    log.info("everything on the device was read and checked", {
      device,
      entries,
      bytes,
      damaged,
      ms: last.endedMs - startedMs,
    });
    await this.#save();
  }

  /** Errors of what it gives: "scrub-stopped", the signal's reason. */
  #allowOf(round: ScrubRound, ended: AbortSignal): (bytes: number) => Promise<void> {
    const { allow, clock, scrubDays } = this.#parts;
    const signal = AbortSignal.any([ended, this.#stopping.signal]);
    return async (bytes) => {
      const rate = Math.max(
        MIN_BYTES_PER_SECOND,
        (GROWTH * this.#totalBytes() * 1000) / Math.max(1, scrubDays * DAY_MS * SCHEDULE_SHARE),
      );
      await allow(bytes, signal);
      while (!round.isDemanded && !signal.aborted) {
        const leftMs = this.#paidUntilMs - clock.nowMs();
        if (leftMs <= 0) break;
        await sleep(Math.min(WAIT_MS, leftMs), signal);
      }
      signal.throwIfAborted();
      const nowMs = clock.nowMs();
      this.#paidUntilMs = Math.max(this.#paidUntilMs, nowMs - WAIT_MS) + (bytes * 1000) / rate;
      round.bytes += bytes;
      const last = this.#rate.at(-1);
      if (last !== undefined && nowMs - last.atMs < 100) last.bytes += bytes;
      else this.#rate.push({ atMs: nowMs, bytes });
    };
  }
}

/** Those of a segment as one. */
const joined = (ranges: readonly [number, number, number][]): [number, number, number][] => {
  const bySegment = new Map<number, [number, number, number]>();
  for (const [segment, from, to] of ranges) {
    const known = bySegment.get(segment);
    bySegment.set(segment, [segment, Math.min(from, known?.[1] ?? from), Math.max(to, known?.[2] ?? to)]);
  }
  return [...bySegment.values()];
};
