import { expect, test } from "vitest";
import { tempestConfigurationText } from "./tempest-configuration.ts";
import { tempestTally } from "./tempest-run.ts";

const totals = (passed: number, failed: number): string =>
  [
    "{0} tempest.api.identity.v3.test_x.Y.test_z [0.1s] ... ok",
    "======",
    "Totals",
    "======",
    "Ran: 9 tests in 1.0 sec.",
    ` - Passed: ${passed}`,
    " - Skipped: 3",
    " - Expected Fail: 0",
    " - Unexpected Success: 1",
    ` - Failed: ${failed}`,
    "Sum of execute time for each test: 0.1 sec.",
  ].join("\n");

test("what tempest prints at its end is counted, an unexpected success as a failure", () => {
  expect(tempestTally(totals(5, 2), 1)).toEqual({ passed: 5, failed: 3, skipped: 3 });
});

test("a run of tempest that finds no test, or breaks off without a failed one, has failed", () => {
  const good = " - Passed: 4\n - Failed: 0\n";
  expect(tempestTally(good, 0)).toEqual({ passed: 4, failed: 0, skipped: 0 });
  expect(tempestTally(good, 1).failed).toBe(1);
  expect(tempestTally(good, null).failed).toBe(1);
  expect(tempestTally("The specified regex doesn't match with anything", 0).failed).toBe(1);
});

test("a dollar in the admin's password reaches tempest as it is", () => {
  const admin = { username: "admin", password: "a$b", project: "admin", domain: "Default" };
  const target = {
    service: "volume",
    region: "RegionOne",
    identityUrl: "http://127.0.0.1:5000/v3",
    admin,
    folder: "/f",
  } as const;
  expect(tempestConfigurationText(target)).toContain("\nadmin_password = a$$b\n");
});
