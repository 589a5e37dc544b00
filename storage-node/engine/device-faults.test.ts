import { expect, test } from "vitest";
import type { Disk } from "../../common/disk.ts";
import { RingsteadError } from "../../common/errors.ts";
import { SimulatedDisk } from "../../common/simulation/disk.ts";
import type { DeviceEngine } from "./device-engine.ts";
import { bodyAt, identity, namesIn, put, remove, valueAt } from "./engine-fixture.ts";
import { emptyIndexPlatter, openMemoryIndex } from "./memory-index.ts";
import { openDevice } from "./open-device.ts";

const SEGMENT_BYTES = 64 * 1024;

const open = (disk: Disk, platter = emptyIndexPlatter()): Promise<DeviceEngine> =>
  openDevice(
    { path: "/device", identity },
    {
      disk,
      openIndex: openMemoryIndex(platter),
      lock: async () => ({ [Symbol.asyncDispose]: async () => {} }),
      segmentBytes: SEGMENT_BYTES,
      checkpointBytes: SEGMENT_BYTES,
      reservedBytes: SEGMENT_BYTES,
    },
  );

const codeOfFailure = async (doing: Promise<unknown>): Promise<string> => {
  try {
    await doing;
  } catch (error) {
    if (error instanceof RingsteadError) return error.code;
    throw error;
  }
  return "none";
};

/** Puts until the device refuses; returns how many went in. */
const fill = async (device: DeviceEngine, label: string): Promise<number> => {
  for (let count = 0; count < 10_000; count++) {
    const code = await codeOfFailure(put(device, `${label}${count}`, "1", Buffer.alloc(3000, 1)));
    if (code === "none") continue;
    expect(code).toBe("device-full");
    return count;
  }
  throw new Error("the device never was full");
};

test("a full device refuses, loses nothing, and goes on when space returns", async () => {
  const disk = new SimulatedDisk();
  disk.capacity = 12 * SEGMENT_BYTES;
  const platter = emptyIndexPlatter();
  const device = await open(disk, platter);
  const count = await fill(device, "a");
  expect(count).toBeGreaterThan(50);
  expect(device.state().kind).toBe("full");
  expect(valueAt(device, `a${count}`)).toBeUndefined();
  expect((await namesIn(device)).length).toBe(count);
  expect((await bodyAt(device, `a${count - 1}`)).length).toBe(3000);
  expect(await codeOfFailure(device.stage())).toBe("device-full");
  disk.capacity = 24 * SEGMENT_BYTES;
  await expect.poll(() => codeOfFailure(put(device, "later", "1", Buffer.alloc(4000))), { timeout: 5000 }).toBe("none");
  expect(device.state().kind).toBe("serving");
  await device[Symbol.asyncDispose]();
  const again = await open(disk, platter);
  expect((await namesIn(again)).length).toBe(count + 1);
});

test("a full device makes room by compaction when keys are overwritten or deleted", async () => {
  const disk = new SimulatedDisk();
  disk.capacity = 16 * SEGMENT_BYTES;
  const device = await open(disk);
  for (let round = 0; round < 400; round++) {
    await put(device, `k${round % 40}`, `${round}`, Buffer.alloc(4000, 1));
  }
  const count = await fill(device, "more");
  // A delete takes no new segment as long as the present one has room.
  for (let index = 0; index < count; index++) await remove(device, `more${index}`).catch(() => {});
  await expect
    .poll(() => codeOfFailure(put(device, "later", "1", Buffer.alloc(4000))), { timeout: 10_000 })
    .toBe("none");
});

test("a failed sync is final: nothing later is acknowledged, and reopening has everything that was", async () => {
  const inner = new SimulatedDisk();
  let fails = false;
  const disk: Disk = {
    kindOf: (path) => inner.kindOf(path),
    makeFolder: (path) => inner.makeFolder(path),
    list: (path) => inner.list(path),
    rename: (from, to) => inner.rename(from, to),
    unlink: (path) => inner.unlink(path),
    syncFolder: (path) => inner.syncFolder(path),
    freeBytes: () => inner.freeBytes(),
    open: async (path, mode) => {
      const file = await inner.open(path, mode);
      const sync = async (): Promise<void> => {
        if (fails) throw Object.assign(new Error("EIO: i/o error"), { code: "EIO" });
        await file.sync();
      };
      return { ...file, sync };
    },
  };
  const platter = emptyIndexPlatter();
  const device = await open(disk, platter);
  await put(device, "a", "1", "body");
  fails = true;
  const applied = [put(device, "b", "1"), put(device, "c", "1")];
  const unsynced = device.sync();
  for (const promise of [...applied, unsynced]) expect(await codeOfFailure(promise)).toBe("device-failed");
  fails = false;
  expect(await codeOfFailure(put(device, "d", "1"))).toBe("device-failed");
  expect(await codeOfFailure(device.sync())).toBe("device-failed");
  expect(await codeOfFailure(device.durable(Buffer.from("b")) ?? Promise.resolve())).toBe("device-failed");
  expect(device.state()).toMatchObject({ kind: "failed", reason: { code: "device-failed" } });
  await device[Symbol.asyncDispose]();
  const again = await open(inner, platter);
  expect(await bodyAt(again, "a")).toBe("body");
  expect(again.state().kind).toBe("serving");
  expect(valueAt(again, "d")).toBeUndefined();
});
