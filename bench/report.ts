import { cpus, release, totalmem } from "node:os";
import type { Figures } from "./figures.ts";
import type { Row } from "./rows.ts";

/** The figures of one row; the first contender is the one that the ratio speaks of. */
export type RowReport = {
  readonly id: string;
  readonly title: string;
  readonly reach: number | undefined;
  readonly figures: readonly Figures[];
  /** First contender's requests per second over the second's. */
  readonly ratio: number | undefined;
};

/** What a file in bench/results/ holds. */
export type Report = {
  readonly commit: string;
  readonly time: string;
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly memoryGib: number;
    readonly kernel: string;
    readonly node: string;
  };
  readonly settings: { readonly seconds: number; readonly rounds: number; readonly firstTouch: boolean };
  readonly contenders: readonly { readonly name: string; readonly version: string }[];
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

export const rowReport = ({ id, title, reach }: Row, figures: readonly Figures[]): RowReport => {
  const [own, other] = figures;
  const ratio =
    own === undefined || other === undefined || other.requestsPerSecond === 0
      ? undefined
      : Number((own.requestsPerSecond / other.requestsPerSecond).toFixed(2));
  return { id, title, reach, figures, ratio };
};

/** A number with about three digits. */
export const short = (number: number): string =>
  number >= 100 ? Math.round(number).toLocaleString("en-US") : number.toPrecision(number >= 1 ? 3 : 2);

const cellsOf = (figures: Figures): string[] => [
  short(figures.requestsPerSecond) +
    (figures.mebibytesPerSecond >= 1 ? ` (${short(figures.mebibytesPerSecond)} MiB/s)` : ""),
  short(figures.p50Ms),
  short(figures.p99Ms),
  figures.cpuUsPerRequest === undefined ? "–" : short(figures.cpuUsPerRequest),
  `${Math.round(figures.rssBytes / MIB)} / ${Math.round(figures.pssBytes / MIB)}`,
  figures.failed === 0 ? "" : `${figures.failed} failed`,
];

const ratioCell = ({ ratio, reach }: RowReport): string => {
  if (ratio === undefined) return "";
  return `${short(ratio)} ×${reach === undefined ? "" : ` (reach ${reach} ×)`}`;
};

/** A Markdown table, aligned for a terminal too: one line for each row and contender. */
export const tableText = ({ contenders, rows }: Pick<Report, "contenders" | "rows">): string => {
  const heading = ["row", "store", "req/s", "p50 ms", "p99 ms", "CPU µs/req", "RSS / PSS MiB", "errors", "ratio"];
  const lines = rows.flatMap((row) =>
    row.figures.map((figures, index) => [
      index === 0 ? row.title : "",
      contenders[index]?.name ?? "",
      ...cellsOf(figures),
      index === 0 ? ratioCell(row) : "",
    ]),
  );
  const widths = heading.map((cell, column) =>
    Math.max(cell.length, ...lines.map((line) => line[column]?.length ?? 0)),
  );
  const lineText = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  return [lineText(heading), lineText(widths.map((width) => "-".repeat(width))), ...lines.map(lineText)].join("\n");
};
