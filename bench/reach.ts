import type { Figures } from "./figures.ts";
import type { Row } from "./rows.ts";

/** One thing that the project wants to reach, beside what it reached. */
export type ReachCheck = { readonly text: string; readonly isReached: boolean };

type Compared = Pick<Figures, "requestsPerSecond" | "p99Ms">;

/** How many times better `own` is than `other`: more requests per second, or a shorter p99; undefined where one of them has none. */
export const ratioOf = (metric: Row["metric"], own: Compared, other: Compared): number | undefined => {
  const [better, worse] =
    metric === "rate" ? [own.requestsPerSecond, other.requestsPerSecond] : [other.p99Ms, own.p99Ms];
  return worse === 0 || better === 0 ? undefined : Number((better / worse).toFixed(2));
};

/** What `row` wants of the first contender; what was not measured is left out. */
export const reachChecks = (
  { reach }: Pick<Row, "reach">,
  figures: Pick<Figures, "requestsPerSecond" | "p99Ms" | "serverCpuUsPerRequest" | "requests">,
  ratio: number | undefined,
): ReachCheck[] => {
  const checks: ReachCheck[] = [];
  if (reach.ratio !== undefined && ratio !== undefined)
    checks.push({ text: `≥ ${reach.ratio} ×`, isReached: ratio >= reach.ratio });
  if (reach.requestsPerSecond !== undefined && figures.requests > 0) {
    const text = `≥ ${reach.requestsPerSecond.toLocaleString("en-US")}/s`;
    checks.push({ text, isReached: figures.requestsPerSecond >= reach.requestsPerSecond });
  }
  if (reach.p99Ms !== undefined && figures.requests > 0)
    checks.push({ text: `p99 ≤ ${reach.p99Ms} ms`, isReached: figures.p99Ms <= reach.p99Ms });
  const cpuUs = figures.serverCpuUsPerRequest;
  if (reach.cpuUsPerRequest !== undefined && cpuUs !== undefined)
    checks.push({ text: `CPU ≤ ${reach.cpuUsPerRequest} µs`, isReached: cpuUs <= reach.cpuUsPerRequest });
  return checks;
};
