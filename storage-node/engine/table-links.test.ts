import { mkdtempSync, readdirSync, rmSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { IndexOperation } from "./index-port.ts";
import { openLevelIndex } from "./level-index.ts";
import { TableLinks } from "./table-links.ts";

const folder = (): string => mkdtempSync(join(tmpdir(), "ringstead-links-"));
const namesOf = (path: string): string[] => readdirSync(path).toSorted();

test("a removed table goes with its second name, and names that are not LevelDB's have none", async () => {
  const path = folder();
  for (const name of ["000005.ldb", "000007.log", "CURRENT", "MANIFEST-000004"]) writeFileSync(join(path, name), name);
  const links = await TableLinks.open(path);
  await links.sweep();
  expect(namesOf(path)).toEqual(
    ["000005.ldb", "000005.ldb.kept", "000007.log", "000007.log.kept", "CURRENT", "MANIFEST-000004"].toSorted(),
  );
  expect(statSync(join(path, "000005.ldb")).nlink).toBe(2);
  unlinkSync(join(path, "000005.ldb"));
  await links.sweep();
  expect(namesOf(path)).not.toContain("000005.ldb.kept");
  await links[Symbol.asyncDispose]();
  expect(namesOf(path)).toEqual(["000007.log", "CURRENT", "MANIFEST-000004"]);
  rmSync(path, { recursive: true });
});

test("second names that a killed process left are no table's of the next one", async () => {
  const path = folder();
  for (const name of ["000005.ldb", "000005.ldb.kept", "000003.ldb.kept"]) writeFileSync(join(path, name), name);
  await using links = await TableLinks.open(path);
  expect(namesOf(path)).toEqual(["000005.ldb"]);
  await links.sweep();
  expect(statSync(join(path, "000005.ldb.kept")).ino).toBe(statSync(join(path, "000005.ldb")).ino);
  rmSync(path, { recursive: true });
});

test("an index that was compacted under load holds nothing but its own tables after a close", async () => {
  const path = join(folder(), "index");
  const index = await openLevelIndex(path, true);
  for (let round = 0; round < 40; round++) {
    const puts = Array.from({ length: 1000 }, (_, at): IndexOperation => {
      const key = Buffer.from(`key${String((at * 7919 + round * 104_729) % 50_000).padStart(6, "0")}`);
      return { type: "put", key, value: Buffer.alloc(1000, round) };
    });
    await index.write(puts);
  }
  await index.checkpoint(Buffer.from("here"));
  await index.close();
  const names = namesOf(path);
  expect(names.filter((name) => name.endsWith(".ldb")).length).toBeGreaterThan(0);
  expect(names.filter((name) => name.endsWith(".kept"))).toEqual([]);
  rmSync(join(path, ".."), { recursive: true });
});
