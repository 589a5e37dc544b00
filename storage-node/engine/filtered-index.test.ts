import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { expect, test } from "vitest";
import type { Disk, DiskFile } from "../../common/disk.ts";
import { SimulatedDisk } from "../../common/simulation/disk.ts";
import { alteredDisk } from "./engine-fixture.ts";
import type { EngineTimer } from "./engine-timer.ts";
import { FilteredIndex } from "./filtered-index.ts";
import type { Index, IndexOperation, OpenIndex } from "./index-port.ts";
import { type IndexPlatter, emptyIndexPlatter, openMemoryIndex } from "./memory-index.ts";
import { devicePaths } from "./paths.ts";

const CHECKPOINT = Buffer.from("checkpoint");
const paths = devicePaths("/device");
const atOnce: EngineTimer = { nowMs: () => 0, after: (_delayMs, run) => void setImmediate(run) };

const keyOf = (number: number): Uint8Array => Buffer.from(`key${number}`);
const puts = (from: number, to: number): Parameters<Index["write"]>[0] =>
  Array.from({ length: to - from }, (_, at) => ({ type: "put", key: keyOf(from + at), value: keyOf(from + at) }));
const dels = (from: number, to: number): Parameters<Index["write"]>[0] =>
  Array.from({ length: to - from }, (_, at) => ({ type: "del", key: keyOf(from + at) }));

/** A filtered index over a memory index that counts what it is asked. */
class World {
  readonly disk = new SimulatedDisk();
  readonly platter: IndexPlatter = emptyIndexPlatter();
  questions = 0;
  /** Scans of the index that are yet to fail. */
  failingScans = 0;
  #lives = 1;

  async make(): Promise<this> {
    await this.disk.makeFolder(paths.root);
    await this.disk.makeFolder(paths.filter);
    return this;
  }

  readonly #counted: OpenIndex = async (path, fresh) => {
    const inner = await openMemoryIndex(this.platter)(path, fresh);
    const get = (key: Uint8Array): Uint8Array | undefined => {
      this.questions++;
      return inner.get(key);
    };
    // Takes its time, as LevelDB does: what was written before a scan begins may not be there yet.
    const write = async (operations: IndexOperation[]): Promise<void> => {
      await turn();
      return inner.write(operations);
    };
    const cursor: Index["cursor"] = (range) => {
      const scan = inner.cursor(range);
      if (this.failingScans-- <= 0) return scan;
      const broken = Object.assign(new Error("broken"), { code: "EIO" });
      return { next: () => Promise.reject(broken), close: () => scan.close() };
    };
    return { ...inner, get, write, cursor };
  };

  open(fresh: boolean, disk: Disk = this.disk, timer: EngineTimer = atOnce): Promise<FilteredIndex> {
    const size = { firstKeys: 64, maxKeys: 128 };
    const random = (): number => this.#lives++;
    const parts = { disk, paths, deviceSeed: 1n, timer, size, random, reservedBytes: 0 };
    return FilteredIndex.open(this.#counted, parts, fresh);
  }

  /** The files of layers, in the order of lives and numbers. */
  layers(): Promise<string[]> {
    return this.disk.list(paths.filter);
  }

  /** How many of the keys the index had to be asked for; all must be, or not be, there. */
  ask(index: Index, from: number, to: number, areThere: boolean): number {
    const before = this.questions;
    for (let number = from; number < to; number++) expect(index.get(keyOf(number)) !== undefined).toBe(areThere);
    return this.questions - before;
  }
}

const turns = async (): Promise<void> => {
  for (let count = 0; count < 50; count++) await turn();
};

test("LevelDB is not asked for keys it never had, and is for those it has, before and after a checkpoint", async () => {
  const world = await new World().make();
  const index = await world.open(true);
  await index.write(puts(0, 500));
  expect(world.ask(index, 0, 500, true)).toBe(500);
  expect(world.ask(index, 1000, 2000, false)).toBeLessThan(100);
  await index.checkpoint(CHECKPOINT);
  await index.write(puts(500, 600));
  await index.checkpoint(CHECKPOINT);
  await index.close();
  const again = await world.open(false);
  expect(Buffer.from(again.readCheckpoint()!)).toEqual(CHECKPOINT);
  expect(world.ask(again, 0, 600, true)).toBe(600);
  expect(world.ask(again, 1000, 2000, false)).toBeLessThan(100);
});

