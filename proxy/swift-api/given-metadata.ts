import type { ObjectMetadata } from "../object-service/object-metadata.ts";
import { type Exchange, header } from "./exchange.ts";
import { mediaTypeOf } from "./media-type.ts";
import { readMetadata } from "./metadata.ts";
import { refuse } from "./swift-error.ts";
import type { SwiftServices } from "./swift-server.ts";

/** Headers that an object keeps beside its metadata. */
const KEPT_HEADERS = [
  "content-encoding",
  "content-disposition",
  "content-language",
  "cache-control",
  "expires",
  "x-robots-tag",
];

/** Adds the headers that an object keeps to its metadata. */
export const addKeptHeaders = (exchange: Exchange, headers: Record<string, string>): Record<string, string> => {
  for (const name of KEPT_HEADERS) {
    const value = header(exchange, name);
    if (value !== undefined && value !== "") headers[name] = value;
  }
  return headers;
};

/** When the object is due, in seconds since 1970; undefined for never. Errors: "bad-request". */
export const dueTime = (services: SwiftServices, exchange: Exchange): number | undefined => {
  const at = header(exchange, "x-delete-at");
  const after = header(exchange, "x-delete-after");
  const nowSeconds = Math.floor(services.clock.nowMs() / 1000);
  if (after !== undefined) {
    if (!/^-?\d+$/.test(after)) throw refuse("bad-request", "Non-integer X-Delete-After");
    if (Number(after) <= 0) throw refuse("bad-request", "X-Delete-After in past");
    return nowSeconds + Number(after);
  }
  if (at === undefined) return undefined;
  if (!/^\d+$/.test(at)) throw refuse("bad-request", "Non-integer X-Delete-At");
  if (Number(at) <= nowSeconds) throw refuse("bad-request", "X-Delete-At in past");
  return Number(at);
};

/** The metadata of a new object, without its ETag. Errors: "bad-metadata", "bad-request". */
export const newMetadata = (services: SwiftServices, exchange: Exchange, name: string): ObjectMetadata => {
  const given = header(exchange, "content-type");
  const detect = header(exchange, "x-detect-content-type");
  const contentType =
    given === undefined || given === "" || detect?.toLowerCase() === "true" ? mediaTypeOf(name) : given;
  return {
    etag: "",
    contentType,
    headers: addKeptHeaders(exchange, readMetadata(exchange, "object").set),
    deleteAt: dueTime(services, exchange),
  };
};
