import { type Builder, countHeld } from "./builder.ts";
import { Layout } from "./layout.ts";
import type { TableShape } from "./table-shape.ts";
import type { Targets } from "./targets.ts";

/** How good a table is. */
export type Assessment = {
  /** The device furthest from its share: 100 × |held − share| ÷ share; 0 is perfect. A device to be emptied counts with what it holds. */
  readonly balance: number;
  /** Per cent of partitions whose replicas are less far apart than the devices and weights allow; 0 is perfect. */
  readonly dispersion: number;
};

/** Requires: `targets` are those of `builder`. */
export const assess = (builder: Builder, shape: TableShape, targets: Targets): Assessment => {
  const held = countHeld(builder);
  let balance = 0;
  for (const device of builder.devices) {
    if (device === undefined) continue;
    const share = targets.shareOfDevice[device.id] ?? 0;
    const count = held[device.id] ?? 0;
    const off = share > 0 ? Math.abs(count - share) / share : count;
    balance = Math.max(balance, off * 100);
  }
  const layout = new Layout(builder.assignments, shape, targets, held, new Uint8Array(shape.partitionCount));
  let undispersed = 0;
  for (let partition = 0; partition < shape.partitionCount; partition += 1)
    if (!layout.isDispersed(partition)) undispersed += 1;
  return { balance, dispersion: (undispersed / shape.partitionCount) * 100 };
};
