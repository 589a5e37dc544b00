import { randomBytes } from "node:crypto";
import { open } from "node:fs/promises";
import { expect, test } from "vitest";
import type { LayerId } from "../core/chains.ts";
import type { Driver, Place } from "./driver.ts";

const MIB = 1024 * 1024;

const newLayer = (): LayerId => randomBytes(10).toString("hex");

const placeOf = async (driver: Driver, layer: LayerId): Promise<Place> => {
  const place = await driver.place(layer);
  if (place === undefined) throw new Error(`layer ${layer} has no place`);
  return place;
};

const write = async (driver: Driver, layer: LayerId, at: number, bytes: Buffer): Promise<void> => {
  const { path, offset } = await placeOf(driver, layer);
  const file = await open(path, "r+");
  await file.write(bytes, 0, bytes.length, offset + at);
  await file.sync();
  await file.close();
};

const read = async (driver: Driver, layer: LayerId, at: number, length: number): Promise<Buffer> => {
  const { path, offset } = await placeOf(driver, layer);
  const file = await open(path, "r");
  const { bytesRead, buffer } = await file.read(Buffer.alloc(length), 0, length, offset + at);
  await file.close();
  return buffer.subarray(0, bytesRead);
};

/** What every driver does. `make` opens an empty pool of at least 1 GiB and registers its removal. `whole` is its only pool's file. */
export const driverContract = (
  make: () => Promise<{ readonly driver: Driver; reopened(this: void): Promise<Driver>; readonly wholeFile?: string }>,
): void => {
  test("a layer reads as zeros, keeps what is written, and is there when it is asked for again", async () => {
    const { driver, reopened } = await make();
    const layer = newLayer();
    await driver.create(layer, 16 * MIB);
    expect((await read(driver, layer, 0, 16 * MIB)).equals(Buffer.alloc(16 * MIB))).toBe(true);
    const bytes = randomBytes(MIB);
    await write(driver, layer, 15 * MIB, bytes);
    await driver[Symbol.asyncDispose]();
    const again = await reopened();
    expect(await again.layers()).toEqual([layer]);
    expect((await read(again, layer, 15 * MIB, MIB)).equals(bytes)).toBe(true);
  });

  test("layers do not overlap", async () => {
    const { driver } = await make();
    const layers = [newLayer(), newLayer(), newLayer()];
    for (const layer of layers) await driver.create(layer, 8 * MIB);
    for (const [index, layer] of layers.entries()) await write(driver, layer, 0, Buffer.alloc(8 * MIB, index + 1));
    for (const [index, layer] of layers.entries()) {
      expect((await read(driver, layer, 0, 8 * MIB)).equals(Buffer.alloc(8 * MIB, index + 1))).toBe(true);
    }
  });

  test("making and removing a layer twice is the same as once", async () => {
    const { driver } = await make();
    const layer = newLayer();
    await driver.create(layer, 4 * MIB);
    await driver.create(layer, 4 * MIB);
    expect(await driver.layers()).toEqual([layer]);
    await driver.remove(layer);
    await driver.remove(layer);
    expect(await driver.layers()).toEqual([]);
    expect(await driver.place(layer)).toBeUndefined();
  });

  test("a layer grows with zeros and keeps what it has", async () => {
    const { driver } = await make();
    const layer = newLayer();
    await driver.create(layer, 8 * MIB);
    const bytes = randomBytes(8 * MIB);
    await write(driver, layer, 0, bytes);
    expect(await driver.grow(layer, 24 * MIB)).toBe(true);
    expect(await driver.grow(layer, 24 * MIB)).toBe(true);
    expect((await read(driver, layer, 0, 8 * MIB)).equals(bytes)).toBe(true);
    expect((await read(driver, layer, 8 * MIB, 16 * MIB)).equals(Buffer.alloc(16 * MIB))).toBe(true);
  });

  test("growing beside an occupied neighbour either works or changes nothing", async () => {
    const { driver } = await make();
    const [layer, neighbour] = [newLayer(), newLayer()];
    await driver.create(layer, 8 * MIB);
    await driver.create(neighbour, 8 * MIB);
    await write(driver, layer, 0, Buffer.alloc(8 * MIB, 1));
    await write(driver, neighbour, 0, Buffer.alloc(8 * MIB, 2));
    const hasGrown = await driver.grow(layer, 16 * MIB);
    expect((await read(driver, layer, 0, 8 * MIB)).equals(Buffer.alloc(8 * MIB, 1))).toBe(true);
    expect((await read(driver, neighbour, 0, 8 * MIB)).equals(Buffer.alloc(8 * MIB, 2))).toBe(true);
    if (hasGrown) expect((await read(driver, layer, 8 * MIB, 8 * MIB)).equals(Buffer.alloc(8 * MIB))).toBe(true);
    else expect((await driver.place(layer))?.sizeBytes).toBe(8 * MIB);
  });

  test("what a layer held is gone for the next one, and for one that grows into its place", async () => {
    const { driver, wholeFile } = await make();
    const [first, second, third] = [newLayer(), newLayer(), newLayer()];
    const secret = randomBytes(64);
    const filled = Buffer.concat(Array.from({ length: (8 * MIB) / secret.length }, () => secret));
    await driver.create(first, 8 * MIB);
    await driver.create(second, 8 * MIB);
    const before = await placeOf(driver, second);
    await write(driver, second, 0, filled);
    await driver.remove(second);
    if (wholeFile !== undefined) {
      const file = await open(wholeFile, "r");
      const { buffer } = await file.read(Buffer.alloc(64 * MIB), 0, 64 * MIB, 0);
      await file.close();
      expect(buffer.includes(secret)).toBe(false);
    }
    expect(await driver.grow(first, 12 * MIB)).toBe(true);
    expect((await read(driver, first, 8 * MIB, 4 * MIB)).equals(Buffer.alloc(4 * MIB))).toBe(true);
    await driver.create(third, 4 * MIB);
    const after = await placeOf(driver, third);
    // The last place that was given back is the first that is taken again, where places are shared out at all.
    if (before.isShared) expect(after.offset).toBeLessThan(before.offset + 8 * MIB);
    expect((await read(driver, third, 0, 4 * MIB)).equals(Buffer.alloc(4 * MIB))).toBe(true);
  });

  test("capacity shows what is taken", async () => {
    const { driver } = await make();
    const before = await driver.capacity();
    expect(before.freeBytes).toBeLessThanOrEqual(before.totalBytes);
    const layer = newLayer();
    await driver.create(layer, 64 * MIB);
    await write(driver, layer, 0, randomBytes(64 * MIB));
    const after = await driver.capacity();
    // Others write to this machine's disk meanwhile: half of it is proof enough.
    expect(before.freeBytes - after.freeBytes).toBeGreaterThan(32 * MIB);
    await driver.remove(layer);
    expect((await driver.capacity()).freeBytes - after.freeBytes).toBeGreaterThan(32 * MIB);
  });
};
