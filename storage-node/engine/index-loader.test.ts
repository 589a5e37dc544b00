import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Disk } from "../../common/disk.ts";
import { SimulatedDisk } from "../../common/simulation/disk.ts";
import { alteredDisk } from "./engine-fixture.ts";
import { IndexLoader, type RunSize } from "./index-loader.ts";
import type { IndexOperation } from "./index-port.ts";
import { emptyIndexPlatter, openMemoryIndex } from "./memory-index.ts";
import { realDisk } from "./real-disk.ts";

const RUNS = { seed: 20_265, numRuns: 200 };
const PLENTY = Number.MAX_SAFE_INTEGER;

/** Keys that often meet again, that are prefixes of each other, and that differ only behind their first four bytes. */
const key = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 2, max: 3 }),
  fc.uint8Array({ minLength: 1, maxLength: 2, max: 3 }).map((end) => Buffer.concat([Buffer.from("rows"), end])),
  fc.uint8Array({ minLength: 5, maxLength: 12 }),
);
const operation: fc.Arbitrary<IndexOperation> = fc.oneof(
  fc.record({ type: fc.constant("put" as const), key, value: fc.uint8Array({ maxLength: 20 }) }),
  fc.record({ type: fc.constant("del" as const), key }),
);
const histories = fc.array(fc.array(operation, { maxLength: 30 }), { maxLength: 12 });

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

type Place = { readonly disk: Disk; readonly root: string };
type Loaded = { found: string[]; expected: string[]; seen: string[]; isCounted: boolean; writes: IndexOperation[] };

const simulated = async (): Promise<Place> => {
  const disk = new SimulatedDisk();
  await disk.makeFolder("/device");
  return { disk, root: "/device" };
};

/** Loads a history, the disk having room for `rooms` runs. */
const load = async (
  { disk: inner, root }: Place,
  history: readonly IndexOperation[][],
  size: RunSize,
  rooms: number,
): Promise<Loaded> => {
  let left = rooms;
  const disk = alteredDisk(inner, { freeBytes: async () => (left-- > 0 ? PLENTY : 0) });
  const memory = await openMemoryIndex(emptyIndexPlatter())("/device/index", true);
  const writes: IndexOperation[] = [];
  const write = async (operations: IndexOperation[]): Promise<void> => {
    writes.push(...operations.map((operation) => structuredClone(operation)));
    await memory.write(operations);
  };
  const expected = new Map<string, string>();
  const seen: string[] = [];
  let isCounted = false;
  {
    const place = { disk, root, runs: `${root}/index.runs` };
    await using loader = new IndexLoader(place, { ...memory, write }, size);
    for (const operations of history) {
      await loader.write(operations);
      for (const operation of operations) {
        if (operation.type === "put") expected.set(hex(operation.key), hex(operation.value));
        else expected.delete(hex(operation.key));
      }
    }
    isCounted = await loader.finish((_key, value) => seen.push(hex(value)));
  }
  expect(await inner.list(root)).toEqual([]);
  const cursor = memory.cursor({ gte: Buffer.alloc(0), lt: Buffer.alloc(20, 255), reverse: false });
  const found = (await cursor.next(10_000)).map(([name, value]) => `${hex(name)}=${hex(value)}`);
  const sorted = [...expected].map(([name, value]) => `${name}=${value}`).toSorted();
  return { found: found.toSorted(), expected: sorted, seen, isCounted, writes };
};

test("an index loaded in runs holds of each key the newest operation, written once and in order", async () => {
  await fc.assert(
    fc.asyncProperty(histories, fc.integer({ min: 1, max: 60 }), async (history, keys) => {
      const { found, expected, seen, isCounted, writes } = await load(
        await simulated(),
        history,
        { bytes: 8192, keys },
        PLENTY,
      );
      expect(found).toEqual(expected);
      expect(isCounted).toBe(true);
      expect(seen.toSorted()).toEqual(expected.map((entry) => entry.slice(entry.indexOf("=") + 1)).toSorted());
      const keysWritten = writes.map(({ key: written }) => hex(written));
      expect(keysWritten).toEqual([...new Set(keysWritten)].toSorted());
    }),
    RUNS,
  );
});

test("where the disk has no room for more runs the rest is loaded as it comes, and nothing is missed or brought back", async () => {
  const limits = fc.record({ keys: fc.integer({ min: 1, max: 20 }), rooms: fc.integer({ min: 0, max: 8 }) });
  await fc.assert(
    fc.asyncProperty(histories, limits, async (history, { keys, rooms }) => {
      const { found, expected } = await load(await simulated(), history, { bytes: 8192, keys }, rooms);
      expect(found).toEqual(expected);
    }),
    RUNS,
  );
});

