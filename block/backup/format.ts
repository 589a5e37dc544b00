import { timingSafeEqual } from "node:crypto";
import { RingsteadError } from "../../common/errors.ts";
import { CHUNK_GRAINS, PAGE_GRAINS, PAGES_LIMIT, pageCountOf, type Page, type Piece } from "./core/page.ts";
import type { BackupKeys } from "./keys.ts";

/* Layouts of FORMAT.md: pages, and the list of a backup's pages. */

const PAGE_MAGIC = 0x52534250;
const LIST_MAGIC = 0x5253424c;
const VERSION = 1;
const NAME_BYTES = 32;
const PAGE_HEADER_BYTES = 8;
const PIECE_BYTES = 38;
const LIST_HEADER_BYTES = 48;
/** A page of which no two neighbouring grains are of one chunk. */
export const PAGE_LIMIT_BYTES = PAGE_HEADER_BYTES + PAGE_GRAINS * PIECE_BYTES;
export const LIST_LIMIT_BYTES = LIST_HEADER_BYTES + (PAGES_LIMIT + 1) * NAME_BYTES;

/** The root of one backup: with it, the backup is there. */
export type PageList = {
  /** UUID. */
  readonly backupId: string;
  readonly sizeBytes: number;
  /** When the volume was as the backup has it; milliseconds since 1970. */
  readonly takenAtMs: number;
  /** Names of pages; undefined where all is zeros. As many as the size needs. */
  readonly pages: readonly (string | undefined)[];
};

const damaged = (why: string): RingsteadError => new RingsteadError("backup-damaged", why);

export const encodePage = (page: Page): Buffer => {
  const bytes = Buffer.alloc(PAGE_HEADER_BYTES + page.length * PIECE_BYTES);
  bytes.writeUInt32BE(PAGE_MAGIC, 0);
  bytes.writeUInt16BE(VERSION, 4);
  bytes.writeUInt16BE(page.length, 6);
  for (const [index, { first, count, chunk, chunkFirst }] of page.entries()) {
    const at = PAGE_HEADER_BYTES + index * PIECE_BYTES;
    bytes.writeUInt16BE(first, at);
    bytes.writeUInt16BE(count, at + 2);
    bytes.writeUInt16BE(chunkFirst, at + 4);
    bytes.write(chunk, at + 6, NAME_BYTES, "hex");
  }
  return bytes;
};

/** Errors: "backup-damaged". */
export const decodePage = (bytes: Buffer): Page => {
  if (bytes.length < PAGE_HEADER_BYTES || bytes.readUInt32BE(0) !== PAGE_MAGIC) throw damaged("it is no page");
  if (bytes.readUInt16BE(4) !== VERSION) throw damaged(`it is of version ${bytes.readUInt16BE(4)} of its format`);
  const count = bytes.readUInt16BE(6);
  if (count > PAGE_GRAINS || bytes.length !== PAGE_HEADER_BYTES + count * PIECE_BYTES)
    throw damaged("its length is not that of its pieces");
  const page: Piece[] = [];
  let end = 0;
  for (let at = PAGE_HEADER_BYTES; at < bytes.length; at += PIECE_BYTES) {
    const piece = {
      first: bytes.readUInt16BE(at),
      count: bytes.readUInt16BE(at + 2),
      chunkFirst: bytes.readUInt16BE(at + 4),
      chunk: bytes.toString("hex", at + 6, at + PIECE_BYTES),
    };
    if (piece.count === 0 || piece.first < end || piece.first + piece.count > PAGE_GRAINS)
      throw damaged("its pieces are not in order");
    if (piece.chunkFirst + piece.count > CHUNK_GRAINS) throw damaged("a piece is larger than a chunk");
    end = piece.first + piece.count;
    page.push(piece);
  }
  return page;
};

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const uuidText = (hex: string): string =>
  [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");

/** Requires: as many pages as the size needs, and the id is a UUID. */
export const encodeList = ({ backupId, sizeBytes, takenAtMs, pages }: PageList, keys: BackupKeys): Buffer => {
  if (!UUID.test(backupId) || pages.length !== pageCountOf(sizeBytes)) throw new Error("this is no list of a backup");
  const bytes = Buffer.alloc(LIST_HEADER_BYTES + pages.length * NAME_BYTES);
  bytes.writeUInt32BE(LIST_MAGIC, 0);
  bytes.writeUInt16BE(VERSION, 4);
  bytes.write(keys.id, 8, 8, "hex");
  bytes.write(backupId.replaceAll("-", ""), 16, 16, "hex");
  bytes.writeBigUInt64BE(BigInt(sizeBytes), 32);
  bytes.writeBigUInt64BE(BigInt(takenAtMs), 40);
  for (const [index, name] of pages.entries())
    if (name !== undefined) bytes.write(name, LIST_HEADER_BYTES + index * NAME_BYTES, NAME_BYTES, "hex");
  return Buffer.concat([bytes, Buffer.from(keys.nameOf("list", bytes), "hex")]);
};

/** Errors: "backup-damaged", "backup-key-unknown" where it was written with other keys. */
export const decodeList = (bytes: Buffer, keys: BackupKeys): PageList => {
  if (bytes.length < LIST_HEADER_BYTES + NAME_BYTES || bytes.readUInt32BE(0) !== LIST_MAGIC)
    throw damaged("it is no list of pages");
  if (bytes.readUInt16BE(4) !== VERSION) throw damaged(`it is of version ${bytes.readUInt16BE(4)} of its format`);
  if (bytes.toString("hex", 8, 16) !== keys.id)
    throw new RingsteadError("backup-key-unknown", "it was written with another installation's backup key");
  const end = bytes.length - NAME_BYTES;
  const expected = Buffer.from(keys.nameOf("list", bytes.subarray(0, end)), "hex");
  if (!timingSafeEqual(expected, bytes.subarray(end))) throw damaged("its checksum is wrong");
  const sizeBytes = Number(bytes.readBigUInt64BE(32));
  const count = pageCountOf(sizeBytes);
  if (end !== LIST_HEADER_BYTES + count * NAME_BYTES) throw damaged("its length is not that of its pages");
  return {
    backupId: uuidText(bytes.toString("hex", 16, 32)),
    sizeBytes,
    takenAtMs: Number(bytes.readBigUInt64BE(40)),
    pages: Array.from({ length: count }, (_, index) => {
      const name = bytes.toString(
        "hex",
        LIST_HEADER_BYTES + index * NAME_BYTES,
        LIST_HEADER_BYTES + (index + 1) * NAME_BYTES,
      );
      return /^0+$/.test(name) ? undefined : name;
    }),
  };
};
