import { createPublicKey, type KeyObject, randomBytes, sign } from "node:crypto";

/*
 * Node makes keys and reads certificates but makes none. What SAML needs is one fixed shape (RFC 5280, section 4.1), around a key that receivers
 * trust by itself. Libraries that make it bring 18 packages and a change to the global Reflect, or RSA of their own.
 */

const SEQUENCE = 0x30;
const SET = 0x31;
const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OCTET_STRING = 0x04;
const UTF8_STRING = 0x0c;
const UTC_TIME = 0x17;
const GENERALIZED_TIME = 0x18;
const BOOLEAN_TRUE = Buffer.from("0101ff", "hex");
const VERSION_3 = Buffer.from("a003020102", "hex");
/** sha256WithRSAEncryption, without parameters. */
const SIGNATURE_ALGORITHM = Buffer.from("300d06092a864886f70d01010b0500", "hex");
const COMMON_NAME = Buffer.from("0603550403", "hex");
const BASIC_CONSTRAINTS = Buffer.from("0603551d13", "hex");
const KEY_USAGE = Buffer.from("0603551d0f", "hex");
/** The bit digitalSignature. */
const SIGNS = Buffer.from("03020780", "hex");
const SERIAL_BYTES = 16;
/** From this year on X.509 writes four digits of the year. */
const FOUR_DIGITS_FROM_YEAR = 2050;
/** RFC 5280's upper bound of a common name. */
export const COMMON_NAME_MAX = 64;

const lengthOf = (length: number): Buffer => {
  if (length < 0x80) return Buffer.from([length]);
  const hex = length.toString(16);
  const bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, "hex");
  return Buffer.concat([Buffer.from([0x80 | bytes.length]), bytes]);
};

const der = (tag: number, ...parts: readonly Buffer[]): Buffer => {
  const content = Buffer.concat(parts);
  return Buffer.concat([Buffer.from([tag]), lengthOf(content.length), content]);
};

const time = (ms: number): Buffer => {
  const at = new Date(ms);
  const digits = at.toISOString().replaceAll(/\D/g, "").slice(0, 14);
  return at.getUTCFullYear() < FOUR_DIGITS_FROM_YEAR
    ? der(UTC_TIME, Buffer.from(`${digits.slice(2)}Z`))
    : der(GENERALIZED_TIME, Buffer.from(`${digits}Z`));
};

const critical = (id: Buffer, value: Buffer): Buffer => der(SEQUENCE, id, BOOLEAN_TRUE, der(OCTET_STRING, value));

/** Positive, and the same number of bytes always. */
const serialNumber = (): Buffer => {
  const bytes = randomBytes(SERIAL_BYTES);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes;
};

/** A certificate of an RSA key for itself, PEM. Requires: `commonName` has 1 to 64 characters. */
export const selfSignedCertificate = (
  privateKey: KeyObject,
  { commonName, fromMs, untilMs }: { readonly commonName: string; readonly fromMs: number; readonly untilMs: number },
): string => {
  const name = der(SEQUENCE, der(SET, der(SEQUENCE, COMMON_NAME, der(UTF8_STRING, Buffer.from(commonName)))));
  const extensions = der(SEQUENCE, critical(BASIC_CONSTRAINTS, der(SEQUENCE)), critical(KEY_USAGE, SIGNS));
  const body = der(
    SEQUENCE,
    VERSION_3,
    der(INTEGER, serialNumber()),
    SIGNATURE_ALGORITHM,
    name,
    der(SEQUENCE, time(fromMs), time(untilMs)),
    name,
    createPublicKey(privateKey).export({ type: "spki", format: "der" }),
    der(0xa3, extensions),
  );
  const signature = der(BIT_STRING, Buffer.from([0]), sign("sha256", body, privateKey));
  const base64 = der(SEQUENCE, body, SIGNATURE_ALGORITHM, signature).toString("base64");
  const lines = base64.match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
};
