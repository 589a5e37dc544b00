import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createCredentialCipher, openCredentialCipher } from "./credential-cipher.ts";

const key = Buffer.from("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "hex");
const other = Buffer.alloc(32, 7);
const cipher = createCredentialCipher(() => [key]);

test("what was sealed opens, with its own id and key only", () => {
  const blob = cipher.seal("one", "sécret");
  expect(cipher.open("one", blob)).toBe("sécret");
  expect(() => cipher.open("two", blob)).toThrow("cannot be decrypted");
  expect(() => createCredentialCipher(() => [other]).open("one", blob)).toThrow("cannot be decrypted");
});

test("a blob altered in any byte, cut or lengthened is refused", () => {
  const blob = Buffer.from(cipher.seal("one", "secret"));
  for (let index = 0; index < blob.length; index += 1) {
    const altered = Buffer.from(blob);
    altered[index] = (altered[index] ?? 0) ^ 1;
    expect(() => cipher.open("one", altered)).toThrow("cannot be decrypted");
    expect(() => cipher.open("one", blob.subarray(0, index))).toThrow("cannot be decrypted");
  }
  expect(() => cipher.open("one", Buffer.concat([blob, Buffer.alloc(1)]))).toThrow("cannot be decrypted");
});

test("a blob written by version 1 still opens, also beneath a newer key", () => {
  const golden = "0144794beebdbce54d526d46bddfbd56c642f37a31a99698f6419f730dee960040a25e";
  expect(cipher.open("one", Buffer.from(golden, "hex"))).toBe("secret");
  expect(createCredentialCipher(() => [key, other]).open("one", Buffer.from(golden, "hex"))).toBe("secret");
});

test("a new key seals, the old one opens until the rotation after the next, across restarts", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-cipher-"));
  try {
    const path = join(folder, "credential.key");
    const stored = await openCredentialCipher(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const old = stored.seal("one", "secret");
    stored.addKey();
    const again = await openCredentialCipher(path);
    expect([stored.open("one", old), again.open("one", old)]).toEqual(["secret", "secret"]);
    const fresh = again.seal("one", "secret");
    stored.dropOldKeys();
    expect(stored.open("one", old)).toBe("secret");
    stored.addKey();
    stored.dropOldKeys();
    const last = await openCredentialCipher(path);
    expect(last.open("one", fresh)).toBe("secret");
    expect(() => last.open("one", old)).toThrow("cannot be decrypted");
    expect(readFileSync(path, "utf8")).toMatch(/^([0-9a-f]{64}\n){2}$/);
    writeFileSync(path, "no key\n");
    await expect(openCredentialCipher(path)).rejects.toThrow("not a file of keys");
  } finally {
    rmSync(folder, { recursive: true });
  }
});
