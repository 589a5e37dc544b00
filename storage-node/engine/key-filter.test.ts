import fc from "fast-check";
import { expect, test } from "vitest";
import { FilterLayer, KeyFilter, defaultFilterSize } from "./key-filter.ts";
import {
  FILTER_PIECE_BYTES,
  decodeFilterFile,
  encodeFilterHeader,
  filterPieceSum,
  filterPieces,
  readStamp,
  stampCheckpoint,
} from "./key-filter-format.ts";

const SEED = 0x5eedn;
const RUNS = { seed: 20_264, numRuns: 200 };

const LIFE = 0x11fe;
const HEADER_BYTES = 4096;
const numberedKey = (number: number): Uint8Array => {
  const key = Buffer.alloc(40, 97);
  key.writeUInt32BE(number, 30);
  return key;
};

/** The file as `FilterFiles` writes it. */
const fileOf = (layer: FilterLayer): Uint8Array => {
  const pieces = filterPieces(layer);
  const sums = pieces.map(({ bytes }) => filterPieceSum(bytes, SEED));
  return Buffer.concat([encodeFilterHeader(layer, layer.count, sums, SEED), ...pieces.map(({ bytes }) => bytes)]);
};

test("a filter never denies a key that was added", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 300 }), (keys) => {
      const filter = new KeyFilter({ firstKeys: 32, maxKeys: 64 }, LIFE);
      for (const key of keys) filter.add(key);
      expect(keys.every((key) => filter.mayHave(key))).toBe(true);
    }),
    RUNS,
  );
});

test("of a million keys that were never added a filter with a million others denies all but 3 %", () => {
  const filter = new KeyFilter(defaultFilterSize, LIFE);
  for (let number = 0; number < 1_000_000; number++) filter.add(numberedKey(number));
  let wrong = 0;
  for (let number = 1_000_000; number < 2_000_000; number++) if (filter.mayHave(numberedKey(number))) wrong++;
  expect(wrong).toBeLessThan(30_000);
  expect(filter.layers.map(({ capacity }) => capacity)).toEqual([14, 15, 16, 17, 18, 19].map((power) => 2 ** power));
  expect(filter.count).toBeGreaterThan(980_000);
});

test("layers double up to the largest and keep their numbers", () => {
  const filter = new KeyFilter({ firstKeys: 32, maxKeys: 64 }, LIFE);
  for (let number = 0; number < 300; number++) filter.add(numberedKey(number));
  const shapes = filter.layers.map(({ number, capacity }) => [number, capacity]);
  expect(shapes.slice(0, 4)).toEqual([
    [0, 32],
    [1, 64],
    [2, 64],
    [3, 64],
  ]);
});

test("a filter goes on from layers that were kept", () => {
  const filter = new KeyFilter({ firstKeys: 32, maxKeys: 64 }, LIFE);
  for (let number = 0; number < 100; number++) filter.add(numberedKey(number));
  const kept = filter.layers.map((layer) => decodeFilterFile(fileOf(layer), SEED));
  const layers = kept.filter((layer) => layer !== undefined);
  expect(layers.length).toBe(filter.layers.length);
  const again = new KeyFilter({ firstKeys: 32, maxKeys: 64 }, LIFE, layers);
  expect(again.count).toBe(filter.count);
  for (let number = 100; number < 200; number++) again.add(numberedKey(number));
  for (let number = 0; number < 200; number++) expect(again.mayHave(numberedKey(number))).toBe(true);
});

test("a layer's file is what FORMAT.md says", () => {
  const layer = new FilterLayer(LIFE, 7, 32);
  layer.add(0, 0x00500003);
  const file = fileOf(layer);
  expect(file.length).toBe(HEADER_BYTES + 64);
  expect(Buffer.from(file.subarray(0, 48)).toString("hex")).toMatchInlineSnapshot(
    `"f84b08866e59fd545253464c01000000070000002000000001000000fe110000f545d5a6d62e45710000000000000000"`,
  );
  expect(Buffer.from(file.subarray(HEADER_BYTES)).toString("hex")).toMatchInlineSnapshot(
    `"08218410000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"`,
  );
});

test("a layer larger than a piece is read back whole", () => {
  const layer = new FilterLayer(LIFE, 1, 262_144);
  for (let number = 0; number < 1000; number++) layer.add(number * 2_654_435, number);
  expect(filterPieces(layer).map(({ bytes }) => bytes.length)).toEqual([FILTER_PIECE_BYTES, FILTER_PIECE_BYTES]);
  const decoded = decodeFilterFile(fileOf(layer), SEED);
  expect(decoded?.words).toEqual(layer.words);
  expect(decoded?.count).toBe(1000);
});

test("any bytes are a layer's file or none, and an altered one is none", () => {
  const changes = fc.record({ at: fc.nat(), by: fc.integer({ min: 1, max: 255 }), end: fc.nat() });
  const noise = fc.uint8Array({ maxLength: 5000 });
  fc.assert(
    fc.property(fc.array(fc.nat(), { maxLength: 40 }), changes, noise, (keys, { at, by, end }, bytes) => {
      const layer = new FilterLayer(LIFE, 3, 64);
      for (const key of keys) layer.add(key, Math.imul(key, 40_503));
      const file = fileOf(layer);
      expect(decodeFilterFile(file, SEED)?.words).toEqual(layer.words);
      const altered = Uint8Array.from(file);
      altered[at % file.length] = (altered[at % file.length] ?? 0) ^ by;
      expect(decodeFilterFile(altered, SEED)).toBeUndefined();
      expect(decodeFilterFile(file.subarray(0, end % file.length), SEED)).toBeUndefined();
      expect(decodeFilterFile(file, SEED + 1n)).toBeUndefined();
      expect(decodeFilterFile(bytes, SEED)).toBeUndefined();
    }),
    RUNS,
  );
});

test("a stamp is what FORMAT.md says", () => {
  const stored = stampCheckpoint({ life: LIFE, counts: [5, 6] }, Buffer.from("cp"));
  expect(Buffer.from(stored).toString("hex")).toMatchInlineSnapshot(
    `"74d4de331434695b5253465301000000fe1100000200000005000000060000006370"`,
  );
});

test("a checkpoint comes back from under its stamp, and a damaged stamp names no filter", () => {
  const u32 = fc.nat({ max: 0xffffffff });
  const stamps = fc.record({ life: u32, counts: fc.array(u32, { maxLength: 5 }) });
  const changes = fc.record({ at: fc.nat(), by: fc.integer({ min: 1, max: 255 }) });
  fc.assert(
    fc.property(stamps, fc.uint8Array({ maxLength: 60 }), changes, (stamp, checkpoint, { at, by }) => {
      const stored = stampCheckpoint(stamp, checkpoint);
      const read = readStamp(stored);
      expect(read.stamp).toEqual(stamp);
      expect(Buffer.from(read.checkpoint)).toEqual(Buffer.from(checkpoint));
      expect(readStamp(checkpoint)).toEqual({ stamp: undefined, checkpoint });
      const altered = Uint8Array.from(stored);
      const place = at % (stored.length - checkpoint.length);
      altered[place] = (altered[place] ?? 0) ^ by;
      expect(readStamp(altered).stamp).toBeUndefined();
    }),
    RUNS,
  );
});
