import { describe, expect, it } from "vitest";
import { seededRandom } from "../common/random.ts";
import { addDevice, type Builder, buildRing, createBuilder, removeDevice, setOverload, setWeight } from "./builder.ts";
import { dispersionReport } from "./dispersion.ts";
import { increasePartPower } from "./part-power.ts";
import { rebalance } from "./rebalance.ts";
import { validateBuilder } from "./validate.ts";

const START_MS = 1_700_000_000_000;
const HOUR_MS = 3_600_000;

/** Two zones of weight 100 and 100 with two devices each, one of weight 40 with one. */
const unevenZones = (overload = 0): Builder => {
  const builder = createBuilder({ partitionPower: 8, replicas: 3, minPartHours: 1, seed: 1n, overload });
  for (const [zone, weights] of [[50, 50], [50, 50], [40]].entries())
    for (const [index, weight] of weights.entries())
      addDevice(builder, { region: 1, zone, node: `n${zone}`, device: `d${index}`, weight });
  rebalance(builder, { random: seededRandom(1n), nowMs: START_MS });
  return builder;
};

const textsOf = (builder: Builder, ring = buildRing(builder), nowMs = START_MS): string[] =>
  validateBuilder(builder, ring, nowMs).map(({ isProblem, text }) => `${isProblem ? "wrong" : "note"}: ${text}`);

describe("the dispersion report", () => {
  it("counts for each region, zone and node how many partitions have how many replicas there", () => {
    const report = dispersionReport(unevenZones());
    // Shares by weight: 3 × 100 ÷ 240 = 1.25 for a big zone, 0.5 for the small one.
    const zone = (name: string) => report.tiers.find((tier) => tier.name === name);
    expect(zone("region 1")).toMatchObject({ level: "region", atLeast: 3, atMost: 3, partitions: [0, 0, 0, 256] });
    expect(zone("region 1 zone 0")).toMatchObject({ level: "zone", atLeast: 1, atMost: 2, outOfBounds: 0 });
    expect(zone("region 1 zone 0")?.partitions).toEqual([0, 192, 64, 0]);
    expect(zone("region 1 zone 2 n2")).toMatchObject({ level: "node", atLeast: 0, atMost: 1 });
    expect(zone("region 1 zone 2 n2")?.partitions).toEqual([128, 128, 0, 0]);
    expect(report).toMatchObject({ dispersion: 0, overload: 0 });
    expect(report.tiers.map(({ level }) => level)).toEqual(["region", "zone", "zone", "zone", "node", "node", "node"]);
  });

  it("names the overload that would spread replicas as far as the devices allow, and that overload does", () => {
    const { overloadToSpread } = dispersionReport(unevenZones());
    // One replica in each zone: the small one takes 1 instead of 0.5.
    expect(overloadToSpread).toBeCloseTo(1);
    const spread = unevenZones(overloadToSpread);
    const perZone = dispersionReport(spread).tiers.filter(({ level }) => level === "zone");
    for (const { partitions } of perZone) expect(partitions).toEqual([0, 256, 0, 0]);
    const half = dispersionReport(unevenZones(0.5)).tiers.find(({ name }) => name === "region 1 zone 2");
    expect(half?.partitions).toEqual([64, 192, 0, 0]);
  });

  it("says where replicas are too close together", () => {
    const builder = unevenZones();
    setOverload(builder, 1);
    const { dispersion, tiers } = dispersionReport(builder);
    expect(dispersion).toBeCloseTo(50);
    expect(tiers.find(({ name }) => name === "region 1 zone 2")?.outOfBounds).toBe(128);
    rebalance(builder, { random: seededRandom(1n), nowMs: START_MS + HOUR_MS });
    expect(dispersionReport(builder).dispersion).toBe(0);
  });
});

describe("validation", () => {
  it("finds nothing in a settled builder and the ring made of it", () => {
    expect(textsOf(unevenZones())).toEqual([]);
  });

  it("finds replicas without a device, and too few devices", () => {
    const builder = unevenZones();
    const ring = buildRing(builder);
    const held = builder.assignments.filter((id) => id === 4).length;
    removeDevice(builder, 4);
    expect(textsOf(builder, ring)).toContain(`wrong: ${held} of 768 replicas have no device: rebalance`);
    for (const id of [0, 1]) setWeight(builder, id, 0);
    expect(textsOf(builder, ring)).toContain("wrong: 3 replicas need 3 devices with weight, there are 2");
  });

  it("remarks on devices to be emptied, uneven ones, and a ring that lags behind", () => {
    const builder = unevenZones();
    const ring = buildRing(builder);
    setWeight(builder, 4, 0);
    const held = builder.assignments.filter((id) => id === 4).length;
    const texts = textsOf(builder, ring);
    expect(texts).toContain(`note: device 4 (n2/d0) is to be emptied and holds ${held}`);
    expect(texts.join("\n")).toMatch(/note: 5 devices are more than one replica from their share/);
    rebalance(builder, { random: seededRandom(1n), nowMs: START_MS + HOUR_MS });
    expect(textsOf(builder, ring, START_MS + HOUR_MS)).toEqual([
      `note: the ring file lags behind the builder by ${held} moves`,
    ]);
  });

  it("tells the ring file of another builder, a newer one, and one of a lower partition power", () => {
    const builder = unevenZones();
    const ring = buildRing(builder);
    expect(textsOf({ ...builder, hashSeed: 2n }, ring)[0]).toMatch(/wrong: .* another hash seed/);
    expect(textsOf({ ...builder, version: 0 }, ring)[0]).toMatch(/wrong: .* this is an older builder/);
    increasePartPower(builder);
    expect(textsOf(builder, ring)).toEqual(["note: the ring file has partition power 8"]);
  });

  it("finds moves that lie in the future", () => {
    const builder = unevenZones();
    builder.movedAtSeconds[3] = START_MS / 1000 + 1;
    expect(textsOf(builder)[0]).toMatch(/wrong: 1 partitions moved in the future/);
    expect(textsOf(builder, buildRing(builder), START_MS + 1000)).toEqual([]);
  });
});
