import { expect, test } from "vitest";
import { resultOf } from "./guest.ts";

test("what a guest leaves is its report and its command's exit code", () => {
  expect(resultOf('{"numPassedTests":1}\r\n\r\nexit 0\r\n')).toEqual({ exitCode: 0, report: '{"numPassedTests":1}\n' });
  expect(resultOf("\nexit 3\n")).toEqual({ exitCode: 3, report: "" });
});

test("a guest that ended in the middle has neither", () => {
  expect(resultOf('{"numPassed')).toEqual({ exitCode: undefined, report: "" });
  expect(resultOf("")).toEqual({ exitCode: undefined, report: "" });
});
