import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import type { OutgoingHttpHeaders } from "node:http";
import { codeOf, RingsteadError } from "../../common/errors.ts";
import { releaseMemory } from "../../common/release-memory.ts";
import { type HybridTimestamp, swiftTimestamp } from "../../common/hybrid-clock.ts";
import { INLINE_BODY_LIMIT_BYTES } from "../../storage-node/wire.ts";
import { uploadBudget } from "../object-service/transfer-budget.ts";
import { givenUploadOf, isOwn, receiveBody, type UploadedBody, uploadOf } from "../object-service/body-upload.ts";
import type { Container } from "../object-service/containers.ts";
import type { ObjectMetadata } from "../object-service/object-metadata.ts";
import { type Condition, lastModifiedSeconds, type Present, type StoredObject } from "../object-service/objects.ts";
import { needsAcl, requireAcl, type Wanted } from "./access.ts";
import {
  type ByteRange,
  type ConditionHeaders,
  judgeRead,
  parseRange,
  requireWriteConditions,
  httpDateOf,
  httpDateSeconds,
  type Validators,
} from "./conditions.ts";
import { CONSTRAINTS } from "./constraints.ts";
import { type Exchange, header, headerBytes, respond, respondError } from "./exchange.ts";
import { changedHeaders, readMetadata, titleCase } from "./metadata.ts";
import { mediaTypeOf } from "./media-type.ts";
import type { SwiftServices } from "./swift-server.ts";
import { refuse } from "./swift-error.ts";

export type ObjectPath = { readonly account: string; readonly container: string; readonly object: string };

/** Headers that an object keeps beside its metadata. */
const KEPT_HEADERS = [
  "content-encoding",
  "content-disposition",
  "content-language",
  "cache-control",
  "expires",
  "x-robots-tag",
];

const conditionsOf = (exchange: Exchange): ConditionHeaders => ({
  ifMatch: header(exchange, "if-match"),
  ifNoneMatch: header(exchange, "if-none-match"),
  ifModifiedSince: header(exchange, "if-modified-since"),
  ifUnmodifiedSince: header(exchange, "if-unmodified-since"),
});

const validatorsOf = (present: Present): Validators | undefined =>
  present === undefined
    ? undefined
    : { etag: present.metadata.etag, modifiedSeconds: lastModifiedSeconds(present.changed) };

const hasConditions = ({ ifMatch, ifNoneMatch, ifUnmodifiedSince }: ConditionHeaders): boolean =>
  ifMatch !== undefined || ifNoneMatch !== undefined || ifUnmodifiedSince !== undefined;

/** The container of a write; its ACL is asked when the account's own rights do not suffice. At once where it is known. */
const admittedContainer = (
  services: SwiftServices,
  exchange: Exchange,
  path: ObjectPath,
  wanted: Wanted,
): Container | Promise<Container> =>
  needsAcl(exchange, path.account, wanted)
    ? containerByAcl(services, exchange, path, wanted)
    : services.containers.known(path.account, path.container);

const containerByAcl = async (
  services: SwiftServices,
  exchange: Exchange,
  path: ObjectPath,
  wanted: Wanted,
): Promise<Container> => {
  if (exchange.token === undefined && wanted === "write") requireAcl(exchange, {}, wanted);
  let container: Container;
  try {
    container = await services.containers.known(path.account, path.container);
  } catch (error) {
    // Who may not even list the account is not told which containers exist.
    if (error instanceof RingsteadError && error.code === "no-such-container") requireAcl(exchange, {}, wanted);
    throw error;
  }
  requireAcl(exchange, container.headers, wanted);
  return container;
};

const objectHeaders = (object: StoredObject): OutgoingHttpHeaders => {
  const headers: OutgoingHttpHeaders = {
    "Content-Type": headerBytes(object.metadata.contentType),
    Etag: object.metadata.etag,
    "Last-Modified": httpDateOf(lastModifiedSeconds(object.changed)),
    "X-Timestamp": swiftTimestamp(object.changed),
    "Accept-Ranges": "bytes",
  };
  for (const [name, value] of Object.entries(object.metadata.headers)) headers[titleCase(name)] = headerBytes(value);
  if (object.metadata.deleteAt !== undefined) headers["X-Delete-At"] = String(object.metadata.deleteAt);
  return headers;
};

/** Versions that may be overwritten between the look at them and their first byte, one after the other. */
const OVERWRITTEN_LIMIT = 8;

