import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { type BenchOptions, parseBenchOptions } from "./bench-options.ts";
import { chartSvg } from "./chart.ts";
import { Contest, type Measurement } from "./contest.ts";
import { figuresOf } from "./figures.ts";
import { touchDisk } from "./first-touch.ts";
import { machineFacts, type Report, type RowReport, rowReport, short, tableText } from "./report.ts";
import { commitOf, startRingstead } from "./ringstead-contender.ts";
import { ROWS, type Row } from "./rows.ts";
import { startSwift } from "./swift-contender.ts";

const RESULTS_FOLDER = join(import.meta.dirname, "results");
const WARM_UP_MS = 1000;

/** Ctrl-C is noticed between two runs, so that everything started is also stopped. */
const interrupted = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.on(name, () => interrupted.abort(new RingsteadError("interrupted", `ended by ${name}`)));
}

/** One run of `row` for each contest in turn, `rounds` times: A B A B. */
const measureRow = async (row: Row, contests: readonly Contest[], options: BenchOptions): Promise<RowReport> => {
  const runs = contests.map((): Measurement[] => []);
  for (let round = 0; round < options.rounds; round += 1) {
    for (const [index, contest] of contests.entries()) {
      interrupted.signal.throwIfAborted();
      runs[index]?.push(await contest.measure(row, options.seconds * 1000, 1 / (options.rounds - round)));
    }
  }
  return rowReport(
    row,
    runs.map((measurements) => figuresOf(row, measurements)),
  );
};

const measureRows = async (contests: readonly Contest[], options: BenchOptions): Promise<RowReport[]> => {
  const reports: RowReport[] = [];
  for (const row of options.rows) {
    const report = await measureRow(row, contests, options);
    const rates = report.figures.map(({ requestsPerSecond }) => short(requestsPerSecond)).join(" / ");
    console.log(`${row.title}: ${rates} req/s`);
    for (const { failed, firstFailure } of report.figures) {
      if (failed > 0) console.log(`  ${failed} failed, the first one: ${firstFailure}`);
    }
    reports.push(report);
  }
  return reports;
};

const writeReport = (report: Report): void => {
  mkdirSync(RESULTS_FOLDER, { recursive: true });
  const kind = report.contenders.length > 1 ? "swift" : "alone";
  const path = join(RESULTS_FOLDER, `${report.time.slice(0, 19).replaceAll(":", "")}-${report.commit}-${kind}`);
  writeFileSync(`${path}.json`, `${JSON.stringify(report, undefined, 2)}\n`);
  writeFileSync(`${path}.svg`, chartSvg(report));
  console.log(`${tableText(report)}\n${path}.json\n${path}.svg`);
};

/** Whether every request of every row succeeded. */
const bench = async (options: BenchOptions): Promise<boolean> => {
  await using cleanup = new AsyncDisposableStack();
  const folder = mkdtempSync(join(options.folder, "ringstead-bench-"));
  cleanup.defer(() => rmSync(folder, { recursive: true, force: true }));
  const firstTouch = options.compareSwift && !options.skipFirstTouch && touchDisk(folder);
  if (options.compareSwift && !firstTouch)
    console.log("the disk is not written once before: first touches are measured");
  const contests = [new Contest(cleanup.use(await startRingstead(folder)))];
  interrupted.signal.throwIfAborted();
  if (options.compareSwift) contests.push(new Contest(cleanup.use(await startSwift(folder))));
  for (const contest of contests) await contest.warmUp(ROWS[0].set, WARM_UP_MS);
  const rows = await measureRows(contests, options);
  writeReport({
    commit: commitOf(),
    time: new Date().toISOString(),
    machine: machineFacts(),
    settings: { seconds: options.seconds, rounds: options.rounds, firstTouch },
    contenders: contests.map(({ contender: { name, version } }) => ({ name, version })),
    rows,
  });
  return rows.every(({ figures }) => figures.every(({ failed }) => failed === 0));
};

try {
  process.exitCode = (await bench(parseBenchOptions(process.argv.slice(2)))) ? 0 : 1;
} catch (thrown) {
  console.error(messageOf(thrown));
  process.exitCode = 1;
}
