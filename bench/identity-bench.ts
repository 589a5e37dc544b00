import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { BenchOptions } from "./bench-options.ts";
import type { Measurement } from "./contest.ts";
import { figuresOf } from "./figures.ts";
import { IdentityContest } from "./identity-contest.ts";
import type { IdentityRow } from "./identity-rows.ts";
import { startKeystone } from "./keystone-contender.ts";
import type { ReachCheck } from "./reach.ts";
import { machineFacts, type Report, type RowReport, rowReport, short } from "./report.ts";
import { isFlawless, printRow, writeReport } from "./results.ts";
import { commitOf, startRingsteadIdentity } from "./ringstead-contender.ts";

const HASH_RATE = join(import.meta.dirname, "hash-rate.ts");
const PERCENT = 100;
const WARM_UP_MS = 1000;

/** Checks of a password per second when nothing else runs. */
const measureHashRate = (ms: number): number =>
  Number(execFileSync(process.execPath, [HASH_RATE, String(ms)], { encoding: "utf8" }));

/**
 * What of the hash alone's rate a login reaches. Of several rates the highest counts: whatever else ran on the machine can only have made
 * the others lower. Requires: at least one.
 */
export const hashCheck = (loginsPerSecond: number, hashRates: readonly number[], wanted: number): ReachCheck => {
  const hashesPerSecond = Math.max(...hashRates);
  const share = loginsPerSecond / hashesPerSecond;
  const reached = `${Math.round(share * PERCENT)} % of ${short(hashesPerSecond)} hashes/s`;
  return { text: `${reached}, ≥ ${Math.round(wanted * PERCENT)} %`, isReached: share >= wanted };
};

/** One run for each contest in turn, `rounds` times; where a row hashes, the hash alone just before. */
const measureRow = async (
  row: IdentityRow,
  contests: readonly IdentityContest[],
  { rounds, seconds }: BenchOptions,
  signal: AbortSignal,
): Promise<RowReport> => {
  const runs = contests.map((): Measurement[] => []);
  const hashRates: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    if (row.hashShare !== undefined) hashRates.push(measureHashRate(seconds * 1000));
    for (const [index, contest] of contests.entries()) {
      signal.throwIfAborted();
      runs[index]?.push(await contest.measure(row, seconds * 1000));
    }
  }
  const measured = { action: row.action, set: { sizeBytes: 0 }, beside: undefined };
  const figures = runs.map((measurements) => figuresOf(measured, measurements));
  const report = rowReport(row, figures);
  const own = figures[0];
  if (row.hashShare === undefined || own === undefined) return report;
  return { ...report, reach: [...report.reach, hashCheck(own.requestsPerSecond, hashRates, row.hashShare)] };
};

/** Ringstead's identity and Keystone in turn. Whether every request of every row succeeded. */
export const benchIdentity = async (options: BenchOptions, signal: AbortSignal): Promise<boolean> => {
  await using cleanup = new AsyncDisposableStack();
  const folder = mkdtempSync(join(options.folder, "ringstead-bench-"));
  cleanup.defer(() => rmSync(folder, { recursive: true, force: true }));
  const contests = [new IdentityContest(cleanup.use(await startRingsteadIdentity(folder)))];
  signal.throwIfAborted();
  contests.push(new IdentityContest(cleanup.use(await startKeystone(folder))));
  const contenders: Report["contenders"][number][] = [];
  for (const contest of contests) {
    const { name, version } = contest.contender;
    contenders.push({ name, version, idleShare: await contest.measureIdle() });
  }
  const rows: RowReport[] = [];
  for (const row of options.identityRows) {
    // Unmeasured, so that neither side pays for its first requests.
    for (const contest of contests) await contest.measure(row, WARM_UP_MS);
    const report = await measureRow(row, contests, options, signal);
    printRow(report);
    rows.push(report);
  }
  const { seconds, rounds, names, full } = options;
  const report: Report = {
    title: "Identity: tokens",
    commit: commitOf(),
    time: new Date().toISOString(),
    machine: machineFacts(),
    settings: { seconds, rounds, names, full, firstTouch: false },
    contenders,
    rows,
  };
  writeReport(report, "keystone", options.keep);
  return isFlawless(rows);
};
