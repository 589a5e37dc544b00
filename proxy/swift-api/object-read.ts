import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { OutgoingHttpHeaders } from "node:http";
import { codeOf } from "../../common/errors.ts";
import { swiftTimestamp } from "../../common/hybrid-clock.ts";
import { releaseMemory } from "../../common/release-memory.ts";
import { lastModifiedSeconds, type StoredObject } from "../object-service/objects.ts";
import { needsAcl } from "./access.ts";
import { type ByteRange, httpDateOf, httpDateSeconds, judgeRead, parseRange, type Validators } from "./conditions.ts";
import { type Exchange, header, headerBytes, respond, sendHead } from "./exchange.ts";
import { titleCase } from "./metadata.ts";
import { admittedContainer, conditionsOf } from "./object-access.ts";
import { refuse } from "./swift-error.ts";
import type { ObjectPath } from "./swift-path.ts";
import type { SwiftServices } from "./swift-server.ts";

/** What GET and HEAD say of an object beside its length. */
export const objectHeaders = (object: StoredObject): OutgoingHttpHeaders => {
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

/** Headers that a client is told of an object although no part of it can be had. */
const OF_ANY_PART = ["Etag", "Last-Modified", "X-Timestamp", "Accept-Ranges"];

/** Versions that may be overwritten between the look at them and their first byte, one after the other. */
const OVERWRITTEN_LIMIT = 8;

/** GET and HEAD. */
export const readObject = async (services: SwiftServices, exchange: Exchange, path: ObjectPath): Promise<void> => {
  if (needsAcl(exchange, path.account, "read-object")) await admittedContainer(services, exchange, path, "read-object");
  const isGet = exchange.method === "GET";
  let seen: StoredObject | undefined;
  for (let attempt = 1; ; attempt++) {
    const object = await presentObject(services, exchange, path, isGet);
    if (object === undefined) return;
    try {
      return await sendObject(exchange, object);
    } catch (error) {
      const isOver = exchange.response.headersSent || attempt === OVERWRITTEN_LIMIT || seen?.version === object.version;
      if (codeOf(error) !== "body-unavailable" || isOver) throw error;
      seen = object;
    }
  }
};

/** The object that is to be read; undefined where a condition is answered, which holds for no object at all. Errors: "no-such-object". */
export const presentObject = async (
  services: SwiftServices,
  exchange: Exchange,
  path: ObjectPath,
  withBody: boolean,
): Promise<StoredObject | undefined> => {
  try {
    return await services.objects.get(path.account, path.container, path.object, withBody);
  } catch (error) {
    if (codeOf(error) !== "no-such-object" || header(exchange, "if-match") === undefined) throw error;
    respond(exchange, 412, { "Content-Type": "text/html; charset=UTF-8" });
    return undefined;
  }
};

/** Answers a request to read `object` whose conditions do not let it go on, and says whether it did. */
export const answersCondition = (exchange: Exchange, object: StoredObject, headers: OutgoingHttpHeaders): boolean => {
  switch (judgeRead(conditionsOf(exchange), readValidators(object))) {
    case "go-on":
      return false;
    case "not-modified":
      sendHead(exchange, 304, headers);
      exchange.response.end();
      return true;
    case "precondition-failed":
      respond(exchange, 412, headers);
      return true;
  }
};

const readValidators = (object: StoredObject): Validators => ({
  etag: object.metadata.etag,
  modifiedSeconds: lastModifiedSeconds(object.changed),
});

/** The ranges that a request asks for; "ignore" for the whole. Errors: "range-not-satisfiable", and the answer says of what. */
export const requestedRanges = (
  exchange: Exchange,
  object: StoredObject,
  headers: OutgoingHttpHeaders,
): readonly ByteRange[] | "ignore" => {
  const rangeHeader = header(exchange, "range");
  if (rangeHeader === undefined || !rangeStillHolds(exchange, readValidators(object))) return "ignore";
  const ranges = parseRange(rangeHeader, object.length);
  if (ranges !== "unsatisfiable") return ranges;
  for (const name of OF_ANY_PART) exchange.response.setHeader(name, String(headers[name]));
  exchange.response.setHeader("Content-Range", `bytes */${object.length}`);
  throw refuse("range-not-satisfiable", "The Range requested is not available.");
};

const sendObject = async (exchange: Exchange, object: StoredObject): Promise<void> => {
  const isGet = exchange.method === "GET";
  const headers = objectHeaders(object);
  if (answersCondition(exchange, object, headers)) return;
  const ranges = isGet ? requestedRanges(exchange, object, headers) : "ignore";
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
  sendHead(exchange, status, headers);
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