test("keys that came after the checkpoint are known once they are replayed", async () => {
  const world = await new World().make();
  const index = await world.open(true);
  await index.write(puts(0, 100));
  await index.checkpoint(CHECKPOINT);
  await index.write(puts(100, 200));
  await index.close();
  const again = await world.open(false);
  await again.write(puts(100, 200));
  expect(world.ask(again, 0, 200, true)).toBe(200);
  expect(world.ask(again, 1000, 2000, false)).toBeLessThan(100);
});

test("without a usable filter every question is asked until a scan has made it anew", async () => {
  const harms: ((disk: SimulatedDisk, path: string) => Promise<void>)[] = [
    (disk, path) => disk.unlink(path),
    async (disk, path) => {
      const file = await disk.open(path, "existing");
      await file.write(Buffer.from([0xff]), 4100);
      await file.close();
    },
  ];
  for (const harm of harms) {
    const world = await new World().make();
    const index = await world.open(true);
    await index.write(puts(0, 300));
    await index.checkpoint(CHECKPOINT);
    await index.close();
    await harm(world.disk, paths.filterLayer(1, 1));
    const again = await world.open(false);
    const written = again.write(puts(300, 310));
    await Promise.all([written, again.write(puts(310, 320))]);
    expect(world.ask(again, 0, 320, true)).toBe(320);
    expect(world.ask(again, 1000, 2000, false)).toBe(1000);
    await turns();
    expect(world.ask(again, 0, 320, true)).toBe(320);
    expect(world.ask(again, 1000, 2000, false)).toBeLessThan(100);
    await again.checkpoint(CHECKPOINT);
    await again.close();
    const third = await world.open(false);
    expect(world.ask(third, 0, 320, true)).toBe(320);
    expect(world.ask(third, 1000, 2000, false)).toBeLessThan(100);
  }
});

test("a filter most of whose keys are gone is made anew, and its old files go with the next checkpoint", async () => {
  const world = await new World().make();
  const index = await world.open(true);
  for (let from = 0; from < 4000; from += 20) {
    await index.write(puts(from, from + 20));
    await index.write(dels(from, from + 19));
    await index.checkpoint(CHECKPOINT);
    await turns();
  }
  const count = (await world.disk.list(paths.filter)).length;
  expect(count).toBeLessThan(10);
  expect(world.ask(index, 10_000, 11_000, false)).toBeLessThan(150);
  for (let number = 19; number < 4000; number += 20) expect(index.get(keyOf(number))).toBeDefined();
});

test("an index made anew begins with a filter that denies, and its first checkpoint leaves no file of the earlier one", async () => {
  const world = await new World().make();
  const index = await world.open(true);
  await index.write(puts(0, 300));
  await index.checkpoint(CHECKPOINT);
  await index.close();
  expect((await world.layers()).length).toBe(3);
  const fresh = await world.open(true);
  expect(world.ask(fresh, 0, 300, false)).toBe(0);
  await fresh.checkpoint(CHECKPOINT);
  expect(await world.layers()).toEqual(["00000002-00000000.layer"]);
});

test("a layer made anew is never taken for the one of its number that an older checkpoint names", async () => {
  const world = await new World().make();
  const index = await world.open(true);
  await index.write(puts(0, 150));
  await index.checkpoint(CHECKPOINT);
  await index.close();
  for (const name of await world.layers()) await world.disk.unlink(join(paths.filter, name));
  const older = { ...world.platter, entries: new Map(world.platter.entries) };
  const again = await world.open(false);
  await again.write(puts(150, 700));
  await turns();
  await again.checkpoint(CHECKPOINT);
  await again.close();
  // The checkpoint was not durable after all; what the log had is replayed.
  Object.assign(world.platter, older);
  const third = await world.open(false);
  await third.write(puts(150, 200));
  expect(world.ask(third, 0, 200, true)).toBe(200);
});

test("a filter that is distrusted answers for nothing until it was made anew", async () => {
  const world = await new World().make();
  const index = await world.open(true);
  await index.write(puts(0, 300));
  index.distrust();
  expect(world.ask(index, 1000, 2000, false)).toBe(1000);
  await index.checkpoint(CHECKPOINT);
  await turns();
  expect(world.ask(index, 0, 300, true)).toBe(300);
  expect(world.ask(index, 1000, 2000, false)).toBeLessThan(100);
});

test("a layer that cannot be read costs a scan, not the index", async () => {
  const world = await new World().make();
  const index = await world.open(true);
  await index.write(puts(0, 300));
  await index.checkpoint(CHECKPOINT);
  await index.close();
  const broken = Object.assign(new Error("broken"), { code: "EIO" });
  const failing = alteredDisk(world.disk, {
    open: (path, mode) => (path.startsWith(paths.filter) ? Promise.reject(broken) : world.disk.open(path, mode)),
  });
  const again = await world.open(false, failing);
  expect(Buffer.from(again.readCheckpoint()!)).toEqual(CHECKPOINT);
  expect(world.ask(again, 0, 300, true)).toBe(300);
  await turns();
  expect(world.ask(again, 1000, 2000, false)).toBeLessThan(100);
  await again.close();
});

