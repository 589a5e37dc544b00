import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { LONG_SCENARIOS } from "./longest-first.ts";

test("the scenarios that go first are there", () => {
  for (const name of LONG_SCENARIOS)
    expect([name, existsSync(join(import.meta.dirname, "scenarios", name))]).toEqual([name, true]);
});
