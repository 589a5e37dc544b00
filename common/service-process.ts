import { readClusterKey } from "./cluster-key.ts";
import { readFileSync } from "node:fs";
import { flushCompileCache } from "node:module";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type ClusterConfig, LOCAL_NODE, loadConfig } from "./config.ts";
import { type DeviceGroups, parseDeviceGroups } from "./device-groups.ts";
import { messageOf } from "./errors.ts";
import { createLog, type Log } from "./log.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { watchOpenFiles } from "./open-files.ts";
import { serveMetrics } from "./metrics-server.ts";
import { PeerRefusals } from "./rpc/peer-refusals.ts";
import { type RuntimePaths, runtimePaths } from "./runtime-paths.ts";
import { hurry, isStandingBy, type Retirement, retire } from "./succession.ts";

/** What every long-lived process is given at its start. */
export type ServiceContext = {
  readonly role: string;
  readonly config: ClusterConfig;
  readonly paths: RuntimePaths;
  readonly deviceGroups: DeviceGroups;
  readonly clusterId: string;
  readonly clusterKey: Buffer;
  readonly log: Log;
  readonly metrics: Metrics;
};

const tell = (message: object): Promise<void> =>
  new Promise((resolve) => {
    if (process.send === undefined) resolve();
    else process.send(message, undefined, undefined, () => resolve());
  });

/** What the supervisor says beside signals. */
const supervisorMessage = (message: unknown): { readonly go: boolean; readonly retire: Retirement | undefined } => {
  if (typeof message !== "object" || message === null) return { go: false, retire: undefined };
  const asked: unknown = "retire" in message ? message.retire : undefined;
  const { idleMs, limitMs } = ((typeof asked === "object" ? asked : null) as Partial<Retirement> | null) ?? {};
  return {
    go: "go" in message && message.go === true,
    retire: typeof idleMs === "number" && typeof limitMs === "number" ? { idleMs, limitMs } : undefined,
  };
};

/** Says that the code is there, and resolves when the process may start what it runs. */
const untilTold = async (): Promise<void> => {
  if (!isStandingBy()) return;
  const told = new Promise<void>((resolve) => {
    process.on("message", (message) => {
      if (supervisorMessage(message).go) resolve();
    });
  });
  await tell({ loaded: true });
  await told;
};

/**
 * Runs one service as a process under the supervisor: reads `--data`, `--node`, `--role` and `--device-groups`, starts it, says `{ ready: true }`, and
 * disposes of it on SIGTERM or when the supervisor is gone. A start that fails says `{ fatal }` and exits with 1. Told to retire, it ends as the
 * supervisor says (`succession.ts`), because another process takes over; SIGTERM then hurries it.
 */
export const runServiceProcess = async (
  defaultRole: string,
  start: (context: ServiceContext) => Promise<AsyncDisposable>,
): Promise<void> => {
  let service: AsyncDisposable | undefined;
  let log: Log | undefined;
  let isStopping = false;
  const stop = async (why: string): Promise<void> => {
    // Again: it retires, and now everything ends.
    if (isStopping) return hurry();
    isStopping = true;
    log?.info("stopping", { why });
    await service?.[Symbol.asyncDispose]();
    process.exit(0);
  };
  process.on("SIGTERM", () => void stop("SIGTERM"));
  process.on("SIGINT", () => {
    // Ctrl-C is the supervisor's; it asks us with SIGTERM.
  });
  process.on("disconnect", () => void stop("the supervisor is gone"));
  process.on("message", (message) => {
    const { retire: how } = supervisorMessage(message);
    if (how === undefined || isStopping) return;
    retire(how);
    void stop("another process takes over");
  });
  try {
    const { values } = parseArgs({
      options: {
        data: { type: "string" },
        node: { type: "string" },
        role: { type: "string" },
        "device-groups": { type: "string", default: "" },
      },
    });
    const role = values.role ?? defaultRole;
    const paths = runtimePaths(values.data ?? join(import.meta.dirname, "..", ".ringstead"));
    log = createLog({ service: role, file: paths.logFile(role) });
    await untilTold();
    const metrics = createMetrics({ role });
    const refusals = new PeerRefusals(log);
    watchOpenFiles(log, metrics);
    const context: ServiceContext = {
      role,
      config: loadConfig(paths.dataDir, values.node ?? LOCAL_NODE),
      paths,
      deviceGroups: parseDeviceGroups(values["device-groups"]),
      clusterId: readFileSync(paths.clusterId, "utf8").trim(),
      clusterKey: readClusterKey(paths),
      log,
      metrics,
    };
    service = await start(context);
    const page = { render: () => metrics.render() + refusals.render(role) };
    await serveMetrics(page, paths.socket(`metrics-${role}`));
    // Also a process that is killed later leaves its compiled code to the next one.
    flushCompileCache();
    await tell({ ready: true });
  } catch (error) {
    log?.error("the service cannot start", { error: messageOf(error) });
    await tell({ fatal: messageOf(error) });
    process.stderr.write(`${messageOf(error)}\n`);
    process.exit(1);
  }
};
