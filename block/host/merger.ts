import { messageOf, RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type { Chains, LayerCopy } from "./core/chains.ts";
import { copyOf, usesOf } from "./core/layer-copies.ts";
import type { Exports } from "./exports/exports.ts";

/** Volumes whose layers are copied at once: each copy reads and writes as fast as the disk lets it. */
const MERGES_LIMIT = 2;
const LOOK_MS = 100;
/** After a copy that failed: a full pool, a daemon that would not, a client that writes faster than is copied. */
const PAUSE_MS = 30_000;

type MergerOptions = {
  chains(this: void): Chains;
  readonly exports: Exports;
  /** Resolves with false where that is not what is to be copied any more. */
  finish(this: void, volumeId: string, copy: LayerCopy): Promise<boolean>;
  /** Its layers are being read by somebody for whom they must stay. */
  isHeld(this: void, volumeId: string): boolean;
  /** Runs the action when nothing else is done with the volume. */
  inTurn<Result>(this: void, volumeId: string, action: () => Promise<Result>): Promise<Result>;
  readonly log: Log;
};

/**
 * Merges layers that nobody needs apart any more, and makes volumes independent of others, whether they are served or not. A volume is this worker's
 * only when a copy begins and when it ends: whatever else is to be done with it meanwhile is done, and ends the copy where it is in the way.
 */
export class Merger implements Worker {
  readonly name = "merges";
  readonly #options: MergerOptions;
  /** What daemons copy for now. */
  readonly #copying = new Map<string, LayerCopy>();
  /** Volumes that are not looked at before a time, and why. */
  readonly #pauses = new Map<string, { readonly untilMs: number; readonly why: string }>();
  #nothingIn: Chains | undefined;
  #merged = 0;
  #flattened = 0;

  constructor(options: MergerOptions) {
    this.#options = options;
  }

  status(): Record<string, unknown> {
    return { copying: this.#copying.size, merged: this.#merged, flattened: this.#flattened };
  }

  /** Why the volume's layers are not copied just now; undefined where nothing failed. */
  failureOf(volumeId: string): string | undefined {
    return this.#pauses.get(volumeId)?.why;
  }

  /** Looks at the volume as if nothing had failed. */
  hurry(volumeId: string): void {
    this.#pauses.delete(volumeId);
  }

  async work(): Promise<"idle"> {
    for (const [volumeId, copy] of this.#copying) await this.#orPause(volumeId, () => this.#lookAfter(volumeId, copy));
    for (const volumeId of this.#waiting()) await this.#orPause(volumeId, () => this.#begin(volumeId));
    return "idle";
  }

  waitForWork(signal: AbortSignal): Promise<void> {
    return sleep(LOOK_MS, signal);
  }

  /** Volumes whose copy may begin now; without a look at them where nothing changed since there was none. */
  #waiting(): readonly string[] {
    const chains = this.#options.chains();
    if (chains === this.#nothingIn || this.#copying.size >= MERGES_LIMIT) return [];
    const uses = usesOf(chains);
    const found = [...chains.volumes.keys()].filter((id) => copyOf(chains, id, uses) !== undefined);
    if (found.length === 0) this.#nothingIn = chains;
    const now = performance.now();
    const isFree = (id: string): boolean => !this.#copying.has(id) && !this.#options.isHeld(id);
    return found.filter((id) => isFree(id) && now >= (this.#pauses.get(id)?.untilMs ?? 0));
  }

  async #begin(volumeId: string): Promise<void> {
    if (this.#copying.size >= MERGES_LIMIT) return;
    this.#pauses.delete(volumeId);
    const { chains, exports, inTurn, isHeld } = this.#options;
    await inTurn(volumeId, async () => {
      const copy = copyOf(chains(), volumeId);
      if (copy === undefined || isHeld(volumeId)) return;
      await exports.startCopy(volumeId, copy);
      this.#copying.set(volumeId, copy);
    });
  }

  async #lookAfter(volumeId: string, copy: LayerCopy): Promise<void> {
    const { exports, finish, inTurn, isHeld } = this.#options;
    const { state, why } = await exports.copyProgress(volumeId);
    if (state === "copying") return;
    this.#copying.delete(volumeId);
    // Something else needed the volume: it begins again.
    if (state === "none") return;
    if (state === "failed") throw new RingsteadError("copy-failed", `layers are not copied: ${why ?? ""}`);
    // Whoever reads its layers meanwhile has ended the copy.
    if (!(await inTurn(volumeId, async () => !isHeld(volumeId) && (await finish(volumeId, copy))))) return;
    if (copy.kind === "merge") this.#merged += 1;
    else this.#flattened += 1;
  }

  async #orPause(volumeId: string, action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      const { exports, inTurn, log } = this.#options;
      log.warn("layers of a volume are not copied yet", { volumeId, error });
      this.#pauses.set(volumeId, { untilMs: performance.now() + PAUSE_MS, why: messageOf(error) });
      this.#copying.delete(volumeId);
      await inTurn(volumeId, () => exports.stopCopy(volumeId)).catch((again: unknown) =>
        log.warn("a copy cannot be stopped", { volumeId, error: again }),
      );
    }
  }
}
