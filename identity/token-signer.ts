import { sign } from "node:crypto";
import type { SigningKey } from "./store/signing-keys.ts";
import { HALF_ORDER, headerText } from "./token-verifier.ts";
import type { TokenClaims } from "./wire.ts";

/** The order of P-256. */
const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
const S_OFFSET = 32;
const S_BYTES = 32;

/** The signature with the lower of the two values that s may have (`s` and `n - s` both verify). */
const withLowS = (signature: Buffer): Buffer => {
  if (signature.compare(HALF_ORDER, 0, HALF_ORDER.length, S_OFFSET) <= 0) return signature;
  const s = BigInt(`0x${signature.toString("hex", S_OFFSET)}`);
  const lower = (ORDER - s).toString(16).padStart(2 * S_BYTES, "0");
  return Buffer.concat([signature.subarray(0, S_OFFSET), Buffer.from(lower, "hex")]);
};

/** The token's text, in this turn: one ES256 signature, some 40 µs. */
export const signToken = (claims: TokenClaims, { kid, key }: SigningKey): string => {
  const signed = `${headerText(kid)}.${Buffer.from(JSON.stringify(claims)).toString("base64url")}`;
  const signature = sign("sha256", Buffer.from(signed, "latin1"), { key, dsaEncoding: "ieee-p1363" });
  return `${signed}.${withLowS(signature).toString("base64url")}`;
};
