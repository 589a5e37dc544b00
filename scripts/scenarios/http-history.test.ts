import { expect, test } from "vitest";
import { failuresOf, type HttpOperation, orderOfObject, problemsOf } from "./http-history.ts";

type Said = Partial<HttpOperation> & Pick<HttpOperation, "kind" | "start" | "end">;

const said = (operation: Said): HttpOperation => ({ name: "a", value: "", status: 200, door: 0, ...operation });
const put = (start: number, end: number, value: string, status = 201): HttpOperation =>
  said({ kind: "put", start, end, value, status });
const unanswered = (operation: HttpOperation): HttpOperation => ({ ...operation, status: undefined });
const remove = (start: number, end: number, status = 204): HttpOperation =>
  said({ kind: "delete", start, end, status });
const read = (start: number, end: number, value: string): HttpOperation =>
  said({ kind: "read", start, end, value, status: value === "" ? 404 : 200 });
const list = (start: number, end: number, value?: string): HttpOperation =>
  said({ kind: "list", name: "", start, end, rows: value === undefined ? {} : { a: value } });

test("a stale read, a lost write and a write that comes back are no history of a register", () => {
  const written = [put(0, 1, "one"), put(2, 3, "two")];
  expect(orderOfObject([...written, read(4, 5, "two")], "a")).toBe("possible");
  expect(orderOfObject([...written, read(4, 5, "one")], "a")).toBe("impossible");
  expect(orderOfObject([...written, read(4, 5, "")], "a")).toBe("impossible");
  expect(orderOfObject([...written, remove(4, 5), read(6, 7, "two")], "a")).toBe("impossible");
  const twice = [put(0, 1, "one", 503), read(2, 3, "one"), put(4, 5, "two"), read(6, 7, "one")];
  expect(orderOfObject(twice, "a")).toBe("impossible");
});

test("two that both created what was not there are no history of a register", () => {
  const creation = (value: string, status: number): HttpOperation =>
    said({ kind: "create", start: 0, end: 9, value, status });
  expect(orderOfObject([creation("one", 201), creation("two", 412)], "a")).toBe("possible");
  expect(orderOfObject([creation("one", 201), creation("two", 201)], "a")).toBe("impossible");
});

test("a write that was answered 503, or not at all, may have happened, at any later time, or never", () => {
  const refused = put(2, 3, "two", 503);
  for (const second of [refused, unanswered(refused)])
    for (const value of ["one", "two"])
      expect(orderOfObject([put(0, 1, "one"), second, read(9, 10, value)], "a")).toBe("possible");
});

test("a listing that lacks what was written, or shows what was replaced or deleted before it, is told", () => {
  const written = [put(0, 1, "one"), put(2, 3, "two")];
  expect(problemsOf([...written, list(4, 5, "two")])).toEqual([]);
  expect(problemsOf([...written, list(4, 5, "one")])).toEqual([expect.stringContaining("shows a as one")]);
  expect(problemsOf([...written, list(4, 5)])).toEqual([expect.stringContaining("lacks a")]);
  expect(problemsOf([...written, remove(4, 5), list(6, 7, "two")])).toEqual([
    expect.stringContaining("shows a as two"),
  ]);
  expect(problemsOf([...written, remove(4, 9), list(6, 7, "two")])).toEqual([]);
  expect(problemsOf([...written, remove(4, 9, 503), list(16, 17)])).toEqual([]);
  expect(problemsOf([list(4, 5, "nobody's")])).toEqual([expect.stringContaining("shows a as nobody's")]);
});

test("an answer that nothing explains is told; 503 and 507 are failures, and answers", () => {
  const odd = put(0, 1, "one", 500);
  expect(problemsOf([odd])).toEqual([expect.stringContaining("answered 500")]);
  expect(problemsOf([put(0, 1, "one", 503), put(0, 1, "two", 507)])).toEqual([]);
  expect(failuresOf([odd, put(0, 1, "one", 507), put(2, 3, "two"), unanswered(put(3, 4, "three"))])).toHaveLength(3);
  const damaged = said({ kind: "read", start: 3, end: 4, value: "two", complaint: "bytes of another object" });
  expect(problemsOf([put(0, 1, "two"), damaged])).toEqual(["read of a: bytes of another object"]);
});
