import { sleep } from "../common/worker.ts";
import { type CpuStretch, cpuOfLoadMs, isQuiet, shareOf } from "./cpu-accounting.ts";
import { cpuMsOfFamily, type Memory, memoryOfFamily } from "./process-usage.ts";

const IDLE_SAMPLES = 3;
const IDLE_SAMPLE_MS = 1000;
const QUIET_WINDOW_MS = 500;
/** A server that works for longer after a load is charged for so much of it. */
const QUIET_LIMIT_MS = 10_000;

/** What a load cost the processes that served it. */
export type LoadCost = {
  /** What the load caused, until the contender was quiet again. */
  readonly serverCpuMs: number;
  readonly memory: Memory;
};

/** Looks at a contender's processes from outside: what they take idle, and what a load makes them take. */
export class ContenderWatch {
  readonly #processes: () => readonly number[];
  #idleShare = 0;

  /** `processes`: those that serve, without descendants. */
  constructor(processes: () => readonly number[]) {
    this.#processes = processes;
  }

  /** Measures what the processes take when nobody asks for anything. Requires: no load before, which might leave work behind. */
  async measureIdle(): Promise<number> {
    const shares: number[] = [];
    for (let sample = 0; sample < IDLE_SAMPLES; sample += 1) shares.push(shareOf(await this.#watch(IDLE_SAMPLE_MS)));
    this.#idleShare = Math.min(...shares);
    return this.#idleShare;
  }

  /** Work that a load leaves behind belongs to it, and not to the next one. */
  async becomeQuiet(): Promise<void> {
    const deadlineMs = performance.now() + QUIET_LIMIT_MS;
    while (!isQuiet(await this.#watch(QUIET_WINDOW_MS), this.#idleShare) && performance.now() < deadlineMs);
  }

  /** Runs `load` and waits until the processes are quiet again. */
  async cost<Result>(load: () => Promise<Result>): Promise<Result & LoadCost> {
    const startMs = performance.now();
    const cpuBeforeMs = this.#cpuMs();
    const result = await load();
    const memory = memoryOfFamily(this.#processes());
    await this.becomeQuiet();
    const stretch = { cpuMs: this.#cpuMs() - cpuBeforeMs, elapsedMs: performance.now() - startMs };
    return { ...result, serverCpuMs: cpuOfLoadMs(stretch, this.#idleShare), memory };
  }

  #cpuMs(): number {
    return cpuMsOfFamily(this.#processes());
  }

  async #watch(ms: number): Promise<CpuStretch> {
    const startMs = performance.now();
    const before = this.#cpuMs();
    await sleep(ms);
    return { cpuMs: this.#cpuMs() - before, elapsedMs: performance.now() - startMs };
  }
}
