import * as fc from "fast-check";
import { addDevice, type Builder, createBuilder } from "./builder.ts";

/** What tests make builders from: a small ring with devices spread over tiers at random. */
export type BuilderPlan = {
  readonly partitionPower: number;
  /** A fraction in some plans. */
  readonly replicas: number;
  readonly overload: number;
  readonly devices: readonly PlannedDevice[];
  readonly seed: bigint;
};

export type PlannedDevice = {
  readonly region: number;
  readonly zone: number;
  readonly node: number;
  readonly weight: number;
};

export const plannedDevice: fc.Arbitrary<PlannedDevice> = fc.record({
  region: fc.integer({ min: 1, max: 2 }),
  zone: fc.integer({ min: 1, max: 3 }),
  node: fc.integer({ min: 1, max: 2 }),
  weight: fc.oneof(fc.constant(100), fc.integer({ min: 10, max: 300 })),
});

/** Always has at least as many devices with weight as replicas. */
export const builderPlan: fc.Arbitrary<BuilderPlan> = fc.integer({ min: 1, max: 4 }).chain((replicas) =>
  fc.record({
    partitionPower: fc.integer({ min: 3, max: 7 }),
    replicas: fc.constantFrom(replicas, replicas, Math.max(1, replicas - 0.5), Math.max(1, replicas - 0.125)),
    overload: fc.constantFrom(0, 0, 0.1),
    devices: fc.array(plannedDevice, { minLength: replicas, maxLength: replicas + 7 }),
    seed: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  }),
);

export const addPlanned = (builder: Builder, device: PlannedDevice): number =>
  addDevice(builder, { ...device, node: `node-${device.node}`, device: `d${builder.devices.length}` });

export const builderFrom = (plan: BuilderPlan, minPartHours = 1): Builder => {
  const { partitionPower, replicas, overload, seed } = plan;
  const builder = createBuilder({ partitionPower, replicas, overload, minPartHours, seed });
  for (const device of plan.devices) addPlanned(builder, device);
  return builder;
};
