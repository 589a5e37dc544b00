import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { promisify } from "node:util";
import { constants, zstdCompress, zstdDecompress } from "node:zlib";
import { messageOf, RingsteadError } from "../../common/errors.ts";

/*
 * How a chunk or a page lies in the object store: FORMAT.md, "Sealed". Compression is done by libuv's threads; what is sealed twice may differ
 * (its nonce does), what comes out does not.
 */

const MAGIC = 0x52534258;
const VERSION = 1;
export const HEADER_BYTES = 12;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const CIPHER = "aes-256-gcm";
/** Fast enough for a disk, and better than none by half. */
const LEVEL = 1;

export type Sealing = {
  readonly compression: "none" | "zstd";
  /** Undefined: not encrypted. */
  readonly encryptionKey: Buffer | undefined;
};

const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);

const damaged = (why: string): RingsteadError => new RingsteadError("backup-damaged", why);

const headerOf = (isCompressed: boolean, isEncrypted: boolean, plainBytes: number): Buffer => {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32BE(MAGIC, 0);
  header.writeUInt8(VERSION, 4);
  header.writeUInt8(isCompressed ? 1 : 0, 5);
  header.writeUInt8(isEncrypted ? 1 : 0, 6);
  header.writeUInt32BE(plainBytes, 8);
  return header;
};

/** The bytes of the object that holds `plain`. */
export const seal = async (plain: Buffer, { compression, encryptionKey }: Sealing): Promise<Buffer> => {
  const small =
    compression === "zstd"
      ? await compress(plain, { params: { [constants.ZSTD_c_compressionLevel]: LEVEL } })
      : undefined;
  const isCompressed = small !== undefined && small.length < plain.length;
  const payload = isCompressed ? small : plain;
  const header = headerOf(isCompressed, encryptionKey !== undefined, plain.length);
  if (encryptionKey === undefined) return Buffer.concat([header, payload]);
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, encryptionKey, nonce).setAAD(header);
  const body = Buffer.concat([cipher.update(payload), cipher.final()]);
  return Buffer.concat([header, nonce, body, cipher.getAuthTag()]);
};

const decrypted = (header: Buffer, body: Buffer, key: Buffer): Buffer => {
  if (body.length < NONCE_BYTES + TAG_BYTES) throw damaged("it is cut off");
  const decipher = createDecipheriv(CIPHER, key, body.subarray(0, NONCE_BYTES))
    .setAAD(header)
    .setAuthTag(body.subarray(body.length - TAG_BYTES));
  try {
    return Buffer.concat([decipher.update(body.subarray(NONCE_BYTES, body.length - TAG_BYTES)), decipher.final()]);
  } catch {
    throw damaged("it was encrypted with another key, or changed since");
  }
};

/** What was sealed; whoever knows its name checks that too. Errors: "backup-damaged". */
export const unseal = async (bytes: Buffer, encryptionKey: Buffer, limitBytes: number): Promise<Buffer> => {
  if (bytes.length < HEADER_BYTES || bytes.readUInt32BE(0) !== MAGIC) throw damaged("it is no part of a backup");
  if (bytes.readUInt8(4) !== VERSION) throw damaged(`it is of version ${bytes.readUInt8(4)} of its format`);
  const [compression, encryption] = [bytes.readUInt8(5), bytes.readUInt8(6)];
  const plainBytes = bytes.readUInt32BE(8);
  if (compression > 1 || encryption > 1 || bytes.readUInt8(7) !== 0) throw damaged("its header is not understood");
  if (plainBytes > limitBytes) throw damaged(`it says that it holds ${plainBytes} bytes`);
  const header = bytes.subarray(0, HEADER_BYTES);
  const body = bytes.subarray(HEADER_BYTES);
  const payload = encryption === 1 ? decrypted(header, body, encryptionKey) : body;
  let plain = payload;
  if (compression === 1) {
    try {
      plain = await decompress(payload, { maxOutputLength: Math.max(1, plainBytes) });
    } catch (error) {
      throw damaged(`it cannot be decompressed: ${messageOf(error)}`);
    }
  }
  if (plain.length !== plainBytes) throw damaged(`it has ${plain.length} bytes of ${plainBytes}`);
  return plain;
};
