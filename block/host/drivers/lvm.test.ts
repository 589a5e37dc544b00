import { randomBytes } from "node:crypto";
import { describe, expect, onTestFinished, test } from "vitest";
import { attachLoop, detachLoop, loopDeviceOf } from "./loop-device.ts";
import { Lvm } from "./lvm-command.ts";
import { type LvmAbilities, openFilePool, openGroupPool } from "./lvm-pool.ts";
import {
  abilities,
  got,
  lvmContract,
  makeFile,
  makePool,
  MIB,
  newLayer,
  obstacle,
  POOL_BYTES,
  put,
  WITHOUT_MAPPER,
} from "./test-pool.ts";
import { VolumeGroup } from "./volume-group.ts";

describe.skipIf(obstacle !== undefined)("LVM without device-mapper", () => {
  lvmContract("auto", WITHOUT_MAPPER);

  test("more than the pool has is refused, and so is what lies in pieces", async () => {
    const driver = await makePool("auto", WITHOUT_MAPPER).open();
    const ids = Array.from({ length: 4 }, newLayer);
    await expect(driver.create(ids[0]!, 2 * POOL_BYTES)).rejects.toMatchObject({ code: "pool-full" });
    expect(await driver.layers()).toEqual([]);
    for (const id of ids.slice(0, 3)) await driver.create(id, 300 * MIB);
    await driver.remove(ids[1]!);
    await expect(driver.create(ids[3]!, 350 * MIB)).rejects.toMatchObject({ code: "pool-full" });
    await driver.create(ids[3]!, 300 * MIB);
  });

  test("a layer whose neighbour is occupied does not grow where it is", async () => {
    const driver = await makePool("auto", WITHOUT_MAPPER).open();
    const [layer, neighbour] = [newLayer(), newLayer()];
    await driver.create(layer, 8 * MIB);
    await driver.create(neighbour, 8 * MIB);
    expect(await driver.grow(layer, 12 * MIB)).toBe(false);
  });

  test("a growth that was broken off with device-mapper, before its extents were erased, is finished without it", async () => {
    const { file, groupName, open: opened } = makePool("auto", WITHOUT_MAPPER);
    const driver = await opened();
    const layer = newLayer();
    await driver.create(layer, 8 * MIB);
    const lvm = new Lvm({ device: await loopDeviceOf(file), hasDeviceMapper: false });
    const path = `${groupName}/layer-${layer}`;
    await lvm.run("lvchange", "--addtag", "ringstead.grows.from.2", path);
    expect(await new VolumeGroup(groupName, lvm).extend(`layer-${layer}`, 4)).toBe(true);
    await put(driver, layer, Buffer.alloc(16 * MIB, 7));
    expect(await driver.grow(layer, 16 * MIB)).toBe(true);
    const expected = Buffer.concat([Buffer.alloc(8 * MIB, 7), Buffer.alloc(8 * MIB)]);
    expect((await got(driver, layer, 16 * MIB)).equals(expected)).toBe(true);
    expect(await lvm.report("lvs", "lv_tags", path)).toEqual([{ lv_tags: "" }]);
    await put(driver, layer, Buffer.alloc(16 * MIB, 8));
    expect(await driver.grow(layer, 16 * MIB)).toBe(true);
    expect((await got(driver, layer, 16 * MIB)).equals(Buffer.alloc(16 * MIB, 8))).toBe(true);
  });

  test("a file that holds another volume group is left alone", async () => {
    const { file, open: opened } = makePool("auto", WITHOUT_MAPPER);
    await (await opened())[Symbol.asyncDispose]();
    const other = openFilePool({ file, groupName: "ringstead-other" }, "auto", WITHOUT_MAPPER);
    await expect(other).rejects.toMatchObject({ code: "pool-damaged" });
    await opened();
  });

  test("thin layers are refused, with what is missing", async () => {
    const { openAs, open: opened } = makePool("auto", WITHOUT_MAPPER);
    await expect(openAs("thin", WITHOUT_MAPPER)).rejects.toMatchObject({ code: "pool-unable" });
    await opened();
  });
});

describe.skipIf(obstacle !== undefined)("a volume group of the operator's", () => {
  const makeGroup = async (machine: LvmAbilities) => {
    const { file, groupName } = makeFile();
    const device = await attachLoop(file);
    const lvm = new Lvm({ device, hasDeviceMapper: machine.whyNoMapper === undefined });
    await new VolumeGroup(groupName, lvm).ensure(device);
    onTestFinished(async () => {
      await lvm.run("vgremove", "--force", "--yes", groupName);
      await detachLoop(device);
    });
    return { groupName, lvm, device };
  };

  describe.each([
    ["as this machine can", abilities],
    ["without device-mapper", WITHOUT_MAPPER],
  ])("%s", (_, machine) => {
    test("what else is in it is neither a layer nor free", async () => {
      const { groupName, lvm } = await makeGroup(machine);
      const activation = machine.whyNoMapper === undefined ? "y" : "n";
      const own = ["--activate", activation, "--zero", "n", "--wipesignatures", "n", "--name", "operators"];
      await lvm.run("lvcreate", "--yes", ...own, "--extents", "10", groupName);
      await using driver = await openGroupPool(groupName, "thick", machine);
      expect(await driver.layers()).toEqual([]);
      expect((await driver.capacity()).freeBytes).toBe(245 * 4 * MIB);
      const layer = newLayer();
      await driver.create(layer, 16 * MIB);
      const bytes = randomBytes(MIB);
      await put(driver, layer, bytes);
      expect((await got(driver, layer, MIB)).equals(bytes)).toBe(true);
      expect(await driver.place(layer)).toMatchObject({ kind: "device", sizeBytes: 16 * MIB });
      await driver.remove(layer);
      expect((await lvm.report("lvs", "lv_name", groupName)).map(({ lv_name: name }) => name)).toEqual(["operators"]);
    });
  });

  test("one that is not there is said, not made", async () => {
    const missing = openGroupPool("ringstead-missing", "auto", abilities);
    await expect(missing).rejects.toMatchObject({ code: "pool-damaged" });
  });
});
