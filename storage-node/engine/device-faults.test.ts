import { expect, test } from "vitest";
import type { Disk } from "../../common/disk.ts";
import { SimulatedDisk } from "../../common/simulation/disk.ts";
import type { DeviceEngine } from "./device-engine.ts";
import {
  digests,
  alteredDisk,
  bodyAt,
  codeOfFailure,
  identity,
  namesIn,
  put,
  remove,
  valueAt,
} from "./engine-fixture.ts";
import { emptyIndexPlatter, openMemoryIndex } from "./memory-index.ts";
import { openDevice } from "./open-device.ts";

const SEGMENT_BYTES = 64 * 1024;

const open = (disk: Disk, platter = emptyIndexPlatter()): Promise<DeviceEngine> =>
  openDevice(
    { path: "/device", identity, digests },
    {
      disk,
      openIndex: openMemoryIndex(platter),
      lock: async () => ({ [Symbol.asyncDispose]: async () => {} }),
      segmentBytes: SEGMENT_BYTES,
      checkpointBytes: SEGMENT_BYTES,
      reservedBytes: SEGMENT_BYTES,
    },
  );

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

test("a body that was damaged before a start is not given out of memory while the block that it ends in is written anew", async () => {
  const disk = new SimulatedDisk();
  const platter = emptyIndexPlatter();
  const before = await open(disk, platter);
  await put(before, "old", "1", Buffer.from("a body as it was written"));
  await before[Symbol.asyncDispose]();
  for (const name of await disk.list("/device/log")) {
    const file = await disk.open(`/device/log/${name}`, "existing");
    const bytes = Buffer.alloc(await file.size());
    await file.read([bytes], 0);
    const at = bytes.indexOf("as it was written");
    if (at >= 0) await file.write(Buffer.from("AS"), at);
    await file.close();
  }
  const device = await open(disk, platter);
  const writing = put(device, "new", "1", Buffer.from("behind it"));
  expect(await codeOfFailure(bodyAt(device, "old"))).toBe("body-damaged");
  await writing;
  expect(await codeOfFailure(bodyAt(device, "old"))).toBe("body-damaged");
  await device[Symbol.asyncDispose]();
});

test("a full device still takes deletes, tombstones and confirmations, and serves again after them", async () => {
  const disk = new SimulatedDisk();
  disk.capacity = 16 * SEGMENT_BYTES;
  const platter = emptyIndexPlatter();
  const device = await open(disk, platter);
  const count = await fill(device, "k");
  expect(device.figures().isFull).toBe(1);
  for (let index = 0; index < count; index++) {
    const name = `k${index}`;
    // A confirmation keeps the body, a tombstone drops it; neither nor a delete may be refused, however full the device is.
    if (index % 3 === 0) await remove(device, name);
    else if (index % 3 === 1) await put(device, name, "confirmed", { kind: "keep" });
    else await put(device, name, "tombstone");
  }
  expect(await codeOfFailure(put(device, "later", "1", Buffer.alloc(4000)))).toMatch(/^(none|device-full)$/);
  await expect
    .poll(() => codeOfFailure(put(device, "later", "1", Buffer.alloc(4000))), { timeout: 10_000 })
    .toBe("none");
  expect(device.state().kind).toBe("serving");
  expect(device.figures().isFull).toBe(0);
  await device[Symbol.asyncDispose]();
  const again = await open(disk, platter);
  expect(valueAt(again, "k0")).toBeUndefined();
  expect(valueAt(again, "k1")).toBe("confirmed");
  expect((await bodyAt(again, "k1")).length).toBe(3000);
  expect(valueAt(again, "k2")).toBe("tombstone");
});

test("a full device refuses new small records, and bodies that supersede others", async () => {
  const disk = new SimulatedDisk();
  disk.capacity = 14 * SEGMENT_BYTES;
  const device = await open(disk);
  await fill(device, "k");
  let code = "none";
  for (let index = 0; index < 5000 && code === "none"; index++)
    code = await codeOfFailure(put(device, `s${index}`, "1"));
  expect(code).toBe("device-full");
  code = "none";
  for (let index = 0; index < 100 && code === "none"; index++)
    code = await codeOfFailure(put(device, "k0", "1", Buffer.alloc(3000)));
  expect(code).toBe("device-full");
  expect(await codeOfFailure(put(device, "k0", "2"))).toBe("none");
});

const readOnlyError = (): Error => Object.assign(new Error("EROFS: read-only file system"), { code: "EROFS" });

test("a read-only file system is told as such when the device is opened", async () => {
  const disk = alteredDisk(new SimulatedDisk(), { makeFolder: () => Promise.reject(readOnlyError()) });
  expect(await codeOfFailure(open(disk))).toBe("device-read-only");
});

