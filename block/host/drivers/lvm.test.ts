import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { driverContract } from "./driver.contract.ts";
import { LvmDriver } from "./lvm.ts";
import { whyNoLvm } from "./lvm-pool.ts";

const POOL_BYTES = 1024 * 1024 * 1024;
const obstacle = await whyNoLvm();
if (obstacle !== undefined) process.stdout.write(`the lvm driver is not tested: ${obstacle}\n`);

const makePool = () => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-lvm-"));
  const file = join(folder, "pool.img");
  writeFileSync(file, "");
  truncateSync(file, POOL_BYTES);
  const name = `ringstead-${randomBytes(6).toString("hex")}`;
  const opened: LvmDriver[] = [];
  onTestFinished(async () => {
    await opened.at(-1)?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });
  return {
    file,
    open: async () => {
      const driver = await LvmDriver.opened(file, name);
      opened.push(driver);
      return driver;
    },
  };
};

describe.skipIf(obstacle !== undefined)("LVM", () => {
  driverContract(async () => {
    const { file, open } = makePool();
    return { driver: await open(), reopened: open, wholeFile: file };
  });

  test("more than the pool has is refused, and so is what lies in pieces", async () => {
    const { open } = makePool();
    const driver = await open();
    const ids = Array.from({ length: 4 }, () => randomBytes(10).toString("hex"));
    await expect(driver.create(ids[0]!, 2 * POOL_BYTES)).rejects.toMatchObject({ code: "pool-full" });
    expect(await driver.layers()).toEqual([]);
    for (const id of ids.slice(0, 3)) await driver.create(id, 300 * 1024 * 1024);
    await driver.remove(ids[1]!);
    await expect(driver.create(ids[3]!, 350 * 1024 * 1024)).rejects.toMatchObject({ code: "pool-full" });
    await driver.create(ids[3]!, 300 * 1024 * 1024);
  });

  test("a layer whose neighbour is occupied does not grow where it is", async () => {
    const { open } = makePool();
    const driver = await open();
    const [layer, neighbour] = [randomBytes(10).toString("hex"), randomBytes(10).toString("hex")];
    await driver.create(layer, 8 * 1024 * 1024);
    await driver.create(neighbour, 8 * 1024 * 1024);
    expect(await driver.grow(layer, 12 * 1024 * 1024)).toBe(false);
  });

  test("a file that holds another volume group is left alone", async () => {
    const { file, open } = makePool();
    await (await open())[Symbol.asyncDispose]();
    await expect(LvmDriver.opened(file, "ringstead-other")).rejects.toMatchObject({ code: "pool-damaged" });
    await open();
  });
});
