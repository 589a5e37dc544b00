import { expect, test } from "vitest";
import type { Ballot } from "../common/ballot.ts";
import { RingsteadError } from "../common/errors.ts";
import { seededRandom } from "../common/random.ts";
import type { DeviceEngine, Mutation } from "./engine/device-engine.ts";
import { DeviceFixture } from "./engine/engine-fixture.ts";
import { MemoryDevice } from "./engine/memory-device.ts";
import { RowSpace } from "./row-space.ts";
import { decodeCounters } from "./store/counters-format.ts";
import { countersKey, rowKey } from "./store/keys.ts";
import type { Name, Row, RowSummary } from "./wire.ts";

const seeds = [3n, 5n] as const;
const owner: Name = { space: "container", hash32: 7, path: "/a/c" };
const rowOf = (name: string, version: number, isDeleted = false): Row => ({
  name,
  version: version.toString(16).padStart(48, "0") as Ballot,
  isDeleted,
  objects: isDeleted ? 0 : 1,
  bytes: isDeleted ? 0 : version,
  payload: Buffer.from(name),
});
const memoryDevice = (): MemoryDevice => new MemoryDevice((done) => setImmediate(done));

/** The summary that a fresh row space with the same live rows has. */
const summaryOf = async (rows: Iterable<Row>): Promise<RowSummary> => {
  await using device = memoryDevice();
  const space = new RowSpace(device, seeds);
  for (const row of rows) await space.put(owner, row);
  return space.summary(owner);
};

const deletedRowsIn = (engine: DeviceEngine): number | undefined => {
  const entry = engine.get(countersKey(owner));
  return entry && decodeCounters(entry.value)?.deletedRows;
};

test("statistics and the count of deleted rows stay exact through random puts, deletes, old versions and reopening", async () => {
  await using fixture = new DeviceFixture();
  let space = new RowSpace(await fixture.open(), seeds);
  const random = seededRandom(11n);
  const newest = new Map<string, Row>();
  for (let round = 0; round < 6; round++) {
    const replies: Promise<unknown>[] = [];
    for (let count = 0; count < 200; count++) {
      const row = rowOf(`r${random.below(30)}`, 1 + random.below(2000), random.below(3) === 0);
      const known = newest.get(row.name);
      if (known === undefined || known.version < row.version) newest.set(row.name, row);
      replies.push(space.put(owner, row));
    }
    await Promise.all(replies);
    const live = [...newest.values()].filter(({ isDeleted }) => !isDeleted);
    expect(space.summary(owner)).toEqual(await summaryOf(live));
    const device = await fixture.reopen();
    space = new RowSpace(device, seeds);
    expect(space.summary(owner)).toEqual(await summaryOf(live));
    expect(deletedRowsIn(device)).toBe(newest.size - live.length);
  }
});

test("a refused commit leaves the statistics as they were", async () => {
  await using device = memoryDevice();
  let isFull = false;
  const engine: DeviceEngine = {
    state: () => device.state(),
    requireRoom: () => device.requireRoom(),
    get: (key) => device.get(key),
    durable: (key) => device.durable(key),
    sync: () => device.sync(),
    readBody: (...read) => device.readBody(...read),
    stage: () => device.stage(),
    scan: (range) => device.scan(range),
    scanPages: (range) => device.scanPages(range),
    figures: () => device.figures(),
    digests: device.digests,
    scrub: device.scrub,
    apply: (mutations: readonly Mutation[]) =>
      isFull ? Promise.reject(new RingsteadError("device-full", "the device is full")) : device.apply(mutations),
    [Symbol.asyncDispose]: () => device[Symbol.asyncDispose](),
  };
  const space = new RowSpace(engine, seeds);
  await space.put(owner, rowOf("a", 1));
  isFull = true;
  await expect(space.put(owner, rowOf("b", 2))).rejects.toMatchObject({ code: "device-full" });
  await expect(space.put(owner, rowOf("a", 3, true))).rejects.toMatchObject({ code: "device-full" });
  expect(space.summary(owner)).toEqual(await summaryOf([rowOf("a", 1)]));
  isFull = false;
  await space.put(owner, rowOf("b", 2));
  expect(space.summary(owner)).toEqual(await summaryOf([rowOf("a", 1), rowOf("b", 2)]));
});

test("deleted rows are looked up only where there are some, and an older put stays beneath them", async () => {
  await using device = memoryDevice();
  const space = new RowSpace(device, seeds);
  let lookups = 0;
  const deletedKey = Buffer.from(rowKey(owner, "a", true)).toString("latin1");
  const get = device.get.bind(device);
  device.get = (key) => {
    if (Buffer.from(key).toString("latin1") === deletedKey) lookups++;
    return get(key);
  };
  await space.put(owner, rowOf("a", 1));
  await space.put(owner, rowOf("a", 5, true));
  expect(lookups).toBe(0);
  await space.put(owner, rowOf("a", 3));
  expect(lookups).toBe(1);
  expect(space.summary(owner).rows).toBe(0);
  await space.put(owner, rowOf("a", 6));
  expect(lookups).toBe(2);
  expect(deletedRowsIn(device)).toBe(0);
  await space.put(owner, rowOf("a", 7));
  expect(lookups).toBe(2);
  expect(space.summary(owner)).toEqual(await summaryOf([rowOf("a", 7)]));
});

test("counters of format 1, which do not tell of deleted rows, make every row look for them", async () => {
  await using device = memoryDevice();
  const format1 = Buffer.alloc(33);
  format1[0] = 1;
  const none = { kind: "none" } as const;
  await device.apply([{ kind: "put", key: countersKey(owner), value: format1, body: none }]);
  const before = new RowSpace(device, seeds);
  await before.put(owner, rowOf("a", 5, true));
  const space = new RowSpace(device, seeds);
  await space.put(owner, rowOf("a", 3));
  expect(space.summary(owner).rows).toBe(0);
  await space.put(owner, rowOf("a", 6));
  expect(space.summary(owner).rows).toBe(1);
});

test("counters that cannot be decoded are told, not counted on from nothing", async () => {
  await using device = memoryDevice();
  const none = { kind: "none" } as const;
  await device.apply([{ kind: "put", key: countersKey(owner), value: Buffer.from("no counters"), body: none }]);
  const space = new RowSpace(device, seeds);
  await expect(space.put(owner, rowOf("a", 1))).rejects.toMatchObject({ code: "counters-damaged" });
});