test("a scan that failed is tried again, later each time, and the figures tell of it", async () => {
  const world = await new World().make();
  const index = await world.open(true);
  await index.write(puts(0, 300));
  expect(index.figures()).toMatchObject({ isKeyFilterReady: 1, keyFilterFailedScans: 0 });
  await index.close();
  const waits: number[] = [];
  let goOn: () => void = () => {};
  const held: EngineTimer = {
    nowMs: () => 0,
    after: (delayMs, run) => {
      waits.push(delayMs);
      goOn = run;
    },
  };
  world.failingScans = 8;
  const again = await world.open(false, world.disk, held);
  for (let failure = 1; failure <= 8; failure++) {
    await turns();
    expect(again.figures()).toMatchObject({ isKeyFilterReady: 0, keyFilterFailedScans: failure });
    expect(world.ask(again, 1000, 1100, false)).toBe(100);
    // What comes between two scans is in the index when the next one begins.
    await again.write(puts(300 + failure, 301 + failure));
    goOn();
  }
  await turns();
  expect(again.figures()).toMatchObject({ isKeyFilterReady: 0, keyFilterScannedKeys: 308 });
  goOn();
  await turns();
  expect(again.figures()).toMatchObject({ isKeyFilterReady: 1, keyFilterScannedKeys: 0, keyFilterFailedScans: 8 });
  expect(waits).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 2]);
  expect(world.ask(again, 301, 309, true)).toBe(8);
  expect(world.ask(again, 1000, 2000, false)).toBeLessThan(100);
  await again.close();
});

test("an index is closed between two scans of it that fail", async () => {
  const world = await new World().make();
  await (await world.open(true)).close();
  world.failingScans = Number.POSITIVE_INFINITY;
  const never: EngineTimer = { nowMs: () => 0, after: () => {} };
  const again = await world.open(false, world.disk, never);
  await turns();
  expect(again.figures().keyFilterFailedScans).toBe(1);
  await again.close();
});

test("a filter is not saved into the last of a disk's room", async () => {
  const world = await new World().make();
  const index = await world.open(true, alteredDisk(world.disk, { freeBytes: async () => 100 }));
  await index.write(puts(0, 300));
  await index.checkpoint(CHECKPOINT);
  expect(await world.layers()).toEqual([]);
  expect(Buffer.from(index.readCheckpoint()!)).toEqual(CHECKPOINT);
});

test("where a full disk takes no filter the checkpoint is made without, and the next opening scans", async () => {
  const world = await new World().make();
  const full = Object.assign(new Error("full"), { code: "ENOSPC" });
  const refusing = alteredDisk(world.disk, {
    open: async (path, mode) => {
      const file: DiskFile = await world.disk.open(path, mode);
      return { ...file, size: () => file.size(), close: () => file.close(), write: () => Promise.reject(full) };
    },
  });
  const index = await world.open(true, refusing);
  await index.write(puts(0, 300));
  await index.checkpoint(CHECKPOINT);
  await index.close();
  expect(await world.disk.list(paths.filter)).toEqual([]);
  const again = await world.open(false);
  expect(Buffer.from(again.readCheckpoint()!)).toEqual(CHECKPOINT);
  expect(world.ask(again, 0, 300, true)).toBe(300);
  await turns();
  expect(world.ask(again, 1000, 2000, false)).toBeLessThan(100);
});

test("an index is closed amid a scan, whenever the timer would have gone on", async () => {
  const world = await new World().make();
  const index = await world.open(true);
  await index.write(puts(0, 300));
  await index.close();
  const never: EngineTimer = { nowMs: () => 0, after: () => {} };
  const early = await world.open(false, world.disk, never);
  await early.close();
  const late = await world.open(false, world.disk, never);
  await turns();
  await late.close();
});

test("a disk that fails fails the checkpoint", async () => {
  const world = await new World().make();
  const broken = Object.assign(new Error("broken"), { code: "EIO" });
  const failing = alteredDisk(world.disk, { syncFolder: () => Promise.reject(broken) });
  const index = await world.open(true, failing);
  await index.write(puts(0, 3));
  await expect(index.checkpoint(CHECKPOINT)).rejects.toBe(broken);
});
