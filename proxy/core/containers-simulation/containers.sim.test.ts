import { expect, test } from "vitest";
import { chosenSeeds } from "../../../common/simulation/seeds.ts";
import { DeviceReplica } from "../../../storage-node/device-replica.ts";
import { MemoryDevice } from "../../../storage-node/engine/memory-device.ts";
import { registerKey } from "../../../storage-node/store/keys.ts";
import { decodeRegister } from "../../../storage-node/store/register-format.ts";
import { ContainersDirector } from "./director.ts";
import { INTERLEAVINGS } from "./interleavings.ts";
import type { MakeReplica, PoweredReplica } from "./world.ts";
import { type Run, run } from "./workload.ts";
import type { Mutation } from "./planted-mistakes.ts";

const explain = (seed: bigint, { problem, life }: Run): string =>
  `SEED=${seed} ./scripts/test simulation: ${problem}\n${life.toString()}`;

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

const seeds = chosenSeeds(300);
const timeout = 600_000 + seeds.count * 1000;

/** The seeds at which each planted mistake shows itself first; the search goes on from there when the simulation was changed. */
const PLANTED: readonly (readonly [Mutation, bigint])[] = [
  ["rows are taken in any state of the container [B1]", 10n],
  ["a listing asks one replica [B2]", 55n],
  ["a listing drops deleted rows before merging [B2]", 632n],
  ["a container is deleted in one step [B3]", 389n],
  ["the rows are not looked at again at closing [B3]", 389n],
  ["a row of a dead incarnation is answered as stored [B5]", 2n],
  ["ballots compare without the incarnation [B6]", 276n],
  ["the row is written before the version is accepted", 46n],
  ["the answer does not wait for the row", 2n],
  ["an established version is served before its row is written", 2n],
  ["a metadata change keeps whatever body is there [A4]", 12n],
];
const PLANTED_SEARCH = 300n;

test.each(PLANTED)("the planted mistake is found: %s", async (mutation, firstSeed) => {
  let problem: string | undefined;
  for (let seed = firstSeed; seed < firstSeed + PLANTED_SEARCH && problem === undefined; seed++)
    ({ problem } = await run(seed, makeReplica, mutation));
  expect(problem).toBeDefined();
});

test("objects and containers together are linearizable, listed and equal after faults [A4, B1-B7]", {
  timeout,
}, async () => {
  let acknowledged = 0;
  for (let index = 0n; index < BigInt(seeds.count); index++) {
    const result = await run(seeds.first + index, makeReplica);
    acknowledged += result.life.history.filter(({ status }) => status === 200).length;
    expect(result.problem, explain(seeds.first + index, result)).toBeUndefined();
  }
  expect(acknowledged).toBeGreaterThan(seeds.count * 4);
});

for (const { title, mistake, play, answers } of INTERLEAVINGS) {
  test(title, async () => {
    const director = new ContainersDirector(makeReplica);
    expect(await play(director)).toEqual(answers);
    expect(await director.conclude()).toBeUndefined();
  });
  if (mistake === undefined) continue;
  const [mutation, sign] = mistake;
  test(`the planted mistake is found: ${mutation}, where ${title}`, async () => {
    const director = new ContainersDirector(makeReplica, mutation);
    const given = await play(director);
    if (sign === "silence") expect(given).toContain(undefined);
    else expect(await director.conclude()).toBeDefined();
  });
}
