import { generateKeyPairSync, sign, verify } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { derOfSignature, hasLowS, SIGNATURE_BYTES, signatureOfDer } from "./token-signature.ts";

const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });

test("signatures in the form of tokens are the same signatures", () => {
  for (let index = 0; index < 300; index += 1) {
    const text = Buffer.from(`text ${index}`);
    const signature = signatureOfDer(sign("sha256", text, privateKey));
    expect(verify("sha256", text, { key: publicKey, dsaEncoding: "ieee-p1363" }, signature)).toBe(true);
    expect(verify("sha256", text, publicKey, derOfSignature(signature))).toBe(true);
    expect(hasLowS(signature)).toBe(true);
  }
});

/** Numbers of 32 bytes of which the first few are zeros. */
const part = fc
  .tuple(fc.integer({ min: 0, max: 31 }), fc.uint8Array({ minLength: 32, maxLength: 32 }))
  .map(([zeros, bytes]) => Buffer.from(bytes).fill(0, 0, zeros));

test("a signature survives the way to DER and back, whatever its numbers", () => {
  fc.assert(
    fc.property(part, part, (r, s) => {
      const signature = Buffer.concat([r, s]);
      fc.pre(hasLowS(signature));
      const der = derOfSignature(signature);
      expect(der[1]).toBe(der.length - 2);
      expect(signatureOfDer(der)).toEqual(signature);
    }),
  );
});

test("two signatures never become the same DER", () => {
  fc.assert(
    fc.property(part, part, part, part, (r, s, otherR, otherS) => {
      const [one, other] = [Buffer.concat([r, s]), Buffer.concat([otherR, otherS])];
      expect(derOfSignature(one).equals(derOfSignature(other))).toBe(one.equals(other));
    }),
  );
});

test("a signature of zeros is refused", () => {
  expect(verify("sha256", Buffer.from("text"), publicKey, derOfSignature(Buffer.alloc(SIGNATURE_BYTES)))).toBe(false);
});
