import fc from "fast-check";
import { expect, test } from "vitest";
import { CHUNK_GRAINS, GRAIN_BYTES, PAGE_BYTES } from "./page.ts";
import { runsOf } from "./runs.ts";

const MIB = 1024 * 1024;

test("a MiB that changed is one chunk, and what lies across two is two", () => {
  const data = { length: MIB, isZero: false };
  expect(runsOf([{ ...data, offset: 5 * MIB }], 0, PAGE_BYTES)).toEqual([{ kind: "data", first: 80, count: 16 }]);
  expect(runsOf([{ ...data, offset: 5 * MIB + 4096 }], 0, PAGE_BYTES)).toEqual([
    { kind: "data", first: 80, count: 16 },
    { kind: "data", first: 96, count: 1 },
  ]);
});

test("what is known to be zeros is not read, but for grains of which it is a part", () => {
  const extents = [{ offset: PAGE_BYTES + 4096, length: 3 * GRAIN_BYTES, isZero: true }];
  expect(runsOf(extents, PAGE_BYTES, PAGE_BYTES)).toEqual([
    { kind: "data", first: 0, count: 1 },
    { kind: "zero", first: 1, count: 2 },
    { kind: "data", first: 3, count: 1 },
  ]);
});

test("a grain in which the volume ends is whole when it is covered as far as the volume goes", () => {
  const limitBytes = GRAIN_BYTES + 512;
  expect(runsOf([{ offset: 0, length: limitBytes, isZero: true }], 0, limitBytes)).toEqual([
    { kind: "zero", first: 0, count: 2 },
  ]);
});

test("every byte that may have changed is in a run, in order, and no run is longer than a chunk or reaches across two", () => {
  const extent = fc.record({
    offset: fc.integer({ min: 0, max: PAGE_BYTES - 1 }),
    length: fc.integer({ min: 1, max: 3 * MIB }),
    isZero: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(extent, { maxLength: 20 }), (extents) => {
      const runs = runsOf(extents, 0, PAGE_BYTES);
      let end = 0;
      for (const { kind, first, count } of runs) {
        expect(first).toBeGreaterThanOrEqual(end);
        end = first + count;
        if (kind === "data")
          expect(Math.floor(first / CHUNK_GRAINS)).toBe(Math.floor((first + count - 1) / CHUNK_GRAINS));
      }
      for (const { offset, length, isZero } of extents) {
        for (const at of [offset, Math.min(offset + length, PAGE_BYTES) - 1]) {
          const grain = Math.floor(at / GRAIN_BYTES);
          const run = runs.find(({ first, count }) => first <= grain && grain < first + count);
          expect(run).toBeDefined();
          if (!isZero) expect(run?.kind).toBe("data");
        }
      }
    }),
  );
});
