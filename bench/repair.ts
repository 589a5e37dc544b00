import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs, promisify } from "node:util";
import { runtimePaths } from "../common/runtime-paths.ts";
import { sleep } from "../common/worker.ts";
import { deviceFigures } from "../scripts/device-status.ts";
import { getOverSocket } from "../scripts/metrics-page.ts";
import { makeContainer, type Session } from "./contender.ts";
import { percentile } from "./figures.ts";
import { type OpenLoopResult, openLoop } from "./open-loop.ts";
import { cpuMsOfFamily } from "./process-usage.ts";
import { machineFacts } from "./report.ts";
import { commitOf, type RingsteadStore, startRingstead } from "./ringstead-contender.ts";
import { runGenerator } from "./run-generator.ts";

/**
 * How fast a device that was wiped gets everything back, and what clients notice of it:
 *
 *     small         objects of 4 KiB alone: objects and entries a second
 *     large         objects of 64 MiB alone: bytes a second
 *     foreground    small ones beside an open-loop foreground of 300 GET and 50 PUT a second: its p99 idle and during repair
 *     agreement     what all devices take to compare themselves when nothing differs
 *
 * Four devices, three replicas; one device's folder is removed while everything is down. The clock runs from when the device is served
 * again, beside clients from when repair may begin, until its last partition is verified against its peers. That the device then still waits
 * until 30 s after its start, in which promises that it gave and forgot could bind somebody, is printed beside it.
 *
 * `node bench/repair.ts [--objects N] [--large-gib N] [--containers N] [--folder DIR] [--only small,foreground,agreement,large]`
 */
const { values } = parseArgs({
  options: {
    objects: { type: "string", default: "200000" },
    "large-gib": { type: "string", default: "4" },
    containers: { type: "string", default: "16" },
    folder: { type: "string", default: tmpdir() },
    only: { type: "string", default: "small,foreground,agreement,large" },
  },
});
const CHECKOUT = resolve(import.meta.dirname, "..");
const DEVICES = 4;
const REPLICAS = 3;
const WIPED = "d2";
const SMALL_BYTES = 4096;
const LARGE_BYTES = 64 * 1024 * 1024;
const FILL_CLIENTS = 32;
const LARGE_CLIENTS = 4;
const FILL_LIMIT_MS = 3_600_000;
const POLL_MS = 100;
const REPAIR_LIMIT_MS = 1_800_000;
const IDLE_MS = 20_000;
const WARM_UP_MS = 5000;
/** Longer than the pause between two rounds of a device, so that each has one. */
const ROUND_MS = 31_000;
/** A process counts as quiet that takes 2 % of a core. */
const QUIET_WINDOW_MS = 2000;
const QUIET_CPU_MS = 40;
const QUIET_LIMIT_MS = 180_000;
const FOREGROUND = { getsPerSecond: 300, putsPerSecond: 50 };
const REACH = { objectsPerSecond: 10_000, megabytesPerSecond: 150, p99Ms: 20, shareOfRate: 0.25, agreementCpuMs: 2000 };

const run = promisify(execFile);
const parts = new Set(values.only.split(","));
/** So many objects that each device holds what was asked for. */
const inAll = (perDevice: number): number => Math.ceil((perDevice * DEVICES) / REPLICAS);
const rounded = (value: number, digits = 1): number => Number(value.toFixed(digits));
const print = (line: Readonly<Record<string, unknown>>): void => console.log(JSON.stringify(line));

const containers = Array.from({ length: Number(values.containers) }, (_, index) => `c${index}`);

/** What a fill needs of where it goes. */
const placeOf = ({
  host,
  port,
  token,
  accountPath,
}: Session): Pick<Session, "host" | "port" | "token" | "accountPath"> => ({
  host,
  port,
  token,
  accountPath,
});

/** Until LevelDB has compacted what the load left behind, or that has taken too long. */
const untilQuiet = async (store: RingsteadStore): Promise<void> => {
  const endMs = performance.now() + QUIET_LIMIT_MS;
  let busyMs = Number.POSITIVE_INFINITY;
  while (busyMs > QUIET_CPU_MS && performance.now() < endMs) {
    const before = cpuMsOfFamily([storageNodeOf(store)]);
    await sleep(QUIET_WINDOW_MS);
    busyMs = cpuMsOfFamily([storageNodeOf(store)]) - before;
  }
};

