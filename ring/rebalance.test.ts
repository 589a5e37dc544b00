import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../common/random.ts";
import { addDevice, buildRing, type Builder, createBuilder, removeDevice, setWeight } from "./builder.ts";
import { encodeBuilder } from "./builder-format.ts";
import { NO_DEVICE } from "./device.ts";
import { fewestMoves } from "./fewest-moves.ts";
import { addPlanned, builderFrom, builderPlan, type PlannedDevice, plannedDevice } from "./random-builder.ts";
import { rebalance } from "./rebalance.ts";
import { endOfRow, replicasIn, type TableShape, tableShape } from "./table-shape.ts";
import { computeTargets, type Targets } from "./targets.ts";

const START_MS = 1_700_000_000_000;
const HOUR_MS = 3_600_000;
/** More rounds than any of these rings needs to settle. */
const ROUNDS_MAX = 12;

const heldBy = (builder: Builder): Int32Array => {
  const held = new Int32Array(builder.devices.length);
  for (const id of builder.assignments) if (id !== NO_DEVICE) held[id] = (held[id] ?? 0) + 1;
  return held;
};

const shapeOf = ({ partitionPower, replicas }: Builder): TableShape => tableShape(partitionPower, replicas);

const targetsOf = (builder: Builder): Targets =>
  computeTargets(builder.devices, {
    partitionCount: 2 ** builder.partitionPower,
    replicas: builder.replicas,
    overload: builder.overload,
    held: heldBy(builder),
  });

const partitionsOf = (builder: Builder): number[][] =>
  Array.from({ length: 2 ** builder.partitionPower }, (_, p) => [
    ...builder.assignments.subarray(p * shapeOf(builder).width, endOfRow(shapeOf(builder), p)),
  ]);

const expectDistinctDevices = (builder: Builder): void => {
  for (const [partition, replicas] of partitionsOf(builder).entries()) {
    expect(replicas).not.toContain(NO_DEVICE);
    expect(new Set(replicas).size).toBe(replicasIn(shapeOf(builder), partition));
  }
};

const expectWeightsRespected = (builder: Builder): void => {
  const { shareOfDevice } = targetsOf(builder);
  for (const [id, count] of heldBy(builder).entries())
    expect(Math.abs(count - (shareOfDevice[id] ?? 0)), `device ${id}`).toBeLessThan(1 + 1e-6);
};

type Change =
  | { readonly kind: "add"; readonly device: PlannedDevice }
  | { readonly kind: "remove" | "empty" | "weigh"; readonly which: number; readonly weight: number };

const change: fc.Arbitrary<Change> = fc.oneof(
  fc.record({ kind: fc.constant("add" as const), device: plannedDevice }),
  fc.record({
    kind: fc.constantFrom("remove" as const, "empty" as const, "weigh" as const),
    which: fc.nat(),
    weight: fc.integer({ min: 10, max: 300 }),
  }),
);

/** Does `next`, unless too few devices would be left. */
const applyChange = (builder: Builder, next: Change): void => {
  if (next.kind === "add") {
    addPlanned(builder, next.device);
    return;
  }
  const usable = builder.devices.filter((device) => device !== undefined && device.weight > 0);
  const id = usable[next.which % usable.length]!.id;
  if (next.kind === "weigh") setWeight(builder, id, next.weight);
  else if (usable.length <= Math.ceil(builder.replicas)) return;
  else if (next.kind === "empty") setWeight(builder, id, 0);
  else removeDevice(builder, id);
};