test("runs longer than the windows they are read through are merged whole", async () => {
  const keyOf = (number: number): Uint8Array => Buffer.from(`${Math.imul(number, 2_654_435_761) >>> 0} ${number}`);
  const puts = (version: number): IndexOperation[] =>
    Array.from({ length: 6000 }, (_, number) => ({
      type: "put",
      key: keyOf(number),
      value: Buffer.alloc(300, version),
    }));
  const dels = Array.from({ length: 1000 }, (_, number): IndexOperation => ({ type: "del", key: keyOf(number * 5) }));
  const root = mkdtempSync(join(tmpdir(), "ringstead-runs-"));
  try {
    const size = { bytes: 700_000, keys: 4000 };
    const { found, expected, writes } = await load({ disk: realDisk, root }, [puts(1), puts(2), dels], size, PLENTY);
    expect(found).toEqual(expected);
    expect(writes.length).toBe(5000);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("once the rest goes to the index as it comes, the runs take no space any more", async () => {
  const inner = new SimulatedDisk();
  await inner.makeFolder("/device");
  let hasRoom = true;
  const disk = alteredDisk(inner, { freeBytes: async () => (hasRoom ? PLENTY : 0) });
  const memory = await openMemoryIndex(emptyIndexPlatter())("/device/index", true);
  const place = { disk, root: "/device", runs: "/device/index.runs" };
  await using loader = new IndexLoader(place, memory, { bytes: 8192, keys: 4 });
  const puts = Array.from(
    { length: 6 },
    (_, at): IndexOperation => ({ type: "put", key: Buffer.of(at), value: Buffer.of(at) }),
  );
  await loader.write(puts);
  expect(await inner.list("/device")).toEqual(["index.runs"]);
  hasRoom = false;
  await loader.write(puts);
  expect(await inner.list("/device")).toEqual([]);
  expect(await loader.finish(() => {})).toBe(false);
  for (const { key } of puts) expect(memory.get(key)).toBeDefined();
});

test("a disk that is full although it said otherwise takes no runs, and the index gets everything", async () => {
  const inner = new SimulatedDisk();
  await inner.makeFolder("/device");
  const full = Object.assign(new Error("full"), { code: "ENOSPC" });
  const disk = alteredDisk(inner, { freeBytes: async () => PLENTY, open: () => Promise.reject(full) });
  const memory = await openMemoryIndex(emptyIndexPlatter())("/device/index", true);
  const place = { disk, root: "/device", runs: "/device/index.runs" };
  await using loader = new IndexLoader(place, memory, { bytes: 8192, keys: 4 });
  const puts = Array.from(
    { length: 9 },
    (_, at): IndexOperation => ({ type: "put", key: Buffer.of(at), value: Buffer.of(at) }),
  );
  await loader.write(puts);
  await loader.finish(() => {});
  for (const { key } of puts) expect(memory.get(key)).toBeDefined();
});

test("a run of one container is sorted in turns between which others come, and its memory is given back before the merge", async () => {
  const inner = new SimulatedDisk();
  await inner.makeFolder("/device");
  const disk = alteredDisk(inner, { freeBytes: async () => PLENTY });
  const memory = await openMemoryIndex(emptyIndexPlatter())("/device/index", true);
  const found: string[] = [];
  let memoryAtMerge = 0;
  const write = async (operations: IndexOperation[]): Promise<void> => {
    memoryAtMerge ||= process.memoryUsage().arrayBuffers;
    found.push(...operations.map(({ key: written }) => Buffer.from(written).toString()));
  };
  const bytes = 64 * 1024 * 1024;
  const place = { disk, root: "/device", runs: "/device/index.runs" };
  await using loader = new IndexLoader(place, { ...memory, write }, { bytes, keys: 100_000 });
  const nameOf = (number: number): string => `rows ${String(Math.imul(number, 2_654_435_761) >>> 0).padStart(10, "0")}`;
  const names = Array.from({ length: 100_000 }, (_, number) => nameOf(number % 90_000));
  await loader.write(names.map((name) => ({ type: "put", key: Buffer.from(name), value: Buffer.alloc(1) })));
  let turns = 0;
  let isSorting = true;
  const count = (): void => {
    turns++;
    if (isSorting) setImmediate(count);
  };
  setImmediate(count);
  // The arena is full: one more makes a run of it.
  await loader.write([{ type: "put", key: Buffer.from("rows 9"), value: Buffer.alloc(1) }]);
  isSorting = false;
  // A piece of 8,192 at a time, and four merges of them in parts of 32,768.
  expect(turns).toBeGreaterThan(100_000 / 8192 + (4 * 100_000) / 32_768);
  const memoryBefore = process.memoryUsage().arrayBuffers;
  await loader.finish(() => {});
  expect(memoryBefore - memoryAtMerge).toBeGreaterThan(bytes / 2);
  expect(found).toEqual([...new Set([...names, "rows 9"])].toSorted());
});
