import { execFile } from "node:child_process";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { chosenSeeds } from "../../../common/simulation/seeds.ts";
import { addToReport, emptyReport, type SeedsReport } from "../../../storage-node/scenarios/long-life-seeds.ts";
import { OCCURRENCES } from "./occurrences.ts";

const seeds = chosenSeeds(200);
/** So many seeds show what occurs in one life of ten or more. */
const SEEDS_FOR_MOST = 200;
/** What a message meets only in the milliseconds of a sealing: so many seeds show that too. */
const SEEDS_FOR_ALL = 2000;
const RARE: ReadonlySet<string> = new Set(["accept refused: epoch-sealed"]);
const TIMEOUT_MS = 600_000 + seeds.count * 10_000;
const REPORT_BYTES = 64 * 1024 * 1024;

/** Seeds of one process. */
const DEALT = 10n;
const RUNNER = join(import.meta.dirname, "../../../storage-node/scenarios/long-life-seeds.ts");
const run = promisify(execFile);

/** All seeds, dealt out to as many processes as there are cores, up to the first that fails. */
const liveAll = async (): Promise<SeedsReport> => {
  const report = emptyReport();
  const end = seeds.first + BigInt(seeds.count);
  let next = seeds.first;
  const liveSome = async (): Promise<void> => {
    while (next < end && report.failure === undefined) {
      const first = next;
      next = first + DEALT < end ? first + DEALT : end;
      const { stdout } = await run(process.execPath, [RUNNER, String(first), String(next)], {
        maxBuffer: REPORT_BYTES,
      });
      addToReport(report, JSON.parse(stdout));
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, liveSome));
  return report;
};

test("long lives on real engines are linearizable, listed, equal byte for byte and within their bounds after every fault [P1-P4, A1-M6]", {
  timeout: TIMEOUT_MS,
}, async () => {
  const { answered, counts, events, failure, operations, seeds: lived, simulatedMs, succeeded } = await liveAll();
  const told =
    failure && `SEED=${failure.seed} ./scripts/test simulation: ${failure.problem}\nall of it: ${failure.trace}`;
  expect(failure, told).toBeUndefined();
  const share = (part: number): string => `${((100 * part) / operations).toFixed(1)} %`;
  const lines = Object.entries(counts)
    .toSorted(([one], [other]) => (one < other ? -1 : 1))
    .map(([what, count]) => `${String(count).padStart(10)} ${what}`);
  const hours = (simulatedMs / 3_600_000).toFixed(1);
  process.stdout.write(
    `${lived} lives, ${operations} operations, ${share(answered)} answered, ${share(succeeded)} with success, ${events} events in ${hours} simulated hours\n${lines.join("\n")}\n`,
  );
  expect(answered).toBeGreaterThan(operations / 2);
  // Of fewer lives some may have more refusals.
  if (lived >= SEEDS_FOR_MOST) expect(succeeded).toBeGreaterThanOrEqual(operations / 2);
  const missing = OCCURRENCES.filter((what) => counts[what] === undefined);
  if (lived >= SEEDS_FOR_MOST) expect(missing.filter((what) => !RARE.has(what))).toEqual([]);
  if (lived >= SEEDS_FOR_ALL) expect(missing).toEqual([]);
});

test("a replica that missed the row of a container's deletion, whose stamp is the highest there is, is repaired", async () => {
  const { stdout } = await run(process.execPath, [RUNNER, "20219", "20220"], { maxBuffer: REPORT_BYTES });
  const report: SeedsReport = JSON.parse(stdout);
  expect(report.failure).toBeUndefined();
  expect(report.seeds).toBe(1);
});

test("a seed always gives the same life", async () => {
  const once = async (): Promise<string> => {
    return (await run(process.execPath, [RUNNER, "7", "8"], { maxBuffer: REPORT_BYTES })).stdout;
  };
  expect(await once()).toBe(await once());
});
