import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../common/random.ts";
import { buildRing, removeDevice, setWeight } from "./builder.ts";
import type { RingData, RingDevice } from "./device.ts";
import { increasePartPower } from "./part-power.ts";
import { addPlanned, builderFrom, builderPlan, plannedDevice } from "./random-builder.ts";
import { rebalance } from "./rebalance.ts";
import { createRing, type Ring } from "./ring.ts";
import { ringDifference } from "./ring-difference.ts";
import { setReplicas } from "./set-replicas.ts";

const START_MS = 1_700_000_000_000;
const HOUR_MS = 3_600_000;

const device = (id: number): RingDevice => ({ id, region: 1, zone: 1, node: `n${id}`, device: "d1", weight: 1 });
const NONE = 0xffff;

/** A ring of partition power 1, whose rows are given. */
const ringOf = (replicas: number, rows: readonly (readonly number[])[], listed: readonly number[]): RingData => ({
  version: 1,
  hashSeed: 7n,
  partitionPower: Math.log2(rows.length),
  replicas,
  devices: Array.from({ length: 8 }, (_, id) => (listed.includes(id) ? device(id) : undefined)),
  assignments: Uint16Array.from(rows.flat()),
});

const stepsOf = (before: RingData, after: RingData): string[] =>
  ringDifference(before, after).moves.map(
    ({ partition, replicaIndex, from, to, step }) =>
      `${step}: partition ${partition}[${replicaIndex}] ${from?.id ?? "-"} > ${to?.id ?? "-"}`,
  );

const ALL = [0, 1, 2, 3, 4, 5, 6, 7];

describe("the difference of two rings", () => {
  const before = ringOf(
    3,
    [
      [0, 1, 2],
      [3, 4, 5],
    ],
    ALL,
  );

  it("is one step for one changed member, and none for members that only change places", () => {
    expect(
      stepsOf(
        before,
        ringOf(
          3,
          [
            [2, 0, 1],
            [3, 6, 5],
          ],
          ALL,
        ),
      ),
    ).toEqual(["0: partition 1[1] 4 > 6"]);
  });

  it("splits changes of several members into steps, all first ones first", () => {
    expect(
      stepsOf(
        before,
        ringOf(
          3,
          [
            [6, 7, 2],
            [3, 4, 0],
          ],
          ALL,
        ),
      ),
    ).toEqual(["0: partition 0[0] 0 > 6", "0: partition 1[2] 5 > 0", "1: partition 0[1] 1 > 7"]);
  });

  it("replaces lost devices first, then adds, then moves, then gives up", () => {
    const lost = ALL.filter((id) => id !== 2);
    const before = ringOf(
      3,
      [
        [0, 1, 2],
        [0, 1, 2],
      ],
      ALL,
    );
    expect(
      stepsOf(
        before,
        ringOf(
          4,
          [
            [0, 3, 4, 5],
            [0, 1, 3, 4],
          ],
          lost,
        ),
      ),
    ).toEqual([
      "0: partition 0[1] 2 > 3",
      "0: partition 1[2] 2 > 3",
      "1: partition 0[3] - > 5",
      "1: partition 1[3] - > 4",
      "2: partition 0[2] 1 > 4",
    ]);
    expect(
      stepsOf(
        before,
        ringOf(
          2,
          [
            [0, 3],
            [0, 1],
          ],
          lost,
        ),
      ),
    ).toEqual(["0: partition 0[1] 2 > 3", "0: partition 1[2] 2 > -", "1: partition 0[1] 1 > -"]);
  });

  it("counts partitions of the lower power as split", () => {
    const before = ringOf(
      1.5,
      [
        [0, 1],
        [2, NONE],
      ],
      ALL,
    );
    const after = ringOf(
      1.5,
      [
        [0, 1],
        [0, 3],
        [2, NONE],
        [4, NONE],
      ],
      ALL,
    );
    expect(stepsOf(before, after)).toEqual(["0: partition 1[1] 1 > 3", "0: partition 3[0] 2 > 4"]);
    expect(stepsOf(after, before)).toEqual(["0: partition 1[1] 3 > 1", "0: partition 3[0] 4 > 2"]);
  });

  it("takes a device that was removed and added again for another member", () => {
    const before = ringOf(1, [[0], [0]], ALL);
    const after = { ...ringOf(1, [[1], [0]], ALL), devices: [device(0), { ...device(0), id: 1 }] };
    expect(stepsOf(before, after)).toEqual(["0: partition 0[0] 0 > 1"]);
  });

  it("is refused where the hash seeds differ", () => {
    const ring = ringOf(1, [[0], [1]], ALL);
    expect(() => ringDifference(ring, { ...ring, hashSeed: 8n })).toThrowError(
      expect.objectContaining({ code: "ring-foreign" }),
    );
  });

  it("leads from any ring to any other, one member at a time, never with a device twice or without any", () => {
    const change = fc.oneof(
      fc.record({ kind: fc.constant("add" as const), device: plannedDevice }),
      fc.record({ kind: fc.constantFrom("remove" as const, "empty" as const), which: fc.nat() }),
      fc.record({ kind: fc.constant("replicas" as const), replicas: fc.constantFrom(1, 1.5, 2, 2.25, 3, 4) }),
      fc.record({ kind: fc.constant("power" as const) }),
    );
    fc.assert(
      fc.property(builderPlan, fc.array(change, { minLength: 1, maxLength: 6 }), (plan, changes) => {
        const builder = builderFrom({ ...plan, devices: [...plan.devices, ...plan.devices] });
        rebalance(builder, { random: seededRandom(plan.seed), nowMs: START_MS });
        const before = buildRing(builder);
        for (const [index, next] of changes.entries()) {
          const usable = builder.devices.filter((one) => one !== undefined && one.weight > 0);
          if (next.kind === "add") addPlanned(builder, next.device);
          else if (next.kind === "power") increasePartPower(builder);
          else if (next.kind === "replicas") setReplicas(builder, Math.min(next.replicas, usable.length));
          else if (usable.length > Math.ceil(builder.replicas)) {
            const { id } = usable[next.which % usable.length]!;
            if (next.kind === "remove") removeDevice(builder, id);
            else setWeight(builder, id, 0);
          }
          rebalance(builder, { random: seededRandom(plan.seed), nowMs: START_MS + (index + 1) * HOUR_MS });
        }
        expectLeads(before, buildRing(builder));
        expectLeads(buildRing(builder), before);
      }),
      { numRuns: 100 },
    );
  });
});