/** GET and HEAD. */
export const readObject = async (services: SwiftServices, exchange: Exchange, path: ObjectPath): Promise<void> => {
  if (needsAcl(exchange, path.account, "read-object")) await admittedContainer(services, exchange, path, "read-object");
  const isGet = exchange.method === "GET";
  let seen: StoredObject | undefined;
  for (let attempt = 1; ; attempt++) {
    const object = await services.objects.get(path.account, path.container, path.object, isGet);
    try {
      return await sendObject(exchange, object);
    } catch (error) {
      const isOver = exchange.response.headersSent || attempt === OVERWRITTEN_LIMIT || seen?.version === object.version;
      if (codeOf(error) !== "body-unavailable" || isOver) throw error;
      seen = object;
    }
  }
};

const sendObject = async (exchange: Exchange, object: StoredObject): Promise<void> => {
  const isGet = exchange.method === "GET";
  const headers = objectHeaders(object);
  const validators = { etag: object.metadata.etag, modifiedSeconds: lastModifiedSeconds(object.changed) };
  switch (judgeRead(conditionsOf(exchange), validators)) {
    case "not-modified":
      exchange.response.writeHead(304, {
        ...headers,
        "X-Trans-Id": exchange.transactionId,
        "X-Openstack-Request-Id": exchange.transactionId,
      });
      exchange.response.end();
      return;
    case "precondition-failed":
      respondError(exchange, 412, "A precondition for this request was not met.");
      return;
    case "go-on":
  }
  const rangeHeader = isGet ? header(exchange, "range") : undefined;
  const ranges =
    rangeHeader === undefined || !rangeStillHolds(exchange, validators)
      ? "ignore"
      : parseRange(rangeHeader, object.length);
  if (ranges === "unsatisfiable") {
    exchange.response.setHeader("Content-Range", `bytes */${object.length}`);
    throw refuse("range-not-satisfiable", "The Range requested is not available.");
  }
  if (ranges === "ignore") {
    headers["Content-Length"] = object.length;
    if (!isGet || object.small !== undefined) respond(exchange, 200, headers, object.small ?? "");
    else await sendStream(exchange, 200, headers, object.stream(0, object.length), GIVEN);
    return;
  }
  const [only] = ranges;
  if (ranges.length === 1 && only !== undefined) {
    headers["Content-Length"] = only.last - only.first + 1;
    headers["Content-Range"] = `bytes ${only.first}-${only.last}/${object.length}`;
    if (object.small !== undefined) respond(exchange, 206, headers, object.small.subarray(only.first, only.last + 1));
    else await sendStream(exchange, 206, headers, object.stream(only.first, only.last - only.first + 1), GIVEN);
    return;
  }
  await sendRanges(exchange, headers, object, ranges);
};

/** `If-Range`: the ranges hold only for the version that the client has part of. */
const rangeStillHolds = (exchange: Exchange, present: Validators): boolean => {
  const condition = header(exchange, "if-range");
  if (condition === undefined) return true;
  const date = condition.startsWith('"') || condition.startsWith("W/") ? undefined : httpDateSeconds(condition);
  if (date !== undefined) return present.modifiedSeconds <= date;
  return condition.replace(/^"(.*)"$/, "$1") === present.etag;
};

const sendRanges = async (
  exchange: Exchange,
  headers: OutgoingHttpHeaders,
  object: StoredObject,
  ranges: readonly ByteRange[],
): Promise<void> => {
  const boundary = randomBytes(16).toString("hex");
  const contentType = headers["Content-Type"];
  const heads = ranges.map(
    ({ first, last }) =>
      `--${boundary}\r\nContent-Type: ${String(contentType)}\r\nContent-Range: bytes ${first}-${last}/${object.length}\r\n\r\n`,
  );
  const tail = `--${boundary}--`;
  let length = Buffer.byteLength(tail);
  for (const [index, { first, last }] of ranges.entries())
    length += Buffer.byteLength(heads[index] ?? "", "latin1") + last - first + 1 + 2;
  async function* parts(): AsyncGenerator<Buffer> {
    for (const [index, { first, last }] of ranges.entries()) {
      yield Buffer.from(heads[index] ?? "", "latin1");
      if (object.small !== undefined) yield object.small.subarray(first, last + 1);
      else yield* object.stream(first, last - first + 1);
      yield Buffer.from("\r\n");
    }
    yield Buffer.from(tail);
  }
  await sendStream(
    exchange,
    206,
    { ...headers, "Content-Type": `multipart/byteranges;boundary=${boundary}`, "Content-Length": length },
    parts(),
    SHARED,
  );
};

/** Whether the blocks of a stream are used by nobody else: then their memory is given back as soon as they are sent. */
const GIVEN = true;
const SHARED = false;

