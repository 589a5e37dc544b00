import { encode } from "msgpackr";
import { headersOf, readerOf } from "../../storage-node/wire.ts";

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
/** The latest due time, in the year 2286, as Swift has it; longer numbers would not sort in the index of due times. */
const DUE_TIME_LIMIT = 9_999_999_999;

export const encodeObjectMetadata = (metadata: ObjectMetadata): Uint8Array =>
  encode([metadata.etag, metadata.contentType, metadata.headers, metadata.deleteAt ?? 0]);

/** As it is kept: a due time beyond the latest one stands for the latest. */
export const keptMetadata = (metadata: ObjectMetadata): ObjectMetadata =>
  metadata.deleteAt === undefined || metadata.deleteAt <= DUE_TIME_LIMIT
    ? metadata
    : { ...metadata, deleteAt: DUE_TIME_LIMIT };

/** Errors: "bad-message" for what no encoder wrote. */
export const decodeObjectMetadata = (bytes: Uint8Array): ObjectMetadata => {
  const reader = readerOf(bytes, "object metadata");
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
