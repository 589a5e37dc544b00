import { cpus, release, totalmem } from "node:os";
import type { Figures } from "./figures.ts";
import { type ReachCheck, ratioOf, reachChecks } from "./reach.ts";
import type { Row } from "./rows.ts";

/** The figures of one row; the first contender is the one that the ratio and the checks speak of. */
export type RowReport = {
  readonly id: string;
  readonly title: string;
  readonly metric: Row["metric"];
  /** In the order of the contenders; undefined for one that the row was not measured with. */
  readonly figures: readonly (Figures | undefined)[];
  readonly ratio: number | undefined;
  readonly reach: readonly ReachCheck[];
};

/** What a file of results holds. */
export type Report = {
  readonly title: string;
  readonly commit: string;
  readonly time: string;
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly memoryGib: number;
    readonly kernel: string;
    readonly node: string;
  };
  readonly settings: {
    readonly seconds: number;
    readonly rounds: number;
    readonly names: number;
    readonly full: boolean;
    readonly firstTouch: boolean;
  };
  /** `idleShare`: cores in use before the first request. */
  readonly contenders: readonly { readonly name: string; readonly version: string; readonly idleShare: number }[];
  readonly rows: readonly RowReport[];
};

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

/** This machine, as far as it explains figures. */
export const machineFacts = (): Report["machine"] => ({
  cpu: cpus()[0]?.model.trim() ?? "unknown",
  cores: cpus().length,
  memoryGib: Math.round(totalmem() / GIB),
  kernel: release(),
  node: process.version,
});

export const rowReport = (
  row: Pick<Row, "id" | "title" | "metric" | "reach">,
  figures: readonly (Figures | undefined)[],
): RowReport => {
  const { id, title, metric } = row;
  const [own, other] = figures;
  const ratio = own === undefined || other === undefined ? undefined : ratioOf(metric, own, other);
  return { id, title, metric, figures, ratio, reach: own === undefined ? [] : reachChecks(row, own, ratio) };
};

/** A number with about three digits. */
export const short = (number: number): string => {
  if (number === 0) return "0";
  return number >= 100 ? Math.round(number).toLocaleString("en-US") : number.toPrecision(number >= 1 ? 3 : 2);
};

const shortOrNone = (number: number | undefined): string => (number === undefined ? "–" : short(number));

const noteOf = ({ names, deletedNames, besidePerSecond, failed }: Figures): string =>
  [
    names === undefined ? "" : `${names.toLocaleString("en-US")} names`,
    deletedNames === undefined ? "" : `${deletedNames.toLocaleString("en-US")} deleted`,
    besidePerSecond === undefined ? "" : `beside ${short(besidePerSecond)}/s`,
    failed === 0 ? "" : `${failed} failed`,
  ]
    .filter((note) => note !== "")
    .join(", ");

const cellsOf = (figures: Figures): string[] => [
  short(figures.requestsPerSecond) +
    (figures.mebibytesPerSecond >= 1 ? ` (${short(figures.mebibytesPerSecond)} MiB/s)` : ""),
  short(figures.p50Ms),
  short(figures.p99Ms),
  shortOrNone(figures.serverCpuUsPerRequest),
  shortOrNone(figures.clientCpuUsPerRequest),
  `${Math.round(figures.rssBytes / MIB)} / ${Math.round(figures.pssBytes / MIB)}`,
  noteOf(figures),
];

const ratioCell = ({ ratio, metric }: RowReport): string =>
  ratio === undefined ? "" : `${short(ratio)} ×${metric === "p99" ? " (p99)" : ""}`;

/** "≥ 30 × reached, CPU ≤ 500 µs missed"; empty where nothing is wanted. */
export const reachText = (checks: readonly ReachCheck[]): string =>
  checks.map(({ text, isReached }) => `${text} ${isReached ? "reached" : "missed"}`).join(", ");

const HEADING = [
  "row",
  "store",
  "req/s",
  "p50 ms",
  "p99 ms",
  "CPU µs/req",
  "client µs/req",
  "RSS / PSS MiB",
  "notes",
  "ratio",
  "reach",
];

/** A Markdown table, aligned for a terminal too: one line for each row and contender. */
export const tableText = ({ contenders, rows }: Pick<Report, "contenders" | "rows">): string => {
  const lines = rows.flatMap((row) =>
    row.figures.flatMap((figures, index) => {
      if (figures === undefined) return [];
      const name = contenders[index]?.name ?? "";
      const isFirst = index === 0;
      const ends = isFirst ? [ratioCell(row), reachText(row.reach)] : ["", ""];
      return [[isFirst ? row.title : "", name, ...cellsOf(figures), ...ends]];
    }),
  );
  const widths = HEADING.map((cell, column) =>
    Math.max(cell.length, ...lines.map((line) => line[column]?.length ?? 0)),
  );
  const lineText = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  return [lineText(HEADING), lineText(widths.map((width) => "-".repeat(width))), ...lines.map(lineText)].join("\n");
};
