import { RingsteadError } from "../common/errors.ts";
import { arrives, sinceOf } from "./core/partition-epoch.ts";
import type { DeviceEngine } from "./engine/device-engine.ts";
import { erasePartition } from "./partition-erasure.ts";
import type { PartitionEpochs } from "./partition-epochs.ts";
import type { Configuration, Name, PartitionPlace, Space } from "./wire.ts";

const idOf = (space: Space, partition: number): string => `${space} ${partition}`;

/**
 * How a device takes configurations: one by which it is to become a member again finds nothing here of the time before. What is left may be half of what a
 * release that was cut off removed, with counters of all of it, or deletions may have been reclaimed since by those who stayed:
 *
 *     elsewhere ──configure: it is to come──▶ clearing ──all is gone──▶ entering (`core/partition-epoch.ts`)
 *     member that has not heard that it left ──sealed in that epoch──▶ ┘  └── crash: nothing was adopted, it is told again
 *
 * Nobody counts on what it holds: those who are the members have everything ([M2]). A member that only forgot that it is one is not touched.
 */
export class PartitionArrivals {
  readonly #engine: DeviceEngine;
  readonly #epochs: PartitionEpochs;
  readonly #onCleared: (place: PartitionPlace) => void;
  /** By `idOf`: those that are being cleared. */
  readonly #clearing = new Map<string, Promise<void>>();

  /** @param onCleared told when what was held of a partition has gone */
  constructor(engine: DeviceEngine, epochs: PartitionEpochs, onCleared: (place: PartitionPlace) => void) {
    this.#engine = engine;
    this.#epochs = epochs;
    this.#onCleared = onCleared;
  }

  /** Whether nothing may come to a name's partition just now. */
  isClearing({ hash32, space }: Name): boolean {
    return this.#clearing.size > 0 && this.#clearing.has(idOf(space, this.#epochs.partitionOf(space, hash32)));
  }

  /** Takes a configuration if it is newer. Resolves, when that is durable, with the one that the device has then. Errors: "epoch-other-power", the engine's. */
  async configure(place: PartitionPlace, configuration: Configuration): Promise<Configuration> {
    // Before anything is erased: a range of another power is of other partitions.
    this.#epochs.requirePower(place);
    const id = idOf(place.space, place.partition);
    for (let other = this.#clearing.get(id); other !== undefined; other = this.#clearing.get(id))
      await other.catch(() => {});
    const state = this.#epochs.stateOf(place);
    if (!arrives(state, this.#epochs.self, configuration))
      return (await this.#epochs.change(place, { kind: "configure", configuration })).configuration;
    const clearing = this.#clear(place, configuration);
    this.#clearing.set(id, clearing);
    try {
      await clearing;
    } finally {
      this.#clearing.delete(id);
    }
    return this.#epochs.configurationOf(place);
  }

  async #clear(place: PartitionPlace, configuration: Configuration): Promise<void> {
    const { epoch } = this.#epochs.configurationOf(place);
    // It serves in that epoch, as far as it knows: what is half gone here is no answer.
    if (sinceOf(this.#epochs.configurationOf(place), this.#epochs.self) !== undefined)
      await this.#epochs.change(place, { kind: "seal", epoch });
    const check = (): void => {
      if (this.#epochs.configurationOf(place).epoch === epoch) return;
      throw new RingsteadError("epoch-ahead", "another configuration came meanwhile");
    };
    try {
      await erasePartition(this.#engine, place, check);
    } finally {
      this.#onCleared(place);
    }
    await this.#epochs.change(place, { kind: "configure", configuration });
  }
}
