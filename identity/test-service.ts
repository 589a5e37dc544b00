import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ClusterConfig, type ClusterFile, LOCAL_NODE, resolveConfig } from "../common/config.ts";
import { silentLog } from "../common/log.ts";
import { createMetrics } from "../common/metrics.ts";
import { type RuntimePaths, runtimePaths } from "../common/runtime-paths.ts";
import { type IdentityService, startIdentity } from "./service.ts";

export const TEST_PASSWORD = "a good password";

/** An installation in a temporary folder for tests: started and stopped as often as wanted, removed at disposal. */
export type TestInstallation = AsyncDisposable & {
  readonly paths: RuntimePaths;
  /** Starts the service with real sockets on a free port; stops the one that runs. */
  start(change?: { file?: ClusterFile; password?: string | undefined; nowMs?: () => number }): Promise<IdentityService>;
  stop(): Promise<void>;
};

const configOf = (file: ClusterFile, dataDir: string): ClusterConfig =>
  resolveConfig(file, dataDir, LOCAL_NODE, "host");

export const createTestInstallation = (): TestInstallation => {
  const dataDir = mkdtempSync(join(tmpdir(), "ringstead-identity-"));
  const paths = runtimePaths(dataDir);
  let running: IdentityService | undefined;
  const stop = async (): Promise<void> => {
    await running?.[Symbol.asyncDispose]();
    running = undefined;
  };
  return {
    paths,
    stop,
    start: async (change = {}) => {
      await stop();
      running = await startIdentity({
        config: configOf(change.file ?? {}, dataDir),
        paths,
        log: silentLog,
        metrics: createMetrics(),
        port: 0,
        adminPassword: "password" in change ? change.password : TEST_PASSWORD,
        ...(change.nowMs === undefined ? {} : { clock: { nowMs: change.nowMs } }),
      });
      return running;
    },
    [Symbol.asyncDispose]: async () => {
      await stop();
      rmSync(dataDir, { recursive: true });
    },
  };
};
