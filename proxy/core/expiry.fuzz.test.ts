import fc from "fast-check";
import { expect, test } from "vitest";
import type { Ballot } from "../../common/ballot.ts";
import { dueBefore, dueObjectOf, dueRow, handledRow } from "./expiry.ts";

const RUNS = { seed: 20_265, numRuns: 400 };
const ballot = fc.stringMatching(/^[0-9a-e]{48}$/) as fc.Arbitrary<Ballot>;
const name = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 });
const part = name.filter((text) => !text.includes("/"));

test("a row of the due index names its object again, and comes before exactly the moments at which it is due", () => {
  fc.assert(
    fc.property(
      fc.nat({ max: 9_999_999_999 }),
      part,
      part,
      name,
      ballot,
      (deleteAt, account, container, object, version) => {
        const row = dueRow(deleteAt, `/${account}/${container}/${object}`, version);
        expect(dueObjectOf(row)).toEqual({ deleteAt, account, container, name: object });
        expect(row.name < dueBefore(deleteAt * 1000)).toBe(true);
        expect(row.name < dueBefore(deleteAt * 1000 - 1)).toBe(false);
        const handled = handledRow(row);
        expect(handled.version > row.version).toBe(true);
        expect(handled.version).toMatch(/^[0-9a-f]{48}$/);
      },
    ),
    RUNS,
  );
});

test("any text as a name in the due index names an object or nothing", () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.string({ unit: "grapheme" }), fc.stringMatching(/^\d{10,13}\/[a-z/]{0,20}$/)),
      ballot,
      (text, version) => {
        const due = dueObjectOf({ ...dueRow(1, "/a/b/c", version), name: text });
        if (due === undefined) return;
        expect(dueRow(due.deleteAt, `/${due.account}/${due.container}/${due.name}`, version).name).toBe(text);
      },
    ),
    RUNS,
  );
});
