import fc from "fast-check";
import { expect, test } from "vitest";
import { type Change, changedPage, PAGE_GRAINS, type Page } from "./page.ts";

const name = (index: number): string => index.toString(16).padStart(64, "0");

/** Which grain of which chunk each grain of the page is; the model that pages are an abbreviation of. */
const grainsOf = (page: Page): readonly string[] => {
  const grains = Array.from({ length: PAGE_GRAINS }, () => "zeros");
  for (const { first, count, chunk, chunkFirst } of page)
    for (let index = 0; index < count; index++) grains[first + index] = `${chunk}:${chunkFirst + index}`;
  return grains;
};

const changes = fc.array(
  fc.record({
    first: fc.integer({ min: 0, max: PAGE_GRAINS - 16 }),
    count: fc.integer({ min: 1, max: 16 }),
    chunk: fc.option(fc.integer({ min: 1, max: 50 }).map(name), { nil: undefined }),
  }),
  { maxLength: 60 },
);

test("a page after changes holds what was changed last, and what it held before everywhere else", () => {
  fc.assert(
    fc.property(changes, changes, (first: Change[], second: Change[]) => {
      const before = changedPage([], first);
      const after = changedPage(before, second);
      const expected = [...grainsOf(before)];
      for (const change of second)
        for (let index = 0; index < change.count; index++)
          expected[change.first + index] = change.chunk === undefined ? "zeros" : `${change.chunk}:${index}`;
      expect(grainsOf(after)).toEqual(expected);
      for (const [index, piece] of after.entries()) {
        const previous = after[index - 1];
        expect(piece.first).toBeGreaterThanOrEqual(previous === undefined ? 0 : previous.first + previous.count);
      }
    }),
  );
});