const fill = async (store: RingsteadStore, objects: number, sizeBytes: number): Promise<void> => {
  const perContainer = Math.ceil(objects / containers.length);
  for (const container of containers) {
    const session = await store.login();
    await makeContainer(session, container);
    const result = await runGenerator("raw", {
      ...placeOf(session),
      front: {
        container,
        clients: sizeBytes === SMALL_BYTES ? FILL_CLIENTS : LARGE_CLIENTS,
        work: {
          kind: "objects",
          method: "PUT",
          prefix: "o",
          suffix: "",
          first: 0,
          count: perContainer,
          again: false,
          sizeBytes,
        },
      },
      limitMs: FILL_LIMIT_MS,
    });
    if (result.failed > 0) throw new Error(`the fill failed: ${result.firstFailure}`);
  }
};

const storageNodeOf = (store: RingsteadStore): number => {
  const state: { processes: { role: string; pid: number }[] } = JSON.parse(
    readFileSync(runtimePaths(store.dataDir).supervisorState, "utf8"),
  );
  const found = state.processes.find(({ role }) => role === "storage-node");
  if (found === undefined) throw new Error("no storage node runs");
  return found.pid;
};

type Figures = Readonly<Record<string, number>>;

/** The wiped device's figures; undefined while nothing serves it. */
const figuresOf = async (store: RingsteadStore): Promise<Figures | undefined> => {
  const paths = runtimePaths(store.dataDir);
  const sockets = readdirSync(paths.socketDir).filter((name) => name.startsWith("metrics-storage-node"));
  for (const name of sockets) {
    const page = await getOverSocket(join(paths.socketDir, name), "/metrics").catch(() => "");
    const figures = deviceFigures(page).get(WIPED);
    if (figures !== undefined) return figures;
  }
  return undefined;
};

/** A figure of a device that is served. */
const figure = (figures: Figures, name: string): number => {
  const value = figures[name];
  if (value === undefined) throw new Error(`a device has no figure ${name}`);
  return value;
};

type Repair = {
  readonly seconds: number;
  readonly votedSeconds: number;
  readonly entries: number;
  readonly bytes: number;
  readonly storageCpuMs: number;
};

const ringstead = (store: RingsteadStore, ...words: readonly string[]): Promise<unknown> =>
  run(join(CHECKOUT, "scripts", "ringstead"), [...words, "--data", store.dataDir]);
const up = (store: RingsteadStore): Promise<unknown> =>
  run(join(CHECKOUT, "scripts", "start"), ["--data", store.dataDir, "--detach", "--only", "object"]);

const wipe = async (store: RingsteadStore): Promise<void> => {
  await ringstead(store, "down");
  rmSync(join(store.dataDir, "devices", WIPED), { recursive: true });
};

/** Resolves when `isDone` of the wiped device's figures, with them and when that was. */
const until = async (
  store: RingsteadStore,
  isDone: (figures: Figures) => boolean,
): Promise<{ readonly figures: Figures; readonly atMs: number }> => {
  const limitMs = performance.now() + REPAIR_LIMIT_MS;
  while (performance.now() < limitMs) {
    const figures = await figuresOf(store);
    if (figures !== undefined && isDone(figures)) return { figures, atMs: performance.now() };
    await sleep(POLL_MS);
  }
  throw new Error("the device was not repaired in time");
};

/** Everything is there; the device votes, or waits until it may. */
const isWhole = (figures: Figures): boolean =>
  figure(figures, "joining_partitions") === figure(figures, "waiting_partitions");
const votes = (figures: Figures): boolean => figure(figures, "joining_partitions") === 0;

/** The repair that began at `begunMs`. `whole` is called when its last partition is verified. */
const measured = async (store: RingsteadStore, begunMs: number, whole: () => void = () => {}): Promise<Repair> => {
  const { figures, atMs } = await until(store, isWhole);
  const storageCpuMs = cpuMsOfFamily([storageNodeOf(store)]);
  whole();
  const voting = await until(store, votes);
  return {
    seconds: (atMs - begunMs) / 1000,
    votedSeconds: (voting.atMs - begunMs) / 1000,
    entries: figure(figures, "repaired_entries"),
    bytes: figure(figures, "repaired_bytes"),
    storageCpuMs,
  };
};

/** A repair with nothing beside it: it begins as soon as the device is served. */
const repairAlone = async (store: RingsteadStore): Promise<Repair> => {
  await wipe(store);
  const started = up(store);
  const { atMs } = await until(store, () => true);
  const repair = await measured(store, atMs);
  await started;
  return repair;
};

