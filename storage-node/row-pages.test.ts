import fc from "fast-check";
import { expect, test } from "vitest";
import { PAGE_ROWS, type ReadRows, RowPages, type RowRun } from "./row-pages.ts";

/** Rows as they would lie in an engine; a read takes a turn, as there. */
class Rows {
  readonly names = new Set<string>();
  reads = 0;

  readonly read: ReadRows = async (from, to, limit) => {
    this.reads += 1;
    const names = [...this.names]
      .filter((name) => name >= from && (to === undefined || name < to))
      .toSorted()
      .slice(0, limit);
    await Promise.resolve();
    const runs: RowRun[] = [];
    for (let at = 0; at < names.length; at += PAGE_ROWS) runs.push(runOf(names.slice(at, at + PAGE_ROWS)));
    return runs;
  };

  expected(from: string, to: string | undefined, limit: number): string {
    const found = [...this.names].filter((name) => name >= from && (to === undefined || name < to)).toSorted();
    return found
      .slice(0, limit)
      .map((name) => `${name};`)
      .join("");
  }
}

const runOf = (names: readonly string[]): RowRun => {
  const parts = names.map((name) => Buffer.from(`${name};`, "latin1"));
  const offsets = [0];
  for (const part of parts) offsets.push((offsets.at(-1) ?? 0) + part.length);
  return { names, packed: Buffer.concat(parts), offsets };
};

const nameOf = (number: number): string => `n${String(number).padStart(4, "0")}`;

test("a listing through pages is the listing of the engine, whatever changes in between", async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("add" as const), number: fc.nat(2000) }),
    fc.record({ kind: fc.constant("remove" as const), number: fc.nat(2000) }),
    fc.record({
      kind: fc.constant("list" as const),
      from: fc.option(fc.nat(2000), { nil: undefined }),
      to: fc.option(fc.nat(2000), { nil: undefined }),
      limit: fc.integer({ min: 1, max: 1500 }),
    }),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(2000), { maxLength: 1500 }),
      fc.array(step, { maxLength: 60 }),
      async (first, steps) => {
        const rows = new Rows();
        const pages = new RowPages();
        for (const number of first) rows.names.add(nameOf(number));
        for (const change of steps) {
          if (change.kind === "list") {
            const from = change.from === undefined ? "" : nameOf(change.from);
            const to = change.to === undefined ? undefined : nameOf(change.to);
            const listed = await pages.list("o", from, to, change.limit, rows.read);
            expect(Buffer.concat(listed).toString("latin1")).toBe(rows.expected(from, to, change.limit));
            continue;
          }
          if (change.kind === "add") rows.names.add(nameOf(change.number));
          else rows.names.delete(nameOf(change.number));
          pages.touch("o", nameOf(change.number));
        }
      },
    ),
    { numRuns: 200 },
  );
});

test("a row that changes while its page is read is seen by the next listing", async () => {
  const rows = new Rows();
  const pages = new RowPages();
  rows.names.add("a");
  const listing = pages.list("o", "", undefined, 10, rows.read);
  rows.names.add("b");
  pages.touch("o", "b");
  await listing;
  expect(Buffer.concat(await pages.list("o", "", undefined, 10, rows.read)).toString()).toBe("a;b;");
});

test("after a change of one row one page is read anew", async () => {
  const rows = new Rows();
  const pages = new RowPages();
  for (let number = 0; number < 10_000; number++) rows.names.add(nameOf(number));
  await pages.list("o", "", undefined, 10_000, rows.read);
  const before = rows.reads;
  pages.touch("o", nameOf(5000));
  await pages.list("o", "", undefined, 10_000, rows.read);
  expect(rows.reads - before).toBe(1);
});

test("what is kept stays within its bound, and listings stay right beyond it", async () => {
  const rows = new Rows();
  const pages = new RowPages();
  for (let number = 0; number < 300; number++) rows.names.add(`${nameOf(number)}${"x".repeat(1000)}`);
  for (let owner = 0; owner < 40; owner++) {
    const listed = await pages.list(`o${owner}`, "", undefined, 10_000, rows.read);
    expect(Buffer.concat(listed).length).toBe(rows.expected("", undefined, 10_000).length);
  }
  const before = rows.reads;
  await pages.list("o39", "", undefined, 10_000, rows.read);
  expect(rows.reads).toBe(before);
  await pages.list("o0", "", undefined, 10_000, rows.read);
  expect(rows.reads).toBeGreaterThan(before);
});

test("a listing that pushes itself out while it is kept leaves nothing counted", async () => {
  const rows = new Rows();
  const pages = new RowPages();
  for (let number = 0; number < 2400; number++) rows.names.add(`${nameOf(number)}${"x".repeat(1000)}`);
  for (let round = 0; round < 20; round++) {
    // The older of two listings at once is the first to go.
    const older = pages.list(`a${round}`, "", undefined, 10_000, rows.read);
    const newer = pages.list(`b${round}`, "", undefined, 10_000, rows.read);
    await Promise.all([older, newer]);
  }
  rows.names.clear();
  for (let number = 0; number < 100; number++) rows.names.add(nameOf(number));
  await pages.list("small", "", undefined, 10_000, rows.read);
  const before = rows.reads;
  await pages.list("small", "", undefined, 10_000, rows.read);
  expect(rows.reads).toBe(before);
});

test("a listing of a range reads nothing behind it", async () => {
  const rows = new Rows();
  const pages = new RowPages();
  for (let number = 0; number < 2000; number++) rows.names.add(nameOf(number));
  let rowsRead = 0;
  const counting: ReadRows = async (from, to, limit) => {
    const runs = await rows.read(from, to, limit);
    for (const run of runs) rowsRead += run.names.length;
    return runs;
  };
  await pages.list("o", nameOf(100), nameOf(110), 10_000, counting);
  expect(rowsRead).toBe(10);
});
