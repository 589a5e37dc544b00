import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { BackupChunks, BackupReader } from "./backup-reader.ts";
import { testBackup } from "./test-backup.ts";

const MIB = 1024 * 1024;
const SIZE_BYTES = 130 * MIB;

const joined = async (reader: BackupReader, offset: number, length: number): Promise<Buffer> => {
  const bytes = Buffer.alloc(length, 0xee);
  let at = offset;
  for (const part of await reader.read(offset, length)) {
    expect(part.offset).toBe(at);
    if ("bytes" in part) part.bytes.copy(bytes, at - offset);
    else bytes.fill(0, at - offset, at - offset + part.zeroBytes);
    at += "bytes" in part ? part.bytes.length : part.zeroBytes;
  }
  expect(at).toBe(offset + length);
  return bytes;
};

test("any range of a backup reads as the volume did, and zeros are not carried", async () => {
  const content = randomBytes(70 * MIB);
  content.fill(0, 3 * MIB, 6 * MIB);
  const { store, backupId } = await testBackup(content, SIZE_BYTES);
  const reader = await BackupReader.opened(store, backupId, new BackupChunks());
  const whole = Buffer.concat([content, Buffer.alloc(SIZE_BYTES - content.length)]);
  for (const [offset, length] of [
    [0, MIB],
    [MIB - 512, 1024],
    [2 * MIB + 5, 5 * MIB],
    [63 * MIB, 4 * MIB],
    [69 * MIB, 61 * MIB],
  ] as const)
    expect((await joined(reader, offset, length)).equals(whole.subarray(offset, offset + length))).toBe(true);
  expect(await reader.read(80 * MIB, MIB)).toEqual([{ offset: 80 * MIB, zeroBytes: MIB }]);
});

test("a chunk that is missing or holds something else fails what needs it, by its name, and nothing else", async () => {
  const content = randomBytes(4 * MIB);
  const { objects, store, backupId } = await testBackup(content, SIZE_BYTES);
  const damaged = [...objects.objects.keys()].filter((path) => path.includes("/chunks/"));
  const [missing, swapped, sound] = damaged;
  if (missing === undefined || swapped === undefined || sound === undefined) throw new Error("there are four chunks");
  objects.objects.delete(missing);
  const other = objects.objects.get(sound);
  if (other === undefined) throw new Error("it was just there");
  objects.objects.set(swapped, other);
  const reader = await BackupReader.opened(store, backupId, new BackupChunks());
  const outcomes = await Promise.allSettled([0, 1, 2, 3].map((at) => joined(reader, at * MIB, MIB)));
  const reasons = outcomes.flatMap((one) => (one.status === "rejected" ? [String(one.reason)] : []));
  expect(reasons.length).toBe(2);
  expect(reasons.join()).toContain("missing in the object store");
  expect(reasons.join()).toContain("holds something else");
  for (const [index, one] of outcomes.entries())
    if (one.status === "fulfilled")
      expect(one.value.equals(content.subarray(index * MIB, (index + 1) * MIB))).toBe(true);
});

test("however many readers there are, they keep a limited number of chunks together, and read the same", async () => {
  const content = randomBytes(8 * MIB);
  const backups = await Promise.all(Array.from({ length: 20 }, () => testBackup(content, SIZE_BYTES)));
  const chunks = new BackupChunks();
  const readers = await Promise.all(backups.map(({ store, backupId }) => BackupReader.opened(store, backupId, chunks)));
  for (let at = 0; at < content.length; at += MIB) {
    const read = await Promise.all(readers.map((reader) => joined(reader, at, MIB)));
    for (const bytes of read) expect(bytes.equals(content.subarray(at, at + MIB))).toBe(true);
  }
  expect(chunks.size).toBe(64);
  expect(chunks.fetches).toBe(0);
});
