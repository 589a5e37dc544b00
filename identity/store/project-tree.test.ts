import { expect, test } from "vitest";
import { parentIds, subtreeIds } from "./project-tree.ts";

test("parents are a chain of ids that ends at the domain", () => {
  expect(parentIds([{ id: "b" }, { id: "a" }, { id: "domain" }])).toEqual({ b: { a: { domain: null } } });
  expect(parentIds([])).toBeNull();
});

test("a subtree is a tree of ids whose leaves are null", () => {
  const below = [
    { id: "b", parent_id: "a" },
    { id: "c", parent_id: "a" },
    { id: "d", parent_id: "b" },
  ];
  expect(subtreeIds("a", below)).toEqual({ b: { d: null }, c: null });
  expect(subtreeIds("d", below)).toBeNull();
});
