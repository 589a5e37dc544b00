import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http";
import type { TokenContext } from "../../identity/client.ts";
import { exposeTo, type OriginRule } from "./cross-origin.ts";
import { errorPage, refuse } from "./swift-error.ts";

/** One request with its answer, as operations see it. */
export type Exchange = {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly method: string;
  readonly query: URLSearchParams;
  readonly transactionId: string;
  /** Undefined for anonymous requests, which only an ACL admits; set once, before any operation sees the exchange. */
  token: TokenContext | undefined;
  /** Undefined where the request comes from no page of another origin, or from one that may not see the answer; set as `token` is. */
  origin: OriginRule | undefined;
};

/** What a refused client still sends is read and dropped for so long: a connection closed on unread bytes is reset, and the answer lost with it. */
const LINGER_MS = 2000;

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** A header's text: what travels as latin1 is UTF-8. Errors: "bad-metadata" for other bytes. */
export const headerText = (value: string): string => {
  if (/^[\x20-\x7e]*$/.test(value)) return value;
  try {
    return utf8.decode(Buffer.from(value, "latin1"));
  } catch {
    throw refuse("bad-metadata", "Metadata must be valid UTF-8");
  }
};

/** The other way round, for answers. */
export const headerBytes = (text: string): string =>
  /^[\x20-\x7e]*$/.test(text) ? text : Buffer.from(text, "utf8").toString("latin1");

/** One request header as text, undefined when absent. */
export const header = (exchange: Exchange, name: string): string | undefined => {
  const value = exchange.request.headers[name];
  if (value === undefined) return undefined;
  return headerText(Array.isArray(value) ? value.join(", ") : value);
};

/** Answers without a body, or with a short one. HEAD answers keep the length and drop the bytes. */
export const respond = (
  exchange: Exchange,
  status: number,
  headers: OutgoingHttpHeaders,
  body: string | Buffer = "",
): void => {
  sendHead(exchange, status, withLength(headers, status, body));
  exchange.response.end(exchange.method === "HEAD" ? undefined : body);
};

const withLength = (headers: OutgoingHttpHeaders, status: number, body: string | Buffer): OutgoingHttpHeaders => {
  if (status !== 204 || body.length > 0) headers["Content-Length"] ??= Buffer.byteLength(body);
  return headers;
};

/** Begins an answer: its status, `headers`, and those that every answer has. */
export const sendHead = (
  { response, transactionId, origin }: Exchange,
  status: number,
  headers: OutgoingHttpHeaders,
): void => {
  headers["X-Trans-Id"] = transactionId;
  headers["X-Openstack-Request-Id"] = transactionId;
  if (origin !== undefined) exposeTo(headers, origin);
  response.writeHead(status, headers);
};

/** An error page; the headers that a status wants are added here. */
export const respondError = (exchange: Exchange, status: number, message: string): void => {
  const headers: OutgoingHttpHeaders = { "Content-Type": "text/html; charset=UTF-8" };
  if (status === 401)
    headers["Www-Authenticate"] =
      `Swift realm="${encodeURIComponent(exchange.request.url?.split("/")[2] ?? "unknown")}"`;
  const page = errorPage(status, message);
  const { request, response } = exchange;
  if (request.complete || request.readableEnded) return respond(exchange, status, headers, page);
  headers["Connection"] = "close";
  sendHead(exchange, status, withLength(headers, status, page));
  response.flushHeaders();
  if (exchange.method !== "HEAD") response.write(page);
  const end = (): void => {
    clearTimeout(timer);
    response.end();
  };
  const timer = setTimeout(end, LINGER_MS);
  request.once("end", end).once("close", end).resume();
};