test("a file system that turns read-only is told as such, and nothing is acknowledged from then on", async () => {
  const inner = new SimulatedDisk();
  let isReadOnly = false;
  const disk = alteredDisk(inner, {
    open: async (path, mode) => {
      const file = await inner.open(path, mode);
      const write = (bytes: Uint8Array, offset: number): Promise<void> =>
        isReadOnly ? Promise.reject(readOnlyError()) : file.write(bytes, offset);
      return { ...file, write };
    },
  });
  const device = await open(disk);
  await put(device, "a", "1");
  isReadOnly = true;
  expect(await codeOfFailure(put(device, "b", "1"))).toBe("device-read-only");
  isReadOnly = false;
  expect(await codeOfFailure(put(device, "c", "1"))).toBe("device-read-only");
  expect(device.state()).toMatchObject({ kind: "failed", reason: { code: "device-read-only" } });
  expect(device.figures()).toMatchObject({ isFailed: 1, isReadOnly: 1 });
  expect(valueAt(device, "a")).toBe("1");
});

test("a file system that is read-only when the next segment is allocated is told as such", async () => {
  const inner = new SimulatedDisk();
  let isReadOnly = false;
  const disk = alteredDisk(inner, {
    open: (path, mode) =>
      isReadOnly && mode === "create-direct" ? Promise.reject(readOnlyError()) : inner.open(path, mode),
  });
  const device = await open(disk);
  await put(device, "a", "1");
  isReadOnly = true;
  for (let index = 0; index < 40; index++) await codeOfFailure(put(device, `k${index}`, "1", Buffer.alloc(3000)));
  await expect.poll(() => device.figures().isReadOnly).toBe(1);
  expect(await codeOfFailure(put(device, "z", "1"))).toBe("device-read-only");
});

test("a failed sync is final: nothing later is acknowledged, and reopening has everything that was", async () => {
  const inner = new SimulatedDisk();
  let fails = false;
  const disk = alteredDisk(inner, {
    open: async (path, mode) => {
      const file = await inner.open(path, mode);
      const write = async (bytes: Uint8Array, offset: number): Promise<void> => {
        await file.write(bytes, offset);
        // The bytes may have arrived; that they are there for good was never said.
        if (fails && mode === "write-through") throw Object.assign(new Error("EIO: i/o error"), { code: "EIO" });
      };
      return { ...file, write };
    },
  });
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

test("a device with space left does not call itself full while its next segment is being filled with zeros", async () => {
  const inner = new SimulatedDisk();
  inner.capacity = 9 * SEGMENT_BYTES;
  const hold = Promise.withResolvers<void>();
  let isHeld = false;
  const disk = alteredDisk(inner, {
    open: async (path, mode) => {
      if (mode === "create-direct" && isHeld) await hold.promise;
      return inner.open(path, mode);
    },
  });
  await using device = await open(disk);
  await put(device, "a", "1");
  await expect.poll(() => device.figures()["spares"]).toBe(3);
  // Closing the device waits for what it allocates.
  using _release = { [Symbol.dispose]: () => hold.resolve() };
  isHeld = true;
  for (let index = 0; device.figures()["segments"] === 1; index++) {
    await put(device, `k${index}`, "1", Buffer.alloc(3000));
  }
  await expect.poll(() => device.figures()["spares"]).toBe(2);
  expect(device.figures().freeBytes).toBeLessThan(8 * SEGMENT_BYTES);
  expect(device.state()).toEqual({ kind: "serving" });
  hold.resolve();
  await expect.poll(() => device.figures()["spares"]).toBe(3);
  expect(device.state()).toEqual({ kind: "serving" });
});

test("a device whose index failed is not given away before the disk is done with what it writes", async () => {
  const disk = new SimulatedDisk();
  const platter = emptyIndexPlatter();
  const indexGate = Promise.withResolvers<void>();
  const diskGate = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  let isHeld = false;
  const slow = alteredDisk(disk, {
    open: async (path, mode) => {
      const file = await disk.open(path, mode);
      return {
        read: (buffers, offset) => file.read(buffers, offset),
        readSync: (buffer, offset) => file.readSync(buffer, offset),
        sync: () => file.sync(),
        size: () => file.size(),
        close: () => file.close(),
        write: async (bytes, offset) => {
          if (isHeld) {
            begun.resolve();
            await diskGate.promise;
          }
          await file.write(bytes, offset);
        },
      };
    },
  });
  const device = await openDevice(
    { path: "/device", identity, digests },
    {
      disk: slow,
      openIndex: async (path, fresh) => {
        const index = await openMemoryIndex(platter)(path, fresh);
        return {
          ...index,
          write: async () => {
            await indexGate.promise;
            throw new Error("No space left on device");
          },
        };
      },
      lock: async () => ({ [Symbol.asyncDispose]: async () => {} }),
      segmentBytes: SEGMENT_BYTES,
      checkpointBytes: SEGMENT_BYTES,
      indexPace: { keys: 1, delayMs: 0 },
    },
  );
  await put(device, "before", "1");
  isHeld = true;
  const late = codeOfFailure(put(device, "late", "1"));
  await begun.promise;
  indexGate.resolve();
  expect(await late).toBe("device-failed");
  let isGiven = false;
  const closed = device[Symbol.asyncDispose]().then(() => (isGiven = true));
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect(isGiven).toBe(false);
  diskGate.resolve();
  await closed;
});
