import { expect, test } from "vitest";
import type { Ballot } from "../../common/ballot.ts";
import type { Row } from "../../storage-node/wire.ts";
import { mergeRows } from "./merge-rows.ts";

const row = (name: string, version: number, isDeleted = false): Row => ({
  name,
  version: String(version).padStart(48, "0") as Ballot,
  isDeleted,
  objects: 1,
  bytes: 1,
  payload: new Uint8Array(),
});
const names = (rows: readonly Row[]): string[] => rows.map(({ name }) => name);

test("name by name the higher version wins, and a deletion hides an older row [B2]", () => {
  const merged = mergeRows(
    [
      [row("a", 1), row("b", 1)],
      [row("a", 2, true), row("b", 0), row("c", 1)],
    ],
    10,
    false,
  );
  expect(names(merged.live)).toEqual(["a", "b", "c"].slice(1));
  expect(merged.next).toBeUndefined();
});

test("nothing behind the end of a full page is shown, since that replica has not spoken of it yet", () => {
  const merged = mergeRows(
    [
      [row("a", 1), row("b", 1)],
      [row("a", 1), row("z", 1)],
    ],
    2,
    false,
  );
  expect(names(merged.live)).toEqual(["a", "b"]);
  expect(merged.next).toBe("b");
  const reversed = mergeRows(
    [
      [row("z", 1), row("b", 1)],
      [row("z", 1), row("y", 1)],
    ],
    2,
    true,
  );
  expect(names(reversed.live)).toEqual(["z", "y"]);
});
