import { expect, test } from "vitest";
import { chosenSeeds } from "../../common/simulation/seeds.ts";
import { mortalReplica } from "../scenarios/mortal-replica.ts";
import { HandOffLife } from "../scenarios/hand-off-life.ts";

const seeds = chosenSeeds(150);
const timeout = 600_000 + seeds.count * 1000;

test("what hand-offs keep goes home: acknowledged writes are at all members in the end, under available as P2 says [H1-H7], under strong without any hand-off [H8]", {
  timeout,
}, async () => {
  let kept = 0;
  let acknowledged = 0;
  for (let index = 0n; index < BigInt(seeds.count); index++)
    for (const policy of ["available", "strong"] as const) {
      const seed = seeds.first + index;
      const life = new HandOffLife(seed, policy, mortalReplica);
      const run = await life.run();
      expect(
        run.problem,
        `SEED=${seed} ./scripts/test simulation: ${policy}: ${run.problem}\n${life.toString()}`,
      ).toBeUndefined();
      acknowledged += run.acknowledged.length;
      kept += run.kept;
    }
  expect(acknowledged).toBeGreaterThan(seeds.count * 8);
  expect(kept).toBeGreaterThan(seeds.count / 4);
});
