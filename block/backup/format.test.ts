import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { CHUNK_BYTES, PAGE_BYTES } from "./core/page.ts";
import { decodeList, decodePage, encodeList, encodePage } from "./format.ts";
import { projectKeys } from "./keys.ts";
import { HEADER_BYTES, seal, unseal } from "./sealed.ts";

const KEYS = projectKeys(Buffer.alloc(32, 7), "1".repeat(32));
const CHUNK = "ab".repeat(32);
const PAGE = [
  { first: 0, count: 16, chunk: CHUNK, chunkFirst: 0 },
  { first: 1022, count: 2, chunk: "cd".repeat(32), chunkFirst: 3 },
];
const LIST = {
  backupId: "01234567-89ab-cdef-0123-456789abcdef",
  sizeBytes: 2 * PAGE_BYTES + 512,
  takenAtMs: 1_700_000_000_000,
  pages: [CHUNK, undefined, "ef".repeat(32)],
};

test("a page is the bytes that FORMAT.md says", () => {
  expect(encodePage(PAGE).toString("hex")).toBe(
    `52534250 0001 0002 0000 0010 0000 ${CHUNK} 03fe 0002 0003 ${"cd".repeat(32)}`.replaceAll(" ", ""),
  );
  expect(decodePage(encodePage(PAGE))).toEqual(PAGE);
});

test("a list of pages is the bytes that FORMAT.md says", () => {
  expect(encodeList(LIST, KEYS).toString("hex")).toBe(
    [
      "5253424c 0001 0000",
      KEYS.id,
      "0123456789abcdef0123456789abcdef",
      "0000000008000200",
      "0000018bcfe56800",
      CHUNK,
      "00".repeat(32),
      "ef".repeat(32),
      KEYS.nameOf("list", encodeList(LIST, KEYS).subarray(0, -32)),
    ]
      .join("")
      .replaceAll(" ", ""),
  );
  expect(decodeList(encodeList(LIST, KEYS), KEYS)).toEqual(LIST);
});

test("keys are derived from the secret and the project, and stay what they are", () => {
  expect(KEYS.id).toBe("71105c784bd0457c");
  expect(KEYS.nameOf("chunk", Buffer.from("bytes"))).toMatch(/^[0-9a-f]{64}$/);
  const other = projectKeys(Buffer.alloc(32, 7), "2".repeat(32));
  expect(other.nameOf("chunk", Buffer.from("bytes"))).not.toBe(KEYS.nameOf("chunk", Buffer.from("bytes")));
  expect(KEYS.nameOf("page", Buffer.from("bytes"))).not.toBe(KEYS.nameOf("chunk", Buffer.from("bytes")));
});

test("a list that was written with other keys is refused as that, and one that was changed as damaged", () => {
  const bytes = encodeList(LIST, KEYS);
  const other = projectKeys(Buffer.alloc(32, 8), "1".repeat(32));
  expect(() => decodeList(bytes, other)).toThrow(expect.objectContaining({ code: "backup-key-unknown" }));
  for (const at of [16, 33, 50, bytes.length - 1]) {
    const changed = Buffer.from(bytes);
    changed.writeUInt8(changed.readUInt8(at) ^ 1, at);
    expect(() => decodeList(changed, KEYS)).toThrow(expect.objectContaining({ code: "backup-damaged" }));
  }
});

test("what is sealed comes out as it was, compressed and encrypted or not", async () => {
  const texts = [Buffer.alloc(CHUNK_BYTES, "text "), randomBytes(CHUNK_BYTES), Buffer.alloc(0), randomBytes(1)];
  for (const plain of texts)
    for (const compression of ["none", "zstd"] as const)
      for (const encryptionKey of [undefined, KEYS.encryption]) {
        const sealed = await seal(plain, { compression, encryptionKey });
        expect(sealed.length).toBeLessThanOrEqual(plain.length + HEADER_BYTES + 28);
        expect((await unseal(sealed, KEYS.encryption, CHUNK_BYTES)).equals(plain)).toBe(true);
      }
  const [text = Buffer.alloc(0)] = texts;
  expect((await seal(text, { compression: "zstd", encryptionKey: undefined })).length).toBeLessThan(1000);
  expect((await seal(Buffer.from([1, 2, 3]), { compression: "zstd", encryptionKey: undefined })).toString("hex")).toBe(
    "52534258010000000000000301020" + "3",
  );
});

test("an encrypted chunk is nothing to another project, and none of its bits may change", async () => {
  const sealed = await seal(randomBytes(1000), { compression: "zstd", encryptionKey: KEYS.encryption });
  const other = projectKeys(Buffer.alloc(32, 7), "2".repeat(32));
  const damaged = expect.objectContaining({ code: "backup-damaged" });
  await expect(unseal(sealed, other.encryption, CHUNK_BYTES)).rejects.toEqual(damaged);
  for (const at of [4, 5, 8, 12, 30, sealed.length - 1]) {
    const changed = Buffer.from(sealed);
    changed.writeUInt8(changed.readUInt8(at) ^ 1, at);
    await expect(unseal(changed, KEYS.encryption, CHUNK_BYTES)).rejects.toEqual(damaged);
  }
});

test("a small object cannot be made to fill the memory", async () => {
  const sealed = await seal(Buffer.alloc(CHUNK_BYTES), { compression: "zstd", encryptionKey: undefined });
  await expect(unseal(sealed, KEYS.encryption, 1000)).rejects.toMatchObject({ code: "backup-damaged" });
  sealed.writeUInt32BE(10, 8);
  await expect(unseal(sealed, KEYS.encryption, 1000)).rejects.toMatchObject({ code: "backup-damaged" });
});

test("any bytes are decoded, or refused as damaged", async () => {
  const refused = expect.objectContaining({ name: "RingsteadError" });
  const decoders = [(bytes: Buffer) => decodePage(bytes), (bytes: Buffer) => decodeList(bytes, KEYS)];
  const seeds = [
    encodePage(PAGE),
    encodeList(LIST, KEYS),
    await seal(randomBytes(100), { compression: "zstd", encryptionKey: undefined }),
  ];
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array)),
    fc.tuple(fc.constantFrom(...seeds), fc.nat(), fc.nat(255), fc.nat()).map(([seed, at, value, length]) => {
      const changed = Buffer.from(seed);
      changed.writeUInt8(value, at % changed.length);
      return changed.subarray(0, changed.length - (length % 3));
    }),
  );
  await fc.assert(
    fc.asyncProperty(bytes, async (some) => {
      for (const decode of decoders) {
        try {
          decode(some);
        } catch (error) {
          expect(error).toEqual(refused);
        }
      }
      await unseal(some, KEYS.encryption, CHUNK_BYTES).catch((error: unknown) => expect(error).toEqual(refused));
    }),
    { numRuns: 300 },
  );
});
