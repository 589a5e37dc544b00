import { readFileSync, rmSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import type { ClusterConfig } from "../common/config.ts";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { createLog, type Log } from "../common/log.ts";
import { createMetrics } from "../common/metrics.ts";
import { replaceFile } from "../common/replace-file.ts";
import { type RuntimePaths, runtimePaths } from "../common/runtime-paths.ts";
import type { ReadyInfoResponse } from "../identity/wire.ts";
import { checkDataFolder, makeDataFolder, type PreparedFolder, prepareDataFolder } from "./data-folder.ts";
import { version } from "../common/version.ts";
import { devicesOf } from "./device-status.ts";
import { HeldListeners } from "./held-listeners.ts";
import { endFromAbove, exportProcesses, releaseVolumes, watchExports } from "./export-processes.ts";
import { ALL_ROLES, isOptionalRole, processSpecs, unavailableServices } from "./installation.ts";
import { getOverSocket, serveMetricsPage } from "./metrics-page.ts";
import { checkOpenFileLimit, checkPorts } from "./preflight.ts";
import { type ProcessIdentity, startTimeOf } from "../common/process-identity.ts";
import { type ReadyFile, readyFile, type Unavailable, writeReadyFiles } from "./ready-file.ts";
import { refusedWrites } from "./refused-writes.ts";
import { serveRestarts } from "./rolling-restart.ts";
import { type ProcessSnapshot, type SupervisedProcess, superviseProcess } from "./supervised-process.ts";
import { takeLock } from "./supervisor-lock.ts";
import type { UpOptions } from "./up-options.ts";

/** What requests under way get to finish, over all processes together, and then a moment to sync and close. */
export const DRAIN_MS = 30_000;
/** Children of a killed supervisor drain by themselves; the next start waits this long for them. */
const ORPHAN_GRACE_MS = 15_000;

/** After what is wrong with each device, where none could be opened. */
const DEVICE_REMEDY =
  "nothing is served without a device: see that each disk is mounted, readable and writable and holds its own folder, then start again";

/** DIR/supervisor.json: what the running or last supervisor knew. */
export type SupervisorState = {
  readonly version: string;
  readonly supervisor: ProcessIdentity;
  readonly startedAt: string;
  readonly config: Pick<ClusterConfig, "node" | "devices" | "replicas" | "services" | "metricsBind">;
  /** Names of `serve`'s list that this supervisor runs. */
  readonly roles: readonly string[];
  readonly processes: readonly ProcessSnapshot[];
  /** Exports and guests that an earlier supervisor left behind for this one. */
  readonly adopted: readonly AdoptedProcess[];
};

/** A process that outlives its supervisor under `down --keep-running`: what serves a volume, or is a server. */
export type AdoptedProcess = ProcessIdentity & { readonly role: string };

/** Asks a supervisor to stop as SIGTERM does, but to leave exports and guests running. */
export const KEEP_RUNNING_SIGNAL = "SIGUSR2";
const KEPT_ROLE = /^(?:export:.+|iscsi:.+|guest:.+|tgtd)$/;

/** Reads DIR/supervisor.json; undefined where there is none that can be read. */
export const readSupervisorState = (paths: RuntimePaths): SupervisorState | undefined => {
  try {
    return JSON.parse(readFileSync(paths.supervisorState, "utf8")) as SupervisorState;
  } catch {
    return undefined;
  }
};

/** The living processes that the last supervisor knew, and those that serve volumes. */
const livingProcesses = (paths: RuntimePaths): AdoptedProcess[] => {
  const state = readSupervisorState(paths);
  const retiring = (state?.processes ?? []).flatMap((one) => (one.retiring ?? []).map((old) => ({ ...one, ...old })));
  const known = [...(state?.processes ?? []), ...retiring, ...(state?.adopted ?? [])];
  const exported = exportProcesses(paths);
  const living = known.flatMap(({ role, pid, startTime }) =>
    pid !== undefined && startTime !== undefined && startTimeOf(pid) === startTime ? [{ role, pid, startTime }] : [],
  );
  return [...living.filter((one) => !exported.some(({ pid }) => pid === one.pid)), ...exported];
};

/** Exports and guests that run without a supervisor, for the next one to adopt. */
export const keptProcesses = (paths: RuntimePaths): AdoptedProcess[] =>
  livingProcesses(paths).filter(({ role }) => KEPT_ROLE.test(role));

/** Stops what a killed supervisor left running; with `keep` not its exports and guests. Resolves with how many were stopped. */
export const stopOrphans = async (paths: RuntimePaths, graceMs: number, keep: boolean): Promise<number> => {
  const orphans = livingProcesses(paths).filter(({ role }) => !keep || !KEPT_ROLE.test(role));
  await endFromAbove(orphans, graceMs);
  return orphans.length;
};

const readyInfo = async (paths: RuntimePaths): Promise<ReadyInfoResponse> =>
  JSON.parse(await getOverSocket(paths.socket("control"), "/internal/ready-info")) as ReadyInfoResponse;

type Running = {
  readonly paths: RuntimePaths;
  readonly prepared: PreparedFolder;
  readonly log: Log;
  readonly processes: readonly SupervisedProcess[];
  readonly adopted: readonly AdoptedProcess[];
  readonly roles: readonly string[];
  readonly startedAt: string;
};

const ownIdentity = (): ProcessIdentity => ({ pid: process.pid, startTime: startTimeOf(process.pid) ?? 0 });

const writeState = ({ paths, prepared, processes, adopted, roles, startedAt }: Running): void => {
  const { node, devices, replicas, services, metricsBind } = prepared.config;
  const state: SupervisorState = {
    version: version(),
    supervisor: ownIdentity(),
    startedAt,
    config: { node, devices, replicas, services, metricsBind },
    roles,
    processes: processes.map((one) => one.snapshot()),
    adopted,
  };
  replaceFile(paths.supervisorState, `${JSON.stringify(state, undefined, 2)}\n`, 0o644);
};

/** The services that refuse something with the devices that are open now. */
const limitedServices = async ({ paths, prepared, processes }: Running): Promise<readonly Unavailable[]> => {
  const snapshots = processes.map((one) => one.snapshot());
  const away = snapshots.flatMap(({ role, state, lastExit }): Unavailable[] => {
    if (!isOptionalRole(role) || state === "ready" || lastExit === undefined) return [];
    const remedy = `put that right: it is tried again by itself; log in DIR/logs/${role}.log`;
    return [{ service: "block", reason: `${role} does not run: it ${lastExit.reason}`, remedy }];
  });
  const storageNodes = snapshots.filter(({ role }) => role === "storage-node");
  if (storageNodes.length === 0) return away;
  const names = storageNodes.flatMap(({ state, processRole }) => (state === "ready" ? [processRole] : []));
  const refused = await refusedWrites(paths, prepared.config, await devicesOf(paths, prepared.config.devices, names));
  return refused === undefined ? away : [...away, refused];
};

const writeReady = (running: Running, s3: ReadyFile["s3"], limited: readonly Unavailable[]): ReadyFile => {
  const { paths, prepared, processes, adopted, roles } = running;
  const exported = exportProcesses(paths);
  const identities = processes.flatMap((one) => {
    const identity = one.identity();
    return identity === undefined ? [] : [{ role: one.role, ...identity }];
  });
  const ready = readyFile({
    version: version(),
    config: prepared.config,
    adminPassword: prepared.adminPassword,
    s3,
    processes: [
      { role: "supervisor", ...ownIdentity() },
      ...identities,
      ...adopted.filter((one) => !exported.some(({ pid }) => pid === one.pid)),
      ...exported,
    ],
    unavailable: unavailableServices(prepared.config, roles),
    limited,
  });
  writeReadyFiles(paths, prepared.config, ready);
  rmSync(paths.founding, { force: true });
  return ready;
};

/** In order; those of one role, which follow each other, together. */
const byRole = (processes: readonly SupervisedProcess[]): SupervisedProcess[][] => {
  const roles = new Set(processes.map(({ role }) => role));
  return [...roles].map((role) => processes.filter((one) => one.role === role));
};

/**
 * Starts the processes of one role and resolves when each is ready or has failed. Those that failed are tried again from then on. Throws
 * RingsteadError `process-failed` with the reasons of all where none is ready, unless the others serve without it.
 */
const startRole = async (processes: readonly SupervisedProcess[]): Promise<void> => {
  const starts = await Promise.allSettled(processes.map((one) => one.start()));
  const reasons = starts.flatMap((one) => (one.status === "rejected" ? [messageOf(one.reason)] : []));
  const role = processes[0]?.role ?? "";
  if (reasons.length < processes.length || isOptionalRole(role)) {
    for (const one of processes) one.retry();
    return;
  }
  const remedy = role === "storage-node" ? `; ${DEVICE_REMEDY}` : "";
  throw new RingsteadError("process-failed", `${role} cannot start: ${reasons.join("; ")}${remedy}`, { role });
};

/** Requests enter at the proxy: it drains first, then what it needs. All together get DRAIN_MS. */
const stopAll = async (processes: readonly SupervisedProcess[], log: Log): Promise<void> => {
  const deadline = performance.now() + DRAIN_MS;
  const stop = async (one: SupervisedProcess): Promise<void> => {
    await one.stop(Math.max(2_000, deadline - performance.now()));
    log.info("process stopped", { process: one.name });
  };
  for (const alike of byRole(processes).toReversed()) await Promise.all(alike.map(stop));
};

/** Watches for Ctrl-C and SIGTERM: the first aborts `stopping`, the next one kills what still drains. */
const watchSignals = (stopping: AbortController, processes: () => readonly SupervisedProcess[]): Disposable => {
  const onSignal = (signal: NodeJS.Signals): void => {
    if (!stopping.signal.aborted) return stopping.abort(signal);
    if (signal === "SIGINT") for (const one of processes()) one.kill();
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP", KEEP_RUNNING_SIGNAL] as const;
  for (const signal of signals) process.on(signal, onSignal);
  return {
    [Symbol.dispose]: () => {
      for (const signal of signals) process.off(signal, onSignal);
    },
  };
};

/**
 * Runs an installation until it is told to stop: prepares DIR, starts the processes in order, keeps them running, writes
 * ready.json, drains at the end. Only processes of `roles` are started. `onReady` is called once. Throws RingsteadError with the one sentence for the user; nothing
 * of it runs any more then.
 */
export const supervise = async (
  options: UpOptions,
  node: string,
  onReady: (ready: ReadyFile, addedDevices: number) => void,
  roles: readonly string[] = ALL_ROLES,
): Promise<void> => {
  const paths = runtimePaths(options.dataDir);
  makeDataFolder(paths);
  using _lock = takeLock(paths.supervisorLock, paths.dataDir);
  rmSync(paths.readyJson, { force: true });
  const log = createLog({ service: "supervisor", file: paths.logFile("supervisor") });
  const stopping = new AbortController();
  let processes: SupervisedProcess[] = [];
  let adopted: AdoptedProcess[] = [];
  using _signals = watchSignals(stopping, () => processes);
  using held = new HeldListeners();

  try {
    const orphans = await stopOrphans(paths, ORPHAN_GRACE_MS, true);
    if (orphans > 0) log.warn("processes of a killed supervisor were stopped", { orphans });
    adopted = keptProcesses(paths);
    const planned = checkDataFolder(paths, options, node, roles);
    checkOpenFileLimit(planned.devices.length);
    await checkPorts(planned, roles);
    const prepared = await prepareDataFolder(paths, options, node, roles, log);
    const { config } = prepared;
    log.info("starting", { version: version(), services: config.services, addedDevices: prepared.addedDevices });

    const startedAt = new Date().toISOString();
    let s3: ReadyFile["s3"] | undefined;
    let limited: readonly Unavailable[] = [];
    let changes = 0;
    const running = (): Running => ({ paths, prepared, log, processes, adopted, roles, startedAt });
    const rewriteReady = (): void => {
      if (s3 !== undefined && !stopping.signal.aborted) writeReady(running(), s3, limited);
    };
    const onChange = (): void => {
      writeState(running());
      rewriteReady();
      const change = ++changes;
      if (s3 === undefined) return;
      void limitedServices(running()).then(
        (found) => {
          // A later change has its own look at the devices.
          if (change !== changes || isDeepStrictEqual(found, limited)) return;
          limited = found;
          rewriteReady();
        },
        (thrown: unknown) => log.error("what the devices can do is not known", { error: messageOf(thrown) }),
      );
    };
    const specs = processSpecs(paths, config, roles);
    await held.hold(specs.flatMap(({ listeners }) => listeners));
    processes = specs.map((spec) => superviseProcess(spec, log, onChange, held));

    const metrics = createMetrics({ role: "supervisor" });
    for (const one of processes) {
      const labels = { process: one.name };
      metrics.gauge(
        "ringstead_process_up",
        "1 while a process is ready.",
        () => Number(one.snapshot().state === "ready"),
        labels,
      );
      metrics.gauge(
        "ringstead_process_restarts",
        "Restarts since the supervisor began.",
        () => one.snapshot().restarts,
        labels,
      );
    }
    const sockets = (): string[] => processes.map((one) => paths.socket(`metrics-${one.processRole}`));
    await using _page = await serveMetricsPage(config.metricsBind, metrics, sockets);

    const aborted = new Promise<void>((resolve) => stopping.signal.addEventListener("abort", () => resolve()));
    for (const alike of byRole(processes)) {
      if (stopping.signal.aborted) break;
      await Promise.race([startRole(alike), aborted]);
    }
    if (!stopping.signal.aborted) {
      const info = processes.some(({ role }) => role.split(",").includes("identity"))
        ? await readyInfo(paths)
        : { access: "", secret: "" };
      limited = await limitedServices(running());
      s3 = { accessKey: info.access, secretKey: info.secret };
      for (const { reason } of limited) log.error("started, but limited", { reason });
      onReady(writeReady(running(), s3, limited), prepared.addedDevices);
      log.info("ready");
      using _exports = watchExports(paths, rewriteReady);
      await using _restarts = await serveRestarts({ paths, devices: config.devices, processes, log }, stopping.signal);
      await aborted;
    }
    log.info("stopping", { why: String(stopping.signal.reason) });
  } catch (thrown) {
    log.error("cannot start", { error: messageOf(thrown) });
    throw thrown;
  } finally {
    // A start that failed leaves what it found running: the next one may succeed.
    const wasToldToStop = stopping.signal.aborted;
    stopping.abort("the start failed");
    rmSync(paths.readyJson, { force: true });
    await stopAll(processes, log);
    if (wasToldToStop && stopping.signal.reason !== KEEP_RUNNING_SIGNAL) {
      await endFromAbove([...adopted, ...exportProcesses(paths)], DRAIN_MS);
      await releaseVolumes(paths).catch((error: unknown) => log.error("devices of volumes are left", { error }));
    }
    log.info("stopped");
  }
};
