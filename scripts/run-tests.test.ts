import { expect, it } from "vitest";
import { failedFiles, tallyOf } from "./run-tests.ts";

it("counts tests, and a file that could not be loaded as one failure", () => {
  expect(tallyOf({ numPassedTests: 5, numFailedTests: 2, numFailedTestSuites: 3 })).toMatchObject({
    passed: 5,
    failed: 2,
  });
  expect(tallyOf({ numPassedTests: 5, numFailedTests: 0, numFailedTestSuites: 1 })).toMatchObject({
    passed: 5,
    failed: 1,
  });
  expect(tallyOf({})).toEqual({ passed: 0, failed: 0, failures: [] });
});

it("names what failed, a test or a whole file, with what it said", () => {
  const passed = { status: "passed", fullName: "adds", failureMessages: [] };
  const failed = { status: "failed", fullName: "subtracts", failureMessages: ["expected 1 to be 2"] };
  const testResults = [
    { name: "well.test.ts", status: "passed", assertionResults: [passed] },
    { name: "sums.test.ts", status: "failed", assertionResults: [passed, failed] },
    { name: "broken.test.ts", status: "failed", assertionResults: [], message: "cannot be loaded" },
  ];
  expect(tallyOf({ testResults }).failures).toEqual([
    "sums.test.ts: subtracts\nexpected 1 to be 2",
    "broken.test.ts: cannot be loaded",
  ]);
  expect(failedFiles({ testResults })).toEqual(["sums.test.ts", "broken.test.ts"]);
});
