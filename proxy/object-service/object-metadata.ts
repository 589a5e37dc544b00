import { decode, encode } from "msgpackr";
import { HeaderReader, headersOf } from "../../storage-node/wire.ts";

/** What an object's record says besides its body; opaque to the storage nodes. */
export type ObjectMetadata = {
  readonly etag: string;
  readonly contentType: string;
  /** Lower-case names: user metadata with its face's prefix, and the headers that are kept (`content-encoding`, …). */
  readonly headers: Readonly<Record<string, string>>;
  /** Due time in seconds since 1970, when the object expires. */
  readonly deleteAt: number | undefined;
};

/** Metadata of one object may not be longer when encoded: faces limit it far below. */
const METADATA_LIMIT_BYTES = 128 * 1024;

export const encodeObjectMetadata = (metadata: ObjectMetadata): Uint8Array =>
  encode([metadata.etag, metadata.contentType, metadata.headers, metadata.deleteAt ?? 0]);

export const decodeObjectMetadata = (bytes: Uint8Array): ObjectMetadata => {
  const fields: unknown = decode(bytes);
  const reader = new HeaderReader(Array.isArray(fields) ? fields : []);
  const etag = reader.text(256);
  const contentType = reader.text(METADATA_LIMIT_BYTES);
  const headers = headersOf(reader.any());
  const deleteAt = reader.count();
  return { etag, contentType, headers, deleteAt: deleteAt === 0 ? undefined : deleteAt };
};

/** The payload of an object's row in its container. */
export type ObjectRowPayload = { readonly etag: string; readonly contentType: string };

export const encodeObjectRow = (payload: ObjectRowPayload): Uint8Array =>
  Buffer.from(`${payload.etag}\0${payload.contentType}`);

export const decodeObjectRow = (bytes: Uint8Array): ObjectRowPayload => {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8");
  const end = text.indexOf("\0");
  return { etag: text.slice(0, end), contentType: text.slice(end + 1) };
};
