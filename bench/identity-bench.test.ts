import { expect, test } from "vitest";
import { hashCheck } from "./identity-bench.ts";

test("logins are compared with the highest rate of the hash, which nothing else has lowered", () => {
  expect(hashCheck(54, [40, 60], 0.8)).toEqual({ text: "90 % of 60.0 hashes/s, ≥ 80 %", isReached: true });
  expect(hashCheck(47, [40, 60], 0.8)).toMatchObject({ isReached: false });
});
