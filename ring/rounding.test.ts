import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { RingDevice } from "./device.ts";
import { computeTargets } from "./targets.ts";

const devicesOf = (weights: readonly number[], nodes = 1): RingDevice[] =>
  weights.map((weight, id) => ({ id, region: 1, zone: 1, node: `n${id % nodes}`, device: `d${id}`, weight }));

const targetsOf = (devices: readonly RingDevice[], held: ArrayLike<number>, partitionCount = 256) =>
  computeTargets(devices, { partitionCount, replicas: 1, overload: 0, held: Int32Array.from(held) });

const furthest = (shares: Float64Array, targets: ArrayLike<number>): number =>
  shares.reduce((worst, share, id) => Math.max(worst, Math.abs((targets[id] ?? 0) - share) / share), 0);

/** The nearest that the furthest device of one node can be to its share, found by trying everything. A whole share is kept: it is rounded to itself. */
const nearest = (shares: Float64Array, total: number): number => {
  let best = Infinity;
  for (let choice = 0; choice < 2 ** shares.length; choice += 1) {
    const targets = Array.from(shares, (share, id) =>
      (choice >> id) & 1 ? Math.ceil(share - 1e-6) : Math.floor(share + 1e-6),
    );
    if (targets.reduce((sum, one) => sum + one, 0) === total) best = Math.min(best, furthest(shares, targets));
  }
  return best;
};

const weights = fc.array(fc.integer({ min: 5, max: 100 }), { minLength: 2, maxLength: 6 });

describe("rounded shares", () => {
  it("of a new ring leave the furthest device of a node as near to its share as can be", () => {
    fc.assert(
      fc.property(weights, (of) => {
        const { ofDevice, shareOfDevice } = targetsOf(
          devicesOf(of),
          of.map(() => 0),
        );
        expect(ofDevice.reduce((sum, one) => sum + one, 0)).toBe(256);
        expect(furthest(shareOfDevice, ofDevice)).toBeCloseTo(nearest(shareOfDevice, 256), 9);
      }),
      { numRuns: 300 },
    );
  });

  it("stay as they are where every device holds its share rounded down or up", () => {
    fc.assert(
      fc.property(weights, fc.integer({ min: 1, max: 3 }), (of, nodes) => {
        const devices = devicesOf(of, nodes);
        const { ofDevice, shareOfDevice } = targetsOf(
          devices,
          of.map(() => 0),
        );
        // Another rounding of the same shares: the last of a node that may gives one to the first that may.
        const held = [...ofDevice];
        const give = held.findLastIndex((target, id) => target > shareOfDevice[id]! + 1e-6);
        const take = held.findIndex((target, id) => target < shareOfDevice[id]! - 1e-6 && id % nodes === give % nodes);
        if (give >= 0 && take >= 0) {
          held[give]! -= 1;
          held[take]! += 1;
        }
        expect([...targetsOf(devices, held).ofDevice]).toEqual(held);
      }),
      { numRuns: 300 },
    );
  });

  it("are made even again where many moves are due, and left as they are where few are", () => {
    // Shares of 4.7 and 100.3 in one node, 50 and 50 in the other.
    const weights = [47, 1003, 500, 500];
    const devices = devicesOf(weights).map((device, id) => ({ ...device, node: id < 2 ? "n1" : "n2" }));
    const targets = (...held: number[]): number[] => [...targetsOf(devices, held, 205).ofDevice];
    expect(targets(0, 0, 0, 0)).toEqual([5, 100, 50, 50]);
    expect(targets(4, 101, 49, 51)).toEqual([4, 101, 50, 50]);
    expect(targets(4, 101, 0, 100)).toEqual([5, 100, 50, 50]);
  });
});