/** Sends blocks at the client's pace. A source that fails after the headers went out ends the connection: no client may take a part for the whole. */
const sendStream = async (
  exchange: Exchange,
  status: number,
  headers: OutgoingHttpHeaders,
  source: AsyncIterable<Buffer>,
  areGiven: boolean,
): Promise<void> => {
  const { response } = exchange;
  const iterator = source[Symbol.asyncIterator]();
  // The first block is fetched before the headers go out, so that an unavailable body can still be answered with an error.
  let next = await iterator.next();
  response.writeHead(status, {
    ...headers,
    "X-Trans-Id": exchange.transactionId,
    "X-Openstack-Request-Id": exchange.transactionId,
  });
  const closed = once(response, "close").then(() => true);
  try {
    while (next.done !== true && !response.destroyed) {
      const block = next.value;
      const onSent = (error: Error | null | undefined): void => {
        if (areGiven && (error === null || error === undefined)) releaseMemory(block);
      };
      if (!response.write(block, onSent)) {
        const isClosed = await Promise.race([once(response, "drain").then(() => false), closed]);
        if (isClosed) break;
      }
      next = await iterator.next();
    }
    if (next.done === true) response.end();
  } catch (error) {
    response.destroy();
    throw error;
  } finally {
    await iterator.return?.(undefined);
  }
};

/** PUT, also with X-Copy-From. */
export const putObject = async (services: SwiftServices, exchange: Exchange, path: ObjectPath): Promise<void> => {
  const copyFrom = header(exchange, "x-copy-from");
  const admitted = admittedContainer(services, exchange, path, "write");
  const container = admitted instanceof Promise ? await admitted : admitted;
  if (copyFrom === undefined) return putBody(services, exchange, path, container);
  const source = parseCopyPath(copyFrom, header(exchange, "x-copy-from-account") ?? path.account);
  return copyObject(services, exchange, source, container, path.object);
};

/** A PUT whose body comes with it. */
const putBody = async (
  services: SwiftServices,
  exchange: Exchange,
  path: ObjectPath,
  container: Container,
): Promise<void> => {
  const conditions = conditionsOf(exchange);
  const metadata = newMetadata(services, exchange, path.object);
  const length = bodyLength(exchange);
  const etag = expectedEtag(exchange);
  // A condition that already fails spares the client its upload; it is decided again, atomically, with the write.
  if (hasConditions(conditions)) await requirePresently(services, path, conditions);
  const uploaded = await receive(services, exchange, container, path.object, length);
  requireEtag(etag, uploaded);
  const condition = hasConditions(conditions)
    ? (present: Present): void => requireWriteConditions(conditions, validatorsOf(present))
    : undefined;
  answerPut(exchange, uploaded, await store(services, container, path.object, uploaded, metadata, condition));
};

/** The checksum of the body as its client has it, where it gives one. */
const expectedEtag = (exchange: Exchange): string | undefined =>
  header(exchange, "etag")
    ?.replace(/^"(.*)"$/, "$1")
    .toLowerCase();

/** Errors: "etag-mismatch"; the upload is let go of. */
const requireEtag = (expected: string | undefined, uploaded: UploadedBody): void => {
  if (expected === undefined || expected === "" || expected === uploaded.md5) return;
  uploaded.abandon();
  uploaded.release();
  throw refuse("etag-mismatch", "The checksum of the received body differs from the ETag header.");
};

const answerPut = (exchange: Exchange, { md5 }: UploadedBody, written: { readonly changed: HybridTimestamp }): void =>
  respond(exchange, 201, {
    "Content-Type": "text/html; charset=UTF-8",
    Etag: md5,
    "Last-Modified": httpDateOf(lastModifiedSeconds(written.changed)),
  });

/** Stores what was uploaded and lets go of what it held, however that ends. */
const store = async (
  services: SwiftServices,
  container: Container,
  name: string,
  uploaded: UploadedBody,
  metadata: ObjectMetadata,
  condition: Condition | undefined,
): Promise<{ changed: HybridTimestamp }> => {
  try {
    return await services.objects.put(container, name, uploaded, { ...metadata, etag: uploaded.md5 }, condition);
  } catch (error) {
    // After an unknown outcome the staged file may be what a quorum holds: only a sure refusal removes it.
    if (!(error instanceof RingsteadError) || error.code !== "outcome-unknown") uploaded.abandon();
    throw error;
  } finally {
    uploaded.release();
  }
};

const requirePresently = async (
  services: SwiftServices,
  path: ObjectPath,
  conditions: ConditionHeaders,
): Promise<void> => {
  const present = await services.objects
    .get(path.account, path.container, path.object, false)
    .catch((error: unknown) => {
      if (error instanceof RingsteadError && error.code === "no-such-object") return undefined;
      throw error;
    });
  requireWriteConditions(conditions, validatorsOf(present));
};

