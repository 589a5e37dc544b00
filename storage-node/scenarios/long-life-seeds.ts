import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { messageOf } from "../../common/errors.ts";
import { diskReplicas } from "./disk-replica.ts";
import { longLife, type LongRun } from "../../proxy/core/containers-simulation/long-life.ts";

/** What some seeds came to, all together. */
export type SeedsReport = {
  seeds: number;
  operations: number;
  answered: number;
  succeeded: number;
  simulatedMs: number;
  events: number;
  counts: Record<string, number>;
  /** Of the first seed that failed, if any. */
  failure: { readonly seed: string; readonly problem: string; readonly trace: string } | undefined;
};

export const emptyReport = (): SeedsReport => ({
  seeds: 0,
  operations: 0,
  answered: 0,
  succeeded: 0,
  simulatedMs: 0,
  events: 0,
  counts: {},
  failure: undefined,
});

export const addToReport = (report: SeedsReport, { failure, counts, ...sums }: SeedsReport): void => {
  for (const [what, count] of Object.entries(counts)) report.counts[what] = (report.counts[what] ?? 0) + count;
  for (const key of ["seeds", "operations", "answered", "succeeded", "simulatedMs", "events"] as const)
    report[key] += sums[key];
  if (failure !== undefined && (report.failure === undefined || BigInt(failure.seed) < BigInt(report.failure.seed)))
    report.failure = failure;
};

type Lived = Pick<LongRun, "problem" | "history">;

const reportOf = ({ counts, operations, answered, succeeded, simulatedMs, events }: LongRun): SeedsReport => ({
  seeds: 1,
  operations,
  answered,
  succeeded,
  simulatedMs,
  events,
  counts: Object.fromEntries(counts),
  failure: undefined,
});

/** One life. What is thrown in it is a problem like any other, also where nobody waits for it. */
const liveOnce = async (seed: bigint, report: SeedsReport, trace?: (line: string) => void): Promise<Lived> => {
  const thrown = Promise.withResolvers<Lived>();
  const onThrown = (error: unknown): void => thrown.resolve({ problem: messageOf(error), history: "" });
  process.on("uncaughtException", onThrown);
  try {
    const lived = longLife(seed, diskReplicas, trace).then((life) => {
      addToReport(report, reportOf(life));
      return life;
    });
    return await Promise.race([lived, thrown.promise]);
  } catch (error) {
    return { problem: messageOf(error), history: "" };
  } finally {
    process.off("uncaughtException", onThrown);
  }
};

/** Lives the seed once more and writes down everything that happens; gives the file. */
const writeTrace = async (seed: bigint, problem: string): Promise<string> => {
  const lines: string[] = [];
  const { history } = await liveOnce(seed, emptyReport(), (line) => lines.push(line));
  const path = join(mkdtempSync(join(tmpdir(), "ringstead-trace-")), `seed-${seed}.txt`);
  writeFileSync(path, `${problem}\n\n${lines.join("\n")}\n\n${history}\n`);
  return path;
};

/** Those from `first` on, before `end`, up to the first that fails. */
const liveSeeds = async (first: bigint, end: bigint): Promise<SeedsReport> => {
  const report = emptyReport();
  for (let seed = first; seed < end; seed++) {
    const { problem } = await liveOnce(seed, report);
    if (problem === undefined) continue;
    report.failure = { seed: String(seed), problem, trace: await writeTrace(seed, problem) };
    break;
  }
  return report;
};

/** A process of its own, so that all cores have something to do: `node long-life-seeds.ts FIRST END` prints its report as JSON. */
if (import.meta.main) {
  // Refusals are thrown by the thousand, and nobody looks where.
  Error.stackTraceLimit = 0;
  const [first = "1", end = "2"] = process.argv.slice(2);
  const report = await liveSeeds(BigInt(first), BigInt(end));
  // What a life that failed left behind goes no further.
  process.stdout.write(JSON.stringify(report), () => process.exit());
}
