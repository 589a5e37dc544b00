import { createCipheriv, createDecipheriv, hkdfSync } from "node:crypto";

/** Layout in FORMAT.md beside this file. */
const MAGIC = Buffer.from("RSAK");
const VERSION = 1;
const HEADER_BYTES = 8;
const RECORD_HEADER_BYTES = 4;
export const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
const KEY_PURPOSE = "ringstead access keys 1";
/** Of one record. What is larger is not kept. */
export const RECORD_MAX_BYTES = 8_192;

/** A record as it was sealed; `opened` is undefined where it was damaged, altered, or sealed under another cluster key. */
export type DecodedRecord = { readonly access: string; readonly bytes: Buffer; readonly opened: string | undefined };

/** The key of these files: not the cluster key itself, which proves who a node is. */
export const accessKeyFileKey = (clusterKey: Buffer): Buffer =>
  Buffer.from(hkdfSync("sha256", clusterKey, Buffer.alloc(0), KEY_PURPOSE, KEY_BYTES));

/** One record: `text` under `key`, bound to the access key's id. Requires: `nonce` was never used with `key`. */
export const encodeRecord = (key: Buffer, access: string, text: string, nonce: Buffer): Buffer => {
  const id = Buffer.from(access);
  const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(id);
  const sealed = Buffer.concat([nonce, cipher.update(text, "utf8"), cipher.final(), cipher.getAuthTag()]);
  const header = Buffer.alloc(RECORD_HEADER_BYTES);
  header.writeUInt16LE(id.length, 0);
  header.writeUInt16LE(sealed.length, 2);
  return Buffer.concat([header, id, sealed]);
};

export const encodeFile = (records: readonly Buffer[]): Buffer => {
  const header = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(header);
  header.writeUInt8(VERSION, MAGIC.length);
  return Buffer.concat([header, ...records]);
};

const opened = (key: Buffer, id: Buffer, sealed: Buffer): string | undefined => {
  if (sealed.length < NONCE_BYTES + TAG_BYTES) return undefined;
  try {
    const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES })
      .setAAD(id)
      .setAuthTag(sealed.subarray(-TAG_BYTES));
    return decipher.update(sealed.subarray(NONCE_BYTES, -TAG_BYTES), undefined, "utf8") + decipher.final("utf8");
  } catch {
    return undefined;
  }
};

/** The records of a file as far as they are whole; undefined where it is none of this version. */
export const decodeFile = (key: Buffer, bytes: Buffer): DecodedRecord[] | undefined => {
  if (bytes.length < HEADER_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
  if (bytes[MAGIC.length] !== VERSION) return undefined;
  const records: DecodedRecord[] = [];
  let offset = HEADER_BYTES;
  while (offset + RECORD_HEADER_BYTES <= bytes.length) {
    const idStart = offset + RECORD_HEADER_BYTES;
    const sealedStart = idStart + bytes.readUInt16LE(offset);
    const end = sealedStart + bytes.readUInt16LE(offset + 2);
    if (end > bytes.length) break;
    const id = bytes.subarray(idStart, sealedStart);
    records.push({
      access: id.toString("utf8"),
      bytes: bytes.subarray(offset, end),
      opened: opened(key, id, bytes.subarray(sealedStart, end)),
    });
    offset = end;
  }
  return records;
};
