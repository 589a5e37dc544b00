import { expect, test } from "vitest";
import { judgeRead, parseRange, requireWriteConditions } from "./conditions.ts";

const none = { ifMatch: undefined, ifNoneMatch: undefined, ifModifiedSince: undefined, ifUnmodifiedSince: undefined };
const present = { etag: "abc", modifiedSeconds: 1_700_000_000 };

test("If-None-Match outranks If-Modified-Since, and a quoted, weak or listed tag matches", () => {
  const stale = "Tue, 14 Nov 2000 00:00:00 GMT";
  expect(judgeRead({ ...none, ifNoneMatch: '"abc"' }, present)).toBe("not-modified");
  expect(judgeRead({ ...none, ifNoneMatch: 'W/"abc"' }, present)).toBe("not-modified");
  expect(judgeRead({ ...none, ifNoneMatch: '"x", "abc"' }, present)).toBe("not-modified");
  expect(judgeRead({ ...none, ifNoneMatch: '"x"', ifModifiedSince: new Date().toUTCString() }, present)).toBe("go-on");
  expect(judgeRead({ ...none, ifModifiedSince: stale }, present)).toBe("go-on");
  expect(judgeRead({ ...none, ifUnmodifiedSince: stale }, present)).toBe("precondition-failed");
  expect(judgeRead({ ...none, ifModifiedSince: "no date" }, present)).toBe("go-on");
});

test("a write with If-None-Match: * is refused where something is, one with If-Match where nothing is", () => {
  expect(() => requireWriteConditions({ ...none, ifNoneMatch: "*" }, present)).toThrow("precondition");
  expect(() => requireWriteConditions({ ...none, ifNoneMatch: "*" }, undefined)).not.toThrow();
  expect(() => requireWriteConditions({ ...none, ifMatch: "*" }, undefined)).toThrow("precondition");
});

test("ranges are cut to the object, and malformed ones are ignored", () => {
  expect(parseRange("bytes=0-4", 10)).toEqual([{ first: 0, last: 4 }]);
  expect(parseRange("bytes=5-", 10)).toEqual([{ first: 5, last: 9 }]);
  expect(parseRange("bytes=-3", 10)).toEqual([{ first: 7, last: 9 }]);
  expect(parseRange("bytes=-30, 2-99", 10)).toEqual([
    { first: 0, last: 9 },
    { first: 2, last: 9 },
  ]);
  expect(parseRange("bytes=10-", 10)).toBe("unsatisfiable");
  expect(parseRange("bytes=-0", 10)).toBe("unsatisfiable");
  expect(parseRange("bytes=4-2", 10)).toBe("ignore");
  expect(parseRange("lines=1-2", 10)).toBe("ignore");
  expect(parseRange(`bytes=${Array(51).fill("0-0").join(",")}`, 10)).toBe("unsatisfiable");
});
