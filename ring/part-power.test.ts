import * as fc from "fast-check";
import { expect, it } from "vitest";
import { seededRandom } from "../common/random.ts";
import { buildRing, createBuilder } from "./builder.ts";
import { increasePartPower } from "./part-power.ts";
import { builderFrom, builderPlan } from "./random-builder.ts";
import { rebalance } from "./rebalance.ts";
import { ringDifference } from "./ring-difference.ts";

const START_MS = 1_700_000_000_000;
const HOUR_MS = 3_600_000;

it("a higher partition power leaves every key on its devices", () => {
  fc.assert(
    fc.property(builderPlan, fc.array(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { minLength: 20 }), (plan, hashes) => {
      const builder = builderFrom(plan);
      rebalance(builder, { random: seededRandom(plan.seed), nowMs: START_MS });
      const before = buildRing(builder);
      increasePartPower(builder);
      increasePartPower(builder);
      const after = buildRing(builder);
      expect(after.partitionCount).toBe(4 * before.partitionCount);
      expect(after.version).toBe(before.version + 2);
      for (const hash of hashes)
        expect(after.primaries(after.partitionOfHash32(hash))).toEqual(
          before.primaries(before.partitionOfHash32(hash)),
        );
      expect(ringDifference(before, after)).toEqual({ partitionPower: after.partitionPower, moves: [] });
      expect(ringDifference(after, before)).toEqual({ partitionPower: after.partitionPower, moves: [] });
    }),
    { numRuns: 50 },
  );
});

it("both halves of a partition that moved lately wait until min_part_hours have passed", () => {
  fc.assert(
    fc.property(builderPlan, (plan) => {
      const builder = builderFrom(plan);
      rebalance(builder, { random: seededRandom(plan.seed), nowMs: START_MS });
      builder.movedAtSeconds.fill(START_MS / 1000);
      increasePartPower(builder);
      for (const device of builder.devices)
        if (device !== undefined && device.id > 0) builder.devices[device.id] = { ...device, weight: 1 };
      expect(rebalance(builder, { random: seededRandom(1n), nowMs: START_MS + HOUR_MS / 2 }).moved).toBe(0);
    }),
    { numRuns: 30 },
  );
});

it("the highest partition power is the last", () => {
  const builder = createBuilder({ partitionPower: 24, replicas: 1, minPartHours: 1, seed: 1n });
  expect(() => increasePartPower(builder)).toThrowError(expect.objectContaining({ code: "ring-invalid" }));
  expect(builder).toMatchObject({ partitionPower: 24, version: 0 });
});
