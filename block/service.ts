import { mkdir, readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { type Clock, systemClock } from "../common/clock.ts";
import { type ClusterConfig, portOf, publicEndpoint } from "../common/config.ts";
import { createHttpServer } from "../common/http/server.ts";
import type { Log } from "../common/log.ts";
import type { Metrics } from "../common/metrics.ts";
import { openPolicyFile } from "../common/policy/policy-file.ts";
import { RpcClient } from "../common/rpc/client.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { openDatabase } from "../common/sql/database.ts";
import { runMigrations } from "../common/sql/migrations.ts";
import { openSqlite } from "../common/sql/sqlite.ts";
import { runWorkers, type Worker } from "../common/worker.ts";
import {
  createRevocationFollower,
  createTokenVerifier,
  type IdentityClient,
  identityKeyFollower,
  type TokenVerifier,
} from "../identity/client.ts";
import { ATTACHMENT_ROUTES } from "./api/attachments.ts";
import { CGSNAPSHOT_ROUTES } from "./api/cgsnapshots.ts";
import { CONSISTENCY_GROUP_ROUTES } from "./api/consistency-groups.ts";
import type { BlockContext } from "./api/block-route.ts";
import { CREATE_VOLUME_ROUTES } from "./api/create-volume.ts";
import { cinderErrorEdge } from "./api/error-edge.ts";
import { DEFAULT_TYPE_ROUTES } from "./api/default-types.ts";
import { EXTENSION_ROUTES } from "./api/extensions.ts";
import { GROUP_ACTION_ROUTES } from "./api/group-actions.ts";
import { GROUP_SNAPSHOT_ROUTES } from "./api/group-snapshots.ts";
import { GROUP_TYPE_ROUTES } from "./api/group-types.ts";
import { GROUP_ROUTES } from "./api/groups.ts";
import { HOST_ROUTES } from "./api/hosts.ts";
import { MANAGEABLE_SNAPSHOT_ROUTES } from "./api/manageable-snapshots.ts";
import { MANAGEABLE_VOLUME_ROUTES } from "./api/manageable-volumes.ts";
import { MESSAGE_ROUTES } from "./api/messages.ts";
import { BACKUP_SCHEDULE_ROUTES } from "./api/backup-schedules.ts";
import { BACKUP_ROUTES } from "./api/backups.ts";
import { BACKUP_ACTION_ROUTES } from "./api/backup-actions.ts";
import { BACKUP_RECORD_ROUTES } from "./api/backup-records.ts";
import { BLOCK_OPERATIONS } from "./api/operations.ts";
import { QOS_ROUTES } from "./api/qos-specs.ts";
import { QUOTA_ROUTES } from "./api/quota-sets.ts";
import { RESOURCE_FILTER_ROUTES } from "./api/resource-filters.ts";
import { SERVICE_ROUTES } from "./api/services.ts";
import { TRANSFER_ROUTES } from "./api/transfers.ts";
import { TYPE_ACCESS_ROUTES } from "./api/type-access.ts";
import { TYPE_ENCRYPTION_ROUTES } from "./api/type-encryption.ts";
import { TYPE_EXTRA_SPEC_ROUTES } from "./api/type-extra-specs.ts";
import { SNAPSHOT_ACTION_ROUTES } from "./api/snapshot-actions.ts";
import { SNAPSHOT_METADATA_ROUTES } from "./api/snapshot-metadata.ts";
import { SNAPSHOT_ROUTES } from "./api/snapshots.ts";
import { VERSION_ROUTES } from "./api/versions.ts";
import { VOLUME_ACTION_ROUTES } from "./api/volume-actions.ts";
import { VOLUME_METADATA_ROUTES } from "./api/volume-metadata.ts";
import { VOLUME_TYPE_ROUTES } from "./api/volume-types.ts";
import { VOLUME_ROUTES } from "./api/volumes.ts";
import { createVolumeDataClient, createVolumeHostClient } from "./client.ts";
import { parseBlockConfig } from "./config.ts";
import { BLOCK_POLICY_RULES } from "./core/policy-rules.ts";
import { createLimitKeeper } from "./daemons/limit-keeper.ts";
import { createTaskRunner } from "./daemons/task-runner.ts";
import { identityOf, objectStoreOf } from "./backup-access.ts";
import { type BackupService, type BackupServiceOptions, openBackups } from "./backup-service.ts";
import type { ObjectStore } from "./backup/object-store.ts";
import { createHosts, type Hosts } from "./hosts.ts";
import { createOperatorExports } from "./operator-exports.ts";
import { BLOCK_MIGRATIONS } from "./store/migrations.ts";
import { blockPaths } from "./store/paths.ts";
import type { BlockSchema } from "./store/schema.ts";
import { backupTasks } from "./store/backup-tasks.ts";
import { volumeTasks } from "./store/tasks.ts";
import { ensureDefaultType } from "./store/volume-types.ts";
import type { VolumeData } from "./volume-data.ts";
import type { VolumeHost } from "./volume-host.ts";
import { createVolumeWork } from "./volume-work.ts";
import { BLOCK_HOST_SOCKET } from "./wire.ts";

/** How long a client waits for a host: longer than a task tries to connect, shorter than clients have patience. */
const WAIT_MS = 25_000;
/** Cinder's osapi_max_request_body_size. */
const BODY_LIMIT_BYTES = 114_688;

const ROUTES = [
  ...VERSION_ROUTES,
  ...VOLUME_ROUTES,
  ...CREATE_VOLUME_ROUTES,
  ...VOLUME_METADATA_ROUTES,
  ...VOLUME_ACTION_ROUTES,
  ...ATTACHMENT_ROUTES,
  ...SNAPSHOT_ROUTES,
  ...SNAPSHOT_METADATA_ROUTES,
  ...SNAPSHOT_ACTION_ROUTES,
  ...VOLUME_TYPE_ROUTES,
  ...TYPE_EXTRA_SPEC_ROUTES,
  ...TYPE_ACCESS_ROUTES,
  ...TYPE_ENCRYPTION_ROUTES,
  ...DEFAULT_TYPE_ROUTES,
  ...QOS_ROUTES,
  ...MESSAGE_ROUTES,
  ...RESOURCE_FILTER_ROUTES,
  ...HOST_ROUTES,
  ...TRANSFER_ROUTES,
  ...GROUP_TYPE_ROUTES,
  ...GROUP_ROUTES,
  ...GROUP_ACTION_ROUTES,
  ...GROUP_SNAPSHOT_ROUTES,
  ...CONSISTENCY_GROUP_ROUTES,
  ...CGSNAPSHOT_ROUTES,
  ...MANAGEABLE_VOLUME_ROUTES,
  ...MANAGEABLE_SNAPSHOT_ROUTES,
  ...BACKUP_ROUTES,
  ...BACKUP_ACTION_ROUTES,
  ...BACKUP_RECORD_ROUTES,
  ...BACKUP_SCHEDULE_ROUTES,
  ...QUOTA_ROUTES,
  ...SERVICE_ROUTES,
  ...EXTENSION_ROUTES,
];

export type BlockOptions = {
  readonly config: ClusterConfig;
  readonly paths: RuntimePaths;
  readonly clusterKey: Buffer;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly clock?: Clock;
  /** In the place of this node's block host. */
  readonly hosts?: ReadonlyMap<string, VolumeHost>;
  readonly volumeData?: ReadonlyMap<string, VolumeData>;
  /** In the place of this installation's object service. */
  readonly objects?: ObjectStore;
  /** In the place of the configured port; 0 for any free one. */
  readonly port?: number;
  /** In the place of tokens of this installation's identity service. */
  readonly verifier?: TokenVerifier;
  /** The table `[block]` of cluster.toml. */
  readonly table?: unknown;
  /** How long a step without an answer is tried, and a client waits for one; for tests. */
  readonly giveUpMs?: number;
  readonly waitMs?: number;
};

/** The running API of the block service. Disposal drains requests, lets steps under way end, then closes the database. */
export type BlockService = AsyncDisposable & { readonly port: number };

const readTls = async (config: ClusterConfig): Promise<{ cert: Buffer; key: Buffer } | undefined> =>
  config.tlsCert === undefined || config.tlsKey === undefined
    ? undefined
    : { cert: await readFile(config.tlsCert), key: await readFile(config.tlsKey) };

type Tokens = {
  readonly verifier: TokenVerifier;
  readonly workers: readonly Worker[];
  readonly identity: IdentityClient | undefined;
};

/** Who verifies tokens, and the work that keeps what it goes by up to date. */
const tokensOf = (options: BlockOptions, clock: Clock, starting: AsyncDisposableStack): Tokens => {
  const { config, paths, metrics } = options;
  if (options.verifier !== undefined) return { verifier: options.verifier, workers: [], identity: undefined };
  const { client, isHere } = identityOf(options, starting);
  const revocations = createRevocationFollower({ client, clock, graceSeconds: config.revocationGraceSeconds });
  metrics.gauge(
    "ringstead_block_revocations_silent_seconds",
    "Seconds since the identity service told the block service of revoked tokens.",
    () => revocations.silentSeconds(),
  );
  const verifier = createTokenVerifier({ keysDir: paths.identityDir, clock, revocations: revocations.source });
  return {
    verifier,
    identity: client,
    workers: isHere ? [revocations.worker] : [revocations.worker, identityKeyFollower(client, paths.identityDir)],
  };
};

const hostsOf = (options: BlockOptions, connection: DisposableStack): Hosts => {
  const { config, paths, clusterKey } = options;
  if (options.hosts !== undefined) return createHosts(options.hosts, options.volumeData ?? new Map());
  const rpc = connection.use(new RpcClient(paths.socket(BLOCK_HOST_SOCKET), clusterKey));
  return createHosts(
    new Map([[config.node, createVolumeHostClient(rpc)]]),
    new Map([[config.node, createVolumeDataClient(rpc)]]),
  );
};

/** Undefined where there is no object service that they could be kept in. */
const backupsOf = async (
  options: BlockOptions,
  identity: IdentityClient | undefined,
  parts: Pick<BackupServiceOptions, "database" | "hosts" | "config" | "zone" | "clock">,
  starting: AsyncDisposableStack,
): Promise<BackupService | undefined> => {
  const { config, paths, clusterKey, log, metrics, giveUpMs } = options;
  const own =
    options.objects === undefined && identity !== undefined ? await objectStoreOf(config, identity) : undefined;
  const objects = options.objects ?? (own && starting.use(own));
  if (objects === undefined) return undefined;
  const limit = giveUpMs === undefined ? {} : { giveUpMs };
  const keyFile = blockPaths(paths.blockDir).backupKey;
  return starting.use(openBackups({ ...parts, ...limit, objects, keyFile, clusterKey, log, metrics }));
};

/** Opens the database, goes on with the tasks that stand there, and serves the API on the public port. Resolves once it accepts connections. */
export const startBlock = async (options: BlockOptions): Promise<BlockService> => {
  const { config, paths, log, clock = systemClock } = options;
  const blockConfig = parseBlockConfig(options.table);
  const files = blockPaths(paths.blockDir);
  await mkdir(files.root, { recursive: true, mode: 0o700 });

  await using starting = new AsyncDisposableStack();
  const server = config.database;
  const database = await openDatabase<BlockSchema>({ server, namespace: "block", sqlitePath: files.database, log });
  starting.defer(() => database.destroy());
  // A second handle on the file: who reads does not wait for a transaction, and does not see it half done.
  const writer = server === undefined ? openSqlite<BlockSchema>(files.database) : database;
  if (writer !== database) starting.defer(() => writer.destroy());
  const applied = await runMigrations(writer, BLOCK_MIGRATIONS, clock.nowMs());
  if (applied.length > 0) log.info("migrations applied", { applied });
  await ensureDefaultType(writer, blockConfig.defaultVolumeType, clock.nowMs());
  if (server === undefined) {
    await volumeTasks.release(writer);
    await backupTasks.release(writer);
  }

  const work = (hosts: BlockContext["hosts"]) =>
    createVolumeWork({
      database: writer,
      hosts,
      scheduler: blockConfig.scheduler,
      zone: blockConfig.availabilityZone,
      clock,
    });
  const hostConnection = new DisposableStack();
  const hosts = hostsOf(options, hostConnection);
  const operatorExports = createOperatorExports(hosts);
  const { giveUpMs } = options;
  const tasks = createTaskRunner({
    database: writer,
    work: work(hosts),
    clock,
    log,
    ...(giveUpMs === undefined ? {} : { giveUpMs }),
  });
  // Last of all before the database: calls under way fail when the connection ends, and their steps stand in the database.
  starting.use(tasks);
  starting.use(hostConnection);

  const { verifier, workers, identity } = tokensOf(options, clock, starting);
  const backups = await backupsOf(
    options,
    identity,
    { database: writer, hosts, config: blockConfig.backup, zone: blockConfig.availabilityZone, clock },
    starting,
  );
  const own = [tasks.worker, createLimitKeeper(database, hosts), operatorExports.worker];
  starting.use(runWorkers([...own, ...workers, ...(backups?.workers ?? [])], { log }));

  const context: BlockContext = {
    config: blockConfig,
    clock,
    log,
    database,
    writer,
    verifier,
    policy: openPolicyFile({ file: paths.policyFile("block"), defaults: BLOCK_POLICY_RULES, log, clock }),
    hosts,
    operatorExports,
    tasks,
    backups: backups?.backups,
    waitMs: options.waitMs ?? WAIT_MS,
    localHosts: new Set([config.node, hostname(), "localhost"]),
    publicEndpoint: publicEndpoint(config, "block"),
  };
  const tls = await readTls(config);
  const http = starting.use(
    createHttpServer({
      context,
      routes: ROUTES,
      absent: BLOCK_OPERATIONS,
      edge: cinderErrorEdge(`${publicEndpoint(config, "identity")}/v3`),
      log: log.child({ face: "block" }),
      bodyLimitBytes: BODY_LIMIT_BYTES,
      headers: { vary: "OpenStack-API-Version" },
      countsTrailingSlash: true,
      ...(tls === undefined ? {} : { tls }),
    }),
  );
  const port = await http.listen({ host: config.bind, port: options.port ?? portOf(config, "block") });
  log.info("block serves", { bind: config.bind, port });
  const running = starting.move();
  return { port, [Symbol.asyncDispose]: () => running.disposeAsync() };
};
