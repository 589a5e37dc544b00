import assert from "node:assert/strict";
import { DIRECT_UNIT_BYTES, type Disk } from "../../common/disk.ts";
import { type Region, regionOf } from "./format.ts";

/**
 * Room for direct transfers of a device: a few equal slots of memory, lent for one transfer each.
 *
 * Who finds none waits, in order. A slot is held for as long as the disk takes and never while its holder waits for a client or for
 * another slot, so everybody's turn comes. What went back last is lent first: at a low load few pages are ever touched.
 */
export class DirectSlots {
  readonly slotBytes: number;
  readonly #disk: Disk;
  readonly #count: number;
  #free: Region[] | undefined;
  readonly #waiting: ((slot: Region) => void)[] = [];

  /** The memory, `slotBytes * count`, is taken with the first slot. Requires: whole units of direct transfers. */
  constructor(disk: Disk, slotBytes: number, count: number) {
    assert(slotBytes % DIRECT_UNIT_BYTES === 0, "slots begin at multiples of the unit");
    this.#disk = disk;
    this.slotBytes = slotBytes;
    this.#count = count;
  }

  async take(): Promise<Region> {
    this.#free ??= this.#allocate();
    return this.#free.pop() ?? new Promise((resolve) => void this.#waiting.push(resolve));
  }

  /** Requires: taken here, and no transfer of it is under way. */
  give(slot: Region): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free?.push(slot);
    else next(slot);
  }

  #allocate(): Region[] {
    const memory = this.#disk.directMemory(this.slotBytes * this.#count);
    return Array.from({ length: this.#count }, (_, index) =>
      regionOf(memory.subarray(index * this.slotBytes, (index + 1) * this.slotBytes)),
    );
  }
}

/** Rounds up to whole units of direct transfers. */
export const upToUnit = (bytes: number): number => Math.ceil(bytes / DIRECT_UNIT_BYTES) * DIRECT_UNIT_BYTES;
