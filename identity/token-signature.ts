/**
 * The two forms of an ES256 signature: `r` and `s` of 32 bytes each, as tokens carry them (RFC 7518, 3.4), and DER, as OpenSSL makes and
 * takes them. Node converts when it is asked for `ieee-p1363`, at 70 µs of CPU a signature, twice what signing costs; this takes 1.
 * Of the two values of s that a signature may have (`s` and `n - s` both verify) tokens use the lower: one text for one token.
 */

const PART_BYTES = 32;
export const SIGNATURE_BYTES = 2 * PART_BYTES;

/** The order of P-256, and half of it. */
const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
const HALF_ORDER = Buffer.from("7fffffff800000007fffffffffffffffde737d56d38bcf4279dce5617e3192a8", "hex");

const SEQUENCE = 0x30;
const INTEGER = 0x02;
/** A first byte from here on would be read as the beginning of a negative number. */
const SIGN_BIT = 0x80;

export const hasLowS = (signature: Buffer): boolean =>
  signature.compare(HALF_ORDER, 0, PART_BYTES, PART_BYTES, SIGNATURE_BYTES) <= 0;

const withLowS = (signature: Buffer): Buffer => {
  if (hasLowS(signature)) return signature;
  const s = BigInt(`0x${signature.toString("hex", PART_BYTES)}`);
  signature.write((ORDER - s).toString(16).padStart(2 * PART_BYTES, "0"), PART_BYTES, "hex");
  return signature;
};

/** Copies the integer at `at` of `der` to the part of `signature` that begins at `partAt`; where the next one begins. */
const takeInteger = (der: Buffer, at: number, signature: Buffer, partAt: number): number => {
  const size = der[at + 1] ?? 0;
  const begin = at + 2;
  // Leading zeros are missing, or there is one more, for the sign.
  const extra = Math.max(0, size - PART_BYTES);
  der.copy(signature, partAt + PART_BYTES - (size - extra), begin + extra, begin + size);
  return begin + size;
};

/** What a token carries of the signature that OpenSSL made. Requires: `der` is a signature with P-256. */
export const signatureOfDer = (der: Buffer): Buffer => {
  const signature = Buffer.alloc(SIGNATURE_BYTES);
  takeInteger(der, takeInteger(der, 2, signature, 0), signature, PART_BYTES);
  return withLowS(signature);
};

/** Writes the part of `signature` that begins at `partAt` as an integer to `der`, at `at`; where the next one begins. */
const putInteger = (signature: Buffer, partAt: number, der: Buffer, at: number): number => {
  let from = partAt;
  const end = partAt + PART_BYTES;
  while (from < end - 1 && signature[from] === 0) from += 1;
  const pad = (signature[from] ?? 0) >= SIGN_BIT ? 1 : 0;
  der[at] = INTEGER;
  der[at + 1] = end - from + pad;
  der[at + 2] = 0;
  signature.copy(der, at + 2 + pad, from, end);
  return at + 2 + pad + end - from;
};

/** Head and sign byte of two integers, and the head of both. */
const DER_MAX_BYTES = SIGNATURE_BYTES + 2 * 3 + 2;

/** What OpenSSL verifies of a token's signature. Requires: SIGNATURE_BYTES. */
export const derOfSignature = (signature: Buffer): Buffer => {
  const der = Buffer.allocUnsafe(DER_MAX_BYTES);
  const end = putInteger(signature, PART_BYTES, der, putInteger(signature, 0, der, 2));
  der[0] = SEQUENCE;
  der[1] = end - 2;
  return der.subarray(0, end);
};
