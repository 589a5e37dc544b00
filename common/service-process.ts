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
import { serveMetrics } from "./metrics-server.ts";
import { type RuntimePaths, runtimePaths } from "./runtime-paths.ts";

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

/**
 * Runs one service as a process under the supervisor: reads `--data`, `--node`, `--role` and `--device-groups`, starts it, says `{ ready: true }`, and
 * disposes of it on SIGTERM or when the supervisor is gone. A start that fails says `{ fatal }` and exits with 1.
 */
export const runServiceProcess = async (
  defaultRole: string,
  start: (context: ServiceContext) => Promise<AsyncDisposable>,
): Promise<void> => {
  let service: AsyncDisposable | undefined;
  let log: Log | undefined;
  let isStopping = false;
  const stop = async (why: string): Promise<void> => {
    if (isStopping) return;
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
    const metrics = createMetrics({ role });
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
    await serveMetrics(metrics, paths.socket(`metrics-${role}`));
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
