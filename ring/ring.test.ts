import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../common/random.ts";
import { addDevice, buildRing, createBuilder, removeDevice, setWeight } from "./builder.ts";
import { builderFrom, builderPlan } from "./random-builder.ts";
import { rebalance } from "./rebalance.ts";
import type { Ring } from "./ring.ts";

const ringOf = (deviceCount: number, partitionPower = 8): Ring => {
  const builder = createBuilder({ partitionPower, replicas: 3, minPartHours: 1, seed: 0x5eedn });
  for (let index = 0; index < deviceCount; index += 1)
    addDevice(builder, { region: 1, zone: index % 4, node: `n${index % 4}`, device: `d${index}`, weight: 100 });
  rebalance(builder, { random: seededRandom(1n), nowMs: 0 });
  return buildRing(builder);
};

describe("placement", () => {
  const ring = ringOf(4, 10);

  it("is the seeded xxh64 of the UTF-8 path, and does not change", () => {
    expect(ring.hashOf("AUTH_a").toString(16)).toBe("a152a85b86bb75e5");
    expect(ring.hashOf("AUTH_a", "c").toString(16)).toBe("438ef389d0776e7f");
    expect(ring.hashOf("AUTH_a", "c", "dir/ö€😀").toString(16)).toBe("39079e099ad5519f");
  });

  it("derives the key prefix and the partition from the top bits", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (object) => {
        const hash = ring.hashOf("AUTH_a", "c", object);
        const { hash32, partition } = ring.placementOf("AUTH_a", "c", object);
        expect(hash32).toBe(Number(hash >> 32n));
        expect(partition).toBe(Number(hash >> 54n));
        expect(ring.partitionOfHash(hash)).toBe(partition);
        expect(ring.partitionOfHash32(hash32)).toBe(partition);
      }),
    );
  });

  it("tells an object without a name from its container", () => {
    expect(ring.hashOf("a", "c", "")).not.toBe(ring.hashOf("a", "c"));
  });
});

describe("primaries", () => {
  it("are the assigned devices, the same frozen array each time", () => {
    const ring = ringOf(6);
    for (let partition = 0; partition < ring.partitionCount; partition += 1) {
      const primaries = ring.primaries(partition);
      expect(primaries.map(({ id }) => id)).toEqual([...ring.assignments.subarray(partition * 3, partition * 3 + 3)]);
      expect(ring.primaries(partition)).toBe(primaries);
      expect(Object.isFrozen(primaries)).toBe(true);
    }
  });

  it("are built on first use in a ring of high power", () => {
    const ring = ringOf(4, 18);
    expect(ring.primaries(ring.partitionCount - 1)).toBe(ring.primaries(ring.partitionCount - 1));
  });

  it("refuse a partition that the ring does not have", () => {
    const ring = ringOf(4);
    for (const partition of [-1, 256, 0.5, Number.NaN]) expect(() => ring.primaries(partition)).toThrow(RangeError);
  });
});

