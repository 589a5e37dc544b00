import { expect, test } from "vitest";
import { chosenSeeds } from "../../../common/simulation/seeds.ts";
import { ContainersDirector } from "./director.ts";
import { mortalReplica } from "../../../storage-node/scenarios/mortal-replica.ts";
import { MEMBERS, MOVING_INTERLEAVINGS, REPLICAS } from "./moving-interleavings.ts";
import { type Run, run } from "./workload.ts";

const explain = (seed: bigint, { problem, life }: Run): string =>
  `SEED=${seed} ./scripts/test simulation: ${problem}\n${life.toString()}`;

const seeds = chosenSeeds(150);
/** Such a life takes twice as long. */
const movingSeeds = chosenSeeds(50);
const timeout = 600_000 + seeds.count * 2000;

test("replicas that lose their disk lose nothing acknowledged, and vote again once they have caught up [E1, M4]", {
  timeout,
}, async () => {
  let acknowledged = 0;
  for (let index = 0n; index < BigInt(seeds.count); index++) {
    const result = await run(seeds.first + index, mortalReplica, undefined, "lost");
    acknowledged += result.life.history.filter(({ status }) => status === 200).length;
    expect(result.problem, explain(seeds.first + index, result)).toBeUndefined();
  }
  expect(acknowledged).toBeGreaterThan(seeds.count * 3);
});

test("partitions that change their members while clients work lose nothing acknowledged, disks that are lost meanwhile included [M1-M6]", {
  timeout,
}, async () => {
  let acknowledged = 0;
  const counts: Record<string, number> = {};
  for (let index = 0n; index < BigInt(movingSeeds.count); index++) {
    const result = await run(movingSeeds.first + index, mortalReplica, undefined, "lost", "move");
    acknowledged += result.life.history.filter(({ status }) => status === 200).length;
    for (const [event, count] of Object.entries(result.life.world.moves?.counts ?? {}))
      counts[event] = (counts[event] ?? 0) + count;
    expect(result.problem, explain(movingSeeds.first + index, result)).toBeUndefined();
  }
  expect(acknowledged).toBeGreaterThan(movingSeeds.count * 3);
  // Nothing that a move can meet is left out.
  if (movingSeeds.count >= 20) expect(Object.values(counts)).not.toContain(0);
});

test("the planted mistake is found: a configuration is written without a condition", async () => {
  let problem: string | undefined;
  for (let seed = 1n; seed <= 100n && problem === undefined; seed++)
    ({ problem } = await run(seed, mortalReplica, "a configuration is written without a condition", "lost", "move"));
  expect(problem).toContain("two configurations");
});

for (const { title, mistakes, play, answers } of MOVING_INTERLEAVINGS) {
  const moving = { replicas: REPLICAS, members: MEMBERS };
  test(title, async () => {
    const director = new ContainersDirector(mortalReplica, undefined, moving);
    expect(await play(director)).toEqual(answers);
    expect(await director.conclude()).toBeUndefined();
  });
  for (const [mutation, sign] of mistakes) {
    test(`the planted mistake is found: ${mutation}, where ${title}`, async () => {
      const director = new ContainersDirector(mortalReplica, mutation, moving);
      const given = await play(director);
      if (sign === "silence") expect(given).toContain(undefined);
      else expect(await director.conclude()).toBeDefined();
    });
  }
}
