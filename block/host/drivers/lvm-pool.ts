import { accessSync, constants, existsSync } from "node:fs";
import { codeOf, messageOf, RingsteadError } from "../../../common/errors.ts";
import { runCommand } from "../run-command.ts";
import type { Driver } from "./driver.ts";
import { diskBase, type GroupBase, loopBase } from "./group-base.ts";
import { loopDeviceOf } from "./loop-device.ts";
import { LvmDriver } from "./lvm.ts";
import { Lvm } from "./lvm-command.ts";
import { closeGroup, ensureThinPool, MappedLvmDriver, THIN_POOL } from "./mapped-lvm.ts";
import { layerOfVolume, VolumeGroup } from "./volume-group.ts";

/** What this machine can, and where it cannot, why not. */
export type LvmAbilities = {
  readonly whyNoMapper: string | undefined;
  readonly whyNoThin: string | undefined;
};

/** How layers are given space: `auto` is thin where the machine and the group can. */
export type LvmType = "auto" | "thin" | "thick";

const CONTROL = "/dev/mapper/control";
const FOLDERS = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

const isThere = async (program: string, ...parameters: readonly string[]): Promise<boolean> => {
  try {
    await runCommand(program, parameters);
    return true;
  } catch (error) {
    if (codeOf(error) === "command-missing") return false;
    throw error;
  }
};

/** Why nothing can be done with LVM here; undefined where something can. */
const whyNoCommands = async (): Promise<string | undefined> => {
  if (process.getuid?.() !== 0) return "only root may use LVM";
  return (await isThere("lvm", "version", "--driverloaded", "n")) ? undefined : "lvm2 is not installed";
};

/** Why no pool of kind `lvm` can be made in a file here; undefined where one can. */
export const whyNoLvm = async (): Promise<string | undefined> => {
  try {
    const obstacle = await whyNoCommands();
    if (obstacle !== undefined) return obstacle;
    accessSync("/dev/loop-control", constants.R_OK | constants.W_OK);
    await runCommand("losetup", ["--find"]);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
};

/** Asks the kernel: what it can is not to be read off its version. */
export const lvmAbilities = async (): Promise<LvmAbilities> => {
  const no = (why: string): LvmAbilities => ({ whyNoMapper: why, whyNoThin: why });
  if (!existsSync(CONTROL)) return no(`the kernel has no device-mapper: there is no ${CONTROL}`);
  let targets: string;
  try {
    // Where the target is a module, nothing loads it before it is asked for.
    await runCommand("modprobe", ["dm-thin-pool"]).catch(() => "");
    targets = await runCommand("dmsetup", ["targets"]);
  } catch (error) {
    return no(`the kernel has no device-mapper: ${messageOf(error)}`);
  }
  if (!/^thin-pool\s/m.test(targets))
    return { whyNoMapper: undefined, whyNoThin: "the kernel has no thin pools (modprobe dm-thin-pool)" };
  const hasTools = FOLDERS.some((folder) => existsSync(`${folder}/thin_check`));
  const remedy = "thin-provisioning-tools is not installed";
  return { whyNoMapper: undefined, whyNoThin: hasTools ? undefined : remedy };
};

/** The pool in a sparse file, which is made where it is not there. */
export type FilePool = { readonly file: string; readonly groupName: string; readonly sizeLimitBytes?: number };

/**
 * Opens the pool in a file. Errors: "command-missing", "command-failed", "pool-damaged", "pool-full", "pool-unable" where the machine cannot
 * what the group needs or `type` asks for.
 */
export const openFilePool = async (
  { file, groupName, sizeLimitBytes }: FilePool,
  type: LvmType,
  abilities: LvmAbilities,
): Promise<Driver> => {
  const base = await loopBase(file, sizeLimitBytes);
  const group = new VolumeGroup(groupName, lvmFor(base, abilities));
  try {
    await group.ensure(base.device ?? "");
    return await openGroup(group, base, type, abilities);
  } catch (error) {
    await base.release().catch(() => undefined);
    throw error;
  }
};

/** Opens a pool in a volume group of the operator's. What else is in it is left alone. Errors: as of `openFilePool`. */
export const openGroupPool = async (groupName: string, type: LvmType, abilities: LvmAbilities): Promise<Driver> => {
  const obstacle = await whyNoCommands();
  if (obstacle !== undefined) throw new RingsteadError("pool-unable", `the volume group ${groupName}: ${obstacle}`);
  const group = new VolumeGroup(groupName, lvmFor({ device: undefined }, abilities));
  const { devices } = await group.facts();
  const [device, ...others] = devices;
  if (device === undefined) throw new RingsteadError("pool-damaged", `the volume group ${groupName} has no device`);
  if (others.length > 0 && abilities.whyNoMapper !== undefined)
    throw new RingsteadError(
      "pool-unable",
      `the volume group ${groupName} lies on ${devices.length} devices: ${abilities.whyNoMapper}`,
    );
  return openGroup(group, diskBase(device.path), type, abilities);
};

const lvmFor = ({ device }: Pick<GroupBase, "device">, { whyNoMapper }: LvmAbilities): Lvm =>
  new Lvm({ device, hasDeviceMapper: whyNoMapper === undefined });

const openGroup = async (
  group: VolumeGroup,
  base: GroupBase,
  type: LvmType,
  { whyNoMapper, whyNoThin }: LvmAbilities,
): Promise<Driver> => {
  const unable = (what: string, why: string): never => {
    throw new RingsteadError("pool-unable", `the volume group ${group.name} ${what}: ${why}`);
  };
  const { volumes } = await group.facts();
  const hasThinPool = volumes.some(({ name }) => name === `[${THIN_POOL}_tdata]`);
  if (hasThinPool && whyNoMapper !== undefined) unable("has a thin pool", whyNoMapper);
  if (hasThinPool && whyNoThin !== undefined) unable("has a thin pool", whyNoThin);
  if (type === "thin" && whyNoThin !== undefined) unable("is to be thin", whyNoThin);
  if (whyNoMapper !== undefined) return new LvmDriver(group, base);
  // Thick layers stay what they are, and where there are some, the group has most likely no room for a pool beside them.
  const hasLayers = volumes.some(({ name }) => layerOfVolume(name) !== undefined);
  const isThin = type === "thin" || (type === "auto" && whyNoThin === undefined && (hasThinPool || !hasLayers));
  if (isThin || hasThinPool) await ensureThinPool(group);
  return MappedLvmDriver.opened(group, base, isThin);
};

/**
 * Takes down what is left of a pool in a file once the last daemon is gone; nothing where nothing is. Requires: no host has the pool open.
 */
export const releaseFilePool = async (file: string): Promise<void> => {
  if (process.getuid?.() !== 0 || !existsSync(file)) return;
  const device = await loopDeviceOf(file);
  if (device === undefined) return;
  const abilities = await lvmAbilities();
  const base = await loopBase(file);
  if (abilities.whyNoMapper !== undefined) return base.release();
  const lvm = lvmFor(base, abilities);
  const [found] = await lvm.report("pvs", "vg_name");
  const name = found?.["vg_name"] ?? "";
  await (name === "" ? base.release() : closeGroup(new VolumeGroup(name, lvm), base));
};
