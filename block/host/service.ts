import { mkdirSync } from "node:fs";
import { messageOf, RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import type { ServiceContext } from "../../common/service-process.ts";
import { runWorkers } from "../../common/worker.ts";
import { BLOCK_HOST_SOCKET } from "../wire.ts";
import type { Driver } from "./drivers/driver.ts";
import { FileDriver } from "./drivers/file.ts";
import { LvmDriver } from "./drivers/lvm.ts";
import { whyNoLvm } from "./drivers/lvm-pool.ts";
import { LocalVolumeHost } from "./local-volume-host.ts";
import { type HostPaths, hostPaths } from "./paths.ts";
import { runCommand } from "./run-command.ts";
import { createVolumeHostServer } from "./volume-host-server.ts";

/** The first port of exports over TCP; `port_offset` is added. */
const NBD_PORT = 10_809;
/** Where all volumes over iSCSI are; `port_offset` is added. */
const ISCSI_PORT = 3260;
/** Enough of the cluster's id for two installations of one machine to differ. */
const GROUP_ID_CHARACTERS = 12;

/**
 * The pools of this machine: `lvm` where root and LVM are there, and `file` where they are not, or where it has layers from a time when they
 * were not.
 */
const openPools = async (paths: HostPaths, clusterId: string, log: Log): Promise<ReadonlyMap<string, Driver>> => {
  const pools = new Map<string, Driver>();
  const obstacle = await whyNoLvm();
  if (obstacle === undefined) {
    const name = `ringstead-${clusterId.replaceAll("-", "").slice(0, GROUP_ID_CHARACTERS)}`;
    pools.set("lvm", await LvmDriver.opened(paths.poolFile, name));
  } else log.info("there is no pool lvm here", { why: obstacle });
  const files = await FileDriver.opened(paths.poolFolder);
  if (pools.size === 0 || (await files.layers()).length > 0) pools.set("file", files);
  return pools;
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
  const pools = await openPools(paths, clusterId, log);
  for (const driver of pools.values()) held.use(driver);
  const host = held.use(
    await LocalVolumeHost.opened({
      paths,
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
