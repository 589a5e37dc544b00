import { expect, test } from "vitest";
import { accessKeyFileKey, decodeFile, encodeFile, encodeRecord, NONCE_BYTES } from "./format.ts";

const key = accessKeyFileKey(Buffer.alloc(32, 7));
const record = (access: string, text: string, nonceByte = 1): Buffer =>
  encodeRecord(key, access, text, Buffer.alloc(NONCE_BYTES, nonceByte));

test("a file is byte for byte as FORMAT.md has it", () => {
  expect(key.toString("hex")).toBe("fe3a859617d0ac733e3a6de0ce2d122157a7bea0962203e2fc1053d48fd2b881");
  const golden = [
    "5253414b01000000", // magic, version
    "04002200", // lengths
    "414b4941", // the access key
    "010101010101010101010101", // nonce
    "d991df0271d2", // sealed
    "ea177b7c9853c2f0d8c51c86e7cc9631", // tag
    "01001c00", // lengths
    "62", // the access key
    "020202020202020202020202", // nonce
    "55ae017c7620cd4c496f9c252440ec0c", // tag of nothing
  ];
  expect(encodeFile([record("AKIA", "secret"), record("b", "", 2)]).toString("hex")).toBe(golden.join(""));
});

test("what was written is read, in its order", () => {
  const records = [record("first", "one"), record("second", "zwei ü", 2)];
  expect(decodeFile(key, encodeFile(records))).toEqual([
    { access: "first", bytes: records[0], opened: "one" },
    { access: "second", bytes: records[1], opened: "zwei ü" },
  ]);
  expect(decodeFile(key, encodeFile([]))).toEqual([]);
});

test("a record opens neither as another key's nor under another cluster key", () => {
  const renamed = record("AKIA", "secret");
  renamed.write("AKIB", 4);
  expect(decodeFile(key, encodeFile([renamed]))?.[0]).toMatchObject({ access: "AKIB", opened: undefined });
  const other = accessKeyFileKey(Buffer.alloc(32, 8));
  expect(decodeFile(other, encodeFile([record("AKIA", "secret")]))?.[0]?.opened).toBeUndefined();
});

test("a file that is cut anywhere, or altered in any byte, gives only records as they were written", () => {
  const whole = encodeFile([record("first", "one"), record("second", "two", 2), record("third", "three", 3)]);
  const written = new Set(["first one", "second two", "third three"]);
  const readable = (bytes: Buffer): string[] =>
    (decodeFile(key, bytes) ?? []).flatMap(({ access, opened }) => (opened === undefined ? [] : `${access} ${opened}`));
  expect(readable(whole)).toEqual([...written]);
  for (let length = 0; length < whole.length; length += 1) {
    expect(new Set(readable(whole.subarray(0, length))).isSubsetOf(written)).toBe(true);
  }
  for (let index = 0; index < whole.length; index += 1) {
    const altered = Buffer.from(whole);
    altered[index] = (altered[index] ?? 0) ^ 0x41;
    const left = readable(altered);
    expect(new Set(left).isSubsetOf(written)).toBe(true);
    // The three bytes of the header that mean nothing alter nothing.
    expect(left.length < 3).toBe(index < 5 || index > 7);
  }
});
