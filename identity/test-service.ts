import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Kysely, type RawBuilder, sql } from "kysely";
import { type ClusterConfig, type ClusterFile, LOCAL_NODE, resolveConfig } from "../common/config.ts";
import { type Log, silentLog } from "../common/log.ts";
import { createMetrics } from "../common/metrics.ts";
import { type RuntimePaths, runtimePaths } from "../common/runtime-paths.ts";
import { type IdentityService, startIdentity } from "./service.ts";
import { createTestDatabase, type TestDatabase } from "./test-database.ts";
import type { IdentitySchema } from "./store/schema.ts";

export const TEST_PASSWORD = "a good password";

/**
 * An installation in a temporary folder for tests: started and stopped as often as wanted, removed at disposal. Its rows are in SQLite, and in
 * PostgreSQL where the same tests run once more for that (vitest.config.ts).
 */
export type TestInstallation = AsyncDisposable & {
  readonly paths: RuntimePaths;
  /** Starts the service with real sockets on a free port; stops the one that runs. */
  start(change?: {
    file?: ClusterFile;
    password?: string | undefined;
    nowMs?: () => number;
    auditLog?: Log;
  }): Promise<IdentityService>;
  stop(): Promise<void>;
  /** Its database, beside the service, which is told of nothing. The caller destroys the handle. */
  openDatabase(): Promise<Kysely<IdentitySchema>>;
  /** Rows of one statement there. */
  query<Row = Readonly<Record<string, unknown>>>(statement: RawBuilder<Row> | string): Promise<Row[]>;
};

const configOf = (file: ClusterFile, dataDir: string): ClusterConfig =>
  resolveConfig(file, dataDir, LOCAL_NODE, "host");

export const createTestInstallation = (): TestInstallation => {
  const dataDir = mkdtempSync(join(tmpdir(), "ringstead-identity-"));
  const paths = runtimePaths(dataDir);
  let running: IdentityService | undefined;
  let made: Promise<TestDatabase> | undefined;
  const database = (): Promise<TestDatabase> => (made ??= createTestDatabase(paths.identityDir));
  const openDatabase = async (): Promise<Kysely<IdentitySchema>> => (await database()).open();
  const stop = async (): Promise<void> => {
    await running?.[Symbol.asyncDispose]();
    running = undefined;
  };
  return {
    paths,
    stop,
    openDatabase,
    query: async <Row>(statement: RawBuilder<Row> | string) => {
      await using handle = await openDatabase();
      const asked = typeof statement === "string" ? sql.raw<Row>(statement) : statement;
      return (await asked.execute(handle)).rows;
    },
    start: async (change = {}) => {
      await stop();
      running = await startIdentity({
        config: configOf({ ...(await database()).file, ...change.file }, dataDir),
        paths,
        log: silentLog,
        metrics: createMetrics(),
        port: 0,
        adminPassword: "password" in change ? change.password : TEST_PASSWORD,
        ...(change.auditLog === undefined ? {} : { auditLog: change.auditLog }),
        ...(change.nowMs === undefined ? {} : { clock: { nowMs: change.nowMs } }),
      });
      return running;
    },
    [Symbol.asyncDispose]: async () => {
      await stop();
      await (await made)?.remove();
      rmSync(dataDir, { recursive: true });
    },
  };
};