/** The declared length, undefined for a chunked body. Errors: "length-required", "bad-request", "entity-too-large". */
const bodyLength = (exchange: Exchange): number | undefined => {
  const encoding = header(exchange, "transfer-encoding");
  const text = header(exchange, "content-length");
  if (encoding !== undefined) {
    if (encoding.toLowerCase() !== "chunked")
      throw refuse(
        "not-implemented",
        "Unsupported Transfer-Encoding header value specified in Transfer-Encoding header",
      );
    return undefined;
  }
  if (text === undefined) throw refuse("length-required", "Missing Content-Length header.");
  if (!/^\d+$/.test(text)) throw refuse("bad-request", "Invalid Content-Length header value");
  const length = Number(text);
  if (length > CONSTRAINTS.max_file_size) throw refuse("entity-too-large", "Your request is too large.");
  return length;
};

const receive = (
  services: SwiftServices,
  exchange: Exchange,
  container: Container,
  name: string,
  length: number | undefined,
): Promise<UploadedBody> => {
  if (length === undefined || length > INLINE_BODY_LIMIT_BYTES) {
    return receiveBody(services.objects.replicasOf(container, name), limited(exchange, length));
  }
  const granted = uploadBudget.take(length);
  return granted === undefined ? collect(exchange, length) : granted.then(() => collect(exchange, length));
};

/** From this size on a body is hashed as it arrives: at once it would hold up everybody else. */
const HASH_AT_ONCE_BYTES = 64 * 1024;

/** A body that goes into the log, by events: an async iterator costs more than the rest of a small request. Requires: `length` was granted. */
const collect = (exchange: Exchange, length: number): Promise<UploadedBody> =>
  new Promise((resolve, reject) => {
    const { request } = exchange;
    const isLarge = length > HASH_AT_ONCE_BYTES;
    const hash = isLarge ? createHash("md5") : undefined;
    const whole = isLarge ? Buffer.allocUnsafeSlow(length) : undefined;
    const chunks: Buffer[] = [];
    let received = 0;
    let isOver = false;
    const fail = (message: string): void => {
      if (isOver) return;
      isOver = true;
      uploadBudget.give(length);
      reject(refuse("client-disconnected", message));
    };
    const release = (): void => uploadBudget.give(length);
    // The client may have gone while the body waited for its turn.
    if (request.destroyed && !request.complete) return fail("The client went away.");
    request.on("data", (chunk: Buffer) => {
      if (whole === undefined) chunks.push(chunk);
      else whole.set(chunk, received);
      hash?.update(chunk);
      received += chunk.length;
      if (whole !== undefined && isOwn(chunk)) releaseMemory(chunk);
    });
    request.on("end", () => {
      if (received !== length) return fail("The body was shorter than Content-Length.");
      isOver = true;
      const [only] = chunks;
      if (whole !== undefined && hash !== undefined) resolve(givenUploadOf(whole, hash.digest("hex"), release));
      else {
        const bytes = chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks);
        resolve(uploadOf(bytes, undefined, release));
      }
    });
    request.on("error", () => fail("The client went away."));
    request.on("close", () => {
      if (!request.complete) fail("The client went away.");
    });
  });

async function* limited(exchange: Exchange, length: number | undefined): AsyncGenerator<Buffer> {
  let received = 0;
  try {
    // A request that is given up half-way is still to be answered: its stream must not take the connection along.
    for await (const chunk of exchange.request.iterator({ destroyOnReturn: false })) {
      if (!Buffer.isBuffer(chunk)) continue;
      received += chunk.length;
      if (received > CONSTRAINTS.max_file_size) throw refuse("entity-too-large", "Your request is too large.");
      yield chunk;
    }
  } catch (error) {
    if (error instanceof RingsteadError) throw error;
    throw refuse("client-disconnected", "The client went away.");
  }
  if (length !== undefined && received !== length)
    throw refuse("client-disconnected", "The body was shorter than Content-Length.");
}

/** Adds the headers that an object keeps to its metadata. */
const addKeptHeaders = (exchange: Exchange, headers: Record<string, string>): Record<string, string> => {
  for (const name of KEPT_HEADERS) {
    const value = header(exchange, name);
    if (value !== undefined && value !== "") headers[name] = value;
  }
  return headers;
};

