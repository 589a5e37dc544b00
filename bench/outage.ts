import { parseArgs } from "node:util";
import { sleep } from "../common/worker.ts";
import { TestCluster } from "../scripts/scenarios/test-cluster.ts";
import { SteadyLoad, type SteadyResult } from "./steady-load.ts";
import { machineFacts } from "./report.ts";
import { commitOf } from "./ringstead-contender.ts";

/**
 * What clients notice when a process goes, on a cluster of three storage nodes and two proxies, 3 replicas, 32 keep-alive clients
 * that each PUT an object of 4 KiB and GET it back, again and again:
 *
 *     node      one storage node is killed and started again 3 s later: 0 failed requests, the slowest below 3 s
 *     proxy     one of the two proxies is killed: only its own requests in flight fail
 *
 * `node bench/outage.ts [--only node,proxy]`
 */
const { values } = parseArgs({ options: { only: { type: "string", default: "node,proxy" } } });
const CLIENTS = 32;
const WARM_UP_MS = 3000;
const BEFORE_MS = 5000;
const AWAY_MS = 3000;
const AFTER_MS = 8000;
const WORST_MS = 3000;
const CONTAINER = "load";
const DOORS = ["door1", "door2"] as const;
const STORAGE_NODES = ["s1", "s2", "s3"] as const;

const print = (line: Readonly<Record<string, unknown>>): void => console.log(JSON.stringify(line));

const figures = ({ answered, worstMs, failures, elapsedMs }: SteadyResult): Readonly<Record<string, unknown>> => ({
  requests: answered,
  requestsPerSecond: Math.round((answered * 1000) / elapsedMs),
  worstMs: Math.round(worstMs),
  failed: failures.length,
  firstFailure: failures[0],
});

const startLoad = async (cluster: TestCluster): Promise<SteadyLoad> => {
  const fronts = await Promise.all(
    DOORS.map(async (door) => {
      const session = await cluster.login(door);
      // A login gives the address of the catalog, which is one for all proxies.
      const { origin } = new URL(cluster.ready(door).swiftAuthV1.url);
      return { url: `${origin}${new URL(session.url).pathname}`, token: session.token };
    }),
  );
  const load = new SteadyLoad(fronts, CONTAINER, CLIENTS);
  await sleep(WARM_UP_MS);
  return load;
};

const killNode = async (cluster: TestCluster): Promise<void> => {
  const load = await startLoad(cluster);
  load.reset();
  await sleep(BEFORE_MS);
  const before = load.reset();
  cluster.signal("s2", "SIGKILL");
  await sleep(AWAY_MS);
  await cluster.start("s2");
  await sleep(AFTER_MS);
  const during = await load.end();
  const isReached = during.failures.length === 0 && during.worstMs < WORST_MS;
  print({ part: "node", isReached, before: figures(before), during: figures(during) });
};

const killProxy = async (cluster: TestCluster): Promise<void> => {
  const load = await startLoad(cluster);
  load.reset();
  cluster.signal("door2", "SIGKILL");
  const inFlight = load.inFlightOf(1);
  load.stopUsing(1);
  await sleep(AFTER_MS);
  const during = await load.end();
  const ofOthers = during.failures.filter(({ front }) => front !== 1).length;
  const isReached = ofOthers === 0 && during.failures.length <= inFlight;
  print({ part: "proxy", isReached, inFlight, failedOfOthers: ofOthers, during: figures(during) });
  await cluster.start("door2");
};

const parts = new Set(values.only.split(","));
print({ ...machineFacts(), commit: commitOf(), clients: CLIENTS });
await using cluster = await TestCluster.make({
  ...Object.fromEntries(STORAGE_NODES.map((node) => [node, "storage-node"])),
  door1: "proxy,identity",
  door2: "proxy",
});
await cluster.makeRings();
await cluster.open(CONTAINER);
if (parts.has("proxy")) await killProxy(cluster);
if (parts.has("node")) await killNode(cluster);
