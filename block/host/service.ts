import { mkdirSync } from "node:fs";
import { messageOf, RingsteadError } from "../../common/errors.ts";
import type { ServiceContext } from "../../common/service-process.ts";
import { runWorkers } from "../../common/worker.ts";
import { type BackupContents, createBackupContents } from "../backup/backup-contents.ts";
import { openBackupSecret } from "../backup/keys.ts";
import { backupStoreOf, identityOf, objectStoreOf } from "../backup-access.ts";
import { blockPaths } from "../store/paths.ts";
import { BLOCK_HOST_SOCKET } from "../wire.ts";
import { parseBlockConfig } from "../config.ts";
import { LocalVolumeHost } from "./local-volume-host.ts";
import { openPools } from "./open-pools.ts";
import { hostPaths } from "./paths.ts";
import { runCommand } from "./run-command.ts";
import { createVolumeHostServer } from "./volume-host-server.ts";

/** The first port of exports over TCP; `port_offset` is added. */
const NBD_PORT = 10_809;
/** Where all volumes over iSCSI are; `port_offset` is added. */
const ISCSI_PORT = 3260;

/** What volumes are filled from that are restored; undefined where there is no object service. */
const backupsOf = async (context: ServiceContext, held: AsyncDisposableStack): Promise<BackupContents | undefined> => {
  const { config, paths, clusterKey } = context;
  const objects = await objectStoreOf(config, identityOf(context, held).client);
  if (objects === undefined) return undefined;
  held.use(objects);
  const secret = openBackupSecret(blockPaths(paths.blockDir).backupKey, clusterKey);
  const { backup } = parseBlockConfig(config.block);
  return createBackupContents((projectId) => backupStoreOf({ objects, secret, config: backup }, projectId));
};

/** Errors: "daemon-missing", "records-damaged", and those of opening a pool: no volume is put elsewhere because its pool fails just now. */
export const startBlockHost = async (context: ServiceContext): Promise<AsyncDisposable> => {
  const { config, clusterId, clusterKey, log, metrics } = context;
  const paths = hostPaths(context.paths);
  mkdirSync(paths.folder, { recursive: true, mode: 0o700 });
  try {
    await runCommand("qemu-storage-daemon", ["--version"]);
  } catch (error) {
    throw new RingsteadError(
      "daemon-missing",
      `volumes need QEMU's storage daemon (Debian: apt-get install qemu-system-common): ${messageOf(error)}`,
    );
  }
  await using held = new AsyncDisposableStack();
  const pools = await openPools({ paths, clusterId, config: parseBlockConfig(config.block).pools, log });
  for (const driver of pools.values()) held.use(driver);
  const host = held.use(
    await LocalVolumeHost.opened({
      paths,
      backups: await backupsOf(context, held),
      pools,
      host: config.bind,
      publicHost: new URL(config.publicUrl).hostname.replace(/^\[|\]$/g, ""),
      firstPort: NBD_PORT + config.portOffset,
      iscsiPort: ISCSI_PORT + config.portOffset,
      log,
    }),
  );
  let exported = 0;
  metrics.gauge("ringstead_block_exports", "volumes that are served", () => exported);
  const watcher = host.watcher();
  const count = async (): Promise<void> => {
    exported = (await host.exports()).length;
  };
  const work = async (signal: AbortSignal): Promise<"busy" | "idle"> => {
    const result = await watcher.work(signal);
    await count();
    return result;
  };
  held.use(runWorkers([{ ...watcher, work }, host.merger()], { log }));
  const server = held.use(createVolumeHostServer({ host, data: host.data }, clusterKey, log));
  await server.listen(context.paths.socket(BLOCK_HOST_SOCKET));
  log.info("volumes can be made", { pools: [...pools.keys()] });
  return held.move();
};