/** A repair that begins while clients ask already. */
const repairBeside = async (
  store: RingsteadStore,
  load: (whole: Promise<void>) => Promise<OpenLoopResult>,
): Promise<{ readonly repair: Repair; readonly beside: OpenLoopResult }> => {
  await ringstead(store, "repair", "pause");
  await wipe(store);
  await up(store);
  const whole = Promise.withResolvers<void>();
  const loading = load(whole.promise);
  try {
    await sleep(WARM_UP_MS);
    await ringstead(store, "repair", "resume");
    const repair = await measured(store, performance.now(), whole.resolve);
    return { repair, beside: await loading };
  } finally {
    whole.resolve();
  }
};

const p99Of = ({ latenciesUs }: OpenLoopResult): number =>
  rounded(
    percentile(
      latenciesUs.toSorted((left, right) => left - right),
      0.99,
    ) / 1000,
    2,
  );

const repairLine = ({ seconds, votedSeconds, entries, bytes, storageCpuMs }: Repair): Record<string, unknown> => ({
  seconds: rounded(seconds),
  votedAfterSeconds: rounded(votedSeconds),
  entries,
  entriesPerSecond: Math.round(entries / seconds),
  megabytesPerSecond: rounded(bytes / seconds / 1e6),
  storageCpuUsPerEntry: rounded((storageCpuMs * 1000) / entries),
});

const benchSmall = async (folder: string): Promise<void> => {
  await using store = await startRingstead(folder);
  const total = inAll(Number(values.objects));
  await fill(store, total, SMALL_BYTES);
  const held = (total * REPLICAS) / DEVICES;
  const free = await repairAlone(store);
  const objectsPerSecond = Math.round(held / free.seconds);
  const isReached = objectsPerSecond >= REACH.objectsPerSecond;
  print({ part: "small", objectsOnDevice: held, objectsPerSecond, isReached, ...repairLine(free) });
  if (parts.has("agreement")) {
    await untilQuiet(store);
    const before = cpuMsOfFamily([storageNodeOf(store)]);
    await sleep(ROUND_MS);
    const cpuMs = cpuMsOfFamily([storageNodeOf(store)]) - before;
    const entries = free.entries * DEVICES;
    const note = "all four devices, everything else of the idle process included";
    print({
      part: "agreement",
      entries,
      seconds: ROUND_MS / 1000,
      cpuMs,
      isReached: cpuMs < REACH.agreementCpuMs,
      note,
    });
  }
  if (parts.has("foreground")) await benchForeground(store, held, free);
};

const benchForeground = async (store: RingsteadStore, held: number, free: Repair): Promise<void> => {
  // A token and a port outlive a restart.
  const spec: Parameters<typeof openLoop>[0] = {
    ...placeOf(await store.login()),
    ...FOREGROUND,
    container: containers[0] ?? "",
    prefix: "o",
    putPrefix: "p",
    count: Math.floor(inAll(Number(values.objects)) / containers.length),
    sizeBytes: SMALL_BYTES,
  };
  await openLoop(spec, () => sleep(WARM_UP_MS));
  const idle = await openLoop(spec, () => sleep(IDLE_MS));
  const { repair, beside: during } = await repairBeside(store, (whole) => openLoop(spec, () => whole));
  const [idleP99Ms, p99Ms] = [p99Of(idle), p99Of(during)];
  const objectsPerSecond = Math.round(held / repair.seconds);
  const share = rounded(free.seconds / repair.seconds, 2);
  print({
    part: "foreground",
    idleP99Ms,
    p99Ms,
    requests: during.latenciesUs.length,
    failed: idle.failed + during.failed,
    firstFailure: during.firstFailure ?? idle.firstFailure,
    objectsPerSecond,
    shareOfRate: share,
    isReached: p99Ms <= Math.max(2 * idleP99Ms, REACH.p99Ms) && share >= REACH.shareOfRate && during.failed === 0,
    ...repairLine(repair),
  });
};

const benchLarge = async (folder: string): Promise<void> => {
  await using store = await startRingstead(folder);
  await fill(store, inAll((Number(values["large-gib"]) * 1024 ** 3) / LARGE_BYTES), LARGE_BYTES);
  const repair = await repairAlone(store);
  const isReached = repair.bytes / repair.seconds / 1e6 >= REACH.megabytesPerSecond;
  print({ part: "large", bytesOnDevice: repair.bytes, isReached, ...repairLine(repair) });
};

const folder = mkdtempSync(join(resolve(values.folder), "ringstead-bench-repair-"));
try {
  print({ ...machineFacts(), commit: commitOf(), reach: REACH });
  if (parts.has("small")) await benchSmall(folder);
  if (parts.has("large")) await benchLarge(folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
