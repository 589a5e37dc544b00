import { writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { sleep } from "../common/worker.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import { explanationOf } from "../scripts/explain.ts";
import { InstallationDevices } from "../scripts/scrub-devices.ts";
import { TestInstallation } from "../scripts/scenarios/installation.ts";
import { ObjectClient } from "../scripts/scenarios/object-client.ts";
import { machineFacts } from "./report.ts";
import { commitOf } from "./ringstead-contender.ts";

/**
 * What clients notice while the listing of a large container is split: PUTs of empty objects at a fixed rate before, during and after, and then pages of 1,000 names
 * from scattered markers. Reached: no failed request, p99 of PUTs during the split below twice what it was before, p99 of pages below 10 ms.
 *
 * `node bench/listing-split.ts [--names 1000000] [--rate 500]`
 */
const { values } = parseArgs({
  options: { names: { type: "string", default: "1000000" }, rate: { type: "string", default: "500" } },
});
const NAMES = Number(values.names);
const RATE = Number(values.rate);
const FILLERS = 32;
const BEFORE_MS = 20_000;
const AFTER_MS = 20_000;
const POLL_MS = 1000;
const PAGES = 500;
const PAGE_P99_MS = 10;
/** Names that are left to write until the listing is split: those of the time before. */
const LEFT = Math.ceil((RATE * BEFORE_MS) / 1000);

type Sample = { readonly atMs: number; readonly ms: number };

const print = (line: Readonly<Record<string, unknown>>): void => console.log(JSON.stringify(line));

const figures = (samples: readonly number[]): Readonly<Record<string, number>> => {
  const sorted = samples.toSorted((left, right) => left - right);
  const at = (share: number): number => Number((sorted[Math.floor(sorted.length * share)] ?? Number.NaN).toFixed(2));
  return { requests: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99), worstMs: at(1 - 1 / Math.max(1, sorted.length)) };
};

await using installation = new TestInstallation();
writeFileSync(join(installation.folder, "cluster.toml"), `[container]\nshard_names = ${NAMES}\n`);
const client = await ObjectClient.login((await installation.up()).swiftAuthV1);
await client.request("PUT", "/c");
const agent = new Agent({ keepAlive: true, maxSockets: 64 });
let written = 0;
let failed = 0;

/** One PUT of a name that nobody else has; resolves with how long it took. */
const put = (): Promise<number> =>
  new Promise((resolve) => {
    const startMs = performance.now();
    const end = (isDone: boolean): void => {
      if (!isDone) failed += 1;
      resolve(performance.now() - startMs);
    };
    const name = `${Math.floor(Math.random() * 1e9).toString(36)}-${written++}`;
    const headers = { "x-auth-token": client.token, "content-length": "0" };
    const sent = request(`${client.url}/c/${name}`, { method: "PUT", agent, headers }, (response) => {
      response.resume();
      response.on("end", () => end(response.statusCode === 201));
    });
    sent.on("error", () => end(false));
    sent.end();
  });

// Asked from here: a process for each look would take the time that is measured.
using devices = new InstallationDevices(runtimePaths(installation.folder));
const shards = async (): Promise<{ readonly ranges: number; readonly isChanging: boolean }> => {
  const { shards: told } = await explanationOf(devices, `/${client.account}/c`, false);
  return { ranges: told?.ranges.length ?? 1, isChanging: told?.change !== undefined };
};

print({ ...machineFacts(), commit: commitOf(), names: NAMES, rate: RATE });
const fill = async (): Promise<void> => {
  while (written < NAMES - LEFT) await put();
};
await Promise.all(Array.from({ length: FILLERS }, fill));

const samples: Sample[] = [];
let isOver = false;
const startMs = performance.now();
const steady = (async (): Promise<void> => {
  for (let index = 0; !isOver; index++) {
    const waitMs = startMs + (index * 1000) / RATE - performance.now();
    if (waitMs > 0) await sleep(waitMs);
    const atMs = performance.now();
    void put().then((ms) => samples.push({ atMs, ms }));
  }
})();
let beginMs = Number.POSITIVE_INFINITY;
let endMs = Number.POSITIVE_INFINITY;
while (endMs === Number.POSITIVE_INFINITY) {
  const { isChanging, ranges } = await shards();
  if (isChanging || ranges > 1) beginMs = Math.min(beginMs, performance.now());
  if (ranges > 1 && !isChanging) endMs = performance.now();
  await sleep(POLL_MS);
}
await sleep(AFTER_MS);
isOver = true;
await steady;
const between = (fromMs: number, toMs: number): readonly number[] =>
  samples.filter(({ atMs }) => atMs >= fromMs && atMs < toMs).map(({ ms }) => ms);
const before = figures(between(startMs, beginMs - POLL_MS));
const during = figures(between(beginMs - POLL_MS, endMs));
print({
  part: "split",
  isReached: failed === 0 && (during["p99Ms"] ?? Number.NaN) < 2 * (before["p99Ms"] ?? Number.NaN),
  failed,
  load: loadavg(),
  seconds: Number(((endMs - beginMs) / 1000).toFixed(1)),
  before,
  during,
  after: figures(between(endMs, Number.POSITIVE_INFINITY)),
});
const pages: number[] = [];
for (let page = 0; page < PAGES; page++) {
  const marker = Math.floor(Math.random() * 1e9).toString(36);
  const { ms, status } = await client.request("GET", `/c?limit=1000&marker=${marker}`);
  if (status !== 200 && status !== 204) failed += 1;
  pages.push(ms);
}
const paged = figures(pages);
print({ part: "pages", isReached: failed === 0 && (paged["p99Ms"] ?? Number.NaN) < PAGE_P99_MS, failed, pages: paged });
