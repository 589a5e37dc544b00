import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import type { LayerId } from "../core/chains.ts";
import type { Driver, Place } from "./driver.ts";
import { driverContract } from "./driver.contract.ts";
import { loopDeviceOf } from "./loop-device.ts";
import { type LvmAbilities, type LvmType, lvmAbilities, openFilePool, whyNoLvm } from "./lvm-pool.ts";

export const MIB = 1024 * 1024;
export const POOL_BYTES = 1024 * MIB;
const UNUSED = "it is not used here";
export const WITHOUT_MAPPER: LvmAbilities = { whyNoMapper: UNUSED, whyNoThin: UNUSED };

/** Why nothing of LVM can be tested here. */
export const obstacle = await whyNoLvm();
if (obstacle !== undefined) process.stdout.write(`the lvm driver is not tested: ${obstacle}\n`);
/** What this machine can. */
export const abilities = obstacle === undefined ? await lvmAbilities() : WITHOUT_MAPPER;

export const newLayer = (): LayerId => randomBytes(10).toString("hex");

/** An empty file for a pool, which goes with the test, and a name for its group. */
export const makeFile = (): { readonly file: string; readonly groupName: string } => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-lvm-"));
  const file = join(folder, "pool.img");
  writeFileSync(file, "");
  truncateSync(file, POOL_BYTES);
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return { file, groupName: `ringstead-${randomBytes(6).toString("hex")}` };
};

export type TestPool = {
  readonly file: string;
  readonly groupName: string;
  open(this: void): Promise<Driver>;
  openAs(this: void, type: LvmType, abilities: LvmAbilities): Promise<Driver>;
};

/** A pool in a file. Nothing of the kernel's may be left of it when the test is over. */
export const makePool = (type: LvmType, machine: LvmAbilities): TestPool => {
  const { file, groupName } = makeFile();
  let last: Driver | undefined;
  onTestFinished(async () => {
    await last?.[Symbol.asyncDispose]();
    expect(await loopDeviceOf(file)).toBeUndefined();
  });
  const openAs = async (otherType: LvmType, other: LvmAbilities): Promise<Driver> =>
    (last = await openFilePool({ file, groupName }, otherType, other));
  return { file, groupName, open: () => openAs(type, machine), openAs };
};

export const lvmContract = (type: LvmType, machine: LvmAbilities): void =>
  driverContract(async () => {
    const { file, open: opened } = makePool(type, machine);
    return { driver: await opened(), reopened: opened, wholeFile: file };
  });

const placeOf = async (driver: Driver, layer: LayerId): Promise<Place> => {
  const place = await driver.place(layer);
  if (place === undefined) throw new Error(`layer ${layer} has no place`);
  return place;
};

/** Writes from the layer's beginning. */
export const put = async (driver: Driver, layer: LayerId, bytes: Buffer): Promise<void> => {
  const { path, offset } = await placeOf(driver, layer);
  const file = await open(path, "r+");
  await file.write(bytes, 0, bytes.length, offset);
  await file.sync();
  await file.close();
};

/** Reads from the layer's beginning. */
export const got = async (driver: Driver, layer: LayerId, length: number): Promise<Buffer> => {
  const { path, offset } = await placeOf(driver, layer);
  const file = await open(path, "r");
  const { buffer } = await file.read(Buffer.alloc(length), 0, length, offset);
  await file.close();
  return buffer;
};
