import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../common/random.ts";
import { addDevice, type Builder, buildRing, countHeld, countHoles, createBuilder } from "./builder.ts";
import { decodeBuilder, encodeBuilder } from "./builder-format.ts";
import { builderFrom, builderPlan } from "./random-builder.ts";
import { rebalance } from "./rebalance.ts";
import { setReplicas } from "./set-replicas.ts";
import { replicasIn, tableShape } from "./table-shape.ts";

const START_MS = 1_700_000_000_000;
const HOUR_MS = 3_600_000;

const rowsOf = (builder: Builder): number[][] => {
  const ring = buildRing(builder);
  return Array.from({ length: ring.partitionCount }, (_, p) => ring.primaries(p).map(({ id }) => id));
};

const settled = (builder: Builder, seed: bigint, nowMs: number): number => {
  let total = 0;
  for (let round = 1; ; round += 1) {
    const { moved } = rebalance(builder, { random: seededRandom(seed), nowMs: nowMs + round * HOUR_MS });
    total += moved;
    if (moved === 0) return total;
  }
};

describe("a fractional replica count", () => {
  it("gives its share of partitions one replica more, each on devices of its own", () => {
    for (const [replicas, more] of [
      [2.5, 128],
      [3.25, 64],
      [1.75, 192],
    ] as const) {
      const builder = createBuilder({ partitionPower: 8, replicas, minPartHours: 1, seed: 1n });
      for (let index = 0; index < 6; index += 1)
        addDevice(builder, { region: 1, zone: index % 3, node: `n${index}`, device: "d1", weight: 100 });
      rebalance(builder, { random: seededRandom(1n), nowMs: START_MS });
      const rows = rowsOf(builder);
      expect(rows.filter((row) => row.length === Math.ceil(replicas))).toHaveLength(more);
      expect(rows.filter((row) => row.length === Math.floor(replicas))).toHaveLength(256 - more);
      for (const row of rows) expect(new Set(row).size).toBe(row.length);
      expect(countHeld(builder).reduce((sum, count) => sum + count, 0)).toBe(256 * replicas);
    }
  });

  it("is rounded to a whole number of partition replicas", () => {
    const builder = createBuilder({ partitionPower: 3, replicas: 2.3, minPartHours: 1, seed: 1n });
    expect(builder.replicas).toBe(2.25);
    expect(setReplicas(builder, 1.01)).toBe(1);
    expect(setReplicas(builder, 15.99)).toBe(16);
  });

  it("is refused outside of 1 to 16", () => {
    const builder = createBuilder({ partitionPower: 3, replicas: 2, minPartHours: 1, seed: 1n });
    for (const wrong of [0, 0.99, 16.01, -1, Number.NaN, Infinity])
      expect(() => setReplicas(builder, wrong)).toThrowError(expect.objectContaining({ code: "ring-invalid" }));
    expect(builder).toMatchObject({ replicas: 2, version: 0 });
  });
});

describe("another replica count", () => {
  const counts = fc.array(fc.constantFrom(1, 1.5, 2, 2.25, 2.5, 3, 3.25, 4), { minLength: 1, maxLength: 4 });

  it("keeps what is there: more replicas are added, fewer are taken from the row, and both settle even and far apart", () => {
    fc.assert(
      fc.property(builderPlan, counts, (plan, wanted) => {
        const builder = builderFrom({ ...plan, devices: [...plan.devices, ...plan.devices, ...plan.devices] });
        let nowMs = START_MS;
        rebalance(builder, { random: seededRandom(plan.seed), nowMs });
        for (const replicas of wanted) {
          if (builder.devices.length < Math.ceil(replicas)) continue;
          const before = rowsOf(builder);
          const { version } = builder;
          setReplicas(builder, replicas);
          expect(builder.version).toBe(version + 1);
          const more = countHoles(builder);
          nowMs += HOUR_MS;
          const { moved } = rebalance(builder, { random: seededRandom(plan.seed), nowMs });
          expect(moved).toBeGreaterThanOrEqual(more);
          const shape = tableShape(builder.partitionPower, replicas);
          for (const [partition, row] of rowsOf(builder).entries()) {
            const old = before[partition]!;
            expect(row).toHaveLength(replicasIn(shape, partition));
            const kept = row.filter((id) => old.includes(id)).length;
            // A partition that gains replicas gives up none in the same rebalance, others at most one.
            if (row.length > old.length) expect(kept).toBe(old.length);
            else expect(kept).toBeGreaterThanOrEqual(row.length - 1);
          }
          settled(builder, plan.seed, nowMs);
          nowMs += 100 * HOUR_MS;
          expect(rebalance(builder, { random: seededRandom(1n), nowMs })).toMatchObject({ moved: 0, dispersion: 0 });
        }
      }),
      { numRuns: 100, seed: 20_261_122 },
    );
  });

  it("moves nothing when replicas are given up, since each partition drops the one that evens out most", () => {
    const builder = createBuilder({ partitionPower: 12, replicas: 3, minPartHours: 1, seed: 1n });
    for (let index = 0; index < 40; index += 1)
      addDevice(builder, {
        region: 1,
        zone: index % 4,
        node: `n${index % 20}`,
        device: `d${index}`,
        weight: 100 * (1 + (index % 3)),
      });
    rebalance(builder, { random: seededRandom(1n), nowMs: START_MS });
    for (const replicas of [2.5, 2, 1]) {
      setReplicas(builder, replicas);
      expect(settled(builder, 1n, START_MS)).toBe(0);
    }
  });

  it("may be one that the devices with weight cannot hold yet", () => {
    const builder = createBuilder({ partitionPower: 4, replicas: 3, minPartHours: 1, seed: 1n });
    for (const name of ["d1", "d2", "d3"])
      addDevice(builder, { region: 1, zone: 1, node: "n", device: name, weight: 100 });
    rebalance(builder, { random: seededRandom(1n), nowMs: START_MS });
    setReplicas(builder, 4);
    expect(() => rebalance(builder, { random: seededRandom(1n), nowMs: START_MS })).toThrowError(
      expect.objectContaining({ code: "ring-too-few-devices" }),
    );
    setReplicas(builder, 3.5);
    setReplicas(builder, 3);
    expect(countHoles(builder)).toBe(0);
    expect(rebalance(builder, { random: seededRandom(1n), nowMs: START_MS }).moved).toBe(0);
  });

  it("survives its file", () => {
    fc.assert(
      fc.property(builderPlan, fc.constantFrom(1, 1.5, 2.125, 3), (plan, replicas) => {
        const builder = builderFrom(plan);
        rebalance(builder, { random: seededRandom(plan.seed), nowMs: START_MS });
        setReplicas(builder, replicas);
        expect(decodeBuilder(encodeBuilder(builder))).toEqual(builder);
      }),
      { numRuns: 30 },
    );
  });
});
