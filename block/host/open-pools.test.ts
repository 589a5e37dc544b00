import { randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { silentLog } from "../../common/log.ts";
import { runtimePaths } from "../../common/runtime-paths.ts";
import { parseBlockConfig } from "../config.ts";
import type { Driver } from "./drivers/driver.ts";
import { loopDeviceOf } from "./drivers/loop-device.ts";
import { obstacle } from "./drivers/test-pool.ts";
import { openPools } from "./open-pools.ts";
import { type HostPaths, hostPaths } from "./paths.ts";

const LAYER = "0123456789abcdef0123";

const newHost = (): {
  readonly paths: HostPaths;
  open(this: void, table: unknown): Promise<ReadonlyMap<string, Driver>>;
} => {
  const folder = mkdtempSync(join(tmpdir(), "rs-pools-"));
  const paths = hostPaths(runtimePaths(folder));
  mkdirSync(paths.folder, { recursive: true });
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const clusterId = randomUUID();
  const open = (table: unknown): Promise<ReadonlyMap<string, Driver>> =>
    openPools({ paths, clusterId, config: parseBlockConfig(table).pools, log: silentLog });
  return { paths, open };
};

const close = async (pools: ReadonlyMap<string, Driver>): Promise<void> => {
  for (const driver of pools.values()) await driver[Symbol.asyncDispose]();
};

test("files alone where they are asked for", async () => {
  const { open } = newHost();
  const pools = await open({ drivers: ["file"] });
  expect([...pools.keys()]).toEqual(["file"]);
  await close(pools);
});

test("a volume group that is not there is a refusal", async () => {
  const { open } = newHost();
  await expect(open({ volume_group: "ringstead-missing" })).rejects.toThrow("ringstead-missing");
});

test.skipIf(obstacle !== undefined)(
  "a pool in a file is as long as is said, and is opened as long as it has layers",
  async () => {
    const { paths, open } = newHost();
    const first = await open({ drivers: ["lvm"], pool_size_gib: 1 });
    expect([...first.keys()]).toEqual(["lvm"]);
    expect(statSync(paths.poolFile).size).toBe(1024 ** 3);
    await first.get("lvm")?.create(LAYER, 4096);
    await close(first);
    const second = await open({ drivers: ["file"], pool_size_gib: 5 });
    expect([...second.keys()].toSorted()).toEqual(["file", "lvm"]);
    expect(await second.get("lvm")?.layers()).toEqual([LAYER]);
    expect(statSync(paths.poolFile).size).toBe(1024 ** 3);
    await close(second);
    expect(await loopDeviceOf(paths.poolFile)).toBeUndefined();
  },
);

test.skipIf(obstacle !== undefined)("both drivers may be pools of one host", async () => {
  const { open } = newHost();
  const pools = await open({ drivers: ["lvm", "file"], pool_size_gib: 1 });
  expect([...pools.keys()].toSorted()).toEqual(["file", "lvm"]);
  await close(pools);
});
