import { type Report, short } from "./report.ts";

const WIDTH = 900;
const LABEL_WIDTH = 230;
const VALUE_WIDTH = 190;
const BAR_HEIGHT = 14;
const GAP = 14;
const HEAD_HEIGHT = 64;
const FOOT_HEIGHT = 30;
const COLOURS = ["#1b6ca8", "#c0563b"] as const;

const escaped = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const textAt = (x: number, y: number, text: string, more = ""): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${more}>${escaped(text)}</text>`;

/**
 * Bars of requests per second on a logarithmic scale, since the rows span four powers of ten; the ratio stands beside them, because
 * lengths of logarithmic bars cannot be compared by eye.
 */
export const chartSvg = (report: Report): string => {
  const { rows, contenders, machine } = report;
  const rates = rows
    .flatMap((row) => row.figures.map((figures) => figures.requestsPerSecond))
    .filter((rate) => rate > 0);
  const lowest = Math.floor(Math.log10(Math.min(1, ...rates)));
  const highest = Math.ceil(Math.log10(Math.max(10, ...rates)));
  const barWidth = WIDTH - LABEL_WIDTH - VALUE_WIDTH;
  const lengthOf = (rate: number): number =>
    rate <= 0 ? 0 : ((Math.log10(rate) - lowest) / (highest - lowest)) * barWidth;
  const rowHeight = contenders.length * BAR_HEIGHT + GAP;
  const height = HEAD_HEIGHT + rows.length * rowHeight + FOOT_HEIGHT;
  const bars = rows.flatMap((row, rowIndex) => {
    const top = HEAD_HEIGHT + rowIndex * rowHeight;
    const label = textAt(LABEL_WIDTH - 10, top + (rowHeight - GAP) / 2 + 4, row.title, 'text-anchor="end"');
    const lines = row.figures.flatMap((figures, index) => {
      const y = top + index * BAR_HEIGHT;
      const length = lengthOf(figures.requestsPerSecond);
      const ratio = index === 0 && row.ratio !== undefined ? `  ${short(row.ratio)} ×` : "";
      return [
        `<rect x="${LABEL_WIDTH}" y="${y}" width="${length.toFixed(1)}" height="${BAR_HEIGHT - 2}" fill="${COLOURS[index] ?? "#777"}"/>`,
        textAt(LABEL_WIDTH + length + 6, y + 10, `${short(figures.requestsPerSecond)}/s${ratio}`, 'font-size="11"'),
      ];
    });
    return [label, ...lines];
  });
  const legend = contenders.flatMap(({ name, version }, index) => {
    const x = LABEL_WIDTH + index * 300;
    return [
      `<rect x="${x}" y="36" width="12" height="12" fill="${COLOURS[index] ?? "#777"}"/>`,
      textAt(x + 18, 46, `${name} ${version}`),
    ];
  });
  const place = `${report.time.slice(0, 10)}, ${machine.cores} × ${machine.cpu}, ${machine.memoryGib} GiB, Linux ${machine.kernel}, commit ${report.commit}`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="13">`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    textAt(LABEL_WIDTH, 22, "Requests per second, logarithmic; 3 replicas", 'font-weight="bold"'),
    ...legend,
    ...bars,
    textAt(10, height - 10, place, 'font-size="10" fill="#555"'),
    "</svg>",
    "",
  ].join("\n");
};