describe("the first rebalance", () => {
  it("puts no two replicas on one device, respects weights within one partition and disperses perfectly", () => {
    fc.assert(
      fc.property(builderPlan, (plan) => {
        const builder = builderFrom(plan);
        const { moved, dispersion } = rebalance(builder, { random: seededRandom(plan.seed), nowMs: START_MS });
        expect(moved).toBe(0);
        expect(dispersion).toBe(0);
        expectDistinctDevices(builder);
        expectWeightsRespected(builder);
      }),
      { numRuns: 300 },
    );
  });

  it("gives the same bytes for the same seed", () => {
    fc.assert(
      fc.property(builderPlan, (plan) => {
        const bytes = [1, 2].map(() => {
          const builder = builderFrom(plan);
          rebalance(builder, { random: seededRandom(plan.seed), nowMs: START_MS });
          return Buffer.from(encodeBuilder(builder)).toString("hex");
        });
        expect(bytes[0]).toBe(bytes[1]);
      }),
      { numRuns: 30 },
    );
  });

  it("spreads the partners of a device over all others", () => {
    const builder = createBuilder({ partitionPower: 12, replicas: 3, minPartHours: 1, seed: 1n });
    for (let index = 0; index < 30; index += 1)
      addDevice(builder, { region: 1, zone: index % 3, node: `n${index % 15}`, device: `d${index}`, weight: 1 });
    rebalance(builder, { random: seededRandom(1n), nowMs: START_MS });
    const together = new Map<number, number>();
    for (const replicas of partitionsOf(builder))
      if (replicas.includes(0)) for (const id of replicas) together.set(id, (together.get(id) ?? 0) + 1);
    together.delete(0);
    // 410 partitions with two partners each, in the 20 devices of the two other zones: 41 each on average.
    expect(together.size).toBe(20);
    for (const count of together.values()) expect(count).toBeGreaterThan(15);
  });

  it("keeps one replica in each of three zones, and uses every node of a zone", () => {
    const builder = createBuilder({ partitionPower: 8, replicas: 3, minPartHours: 1, seed: 1n });
    for (let index = 0; index < 12; index += 1)
      addDevice(builder, { region: 1, zone: index % 3, node: `n${index % 6}`, device: `d${index}`, weight: 1 });
    rebalance(builder, { random: seededRandom(2n), nowMs: START_MS });
    for (const replicas of partitionsOf(builder))
      expect(new Set(replicas.map((id) => builder.devices[id]?.zone)).size).toBe(3);
  });

  it("lets overload pull replicas apart where weights alone would not", () => {
    const build = (overload: number) => {
      const builder = createBuilder({ partitionPower: 8, replicas: 3, minPartHours: 1, seed: 1n, overload });
      for (const [zone, weight] of [120, 100, 80].entries())
        for (let index = 0; index < 2; index += 1)
          addDevice(builder, { region: 1, zone, node: `n${zone}`, device: `d${index}`, weight });
      rebalance(builder, { random: seededRandom(2n), nowMs: START_MS });
      return partitionsOf(builder).filter(
        (replicas) => new Set(replicas.map((id) => builder.devices[id]?.zone)).size < 3,
      ).length;
    };
    expect(build(0)).toBeGreaterThan(0);
    expect(build(0.25)).toBe(0);
  });

  it("is refused when fewer devices than replicas have weight", () => {
    const builder = createBuilder({ partitionPower: 4, replicas: 3, minPartHours: 1, seed: 1n });
    for (const [index, weight] of [1, 1, 0].entries())
      addDevice(builder, { region: 1, zone: 1, node: "n", device: `d${index}`, weight });
    expect(() => rebalance(builder, { random: seededRandom(1n), nowMs: START_MS })).toThrowError(
      expect.objectContaining({ code: "ring-too-few-devices" }),
    );
    expect(() => buildRing(builder)).toThrowError(expect.objectContaining({ code: "ring-needs-rebalance" }));
  });
});

