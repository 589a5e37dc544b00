import { expect, it } from "vitest";
import { seededRandom } from "../common/random.ts";
import { addDevice, buildRing, createBuilder } from "../ring/builder.ts";
import { rebalance } from "../ring/rebalance.ts";
import type { Ring } from "../ring/ring.ts";
import { RingsteadError } from "../common/errors.ts";
import { TIMESTAMP_ZERO } from "../common/hybrid-clock.ts";
import type { Configuration, EpochsPage, Space } from "../storage-node/wire.ts";
import { movedPartitions, newestConfiguration, partitionsWithoutQuorum } from "./partition-members.ts";

const ringOf = (replicas: number, places: readonly (readonly [string, string])[]): Ring => {
  const builder = createBuilder({ partitionPower: 6, replicas, minPartHours: 1, seed: 1n });
  for (const [node, device] of places) addDevice(builder, { region: 1, zone: 1, node, device, weight: 100 });
  rebalance(builder, { random: seededRandom(1n), nowMs: 0 });
  return buildRing(builder);
};

const local = (count: number): [string, string][] => Array.from({ length: count }, (_, at) => ["local", `d${at + 1}`]);
const without = (replicas: number, deviceCount: number, writable: readonly string[]): number =>
  partitionsWithoutQuorum(ringOf(replicas, local(deviceCount)), new Map(), (id) =>
    writable.includes(id.slice("local/".length)),
  );

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

const membersOf = (...devices: readonly string[]) => devices.map((device) => ({ id: `local/${device}`, since: 0 }));

it("counts those who keep a partition that was moved, and both who had it and who is to have it where it is on its way", () => {
  const ring = ringOf(3, local(3));
  const isAble = (id: string): boolean => id !== "local/d1" && id !== "local/d2";
  const count = (configuration: Pick<Configuration, "next" | "old">): number =>
    partitionsWithoutQuorum(ring, new Map([[5, configuration]]), isAble);
  expect(count({ old: membersOf("d1", "d2", "d3"), next: undefined })).toBe(64);
  expect(count({ old: membersOf("d3", "d4", "d5"), next: undefined })).toBe(63);
  expect(count({ old: membersOf("d2", "d3", "d4"), next: membersOf("d3", "d4", "d5") })).toBe(63);
  expect(count({ old: membersOf("d2", "d3", "d4"), next: membersOf("d1", "d2", "d4") })).toBe(64);
});

const TOLD: Configuration = { epoch: 2, old: membersOf("d4", "d2", "d3"), next: undefined, floor: TIMESTAMP_ZERO };

/** A device that answers in pages of one, or does not. */
const deviceOf = (...told: readonly Configuration[]) => ({
  epoch: async () => ({ hasCaughtUp: true, configuration: told[0] ?? { ...TOLD, epoch: 0 } }),
  epochs: async (_space: Space, _power: number, from: number): Promise<EpochsPage> => {
    const known = told[from];
    const moved =
      known === undefined
        ? []
        : [{ partition: from, configuration: known, hasCaughtUp: true, isSealed: false, entries: 0 }];
    const next = from + 1 < told.length ? from + 1 : undefined;
    return { moved, next, stamp: "", baseIdentity: undefined, isVoting: true };
  },
});
const silent = {
  epoch: () => Promise.reject(new RingsteadError("rpc-timeout", "no answer")),
  epochs: () => Promise.reject(new RingsteadError("rpc-timeout", "no answer")),
};

it("takes the newest of what the devices say that answer", async () => {
  const later = { ...TOLD, epoch: 4 };
  const devices = [deviceOf(TOLD, TOLD), silent, deviceOf(later), deviceOf()];
  expect([...(await movedPartitions("object", 6, devices))]).toEqual([
    [0, later],
    [1, TOLD],
  ]);
  const place = { space: "object", partition: 0, partitionPower: 6 } as const;
  expect(await newestConfiguration(place, devices)).toBe(later);
  expect(await newestConfiguration(place, [silent])).toBeUndefined();
});