/** Does the moves in the order given and compares with the new ring. */
const expectLeads = (before: RingData, after: RingData): void => {
  const [old, now] = [createRing(before), createRing(after)];
  const { partitionPower, moves } = ringDifference(before, after);
  const memberIds = (ring: Ring, partition: number): number[] =>
    ring.primaries(partition >>> (partitionPower - ring.partitionPower)).map(({ id }) => id);
  const members = Array.from({ length: 2 ** partitionPower }, (_, p) => new Set(memberIds(old, p)));
  const steps = members.map(() => 0);
  for (const { partition, replicaIndex, from, to, step } of moves) {
    const present = members[partition]!;
    expect(step).toBe(steps[partition]);
    steps[partition]! += 1;
    if (from !== undefined) expect(present.delete(from.id)).toBe(true);
    if (to !== undefined) {
      expect(present.has(to.id)).toBe(false);
      present.add(to.id);
      expect(memberIds(now, partition)[replicaIndex]).toBe(to.id);
    } else expect(memberIds(old, partition)[replicaIndex]).toBe(from?.id);
    expect(present.size).toBeGreaterThan(0);
  }
  for (const [partition, present] of members.entries()) {
    const wanted = memberIds(now, partition);
    expect(present).toEqual(new Set(wanted));
    // No step too many: each change counts once, and what merely moved about counts nothing.
    const entering = wanted.filter((id) => !memberIds(old, partition).includes(id)).length;
    const lengthDifference = wanted.length - memberIds(old, partition).length;
    expect(steps[partition]).toBe(Math.max(entering, entering - lengthDifference));
  }
};
