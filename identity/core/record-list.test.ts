import { expect, test } from "vitest";
import { listPart } from "./record-list.ts";

type Item = { readonly id: string; readonly name: string; readonly size: number | null };
const ITEMS: readonly Item[] = [
  { id: "1", name: "b", size: 3 },
  { id: "2", name: "a", size: null },
  { id: "3", name: "B", size: 1 },
  { id: "4", name: "a", size: 2 },
];
const WHOLE = { conditions: [], sortColumn: "id", descending: false, limit: 10, marker: undefined };
type Query = Parameters<typeof listPart<Item>>[1];
const ids = (change: Partial<Query>): string[] =>
  listPart(ITEMS, { ...WHOLE, ...change }, (item, name) =>
    name === "id" || name === "name" || name === "size" ? item[name] : null,
  ).map(({ id }) => id);
const where = (column: string, comparison: Query["conditions"][number]["comparison"], value: string | number | null) =>
  ids({ conditions: [{ column, comparison, value }] });

test("items are in the order that is asked for, and by id where that is the same", () => {
  expect(ids({ sortColumn: "name" })).toEqual(["3", "2", "4", "1"]);
  expect(ids({ sortColumn: "name", descending: true })).toEqual(["1", "4", "2", "3"]);
  expect(ids({ sortColumn: "name", marker: "2", limit: 1 })).toEqual(["4"]);
  expect(ids({ marker: "nowhere" })).toEqual([]);
});

test("a marker that no condition fits is a place all the same", () => {
  expect(ids({ conditions: [{ column: "size", comparison: "gte", value: 2 }], marker: "2" })).toEqual(["4"]);
});

test("what is not known fits no comparison but that with null", () => {
  expect([where("size", "lt", 3), where("size", "neq", 3), where("size", "gte", 1)]).toEqual([
    ["3", "4"],
    ["3", "4"],
    ["1", "3", "4"],
  ]);
  expect([where("size", "equals", null), where("size", "neq", null)]).toEqual([["2"], ["1", "3", "4"]]);
  expect([where("none", "equals", "x"), where("none", "contains", "")]).toEqual([[], []]);
});
