import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { DIRECT_UNIT_BYTES } from "../../common/disk.ts";
import { seededRandom } from "../../common/random.ts";
import { SimulatedDisk } from "../../common/simulation/disk.ts";
import { diskContract } from "./disk.contract.ts";
import { realDisk } from "./real-disk.ts";

const withFolder = async (doing: (folder: string) => Promise<void>): Promise<void> => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-disk-"));
  try {
    await doing(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
};

diskContract("real disk", (doing) => withFolder((folder) => doing(realDisk, folder)));
diskContract("simulated disk", async (doing) => {
  const disk = new SimulatedDisk();
  await disk.makeFolder("/folder");
  await doing(disk, "/folder");
});

test("what direct I/O is refused for goes through the page cache", () =>
  withFolder(async (folder) => {
    const path = join(folder, "a");
    const file = await realDisk.open(path, "create-direct");
    // Memory that begins within a page is refused at the transfer, as some file systems refuse all.
    const bytes = new Uint8Array(2 * DIRECT_UNIT_BYTES).fill(5);
    await file.write(bytes, 0);
    await file.sync();
    expect(new Uint8Array(readFileSync(path))).toEqual(bytes);
    await file.close();
    const again = await realDisk.open(path, "direct");
    const found = new Uint8Array(3 * DIRECT_UNIT_BYTES);
    expect(await again.read([found], 0)).toBe(bytes.length);
    expect(found.subarray(0, bytes.length)).toEqual(bytes);
    expect(again.readSync(found.fill(0), 0)).toBe(bytes.length);
    expect(found.subarray(0, bytes.length)).toEqual(bytes);
    await again.close();
  }));

test("a file system that refuses direct I/O at the opening is used through the page cache", async () => {
  const file = await realDisk.open("/proc/self/comm", "direct");
  const memory = realDisk.directMemory(DIRECT_UNIT_BYTES);
  const count = await file.read([memory], 0);
  expect(Buffer.from(memory.subarray(0, count)).toString()).toBe(readFileSync("/proc/self/comm", "utf8"));
  await file.close();
});

test("memory that is not the disk's is told in simulation, where nothing else would refuse it", async () => {
  const disk = new SimulatedDisk();
  const file = await disk.open("/a", "create-direct");
  await expect(file.write(new Uint8Array(DIRECT_UNIT_BYTES), 0)).rejects.toThrow("memory of the disk");
});

test("a direct write survives power loss for certain only once it is synced", async () => {
  const outcomes = new Set<number>();
  for (let seed = 1n; seed <= 40n; seed++) {
    const disk = new SimulatedDisk();
    const file = await disk.open("/a", "create-direct");
    await disk.syncFolder("/");
    const memory = disk.directMemory(DIRECT_UNIT_BYTES);
    await file.write(memory.fill(1), 0);
    await file.sync();
    await file.write(memory.fill(2), DIRECT_UNIT_BYTES);
    const found = new Uint8Array(2 * DIRECT_UNIT_BYTES);
    const survived = await disk.afterPowerLoss(seededRandom(seed)).open("/a", "existing");
    await survived.read([found], 0);
    expect(found.subarray(0, DIRECT_UNIT_BYTES)).toEqual(new Uint8Array(DIRECT_UNIT_BYTES).fill(1));
    outcomes.add(found.filter((byte) => byte === 2).length);
  }
  expect(outcomes).toContain(0);
  expect(outcomes).toContain(DIRECT_UNIT_BYTES);
  expect(outcomes.size).toBeGreaterThan(2);
});
