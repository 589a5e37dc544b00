import { RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import { type Chains, type Merge, mergeOf, readersOf } from "./core/chains.ts";
import type { Exports } from "./exports/exports.ts";

/** Volumes whose layers are copied at once: each copy reads and writes as fast as the disk lets it. */
const MERGES_LIMIT = 2;
const LOOK_MS = 100;
/** After a merge that failed: a full pool, a daemon that would not, a client that writes faster than is copied. */
const PAUSE_MS = 30_000;

type MergerOptions = {
  chains(this: void): Chains;
  readonly exports: Exports;
  /** Resolves with false where the two layers are not to be merged any more. */
  finish(this: void, volumeId: string, merge: Merge): Promise<boolean>;
  /** Its layers are being read by somebody for whom they must stay. */
  isHeld(this: void, volumeId: string): boolean;
  /** Runs the action when nothing else is done with the volume. */
  inTurn<Result>(this: void, volumeId: string, action: () => Promise<Result>): Promise<Result>;
  readonly log: Log;
};

/**
 * Merges layers that nobody needs apart any more, whether their volumes are served or not. A volume is its own only when a copy begins and when it
 * ends: whatever else is to be done with it meanwhile is done, and ends the copy where it is in the way.
 */
export class Merger implements Worker {
  readonly name = "merges";
  readonly #options: MergerOptions;
  /** What daemons copy for now. */
  readonly #copying = new Map<string, Merge>();
  /** Volumes that are not looked at before a time. */
  readonly #pauses = new Map<string, number>();
  #nothingIn: Chains | undefined;
  #merged = 0;

  constructor(options: MergerOptions) {
    this.#options = options;
  }

  status(): Record<string, unknown> {
    return { copying: this.#copying.size, merged: this.#merged };
  }

  async work(): Promise<"idle"> {
    for (const [volumeId, merge] of this.#copying)
      await this.#orPause(volumeId, () => this.#lookAfter(volumeId, merge));
    for (const volumeId of this.#mergeable()) await this.#orPause(volumeId, () => this.#begin(volumeId));
    return "idle";
  }

  waitForWork(signal: AbortSignal): Promise<void> {
    return sleep(LOOK_MS, signal);
  }

  /** Volumes whose merge may begin now; without a look at them where nothing changed since there was none. */
  #mergeable(): readonly string[] {
    const chains = this.#options.chains();
    if (chains === this.#nothingIn || this.#copying.size >= MERGES_LIMIT) return [];
    const readers = readersOf(chains);
    const found = [...chains.volumes.keys()].filter((id) => mergeOf(chains, id, readers) !== undefined);
    if (found.length === 0) this.#nothingIn = chains;
    const now = performance.now();
    const isFree = (id: string): boolean => !this.#copying.has(id) && !this.#options.isHeld(id);
    return found.filter((id) => isFree(id) && now >= (this.#pauses.get(id) ?? 0));
  }

  async #begin(volumeId: string): Promise<void> {
    if (this.#copying.size >= MERGES_LIMIT) return;
    this.#pauses.delete(volumeId);
    const { chains, exports, inTurn, isHeld } = this.#options;
    await inTurn(volumeId, async () => {
      const merge = mergeOf(chains(), volumeId);
      if (merge === undefined || isHeld(volumeId)) return;
      await exports.startMerge(volumeId, merge);
      this.#copying.set(volumeId, merge);
    });
  }

  async #lookAfter(volumeId: string, merge: Merge): Promise<void> {
    const { exports, finish, inTurn, isHeld } = this.#options;
    const { state, why } = await exports.mergeProgress(volumeId);
    if (state === "copying") return;
    this.#copying.delete(volumeId);
    // Something else needed the volume: it begins again.
    if (state === "none") return;
    if (state === "failed") throw new RingsteadError("merge-failed", `layers are not copied: ${why ?? ""}`);
    // Whoever reads its layers meanwhile has ended the copy.
    if (await inTurn(volumeId, async () => !isHeld(volumeId) && (await finish(volumeId, merge)))) this.#merged += 1;
  }

  async #orPause(volumeId: string, action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      const { exports, inTurn, log } = this.#options;
      log.warn("layers of a volume are not merged yet", { volumeId, error });
      this.#pauses.set(volumeId, performance.now() + PAUSE_MS);
      this.#copying.delete(volumeId);
      await inTurn(volumeId, () => exports.stopMerge(volumeId)).catch((again: unknown) =>
        log.warn("a merge cannot be stopped", { volumeId, error: again }),
      );
    }
  }
}
