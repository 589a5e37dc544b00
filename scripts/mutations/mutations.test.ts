import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { CHECKOUT } from "../up-options.ts";
import { MUTATIONS } from "./mutations.ts";

test.each(MUTATIONS.map(({ title, file, from }) => ({ title, file, from })))(
  "the sources have one place for: $title",
  ({ file, from }) => {
    expect(readFileSync(join(CHECKOUT, file), "utf8").split(from).length - 1).toBe(1);
  },
);
