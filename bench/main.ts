import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { type BenchOptions, parseBenchOptions } from "./bench-options.ts";
import { Contest, type Measurement } from "./contest.ts";
import { type Figures, figuresOf } from "./figures.ts";
import { touchDisk } from "./first-touch.ts";
import { benchIdentity } from "./identity-bench.ts";
import { machineFacts, type Report, type RowReport, rowReport } from "./report.ts";
import { commitOf, startRingstead } from "./ringstead-contender.ts";
import { ROWS, type Row } from "./rows.ts";
import { isFlawless, printRow, writeReport } from "./results.ts";
import { startSwift } from "./swift-contender.ts";
import { benchTokens } from "./token-bench.ts";

const WARM_UP_MS = 1000;

/** Ctrl-C is noticed between two runs, so that everything started is also stopped. */
const interrupted = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.on(name, () => interrupted.abort(new RingsteadError("interrupted", `ended by ${name}`)));
}

/** One run of `row` for each contest in turn, `rounds` times: A B A B. A long row leaves out all but the first unless `full`. */
const measureRow = async (row: Row, contests: readonly Contest[], options: BenchOptions): Promise<RowReport> => {
  const runs = contests.map((): Measurement[] => []);
  const measured = row.isLong && !options.full ? contests.slice(0, 1) : contests;
  for (let round = 0; round < options.rounds; round += 1) {
    for (const [index, contest] of measured.entries()) {
      interrupted.signal.throwIfAborted();
      runs[index]?.push(await contest.measure(row, options.seconds * 1000, 1 / (options.rounds - round)));
    }
  }
  return rowReport(
    row,
    runs.map((measurements): Figures | undefined =>
      measurements.length === 0 ? undefined : figuresOf(row, measurements),
    ),
  );
};

const measureRows = async (contests: readonly Contest[], options: BenchOptions): Promise<RowReport[]> => {
  const reports: RowReport[] = [];
  for (const row of options.rows) {
    const report = await measureRow(row, contests, options);
    printRow(report);
    reports.push(report);
  }
  return reports;
};

/** Whether every request of every row succeeded. */
const benchObjects = async (options: BenchOptions): Promise<boolean> => {
  await using cleanup = new AsyncDisposableStack();
  const folder = mkdtempSync(join(options.folder, "ringstead-bench-"));
  cleanup.defer(() => rmSync(folder, { recursive: true, force: true }));
  const compareSwift = options.compare === "swift";
  const firstTouch = compareSwift && !options.skipFirstTouch && touchDisk(folder);
  if (compareSwift && !firstTouch) console.log("the disk is not written once before: first touches are measured");
  const contestOptions = { fillLimitMs: options.fillSeconds * 1000, pageNames: options.names };
  const contests = [new Contest(cleanup.use(await startRingstead(folder)), contestOptions)];
  interrupted.signal.throwIfAborted();
  if (compareSwift) contests.push(new Contest(cleanup.use(await startSwift(folder)), contestOptions));
  const contenders: Report["contenders"][number][] = [];
  for (const contest of contests) {
    const { name, version } = contest.contender;
    contenders.push({ name, version, idleShare: await contest.measureIdle() });
  }
  for (const contest of contests) await contest.warmUp(ROWS[0].set, WARM_UP_MS);
  const rows = await measureRows(contests, options);
  const { seconds, rounds, names, full } = options;
  const report: Report = {
    title: "Object storage, 3 replicas",
    commit: commitOf(),
    time: new Date().toISOString(),
    machine: machineFacts(),
    settings: { seconds, rounds, names, full, firstTouch },
    contenders,
    rows,
  };
  writeReport(report, compareSwift ? "swift" : "alone", options.keep);
  return isFlawless(rows);
};

const bench = (options: BenchOptions): Promise<boolean> => {
  if (options.compare === "keystone") return benchIdentity(options, interrupted.signal);
  return options.compare === "tokens" ? benchTokens(options, interrupted.signal) : benchObjects(options);
};

try {
  process.exitCode = (await bench(parseBenchOptions(process.argv.slice(2)))) ? 0 : 1;
} catch (thrown) {
  console.error(messageOf(thrown));
  process.exitCode = 1;
}
