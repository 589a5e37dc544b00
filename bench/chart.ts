import type { Figures } from "./figures.ts";
import { type Report, type RowReport, short } from "./report.ts";

const WIDTH = 960;
const LABEL_WIDTH = 310;
const VALUE_WIDTH = 170;
const BAR_WIDTH = WIDTH - LABEL_WIDTH - VALUE_WIDTH;
const BAR_HEIGHT = 15;
const GAP = 12;
const HEAD_HEIGHT = 62;
const TITLE_HEIGHT = 44;
const FOOT_HEIGHT = 44;
const COLOURS = ["#1b6ca8", "#d9822b"] as const;
const GREY = "#5c6670";

const escaped = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

const textAt = (x: number, y: number, text: string, more = ""): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${more}>${escaped(text)}</text>`;

/** Rows that are drawn on one scale. */
type Panel = {
  readonly title: string;
  readonly rows: readonly RowReport[];
  readonly unit: string;
  readonly valueOf: (figures: Figures) => number;
};

const panelsOf = (rows: readonly RowReport[]): Panel[] => {
  const panels: Panel[] = [
    {
      title: "Requests per second: longer is better",
      rows: rows.filter(({ metric }) => metric === "rate"),
      unit: "/s",
      valueOf: (figures) => figures.requestsPerSecond,
    },
    {
      title: "Time within which 99 of 100 requests are answered: shorter is better",
      rows: rows.filter(({ metric }) => metric === "p99"),
      unit: " ms",
      valueOf: (figures) => figures.p99Ms,
    },
  ];
  return panels.filter((panel) => panel.rows.length > 0);
};

/** Whole powers of ten around all values, at least one apart. */
const scaleOf = ({ rows, valueOf }: Panel): { readonly lowest: number; readonly highest: number } => {
  const values = rows
    .flatMap((row) => row.figures.map((figures) => (figures === undefined ? 0 : valueOf(figures))))
    .filter((value) => value > 0);
  const lowest = Math.floor(Math.log10(Math.min(1, ...values)));
  return { lowest, highest: Math.max(lowest + 1, Math.ceil(Math.log10(Math.max(10, ...values)))) };
};

const rowHeightOf = (row: RowReport): number =>
  row.figures.filter((figures) => figures !== undefined).length * BAR_HEIGHT + GAP;

const panelHeight = ({ rows }: Panel): number =>
  TITLE_HEIGHT + rows.reduce((height, row) => height + rowHeightOf(row), 0) + GAP;

const drawGrid = (panel: Panel, top: number): string[] => {
  const { lowest, highest } = scaleOf(panel);
  const bottom = top + panelHeight(panel) - 2 * GAP;
  return Array.from({ length: highest - lowest + 1 }, (_, index) => {
    const x = LABEL_WIDTH + (index / (highest - lowest)) * BAR_WIDTH;
    const value = 10 ** (lowest + index);
    const label = value >= 1 ? value.toLocaleString("en-US") : String(value);
    return [
      `<line x1="${x.toFixed(1)}" y1="${top + TITLE_HEIGHT - 8}" x2="${x.toFixed(1)}" y2="${bottom}" stroke="#dde2e6"/>`,
      textAt(x, top + TITLE_HEIGHT - 12, label, `font-size="10" fill="${GREY}" text-anchor="middle"`),
    ].join("\n");
  });
};

const drawRow = (panel: Panel, row: RowReport, top: number): string[] => {
  const { lowest, highest } = scaleOf(panel);
  const shown = row.figures.flatMap((figures, contender) => (figures === undefined ? [] : [{ figures, contender }]));
  const label = textAt(LABEL_WIDTH - 10, top + (shown.length * BAR_HEIGHT) / 2 + 4, row.title, 'text-anchor="end"');
  const bars = shown.flatMap(({ figures, contender }, index) => {
    const value = panel.valueOf(figures);
    const share = value <= 0 ? 0 : (Math.log10(value) - lowest) / (highest - lowest);
    const length = share * BAR_WIDTH;
    const y = top + index * BAR_HEIGHT;
    const colour = COLOURS[contender] ?? GREY;
    const textX = LABEL_WIDTH + length + 6;
    const ratio =
      contender === 0 && row.ratio !== undefined
        ? `<tspan font-weight="bold" dx="8">${escaped(`${short(row.ratio)} ×`)}</tspan>`
        : "";
    return [
      `<rect x="${LABEL_WIDTH}" y="${y}" width="${length.toFixed(1)}" height="${BAR_HEIGHT - 2}" fill="${colour}"/>`,
      `<text x="${textX.toFixed(1)}" y="${y + 11}" font-size="11">${escaped(short(value) + panel.unit)}${ratio}</text>`,
    ];
  });
  return [label, ...bars];
};

const drawPanel = (panel: Panel, top: number): string[] => {
  let rowTop = top + TITLE_HEIGHT;
  const rows = panel.rows.flatMap((row) => {
    const drawn = drawRow(panel, row, rowTop);
    rowTop += rowHeightOf(row);
    return drawn;
  });
  return [textAt(10, top + 14, panel.title, 'font-weight="bold"'), ...drawGrid(panel, top), ...rows];
};

const drawLegend = ({ contenders }: Report): string[] =>
  contenders.flatMap(({ name, version }, index) => {
    const x = LABEL_WIDTH + index * 310;
    return [
      `<rect x="${x}" y="35" width="12" height="12" fill="${COLOURS[index] ?? GREY}"/>`,
      textAt(x + 18, 45, `${name} ${version}`),
    ];
  });

/**
 * Bars on logarithmic scales, since the rows span four powers of ten; the ratio stands beside them, because lengths of logarithmic bars
 * cannot be compared by eye.
 */
export const chartSvg = (report: Report): string => {
  const { machine, settings } = report;
  let top = HEAD_HEIGHT;
  const panels = panelsOf(report.rows).flatMap((panel) => {
    const drawn = drawPanel(panel, top);
    top += panelHeight(panel);
    return drawn;
  });
  const height = top + FOOT_HEIGHT;
  const place = `${machine.cores} × ${machine.cpu}, ${machine.memoryGib} GiB, Linux ${machine.kernel}, Node ${machine.node}`;
  const runs = `${report.time.slice(0, 10)}, commit ${report.commit}; each row ${settings.rounds} × ${settings.seconds} s for each store, in turn; load generator on the same machine`;
  const small = `font-size="10" fill="${GREY}"`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="DejaVu Sans, Verdana, sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    textAt(10, 20, `${report.title}: scales are logarithmic, × says how many times better`, 'font-size="14"'),
    ...drawLegend(report),
    ...panels,
    textAt(10, height - 26, place, small),
    textAt(10, height - 10, runs, small),
    "</svg>",
    "",
  ].join("\n");
};
