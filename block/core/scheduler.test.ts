import fc from "fast-check";
import { expect, it } from "vitest";
import { choosePool, type Placement, type Pool, type SchedulerSettings } from "./scheduler.ts";

const SETTINGS: SchedulerSettings = { reservedPercentage: 0, maxOverSubscriptionRatio: 20 };
const pool = (name: string, more: Partial<Pool> = {}): Pool => ({
  name,
  zone: "nova",
  isEnabled: true,
  failure: undefined,
  totalGib: 100,
  freeGib: 100,
  provisionedGib: 0,
  volumeCount: 0,
  isThin: false,
  capabilities: {},
  ...more,
});
const placement = (more: Partial<Placement> = {}): Placement => ({
  sizeGib: 10,
  zone: undefined,
  extraSpecs: {},
  excluded: [],
  onlyPool: undefined,
  ...more,
});
const chosen = (pools: readonly Pool[], wanted: Placement = placement(), settings = SETTINGS): string => {
  const choice = choosePool(pools, wanted, settings);
  return choice.kind === "chosen" ? choice.pool.name : choice.reason;
};

it("the pool with the most room is taken, of equals the one with fewer volumes, then the first by name", () => {
  expect(chosen([pool("a", { freeGib: 50 }), pool("b", { freeGib: 60 })])).toBe("b");
  expect(chosen([pool("a", { volumeCount: 3 }), pool("b", { volumeCount: 1 })])).toBe("b");
  expect(chosen([pool("b"), pool("a")])).toBe("a");
});

it("a few volumes more do not outweigh room", () => {
  expect(chosen([pool("a", { freeGib: 100, volumeCount: 50 }), pool("b", { freeGib: 10 })])).toBe("a");
});

it("what a share keeps free is not given away", () => {
  const settings = { ...SETTINGS, reservedPercentage: 20 };
  expect(chosen([pool("a", { freeGib: 30 })], placement({ sizeGib: 10 }), settings)).toBe("a");
  expect(chosen([pool("a", { freeGib: 30 })], placement({ sizeGib: 11 }), settings)).toContain("capacity: 1");
});

it("a thin pool promises as many times what it has as the ratio says", () => {
  const settings = { ...SETTINGS, maxOverSubscriptionRatio: 2 };
  const thin = pool("a", { isThin: true, freeGib: 60, provisionedGib: 150 });
  expect(chosen([thin], placement({ sizeGib: 50 }), settings)).toBe("a");
  expect(chosen([thin], placement({ sizeGib: 51 }), settings)).toContain("capacity");
  expect(chosen([{ ...thin, freeGib: 20, provisionedGib: 0 }], placement({ sizeGib: 41 }), settings)).toContain(
    "capacity",
  );
  expect(chosen([{ ...thin, freeGib: 0 }], placement({ sizeGib: 1 }), settings)).toContain("capacity");
});

it.each([
  ["another zone", pool("a", { zone: "mars" }), placement({ zone: "nova" }), "availability zone: 1"],
  ["a pool that was tried", pool("a"), placement({ excluded: ["a"] }), "retry: 1"],
  ["a pool that fails", pool("a", { failure: "read-only" }), placement(), "state: 1"],
  ["a host out of use", pool("a", { isEnabled: false }), placement(), "state: 1"],
  ["another pool than the source's", pool("a"), placement({ onlyPool: "b" }), "source: 1"],
  ["a capability that it lacks", pool("a"), placement({ extraSpecs: { ssd: "True" } }), "capabilities: 1"],
])("%s is passed by, and the reason says so", (_title, one, wanted, reason) => {
  expect(chosen([one], wanted)).toContain(reason);
});

it.each([
  ["lvm", "lvm", true],
  ["lvm", "file", false],
  ["<is> True", "true", true],
  ["<in> vm", "lvm", true],
  ["<or> lvm <or> file", "file", true],
  ["<or> lvm <or> file", "tape", false],
  [">= 5", "10", true],
  ["<= 5", "10", false],
  ["== 5", "5.0", true],
  ["s== 5", "5.0", false],
  ["s!= lvm", "file", true],
  ["!= 5", "6", true],
])("the extra spec %s and the capability %s", (spec, value, passes) => {
  const one = pool("a", { capabilities: { key: value } });
  expect(
    chosen([one], placement({ extraSpecs: { "capabilities:key": spec, "driver:other": "ignored" } })) === "a",
  ).toBe(passes);
});

it("whatever the pools are, the one that is chosen has room and is allowed", () => {
  const pools = fc.array(
    fc.record({
      zone: fc.constantFrom("nova", "mars"),
      isEnabled: fc.boolean(),
      isThin: fc.boolean(),
      totalGib: fc.integer({ min: 0, max: 200 }),
      freeGib: fc.integer({ min: 0, max: 200 }),
      provisionedGib: fc.integer({ min: 0, max: 500 }),
      volumeCount: fc.nat(100),
    }),
    { maxLength: 8 },
  );
  fc.assert(
    fc.property(pools, fc.integer({ min: 1, max: 100 }), fc.nat(50), (given, sizeGib, reservedPercentage) => {
      const all = given.map((one, index) => pool(`p${index}`, one));
      const choice = choosePool(all, placement({ sizeGib, zone: "nova" }), { ...SETTINGS, reservedPercentage });
      if (choice.kind === "none") return;
      const { pool: found } = choice;
      const usable = found.freeGib - (found.totalGib * reservedPercentage) / 100;
      expect(found.isEnabled && found.zone === "nova").toBe(true);
      expect(found.isThin ? usable * 20 >= sizeGib : usable >= sizeGib).toBe(true);
    }),
  );
});
