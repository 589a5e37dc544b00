import { expect, test } from "vitest";
import { createCredentialCipher } from "./credential-cipher.ts";

const key = Buffer.from("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "hex");
const cipher = createCredentialCipher(key);

test("what was sealed opens, with its own id and key only", () => {
  const blob = cipher.seal("one", "sécret");
  expect(cipher.open("one", blob)).toBe("sécret");
  expect(() => cipher.open("two", blob)).toThrow("cannot be decrypted");
  expect(() => createCredentialCipher(Buffer.alloc(32)).open("one", blob)).toThrow("cannot be decrypted");
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

test("a blob written by version 1 still opens", () => {
  const golden = "0144794beebdbce54d526d46bddfbd56c642f37a31a99698f6419f730dee960040a25e";
  expect(cipher.open("one", Buffer.from(golden, "hex"))).toBe("secret");
});
