import { existsSync } from "node:fs";
import { RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import type { PoolsConfig } from "../config.ts";
import type { Driver } from "./drivers/driver.ts";
import { FileDriver } from "./drivers/file.ts";
import { type LvmAbilities, lvmAbilities, openFilePool, openGroupPool, whyNoLvm } from "./drivers/lvm-pool.ts";
import type { HostPaths } from "./paths.ts";

/** Enough of the cluster's id for two installations of one machine to differ. */
const GROUP_ID_CHARACTERS = 12;

export type PoolsOptions = {
  readonly paths: HostPaths;
  readonly clusterId: string;
  readonly config: PoolsConfig;
  readonly log: Log;
};

/**
 * The pools of this machine: those that are asked for; where nothing is, `lvm` where root and LVM are there, and `file` where they are not. A pool
 * that has layers from a time when another was asked for is opened too. Errors: "pool-unable" where one that is asked for cannot be, and those
 * of opening it: no volume is put elsewhere because its pool fails just now.
 */
export const openPools = async ({
  paths,
  clusterId,
  config,
  log,
}: PoolsOptions): Promise<ReadonlyMap<string, Driver>> => {
  const { drivers, volumeGroup, lvmType, sizeLimitBytes } = config;
  const obstacle = await whyNoLvm();
  const abilities = await lvmAbilities();
  const isAsked = drivers?.includes("lvm") === true || volumeGroup !== undefined;
  const wantsLvm = isAsked || (drivers === undefined && obstacle === undefined);
  const wantsFileGroup = (wantsLvm && volumeGroup === undefined) || existsSync(paths.poolFile);
  if (obstacle !== undefined && isAsked && volumeGroup === undefined)
    throw new RingsteadError("pool-unable", `[block] in cluster.toml asks for the driver lvm: ${obstacle}`);
  await using opened = new AsyncDisposableStack();
  const pools = new Map<string, Driver>();
  const add = (name: string, driver: Driver): void => {
    pools.set(name, opened.use(driver));
  };
  if (volumeGroup !== undefined && drivers?.includes("lvm") !== false)
    add(volumeGroup, await openGroupPool(volumeGroup, lvmType, abilities));
  if (wantsFileGroup && obstacle === undefined) {
    const groupName = `ringstead-${clusterId.replaceAll("-", "").slice(0, GROUP_ID_CHARACTERS)}`;
    const pool = { file: paths.poolFile, groupName, sizeLimitBytes };
    // One that is there from before is opened as it is.
    const isWanted = wantsLvm && volumeGroup === undefined;
    add("lvm", await openFilePool(pool, isWanted ? lvmType : "auto", abilities));
  }
  const files = await FileDriver.opened(paths.poolFolder);
  const wantsFiles = drivers === undefined ? pools.size === 0 : drivers.includes("file");
  if (wantsFiles || (await files.layers()).length > 0) add("file", files);
  tell(log, obstacle, abilities, pools);
  opened.move();
  return pools;
};

const tell = (
  log: Log,
  obstacle: string | undefined,
  { whyNoMapper, whyNoThin }: LvmAbilities,
  pools: ReadonlyMap<string, Driver>,
): void => {
  if (obstacle !== undefined) log.info("there is no pool lvm here", { why: obstacle });
  else if (whyNoThin !== undefined && [...pools.values()].some(({ kind }) => kind === "lvm"))
    log.info("LVM's volumes are thick here", { why: whyNoThin, hasDeviceMapper: whyNoMapper === undefined });
};
