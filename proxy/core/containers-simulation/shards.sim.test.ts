import { expect, test } from "vitest";
import { chosenSeeds } from "../../../common/simulation/seeds.ts";
import { mortalReplica } from "../../../storage-node/scenarios/mortal-replica.ts";
import { DeviceReplica } from "../../../storage-node/device-replica.ts";
import { MemoryDevice } from "../../../storage-node/engine/memory-device.ts";
import { registerKey } from "../../../storage-node/store/keys.ts";
import { decodeRegister } from "../../../storage-node/store/register-format.ts";
import { ContainersDirector } from "./director.ts";
import { rowsBesideASharder, settlersBesideASharder, SHARD_INTERLEAVINGS } from "./shard-interleavings.ts";
import type { Mutation } from "./planted-mistakes.ts";
import { type Run, run } from "./workload.ts";
import type { MakeReplica, PoweredReplica } from "./world.ts";

const makeReplica: MakeReplica = (syncAfter, clock) => {
  const on = (device: MemoryDevice): PoweredReplica => ({
    replica: new DeviceReplica(device, clock, [1n, 2n]),
    held: (name) => {
      const entry = device.get(registerKey(name));
      if (entry === undefined) return undefined;
      return {
        register: decodeRegister(entry.value),
        storedBytes: entry.body.kind === "log" ? entry.body.length : 0,
      };
    },
    afterCrash: () => on(device.afterCrash()),
    repair: undefined,
  });
  return on(new MemoryDevice(syncAfter));
};

const live = (seed: bigint, mutation?: Mutation): Promise<Run> =>
  run(seed, makeReplica, mutation, "kept", "stay", "sharded");

const seeds = chosenSeeds(120);
const lostSeeds = chosenSeeds(50);
const timeout = 600_000 + seeds.count * 1000;

/** The seeds at which each planted mistake shows itself first; the search goes on from there when the simulation was changed. */
const PLANTED: readonly (readonly [Mutation, bigint])[] = [
  ["a leaving shard takes rows that are nowhere else [S2]", 92n],
  ["a row goes to what follows its shard alone [S2]", 57n],
  ["one replica of a shard is copied [S3]", 16n],
  ["a shard is gone before it was copied [S4]", 1n],
  ["the index names what follows before the shards are gone [S6]", 1n],
  ["figures count a name where it is and where it goes [S4]", 12n],
];
const PLANTED_SEARCH = 400n;

test.each(PLANTED)("the planted mistake is found: %s", async (mutation, firstSeed) => {
  let found: bigint | undefined;
  for (let seed = firstSeed; seed < firstSeed + PLANTED_SEARCH && found === undefined; seed++)
    if ((await live(seed, mutation)).problem !== undefined) found = seed;
  expect(found).toBeDefined();
});

test("a container whose listing is split and merged is linearizable, listed and counted as any other [S0-S7]", {
  timeout,
}, async () => {
  let acknowledged = 0;
  for (let index = 0n; index < BigInt(seeds.count); index++) {
    const { life, problem } = await live(seeds.first + index);
    acknowledged += life.history.filter(({ status }) => status === 200).length;
    expect(
      problem,
      `SEED=${seeds.first + index} ./scripts/test simulation: ${problem}\n${life.toString()}`,
    ).toBeUndefined();
  }
  expect(acknowledged).toBeGreaterThan(seeds.count * 6);
});

test.each(["stay", "move"] as const)(
  "shards lose nothing acknowledged where disks are lost and partitions %s [E5, M1-M6]",
  {
    timeout,
  },
  async (partitions) => {
    let planned = 0;
    for (let seed = lostSeeds.first; seed < lostSeeds.first + BigInt(lostSeeds.count); seed++) {
      const { life, problem } = await run(seed, mortalReplica, undefined, "lost", partitions, "sharded");
      planned += life.world.shards?.ids.size ?? 0;
      expect(problem, `SEED=${seed} ./scripts/test simulation: ${problem}\n${life.toString()}`).toBeUndefined();
    }
    expect(planned).toBeGreaterThan(lostSeeds.count);
  },
);

for (const { title, mistake, play, answers } of SHARD_INTERLEAVINGS) {
  test(title, async () => {
    const director = new ContainersDirector(makeReplica, undefined, undefined, true);
    expect(await play(director)).toEqual(answers);
    expect(await director.conclude()).toBeUndefined();
  });
  test(`the planted mistake is found: ${mistake}, where ${title}`, async () => {
    const director = new ContainersDirector(makeReplica, mistake, undefined, true);
    await play(director);
    expect(await director.conclude()).toBeDefined();
  });
}

test("settlers that look at a change all the while refuse its sharder nothing [B7]", async () => {
  const director = new ContainersDirector(makeReplica, undefined, undefined, true);
  expect(await settlersBesideASharder(director)).toBe(0);
  expect(await director.conclude()).toBeUndefined();
});

// When each row found out by itself what its shard is by now, these were 33 and 45.
test.each([
  ["the same proxy", 20],
  ["another one", 8],
] as const)(
  "rows that %s writes while a listing is split find out together where they belong",
  async (writes, most) => {
    const director = new ContainersDirector(makeReplica, undefined, undefined, true);
    const { asked, rows } = await rowsBesideASharder(director, writes);
    expect(rows).toBeGreaterThan(400);
    expect(asked).toBeGreaterThan(0);
    expect(asked).toBeLessThanOrEqual(most);
  },
);
