import { expect, it } from "vitest";
import { tallyOf } from "./run-tests.ts";

it("counts tests, and a file that could not be loaded as one failure", () => {
  expect(tallyOf({ numPassedTests: 5, numFailedTests: 2, numFailedTestSuites: 3 })).toEqual({ passed: 5, failed: 2 });
  expect(tallyOf({ numPassedTests: 5, numFailedTests: 0, numFailedTestSuites: 1 })).toEqual({ passed: 5, failed: 1 });
  expect(tallyOf({})).toEqual({ passed: 0, failed: 0 });
});
