import { setImmediate as nextTurn } from "node:timers/promises";
import type { Metrics } from "../../common/metrics.ts";
import { sleep } from "../../common/worker.ts";
import { type Bucket, heldFrom, PACE_AT_START, paceAfter, taken, unitsOf, waitMs } from "../core/pace.ts";
import type { Foreground } from "./foreground.ts";
import type { Pace } from "./partition-repair.ts";
import type { RepairSettings } from "./repair-settings.ts";

const WINDOW_MS = 500;
/** How often it is looked how late a timer is: for so long a message that has arrived is not yet seen either. */
const LAG_MS = 10;
/** Of how late the timer was, the share that was less late. */
const LAG_SHARE = 0.95;
/** Entries of a page, which is done in one go: 10 ms where nobody waits, else 2. */
const FREE_PAGE = 128;
const HELD_PAGE = 24;
/** A change of the settings is noticed within this time by who waits. */
const LONGEST_WAIT_MS = 200;

const bucketAt = (nowMs: number): Bucket => ({ tokens: 0, atMs: nowMs });

/**
 * How fast the devices of one process may repair: each within what the operator allows a device, all of them within what the requests of
 * clients leave. Disposal stops its timers.
 */
export class RepairPace implements Disposable {
  readonly #settings: () => RepairSettings;
  readonly #foreground: Foreground;
  readonly #timer: NodeJS.Timeout;
  #lagTimer: NodeJS.Timeout | undefined;
  #lags: number[] = [];
  #state = PACE_AT_START;
  #bucket = bucketAt(performance.now());
  #units = 0;
  #windowMs = performance.now();

  constructor(settings: () => RepairSettings, foreground: Foreground) {
    this.#settings = settings;
    this.#foreground = foreground;
    foreground.onRequest = () => {
      if (this.#state.unitsPerSecond === undefined) this.#hold();
    };
    this.#timer = setInterval(() => this.#endWindow(), WINDOW_MS);
    this.#timer.unref();
  }

  show(metrics: Metrics): void {
    const gauge = (name: string, help: string, read: () => number): void =>
      metrics.gauge(`ringstead_repair_${name}`, help, read);
    gauge("paused", "1 while an operator has paused the repair of devices.", () => Number(this.#settings().isPaused));
    const units =
      "Entries, and 16 KiB of bodies, that repair may pull each second beside requests; 0: as many as it can.";
    gauge("units_per_second", units, () => Math.round(this.#state.unitsPerSecond ?? 0));
    const idle = "The slowest of a hundred messages of clients where nothing is repaired, in milliseconds.";
    gauge("foreground_p99_ms", idle, () => Math.round((this.#state.idleP99Ms ?? 0) * 100) / 100);
  }

  /** That of one more device. */
  ofDevice(): Pace {
    const own = new DeviceLimits(this.#settings);
    const pageEntries = (): number => (this.#state.unitsPerSecond === undefined ? FREE_PAGE : HELD_PAGE);
    return {
      get pageEntries() {
        return pageEntries();
      },
      admit: async (signal) => {
        signal.throwIfAborted();
        // Also where nothing holds it back, whoever waits for this process has his turn between two pages.
        await nextTurn();
        for (let wait = this.#wait(own); wait > 0; wait = this.#wait(own)) {
          await sleep(Math.min(LONGEST_WAIT_MS, Math.ceil(wait)), signal);
          signal.throwIfAborted();
        }
        // Paid beforehand, so that of all who wait for the same moment one goes on.
        this.#charge(HELD_PAGE);
      },
      turn: () => nextTurn(),
      account: (operations, bytes) => {
        own.account(operations, bytes);
        const units = unitsOf(operations, bytes);
        this.#units += units;
        this.#lagTimer ??= this.#watchLag();
        this.#charge(Math.max(0, units - HELD_PAGE));
      },
    };
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    clearInterval(this.#lagTimer);
  }

  #wait(own: DeviceLimits): number {
    const { unitsPerSecond } = this.#state;
    const shared = unitsPerSecond === undefined ? 0 : waitMs(this.#bucket, unitsPerSecond, performance.now());
    return Math.max(shared, own.waitMs());
  }

  #charge(units: number): void {
    const { unitsPerSecond } = this.#state;
    if (unitsPerSecond !== undefined) this.#bucket = taken(this.#bucket, unitsPerSecond, units, performance.now());
  }

  #hold(): void {
    this.#state = heldFrom(this.#state);
    this.#bucket = bucketAt(performance.now());
  }

  #watchLag(): NodeJS.Timeout {
    let dueMs = performance.now() + LAG_MS;
    const timer = setInterval(() => {
      const nowMs = performance.now();
      this.#lags.push(Math.max(0, nowMs - dueMs));
      dueMs = nowMs + LAG_MS;
    }, LAG_MS);
    return timer.unref();
  }

  #endWindow(): void {
    const nowMs = performance.now();
    const seconds = (nowMs - this.#windowMs) / 1000;
    const { requests, p99Ms } = this.#foreground.takeWindow();
    // A message waits for the event loop before its time here begins; one of a hundred for about as long as the worst turns last.
    const lags = this.#lags.toSorted((one, other) => one - other);
    const lagMs = lags[Math.floor(lags.length * LAG_SHARE)] ?? 0;
    const units = this.#units;
    this.#lags = [];
    this.#units = 0;
    this.#windowMs = nowMs;
    this.#state = paceAfter(this.#state, { seconds, requests, p99Ms: p99Ms + lagMs, units });
    if (units > 0) return;
    clearInterval(this.#lagTimer);
    this.#lagTimer = undefined;
  }
}

/** What the operator allows one device. */
class DeviceLimits {
  readonly #settings: () => RepairSettings;
  #operations = bucketAt(performance.now());
  #bytes = bucketAt(performance.now());

  constructor(settings: () => RepairSettings) {
    this.#settings = settings;
  }

  account(operations: number, bytes: number): void {
    const { operationsPerSecond, bytesPerSecond } = this.#settings();
    const nowMs = performance.now();
    if (operationsPerSecond !== undefined)
      this.#operations = taken(this.#operations, operationsPerSecond, operations, nowMs);
    if (bytesPerSecond !== undefined) this.#bytes = taken(this.#bytes, bytesPerSecond, bytes, nowMs);
  }

  waitMs(): number {
    const { isPaused, operationsPerSecond, bytesPerSecond } = this.#settings();
    if (isPaused) return LONGEST_WAIT_MS;
    const nowMs = performance.now();
    return Math.max(
      operationsPerSecond === undefined ? 0 : waitMs(this.#operations, operationsPerSecond, nowMs),
      bytesPerSecond === undefined ? 0 : waitMs(this.#bytes, bytesPerSecond, nowMs),
    );
  }
}
