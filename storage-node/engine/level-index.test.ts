import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { Index, IndexOperation } from "./index-port.ts";
import { openLevelIndex } from "./level-index.ts";

const ENTRIES = 256;
const VALUE_BYTES = 1000;
const SCANS = 800;
const MIB = 1_048_576;

const keyOf = (number: number): Uint8Array => Buffer.from(`key${String(number).padStart(4, "0")}`);

const anonymousBytes = (): number =>
  Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]) * 1024;

const scan = async (index: Index, end: number): Promise<number> => {
  const cursor = index.cursor({ gte: keyOf(0), lt: keyOf(end), reverse: false });
  let found = 0;
  for (let page = await cursor.next(ENTRIES); page.length > 0; page = await cursor.next(ENTRIES)) found += page.length;
  await cursor.close();
  return found;
};

test("a cursor is closed also where its index cannot be read any more", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-level-"));
  const index = await openLevelIndex(join(folder, "index"), true);
  await index.write(Array.from({ length: 300 }, (_, at) => ({ type: "put", key: keyOf(at), value: keyOf(at) })));
  const cursor = index.cursor({ gte: keyOf(0), lt: keyOf(300), reverse: false });
  await cursor.next(ENTRIES);
  await index.close();
  await cursor.close();
  rmSync(folder, { recursive: true });
});

test("scans leave no pages behind, be they cut off or read to their end", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-level-"));
  const index = await openLevelIndex(join(folder, "index"), true);
  try {
    const puts = Array.from({ length: 2 * ENTRIES }, (_, number): IndexOperation => {
      return { type: "put", key: keyOf(number), value: Buffer.alloc(VALUE_BYTES, number) };
    });
    await index.write(puts);
    for (let count = 0; count < 20; count++) await scan(index, ENTRIES);
    const before = anonymousBytes();
    for (let count = 0; count < SCANS; count++) {
      expect(await scan(index, ENTRIES)).toBe(ENTRIES);
      const cursor = index.cursor({ gte: keyOf(0), lt: keyOf(2 * ENTRIES), reverse: false });
      expect((await cursor.next(ENTRIES)).length).toBe(ENTRIES);
      await cursor.close();
    }
    const left = anonymousBytes() - before;
    expect(left).toBeLessThan((SCANS * 2 * ENTRIES * VALUE_BYTES) / 4);
    expect(left).toBeLessThan(100 * MIB);
  } finally {
    await index.close();
    rmSync(folder, { recursive: true });
  }
});
