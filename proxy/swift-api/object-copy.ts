import type { OutgoingHttpHeaders } from "node:http";
import type { ObjectMetadata } from "../object-service/object-metadata.ts";
import { receiveBody, type UploadedBody, uploadOf } from "../object-service/body-upload.ts";
import type { Container } from "../object-service/containers.ts";
import { lastModifiedSeconds, type StoredObject } from "../object-service/objects.ts";
import { needsAcl } from "./access.ts";
import { type ByteRange, httpDateOf } from "./conditions.ts";
import { type Exchange, header, headerBytes, respond } from "./exchange.ts";
import { addKeptHeaders, dueTime } from "./given-metadata.ts";
import { changedHeaders, readMetadata, titleCase } from "./metadata.ts";
import { admittedContainer } from "./object-access.ts";
import { answersCondition, objectHeaders, presentObject, requestedRanges } from "./object-read.ts";
import { store } from "./object-write.ts";
import { refuse } from "./swift-error.ts";
import { type ObjectPath, parseCopyPath } from "./swift-path.ts";
import type { SwiftServices } from "./swift-server.ts";

/** PUT with X-Copy-From. */
export const copyFrom = async (services: SwiftServices, exchange: Exchange, path: ObjectPath): Promise<void> => {
  const container = await admittedContainer(services, exchange, path, "write");
  const account = header(exchange, "x-copy-from-account") ?? path.account;
  const source = parseCopyPath(header(exchange, "x-copy-from") ?? "", account, "X-Copy-From");
  return copyObject(services, exchange, source, container, path.object);
};

/** COPY: the destination stands in a header. */
export const copyToDestination = async (
  services: SwiftServices,
  exchange: Exchange,
  path: ObjectPath,
): Promise<void> => {
  const value = header(exchange, "destination");
  if (value === undefined) throw refuse("precondition-failed", "Destination header required");
  const destination = parseCopyPath(value, header(exchange, "destination-account") ?? path.account, "Destination");
  const container = await admittedContainer(services, exchange, destination, "write");
  return copyObject(services, exchange, path, container, destination.object);
};

/** The part of the source that a copy is to have; conditions and range are those of reading it. Undefined where a condition is answered. */
const sourceOf = async (
  services: SwiftServices,
  exchange: Exchange,
  source: ObjectPath,
): Promise<{ readonly object: StoredObject; readonly part: ByteRange | undefined } | undefined> => {
  if (needsAcl(exchange, source.account, "read-object"))
    await admittedContainer(services, exchange, source, "read-object");
  const object = await presentObject(services, exchange, source, true);
  if (object === undefined) return undefined;
  const headers = objectHeaders(object);
  if (answersCondition(exchange, object, headers)) return undefined;
  const ranges = requestedRanges(exchange, object, headers);
  if (ranges === "ignore") return { object, part: undefined };
  if (ranges.length > 1) throw refuse("bad-request", "A copy takes one range of its source");
  return { object, part: ranges[0] };
};

/** The bytes of a source, received as those of a client are. */
const uploadedPart = (
  services: SwiftServices,
  { object, part }: { readonly object: StoredObject; readonly part: ByteRange | undefined },
  container: Container,
  name: string,
): UploadedBody | Promise<UploadedBody> => {
  const first = part?.first ?? 0;
  const length = (part?.last ?? object.length - 1) - first + 1;
  return object.small === undefined
    ? receiveBody(services.objects.replicasOf(container, name), object.stream(first, length))
    : uploadOf(object.small.subarray(first, first + length));
};

const copyObject = async (
  services: SwiftServices,
  exchange: Exchange,
  source: ObjectPath,
  container: Container,
  name: string,
): Promise<void> => {
  if (Number(header(exchange, "content-length") ?? "0") > 0)
    throw refuse("bad-request", "Copy requests require a zero byte body");
  const found = await sourceOf(services, exchange, source);
  if (found === undefined) return;
  const { object } = found;
  const isFresh = header(exchange, "x-fresh-metadata")?.toLowerCase() === "true";
  const change = readMetadata(exchange, "object");
  const contentType = header(exchange, "content-type");
  const due = dueTime(services, exchange);
  const uploaded = await uploadedPart(services, found, container, name);
  const metadata: ObjectMetadata = {
    etag: uploaded.md5,
    contentType: contentType === undefined || contentType === "" ? object.metadata.contentType : contentType,
    headers: {
      ...(isFresh ? {} : changedHeaders(object.metadata.headers, change)),
      ...addKeptHeaders(exchange, change.set),
    },
    deleteAt: due ?? (isFresh ? undefined : object.metadata.deleteAt),
  };
  const written = await store(services, container, name, uploaded, metadata, undefined);
  const headers: OutgoingHttpHeaders = {
    "Content-Type": "text/html; charset=UTF-8",
    Etag: uploaded.md5,
    "Last-Modified": httpDateOf(lastModifiedSeconds(written.changed)),
    "X-Copied-From": `${encodeURIComponent(source.container)}/${source.object.split("/").map(encodeURIComponent).join("/")}`,
    "X-Copied-From-Account": source.account,
    "X-Copied-From-Last-Modified": httpDateOf(lastModifiedSeconds(object.changed)),
  };
  for (const [key, value] of Object.entries(metadata.headers))
    if (key.startsWith("x-object-meta-")) headers[titleCase(key)] = headerBytes(value);
  if (metadata.deleteAt !== undefined) headers["X-Delete-At"] = String(metadata.deleteAt);
  respond(exchange, 201, headers);
};