describe("a later rebalance", () => {
  const history = fc.record({ plan: builderPlan, changes: fc.array(change, { minLength: 1, maxLength: 4 }) });

  it("settles with weights within one partition, perfect dispersion and at most 1.1 times the fewest moves", () => {
    let total = 0;
    let fewest = 0;
    fc.assert(
      fc.property(history, ({ plan, changes }) => {
        const builder = builderFrom(plan);
        const random = seededRandom(plan.seed);
        let nowMs = START_MS;
        rebalance(builder, { random, nowMs });
        for (const next of changes) {
          applyChange(builder, next);
          fewest += fewestMoves(builder.assignments.slice(), shapeOf(builder), targetsOf(builder));
          for (let round = 1; ; round += 1) {
            nowMs += HOUR_MS;
            const { moved, dispersion } = rebalance(builder, { random, nowMs });
            total += moved;
            expectDistinctDevices(builder);
            if (moved === 0) {
              expect(dispersion).toBe(0);
              break;
            }
            expect(round).toBeLessThan(ROUNDS_MAX);
          }
          expectWeightsRespected(builder);
        }
      }),
      { numRuns: 100, seed: 20_260_101 },
    );
    expect(fewest).toBeGreaterThan(1000);
    expect(total).toBeLessThanOrEqual(1.1 * fewest);
  });

  it("moves hardly more than the surplus when a device or a zone is added to a larger ring", () => {
    for (const added of [1, 8]) {
      const builder = createBuilder({ partitionPower: 12, replicas: 3, minPartHours: 1, seed: 1n });
      for (let index = 0; index < 32; index += 1)
        addDevice(builder, { region: 1, zone: index % 4, node: `n${index % 8}`, device: `d${index}`, weight: 100 });
      rebalance(builder, { random: seededRandom(3n), nowMs: START_MS });
      const zone = added === 1 ? 0 : 4;
      for (let index = 0; index < added; index += 1)
        addDevice(builder, { region: 1, zone, node: `new-${index}`, device: `new-${index}`, weight: 100 });
      const held = heldBy(builder);
      const fewest = targetsOf(builder).ofDevice.reduce((sum, target, id) => sum + Math.max(0, target - held[id]!), 0);
      const { moved, dispersion } = rebalance(builder, { random: seededRandom(3n), nowMs: START_MS + HOUR_MS });
      expect(moved).toBeGreaterThanOrEqual(fewest);
      expect(moved).toBeLessThanOrEqual(1.1 * fewest);
      expect(dispersion).toBe(0);
      expectWeightsRespected(builder);
    }
  });

  it("moves nothing twice within min_part_hours, and one replica of a partition at a time", () => {
    fc.assert(
      fc.property(history, fc.integer({ min: 1, max: 5 }), ({ plan, changes }, minPartHours) => {
        const builder = builderFrom(plan, minPartHours);
        const random = seededRandom(plan.seed);
        const movedAtMs = new Map<number, number>();
        let nowMs = START_MS;
        rebalance(builder, { random, nowMs });
        for (const next of [...changes, ...changes]) {
          applyChange(builder, next);
          nowMs += HOUR_MS;
          const before = builder.assignments.slice();
          rebalance(builder, { random, nowMs });
          for (const [partition, replicas] of partitionsOf(builder).entries()) {
            const shape = shapeOf(builder);
            const old = before.subarray(partition * shape.width, endOfRow(shape, partition));
            const chosen = replicas.filter((id, index) => id !== old[index] && old[index] !== NO_DEVICE).length;
            const forced = old.filter((id) => id === NO_DEVICE).length;
            expect(chosen).toBeLessThanOrEqual(1);
            if (forced > 0) expect(chosen).toBe(0);
            if (chosen > 0)
              expect(nowMs - (movedAtMs.get(partition) ?? 0)).toBeGreaterThanOrEqual(minPartHours * HOUR_MS);
            if (chosen + forced > 0) movedAtMs.set(partition, nowMs);
          }
        }
      }),
      { numRuns: 100 },
    );
  });

  it("moves nothing when nothing has changed", () => {
    fc.assert(
      fc.property(builderPlan, (plan) => {
        const builder = builderFrom(plan);
        rebalance(builder, { random: seededRandom(plan.seed), nowMs: START_MS });
        const { version } = builder;
        expect(rebalance(builder, { random: seededRandom(7n), nowMs: START_MS * 2 }).moved).toBe(0);
        expect(builder.version).toBe(version);
      }),
      { numRuns: 50 },
    );
  });

  it("moves nothing by choice while the clock stands before the last move", () => {
    const builder = createBuilder({ partitionPower: 6, replicas: 2, minPartHours: 1, seed: 1n });
    const add = (index: number) =>
      addDevice(builder, { region: 1, zone: 1, node: `n${index}`, device: "d", weight: 100 });
    for (const index of [0, 1, 2]) add(index);
    rebalance(builder, { random: seededRandom(1n), nowMs: START_MS });
    builder.movedAtSeconds.fill(START_MS / 1000);
    add(3);
    expect(rebalance(builder, { random: seededRandom(1n), nowMs: START_MS - 10 * HOUR_MS }).moved).toBe(0);
    expect(rebalance(builder, { random: seededRandom(1n), nowMs: START_MS + HOUR_MS }).moved).toBe(32);
  });

  it("places the replicas of a lost device at once, whatever moved last", () => {
    const builder = createBuilder({ partitionPower: 6, replicas: 3, minPartHours: 24, seed: 1n });
    for (let index = 0; index < 5; index += 1)
      addDevice(builder, { region: 1, zone: index, node: "n", device: `d${index}`, weight: 100 });
    rebalance(builder, { random: seededRandom(1n), nowMs: START_MS });
    builder.movedAtSeconds.fill(START_MS / 1000);
    const lost = heldBy(builder)[2];
    removeDevice(builder, 2);
    expect(rebalance(builder, { random: seededRandom(1n), nowMs: START_MS }).moved).toBe(lost);
    expectDistinctDevices(builder);
  });
});
