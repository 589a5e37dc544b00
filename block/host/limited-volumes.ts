import type { VolumeLimits } from "../core/qos-limits.ts";
import type { LimitRecords } from "./store/limit-records.ts";

/**
 * Brings limits to those who keep them. What stands in the record is what a daemon begins with; here is remembered which of those that run may not
 * know it yet.
 */
export class LimitedVolumes {
  readonly #records: LimitRecords;
  /** Resolves once whoever serves the volume keeps the limits that it has now. */
  readonly #apply: (volumeId: string) => Promise<void>;
  readonly #untold = new Set<string>();

  constructor(records: LimitRecords, apply: (volumeId: string) => Promise<void>) {
    this.#records = records;
    this.#apply = apply;
  }

  of(volumeId: string): VolumeLimits {
    return this.#records.of(volumeId);
  }

  /**
   * Resolves once all volumes keep these limits. Rejects with what hindered the first that does not; the others have theirs all the same, and the
   * next call, with the same limits or others, tries again.
   */
  async replace(limits: ReadonlyMap<string, VolumeLimits>): Promise<void> {
    for (const volumeId of this.#records.replace(limits)) this.#untold.add(volumeId);
    let failure: { readonly error: unknown } | undefined;
    const untold = [...this.#untold];
    for (const volumeId of untold) {
      // Before it is told: another call that comes meanwhile, and fails, has to find it untold afterwards.
      this.#untold.delete(volumeId);
      try {
        await this.#apply(volumeId);
      } catch (error) {
        this.#untold.add(volumeId);
        failure ??= { error };
      }
    }
    if (failure !== undefined) throw failure.error;
  }
}
