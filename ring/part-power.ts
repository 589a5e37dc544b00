import { RingsteadError } from "../common/errors.ts";
import type { Builder } from "./builder.ts";
import { RING_LIMITS } from "./device.ts";
import { tableShape } from "./table-shape.ts";

/**
 * Splits every partition in two, which inherit its devices and the time of its last move. Partition p of power P is 2p and
 * 2p + 1 of power P + 1, since a partition is the top bits of the hash that every key begins with: nothing moves, no key
 * changes, and a process that still uses the ring of the lower power finds the same devices.
 * @throws RingsteadError `ring-invalid` above the highest power
 */
export const increasePartPower = (builder: Builder): void => {
  const power = builder.partitionPower + 1;
  if (power > RING_LIMITS.partitionPowerMax)
    throw new RingsteadError(
      "ring-invalid",
      `the partition power is ${builder.partitionPower} already, the highest that there is`,
      { partitionPower: builder.partitionPower },
    );
  const { width } = tableShape(builder.partitionPower, builder.replicas);
  const { assignments, movedAtSeconds } = builder;
  const split = new Uint16Array(assignments.length * 2);
  for (let first = 0; first < assignments.length; first += width) {
    const row = assignments.subarray(first, first + width);
    split.set(row, first * 2);
    split.set(row, first * 2 + width);
  }
  builder.assignments = split;
  builder.movedAtSeconds = Uint32Array.from(
    { length: movedAtSeconds.length * 2 },
    (_, partition) => movedAtSeconds[partition >>> 1] ?? 0,
  );
  builder.partitionPower = power;
  builder.version += 1;
};