describe("hand-offs", () => {
  it("are all other devices with weight, each once, in the same order each time", () => {
    fc.assert(
      fc.property(builderPlan, (plan) => {
        const builder = builderFrom(plan);
        rebalance(builder, { random: seededRandom(plan.seed), nowMs: 0 });
        const ring = buildRing(builder);
        for (let partition = 0; partition < ring.partitionCount; partition += 1) {
          const order = [...ring.handoffs(partition)].map(({ id }) => id);
          const all = [...ring.primaries(partition).map(({ id }) => id), ...order].sort((a, b) => a - b);
          expect(all).toEqual([...builder.devices.keys()]);
          expect([...ring.handoffs(partition)].map(({ id }) => id)).toEqual(order);
        }
      }),
      { numRuns: 30 },
    );
  });

  it("begin in the zone that holds no primary, and go round the zones", () => {
    const ring = ringOf(16);
    for (let partition = 0; partition < ring.partitionCount; partition += 1) {
      const primaryZones = new Set(ring.primaries(partition).map(({ zone }) => zone));
      const zones = [...ring.handoffs(partition)].map(({ zone }) => zone);
      expect(primaryZones.has(zones[0]!)).toBe(false);
      expect(new Set(zones.slice(1, 5)).size).toBe(4);
      expect(new Set(zones.slice(5, 9)).size).toBe(4);
    }
  });

  it("do not change from release to release", () => {
    expect([...ringOf(8).handoffs(5)].map(({ id }) => id)).toEqual([2, 1, 3, 0, 6]);
  });

  it("spread over devices and leave out those without weight", () => {
    const builder = createBuilder({ partitionPower: 10, replicas: 2, minPartHours: 1, seed: 1n });
    for (let index = 0; index < 12; index += 1)
      addDevice(builder, { region: 1, zone: 1, node: "n", device: `d${index}`, weight: 100 });
    setWeight(builder, 3, 0);
    rebalance(builder, { random: seededRandom(1n), nowMs: 0 });
    const ring = buildRing(builder);
    const firsts = new Map<number, number>();
    for (let partition = 0; partition < ring.partitionCount; partition += 1) {
      const [first] = ring.handoffs(partition);
      firsts.set(first!.id, (firsts.get(first!.id) ?? 0) + 1);
    }
    expect(firsts.size).toBe(11);
    expect(firsts.has(3)).toBe(false);
    for (const count of firsts.values()) expect(count).toBeGreaterThan(1024 / 11 / 2);
  });
});

describe("a builder", () => {
  const create = () => createBuilder({ partitionPower: 4, replicas: 2, minPartHours: 1, seed: 1n });
  const device = { region: 1, zone: 1, node: "n", device: "d1", weight: 100 };
  const invalid = expect.objectContaining({ code: "ring-invalid" });

  it("refuses numbers out of range", () => {
    const options = { partitionPower: 4, replicas: 2, minPartHours: 1, seed: 1n };
    for (const wrong of [
      { partitionPower: 0 },
      { partitionPower: 25 },
      { partitionPower: 4.5 },
      { replicas: 0 },
      { replicas: 0.5 },
      { replicas: Number.NaN },
      { replicas: 17 },
      { minPartHours: -1 },
      { minPartHours: Number.NaN },
      { overload: -0.1 },
      { overload: Number.NaN },
    ])
      expect(() => createBuilder({ ...options, ...wrong })).toThrowError(invalid);
  });

  it("refuses devices that are not right or there already", () => {
    const builder = create();
    addDevice(builder, device);
    for (const wrong of [
      {},
      { device: "" },
      { device: "a b" },
      { device: "d2", weight: -1 },
      { device: "d2", weight: Number.NaN },
      { device: "d2", weight: Infinity },
      { device: "d2", region: -1 },
      { device: "d2", zone: 1.5 },
      { device: "d2", meta: "x".repeat(2000) },
    ])
      expect(() => addDevice(builder, { ...device, ...wrong })).toThrowError(invalid);
    expect(builder.devices).toHaveLength(1);
  });

  it("refuses changes of devices that are not there, and never gives an id out twice", () => {
    const builder = create();
    const id = addDevice(builder, device);
    removeDevice(builder, id);
    expect(() => removeDevice(builder, id)).toThrowError(invalid);
    expect(() => setWeight(builder, id, 1)).toThrowError(invalid);
    expect(() => setWeight(builder, 7, 1)).toThrowError(invalid);
    expect(addDevice(builder, device)).toBe(id + 1);
    expect(() => setWeight(builder, id + 1, Number.NaN)).toThrowError(invalid);
  });

  it("is not touched by, and does not touch, a ring built from it", () => {
    const builder = create();
    for (const name of ["d1", "d2", "d3"]) addDevice(builder, { ...device, device: name });
    rebalance(builder, { random: seededRandom(1n), nowMs: 0 });
    const ring = buildRing(builder);
    const before = ring.assignments.slice();
    removeDevice(builder, 0);
    rebalance(builder, { random: seededRandom(1n), nowMs: 0 });
    expect(ring.assignments).toEqual(before);
    expect(ring.devices[0]).toBeDefined();
    expect(buildRing(builder).version).toBeGreaterThan(ring.version);
  });
});
