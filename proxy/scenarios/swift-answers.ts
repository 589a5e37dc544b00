import { type IncomingHttpHeaders, request as httpRequest } from "node:http";
import { join } from "node:path";
import { SWIFT_REQUESTS, type SwiftRequest } from "./swift-requests.ts";

/** What Swift 2.30.1 answers to SWIFT_REQUESTS; `bench/record-swift-answers.ts` writes it. */
export const RECORDED = join(import.meta.dirname, "fixtures", "swift-answers.json");

/** What clients may rely on of an answer: alike from any store, and at any time. */
export type SwiftAnswer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Of a success: text, or what a listing in JSON or XML says. */
  readonly body: unknown;
};

const KEPT = new RegExp(
  "^(accept-ranges|access-control-.*|allow|cache-control|content-(disposition|encoding|language|range|type)|etag|expires|vary|x-copied-from.*|x-delete-at|x-robots-tag|" +
    "x-(account|container|object)-meta-.*|x-container-(bytes-used|object-count|read|write)|x-storage-policy)$",
);
/** Without order. Swift names COPY only where it is not refused. */
const LISTS = /^(allow|vary|access-control-.*s)$/;
const listOf = (value: string): string =>
  value
    .split(", ")
    .filter((word) => word !== "COPY")
    .toSorted()
    .join(", ");
const OF_A_BODY = new Set(["accept-ranges", "content-type"]);
const SECONDS_OF_TIMERS = 1_900_000_000;

const headersOf = (headers: IncomingHttpHeaders, status: number): Record<string, string> => {
  const kept: Record<string, string> = {};
  const boundary = /boundary=(\S+)/.exec(headers["content-type"] ?? "")?.[1];
  for (const [name, given] of Object.entries(headers)) {
    const value = String(given);
    if (status < 300 && name === "last-modified") kept[name] = "a time";
    // How an error's page is packed is nobody's business.
    if (!KEPT.test(name) || (status >= 300 && OF_A_BODY.has(name))) continue;
    if (name === "x-copied-from-last-modified") kept[name] = "a time";
    else if (name === "x-copied-from-account") kept[name] = "the account";
    else if (LISTS.test(name)) kept[name] = listOf(value);
    else if (name === "x-delete-at" && Number(value) < SECONDS_OF_TIMERS) kept[name] = "later";
    else kept[name] = boundary === undefined ? value : value.replace(boundary, "BOUNDARY");
  }
  return kept;
};

const withoutTimes = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(withoutTimes);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).filter(([name]) => name !== "last_modified"));
};

const isOfAccount = ({ path, isRaw }: SwiftRequest): boolean => !isRaw && (path === "" || path.startsWith("?"));

/** Swift counts an account's objects some time later. */
const withoutCounts = (text: string): string => text.replaceAll(/("(?:count|bytes)": ?|<(?:count|bytes)>)\d+/g, "$10");

const bodyOf = (request: SwiftRequest, status: number, headers: IncomingHttpHeaders, text: string): unknown => {
  if (status >= 300 || request.method === "PUT" || request.method === "POST" || request.path === "/info") return "";
  const type = headers["content-type"] ?? "";
  const said = isOfAccount(request) ? withoutCounts(text) : text;
  if (type.startsWith("application/json")) return withoutTimes(JSON.parse(said));
  if (type.includes("/xml")) {
    return said
      .replaceAll(/AUTH_\w+/g, "ACCOUNT")
      .replaceAll(/<last_modified>[^<]*/g, "<last_modified>")
      .replaceAll(/ \/>/g, "></container>")
      .replaceAll(/>\s+</g, "><");
  }
  const boundary = /boundary=(\S+)/.exec(type)?.[1];
  return boundary === undefined ? said : said.replaceAll(boundary, "BOUNDARY");
};

const LIMIT_MS = 30_000;

const send = (url: URL, token: string, request: SwiftRequest): Promise<SwiftAnswer> =>
  new Promise((resolve, reject) => {
    const { method, body, isAnonymous } = request;
    const headers: Record<string, string> = { ...(isAnonymous ? {} : { "X-Auth-Token": token }), ...request.headers };
    if (body !== undefined && headers["Transfer-Encoding"] === undefined) {
      headers["Content-Length"] = String(Buffer.byteLength(body));
    } else if (body === undefined && (method === "PUT" || method === "POST")) headers["Content-Length"] = "0";
    const path = request.isRaw ? request.path : `${url.pathname}${request.path}`;
    const sent = httpRequest({
      host: url.hostname,
      port: url.port,
      method,
      path,
      headers,
      agent: false,
      timeout: LIMIT_MS,
    });
    sent.on("error", reject);
    sent.once("timeout", () => sent.destroy(new Error(`${method} ${path} is not answered`)));
    sent.once("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.once("error", reject);
      const { statusCode: status = 0 } = response;
      // Swift sends the end of a chunked body behind such an answer, which Node's parser takes for an error.
      if (method === "HEAD") resolve({ status, headers: headersOf(response.headers, status), body: "" });
      else
        response.once("end", () => {
          const text = Buffer.concat(chunks).toString();
          resolve({
            status,
            headers: headersOf(response.headers, status),
            body: bodyOf(request, status, response.headers, text),
          });
        });
    });
    sent.end(body);
  });

/**
 * Sends SWIFT_REQUESTS one after the other to an account where nothing is yet.
 *
 * @param url the account's
 */
export const answersOf = async (url: string, token: string): Promise<SwiftAnswer[]> => {
  const answers: SwiftAnswer[] = [];
  for (const request of SWIFT_REQUESTS) answers.push(await send(new URL(url), token, request));
  return answers;
};
