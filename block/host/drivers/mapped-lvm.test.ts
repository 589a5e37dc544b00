import { randomBytes } from "node:crypto";
import { open } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { runCommand } from "../run-command.ts";
import { loopDeviceOf } from "./loop-device.ts";
import { Lvm } from "./lvm-command.ts";
import { releaseFilePool } from "./lvm-pool.ts";
import { abilities, got, lvmContract, makePool, MIB, newLayer, POOL_BYTES, put, WITHOUT_MAPPER } from "./test-pool.ts";

/** Run by a guest's kernel where this machine's has no device-mapper (`scripts/guest/`); each command of LVM takes a second there. */
const FILL_LIMIT_MS = 400_000;

describe.skipIf(abilities.whyNoMapper !== undefined)("LVM with device-mapper, thick", () => {
  lvmContract("thick", abilities);

  test("a layer grows past its neighbour, and what that held is gone", async () => {
    const driver = await makePool("thick", abilities).open();
    const [layer, neighbour, third] = [newLayer(), newLayer(), newLayer()];
    for (const one of [layer, neighbour, third]) await driver.create(one, 8 * MIB);
    await put(driver, layer, Buffer.alloc(8 * MIB, 1));
    await driver.remove(neighbour);
    expect(await driver.grow(layer, 32 * MIB)).toBe(true);
    const expected = Buffer.concat([Buffer.alloc(8 * MIB, 1), Buffer.alloc(24 * MIB)]);
    expect((await got(driver, layer, 32 * MIB)).equals(expected)).toBe(true);
  });

  test("a growth that was broken off before its extents were erased erases them when it is done again", async () => {
    const { file, groupName, open: opened } = makePool("thick", abilities);
    const driver = await opened();
    const layer = newLayer();
    await driver.create(layer, 8 * MIB);
    const lvm = new Lvm({ device: await loopDeviceOf(file), hasDeviceMapper: true });
    const path = `${groupName}/layer-${layer}`;
    await lvm.run("lvchange", "--addtag", "ringstead.grows.from.2", path);
    await lvm.run("lvextend", "--extents", "4", path);
    await put(driver, layer, Buffer.alloc(16 * MIB, 7));
    expect(await driver.grow(layer, 16 * MIB)).toBe(true);
    const expected = Buffer.concat([Buffer.alloc(8 * MIB, 7), Buffer.alloc(8 * MIB)]);
    expect((await got(driver, layer, 16 * MIB)).equals(expected)).toBe(true);
    expect(await lvm.report("lvs", "lv_tags", path)).toEqual([{ lv_tags: "" }]);
  });

  test("layers from a time without device-mapper are served as they are, and stay thick", async () => {
    const { openAs } = makePool("auto", abilities);
    const layer = newLayer();
    const bytes = randomBytes(8 * MIB);
    const before = await openAs("auto", WITHOUT_MAPPER);
    await before.create(layer, 8 * MIB);
    await put(before, layer, bytes);
    await before[Symbol.asyncDispose]();
    const after = await openAs("auto", abilities);
    expect((await got(after, layer, 8 * MIB)).equals(bytes)).toBe(true);
    expect(await after.capacity()).toMatchObject({ isThin: false });
  });

  test("a device that somebody has open stays when the host goes, and is taken down once nobody has", async () => {
    const { file, open: opened } = makePool("thick", abilities);
    const driver = await opened();
    const layer = newLayer();
    await driver.create(layer, 8 * MIB);
    const { path } = (await driver.place(layer))!;
    const daemon = await open(path, "r+");
    await driver[Symbol.asyncDispose]();
    await daemon.write(Buffer.alloc(4096, 5), 0, 4096, 0);
    await daemon.sync();
    await daemon.close();
    await releaseFilePool(file);
    expect(await loopDeviceOf(file)).toBeUndefined();
    const again = await opened();
    expect((await got(again, layer, 4096)).equals(Buffer.alloc(4096, 5))).toBe(true);
  });
});

describe.skipIf(abilities.whyNoThin !== undefined)("LVM with device-mapper, thin", () => {
  lvmContract("thin", abilities);

  test("a new group is thin by itself: layers may be larger than the pool, which counts what was written", async () => {
    const driver = await makePool("auto", abilities).open();
    const layer = newLayer();
    await driver.create(layer, 4 * POOL_BYTES);
    const before = await driver.capacity();
    expect(before.isThin).toBe(true);
    expect(before.totalBytes - before.freeBytes).toBeLessThan(8 * MIB);
    await put(driver, layer, randomBytes(32 * MIB));
    const taken = before.freeBytes - (await driver.capacity()).freeBytes;
    expect(taken).toBeGreaterThan(31 * MIB);
    expect(taken).toBeLessThan(40 * MIB);
  });

  test("what is discarded is free again", async () => {
    const driver = await makePool("auto", abilities).open();
    const layer = newLayer();
    await driver.create(layer, 64 * MIB);
    const { freeBytes } = await driver.capacity();
    await put(driver, layer, randomBytes(32 * MIB));
    const { path } = (await driver.place(layer))!;
    await runCommand("blkdiscard", ["--length", String(16 * MIB), path]);
    await put(driver, layer, randomBytes(4096));
    expect(freeBytes - (await driver.capacity()).freeBytes).toBeLessThan(20 * MIB);
  });

  test("a full pool refuses what needs another block, at once, and takes it again once there is room", async () => {
    const driver = await makePool("auto", abilities).open();
    const [layer, other] = [newLayer(), newLayer()];
    await driver.create(other, 64 * MIB);
    await put(driver, other, Buffer.alloc(64 * MIB, 3));
    await driver.create(layer, 2 * POOL_BYTES);
    const { path } = (await driver.place(layer))!;
    const fill = runCommand("dd", ["if=/dev/zero", `of=${path}`, "bs=1M", "count=1100", "oflag=direct"], FILL_LIMIT_MS);
    await expect(fill).rejects.toMatchObject({ code: "command-failed" });
    expect((await driver.capacity()).freeBytes).toBeLessThan(MIB);
    await expect(driver.create(newLayer(), MIB)).rejects.toMatchObject({ code: "pool-full" });
    // What has its blocks is read and written as before.
    await put(driver, other, Buffer.alloc(MIB, 4));
    expect((await got(driver, other, MIB)).equals(Buffer.alloc(MIB, 4))).toBe(true);
    await driver.remove(layer);
    await driver.create(newLayer(), MIB);
  });

  test("a group with a thin pool is not opened where there is no device-mapper", async () => {
    const { open: opened, openAs } = makePool("auto", abilities);
    await (await opened())[Symbol.asyncDispose]();
    await expect(openAs("auto", WITHOUT_MAPPER)).rejects.toMatchObject({ code: "pool-unable" });
    await opened();
  });
});
