import { expect, it } from "vitest";
import { seededRandom } from "../common/random.ts";
import { addDevice, buildRing, createBuilder } from "../ring/builder.ts";
import { rebalance } from "../ring/rebalance.ts";
import type { Ring } from "../ring/ring.ts";
import { partitionsWithoutQuorum } from "./refused-writes.ts";

const ringOf = (replicas: number, places: readonly (readonly [string, string])[]): Ring => {
  const builder = createBuilder({ partitionPower: 6, replicas, minPartHours: 1, seed: 1n });
  for (const [node, device] of places) addDevice(builder, { region: 1, zone: 1, node, device, weight: 100 });
  rebalance(builder, { random: seededRandom(1n), nowMs: 0 });
  return buildRing(builder);
};

const local = (count: number): [string, string][] => Array.from({ length: count }, (_, at) => ["local", `d${at + 1}`]);
const without = (replicas: number, deviceCount: number, writable: readonly string[]): number =>
  partitionsWithoutQuorum(ringOf(replicas, local(deviceCount)), "local", new Set(writable));

it("counts the partitions of which fewer than a write quorum can be written", () => {
  expect(without(3, 3, ["d1", "d2"])).toBe(0);
  expect(without(3, 3, ["d2"])).toBe(64);
  expect(without(3, 3, [])).toBe(64);
  expect(without(1, 1, ["d1"])).toBe(0);
  expect(without(2, 2, ["d1"])).toBe(64);
  // Two of four devices have two of the three replicas of half the partitions.
  expect(without(3, 4, ["d1", "d2"])).toBe(32);
  expect(without(3, 4, ["d1", "d2", "d3"])).toBe(0);
});

it("takes devices of other nodes to be writable", () => {
  const ring = ringOf(3, [
    ["local", "d1"],
    ["other", "d1"],
    ["third", "d1"],
  ]);
  expect(partitionsWithoutQuorum(ring, "local", new Set())).toBe(0);
  expect(partitionsWithoutQuorum(ring, "elsewhere", new Set())).toBe(0);
});