const dueTime = (services: SwiftServices, exchange: Exchange): number | undefined => {
  const at = header(exchange, "x-delete-at");
  const after = header(exchange, "x-delete-after");
  const nowSeconds = Math.floor(services.clock.nowMs() / 1000);
  if (after !== undefined && after !== "") {
    if (!/^-?\d+$/.test(after)) throw refuse("bad-request", "Non-integer X-Delete-After");
    if (Number(after) <= 0) throw refuse("bad-request", "X-Delete-After in past");
    return nowSeconds + Number(after);
  }
  if (at === undefined || at === "") return undefined;
  if (!/^\d+$/.test(at)) throw refuse("bad-request", "Non-integer X-Delete-At");
  if (Number(at) <= nowSeconds) throw refuse("bad-request", "X-Delete-At in past");
  return Number(at);
};

const newMetadata = (services: SwiftServices, exchange: Exchange, name: string): ObjectMetadata => {
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

/** POST: user metadata is replaced as a whole, kept headers and the type only where given. */
export const postObject = async (services: SwiftServices, exchange: Exchange, path: ObjectPath): Promise<void> => {
  const container = await admittedContainer(services, exchange, path, "write");
  const given = addKeptHeaders(exchange, readMetadata(exchange, "object").set);
  const contentType = header(exchange, "content-type");
  const deleteAt = dueTime(services, exchange);
  const written = await services.objects.post(container, path.object, (present) => ({
    etag: present.etag,
    contentType: contentType === undefined || contentType === "" ? present.contentType : contentType,
    headers: given,
    deleteAt,
  }));
  respond(exchange, 202, {
    "Content-Type": "text/html; charset=UTF-8",
    "X-Timestamp": swiftTimestamp(written.changed),
  });
};

export const deleteObject = async (services: SwiftServices, exchange: Exchange, path: ObjectPath): Promise<void> => {
  const container = await admittedContainer(services, exchange, path, "write");
  const conditions = conditionsOf(exchange);
  await services.objects.delete(container, path.object, (present) =>
    requireWriteConditions(conditions, validatorsOf(present)),
  );
  respond(exchange, 204, { "Content-Type": "text/html; charset=UTF-8" });
};

export const parseCopyPath = (value: string, account: string): ObjectPath => {
  let decoded: string;
  try {
    decoded = decodeURIComponent(value.split("?")[0] ?? "");
  } catch {
    throw refuse("bad-path", "Invalid UTF8 or contains NULL");
  }
  const path = decoded.replace(/^\/+/, "");
  const end = path.indexOf("/");
  if (end <= 0 || end === path.length - 1 || path.includes("\0")) {
    throw refuse("precondition-failed", "The copy header must be of the form <container name>/<object name>");
  }
  return { account, container: path.slice(0, end), object: path.slice(end + 1) };
};

/** COPY: the destination stands in a header. */
export const copyToDestination = async (
  services: SwiftServices,
  exchange: Exchange,
  path: ObjectPath,
): Promise<void> => {
  const value = header(exchange, "destination");
  if (value === undefined) throw refuse("precondition-failed", "Destination header required");
  const destination = parseCopyPath(value, header(exchange, "destination-account") ?? path.account);
  const container = await admittedContainer(services, exchange, destination, "write");
  await copyObject(services, exchange, path, container, destination.object);
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
  if (needsAcl(exchange, source.account, "read-object"))
    await admittedContainer(services, exchange, source, "read-object");
  const object = await services.objects.get(source.account, source.container, source.object, true);
  const isFresh = header(exchange, "x-fresh-metadata")?.toLowerCase() === "true";
  const change = readMetadata(exchange, "object");
  const contentType = header(exchange, "content-type");
  const uploaded =
    object.small === undefined
      ? await receiveBody(services.objects.replicasOf(container, name), object.stream(0, object.length))
      : uploadOf(object.small);
  const metadata: ObjectMetadata = {
    etag: uploaded.md5,
    contentType: contentType === undefined || contentType === "" ? object.metadata.contentType : contentType,
    headers: {
      ...(isFresh ? {} : changedHeaders(object.metadata.headers, change)),
      ...addKeptHeaders(exchange, change.set),
    },
    deleteAt: dueTime(services, exchange) ?? (isFresh ? undefined : object.metadata.deleteAt),
  };
  const written = await store(services, container, name, uploaded, metadata, undefined);
  respond(exchange, 201, {
    "Content-Type": "text/html; charset=UTF-8",
    Etag: uploaded.md5,
    "Last-Modified": httpDateOf(lastModifiedSeconds(written.changed)),
    "X-Copied-From": `${encodeURIComponent(source.container)}/${source.object.split("/").map(encodeURIComponent).join("/")}`,
    "X-Copied-From-Account": source.account,
    "X-Copied-From-Last-Modified": httpDateOf(lastModifiedSeconds(object.changed)),
  });
};
