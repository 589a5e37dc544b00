import { expect, test } from "vitest";
import { incarnationIn, incarnationText, processWord } from "./incarnation.ts";

test("an export says of which process it is, and nothing else is taken for that", () => {
  const process = { pid: 1234, startTime: 567_890 };
  const text = incarnationText(process, "0f0f");
  const found = incarnationIn(text);
  expect(found).toEqual({ text, process });
  expect(found && processWord(found)).toBe("1234-567890");
  // Whoever is named may be killed for it.
  for (const other of [
    undefined,
    "",
    "1234-5",
    "1-5/a",
    "0-5/a",
    "-3-5/a",
    "1234-5/a b",
    "x1234-5/a",
    `1234-5/${"a".repeat(65)}`,
  ])
    expect(incarnationIn(other)).toBeUndefined();
});
