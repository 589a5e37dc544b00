import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chartSvg } from "./chart.ts";
import type { Figures } from "./figures.ts";
import { type Report, reachText, type RowReport, short, tableText } from "./report.ts";

/** What was asked to be kept; the names stay the same, so that git holds the newest and its history the others. */
const KEPT_FOLDER = join(import.meta.dirname, "results");

const lineOf = ({ title, metric, figures, reach }: RowReport): string => {
  const valueOf = (of: Figures | undefined): string => {
    if (of === undefined) return "–";
    return metric === "rate" ? `${short(of.requestsPerSecond)}/s` : `p99 ${short(of.p99Ms)} ms`;
  };
  const wanted = reachText(reach);
  return `${title}: ${figures.map(valueOf).join(" : ")}${wanted === "" ? "" : `  (${wanted})`}`;
};

/** One line as soon as a row is measured, and what failed in it. */
export const printRow = (report: RowReport): void => {
  console.log(lineOf(report));
  for (const figures of report.figures) {
    if (figures !== undefined && figures.failed > 0)
      console.log(`  ${figures.failed} failed, the first one: ${figures.firstFailure}`);
  }
};

/** Whether every request of every row succeeded. */
export const isFlawless = (rows: readonly RowReport[]): boolean =>
  rows.every(({ figures }) => figures.every((of) => of === undefined || of.failed === 0));

/** Writes `NAME.json` and `NAME.svg` to bench/results/, or where nothing is to be kept to a temporary folder, and prints the table. */
export const writeReport = (report: Report, name: string, keep: boolean): void => {
  const folder = keep ? KEPT_FOLDER : mkdtempSync(join(tmpdir(), "ringstead-bench-results-"));
  mkdirSync(folder, { recursive: true });
  const path = join(folder, name);
  writeFileSync(`${path}.json`, `${JSON.stringify(report, undefined, 2)}\n`);
  writeFileSync(`${path}.svg`, chartSvg(report));
  console.log(`${tableText(report)}\n${path}.json\n${path}.svg`);
};
