import { expect, test } from "vitest";
import type { Incarnation } from "../../common/ballot.ts";
import { changeOfSizes } from "./shard-sizes.ts";
import { mergeOf, splitAt } from "./shard-change.ts";
import { rangeOfName, replaced, shardName, shardPlaceOf } from "./shard-ranges.ts";

const INDEX = [
  { upTo: "b", id: "1" },
  { upTo: "m", id: "2" },
  { upTo: "", id: "3" },
];

test("a name belongs to the first range that ends at or behind it", () => {
  expect(["", "a", "b", "b\0", "m", "z"].map((name) => rangeOfName(INDEX, name).id)).toEqual([
    "1",
    "1",
    "1",
    "2",
    "2",
    "3",
  ]);
});

test("neighbours are replaced where they stood", () => {
  const to = [{ upTo: "m", id: "4" }];
  expect(replaced(INDEX, ["1", "2"], to)).toEqual([...to, INDEX[2]]);
  const halves = [
    { upTo: "x", id: "5" },
    { upTo: "", id: "6" },
  ];
  expect(replaced(INDEX, ["3"], halves)).toEqual([INDEX[0], INDEX[1], ...halves]);
});

test("a range is cut only at a name within it, and merged only with a right neighbour", () => {
  expect(splitAt("2", "c")(INDEX)).toEqual({ from: ["2"], pivots: ["c"] });
  for (const pivot of ["b", "a", "m", "z"]) expect(splitAt("2", pivot)(INDEX), pivot).toBeUndefined();
  expect(splitAt("3", "z")(INDEX)).toEqual({ from: ["3"], pivots: ["z"] });
  expect(splitAt("9", "c")(INDEX)).toBeUndefined();
  expect(mergeOf("1")(INDEX)).toEqual({ from: ["1", "2"], pivots: [] });
  expect(mergeOf("3")(INDEX)).toBeUndefined();
});

test("a shard's name tells what it is one of, whatever the container is called", () => {
  const life = "0123456789abcdef01234567" as Incarnation;
  const id = "fedcba9876543210fedcba980";
  for (const container of ["c", "a-b", "-", "\u{1f600} \n"]) {
    const name = shardName(container, life, id);
    expect(shardPlaceOf(".shards_AUTH_x", name)).toEqual({ account: "AUTH_x", container, incarnation: life, id });
    expect(shardPlaceOf("AUTH_x", name)).toBeUndefined();
  }
  expect(shardPlaceOf(".shards_AUTH_x", "c")).toBeUndefined();
});

const sized = (...rows: readonly number[]) =>
  rows.map((count, at) => ({ upTo: at === rows.length - 1 ? "" : `${at}`, id: `${at}`, rows: count }));

test("the largest listing above the limit is split first, then small neighbours are merged, and halves are never merged again", () => {
  expect(changeOfSizes(sized(1000), 1000)).toBeUndefined();
  expect(changeOfSizes(sized(900, 1001, 2000), 1000)).toEqual({ kind: "split", id: "2", rows: 2000 });
  expect(changeOfSizes(sized(300, 100, 100, 10), 1000)).toEqual({ kind: "merge", id: "1" });
  expect(changeOfSizes(sized(500, 501), 1000)).toBeUndefined();
  expect(changeOfSizes(sized(3), 1000)).toBeUndefined();
  expect(changeOfSizes([], 1000)).toBeUndefined();
});
