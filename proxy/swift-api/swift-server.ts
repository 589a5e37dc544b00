import { randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { Socket } from "node:net";
import type { Consistency } from "../../common/storage-policy.ts";
import type { Clock } from "../../common/clock.ts";
import { messageOf, RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import type { Metrics } from "../../common/metrics.ts";
import type { IdentityClient, TokenContext, TokenVerifier } from "../../identity/client.ts";
import type { Accounts } from "../object-service/accounts.ts";
import type { Containers } from "../object-service/containers.ts";
import type { Objects } from "../object-service/objects.ts";
import type { Policies } from "../object-service/policies.ts";
import { assertRulesAllow } from "./access-rules.ts";
import { CONSTRAINTS } from "./constraints.ts";
import {
  deleteContainer,
  postAccount,
  postContainer,
  putContainer,
  readAccount,
  readContainer,
} from "./container-operations.ts";
import { findOriginRule, preflightHeaders } from "./cross-origin.ts";
import { type Exchange, header, respond, respondError } from "./exchange.ts";
import { copyFrom, copyToDestination } from "./object-copy.ts";
import { readObject } from "./object-read.ts";
import { deleteObject, postObject, putObject } from "./object-write.ts";
import { answerFor, errorPage, refuse } from "./swift-error.ts";
import { parseSwiftPath } from "./swift-path.ts";

/** What the operations of this face work with. */
export type SwiftServices = {
  readonly accounts: Accounts;
  readonly containers: Containers;
  readonly objects: Objects;
  readonly policies: Policies;
  readonly clock: Clock;
};

export type SwiftServerOptions = {
  readonly services: SwiftServices;
  readonly verifier: TokenVerifier;
  readonly identity: IdentityClient;
  readonly version: string;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly tls: { readonly cert: Buffer; readonly key: Buffer } | undefined;
};

/** A connection without a byte in either direction for so long is closed: slow is allowed, silent is not. */
const IDLE_TIMEOUT_MS = 60_000;
const HEADERS_TIMEOUT_MS = 60_000;
/** Node's bound on the header block; Swift's finer limits are checked behind it. */
const HEADER_BLOCK_LIMIT_BYTES = 128 * 1024;

/** The object store's public port. */
export const createSwiftServer = (options: SwiftServerOptions): Server => {
  const { log, metrics } = options;
  const requests = metrics.counter("ringstead_proxy_requests_total", "requests answered");
  const failures = metrics.counter("ringstead_proxy_failures_total", "requests answered with a status of 500 or above");
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    const startedMs = performance.now();
    const transactionId = newTransactionId(options.services.clock.nowMs());
    // Once the connection is gone it cannot be asked any more.
    const remote = request.socket.remoteAddress;
    response.on("close", () => {
      requests.inc();
      if (response.statusCode >= 500) failures.inc();
      log.info("access", {
        transactionId,
        method: request.method,
        path: request.url,
        status: response.statusCode,
        remote,
        ms: Math.round((performance.now() - startedMs) * 1000) / 1000,
      });
    });
    handle(options, request, response, transactionId).catch((error: unknown) => {
      // Not even an error could be said: no request may end the process.
      log.error("an answer failed", { transactionId, error: messageOf(error) });
      response.destroy();
    });
  };
  const settings = {
    requestTimeout: 0,
    headersTimeout: HEADERS_TIMEOUT_MS,
    keepAliveTimeout: IDLE_TIMEOUT_MS,
    maxHeaderSize: HEADER_BLOCK_LIMIT_BYTES,
    noDelay: true,
    // A request without a body costs no stream that ends.
    optimizeEmptyRequests: true,
  };
  const server: Server =
    options.tls === undefined
      ? createServer(settings, listener)
      : createTlsServer({ ...settings, ...options.tls }, listener);
  server.setTimeout(IDLE_TIMEOUT_MS);
  server.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) => {
    if (error.code === "ECONNRESET" || !socket.writable) {
      socket.destroy();
      return;
    }
    const isTooLong = error.code === "HPE_HEADER_OVERFLOW";
    const isSlow = error.code === "ERR_HTTP_REQUEST_TIMEOUT";
    const [status, reason] = isTooLong
      ? [431, "Request Header Fields Too Large"]
      : isSlow
        ? [408, "Request Timeout"]
        : [400, "Bad Request"];
    const body = errorPage(
      status,
      isTooLong
        ? "The request's headers are too long."
        : isSlow
          ? "The request's headers did not arrive in time."
          : "The request is malformed.",
    );
    const transactionId = newTransactionId(options.services.clock.nowMs());
    socket.end(
      `HTTP/1.1 ${status} ${reason}\r\nContent-Type: text/html; charset=UTF-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\nX-Trans-Id: ${transactionId}\r\nConnection: close\r\n\r\n${body}`,
    );
  });
  return server;
};

/** Random digits are drawn for this many ids at once: a system call for each would cost as much as parsing the request. */
const ID_POOL_COUNT = 512;
const ID_DIGITS = 21;
let idPool = "";
let idPoolAt = 0;

const randomDigits = (): string => {
  if (idPoolAt + ID_DIGITS > idPool.length) {
    idPool = randomBytes((ID_POOL_COUNT * ID_DIGITS) / 2).toString("hex");
    idPoolAt = 0;
  }
  idPoolAt += ID_DIGITS;
  return idPool.slice(idPoolAt - ID_DIGITS, idPoolAt);
};

let idSeconds = Number.NaN;
let idTime = "";

/** `tx`, 21 random digits, and the time in seconds as 10 digits, all hexadecimal: the form that Swift's tools take apart. */
const newTransactionId = (nowMs: number): string => {
  const seconds = Math.floor(nowMs / 1000);
  if (seconds !== idSeconds) {
    idSeconds = seconds;
    idTime = seconds.toString(16).padStart(10, "0");
  }
  return `tx${randomDigits()}-${idTime}`;
};

const NO_QUERY = new URLSearchParams();

const handle = async (
  options: SwiftServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
  transactionId: string,
): Promise<void> => {
  const url = request.url ?? "/";
  const queryAt = url.indexOf("?");
  const path = queryAt === -1 ? url : url.slice(0, queryAt);
  const exchange: Exchange = {
    request,
    response,
    method: request.method ?? "GET",
    query: queryAt === -1 ? NO_QUERY : new URLSearchParams(url.slice(queryAt + 1)),
    transactionId,
    token: undefined,
    origin: undefined,
  };
  try {
    if (!path.startsWith("/v1")) {
      await serveSpecial(options, exchange, path);
    } else {
      const { origin } = request.headers;
      if (origin !== undefined) exchange.origin = await findOriginRule(options.services.containers, path, origin);
      const context = authenticate(options.verifier, request);
      // A token that was seen before is known at once, and costs no turn of the event loop.
      const token = context instanceof Promise ? await context : context;
      if (token?.accessRules !== undefined) assertRulesAllow(token.accessRules, exchange, path);
      exchange.token = token;
      await serveStore(options.services, exchange, path);
    }
  } catch (error) {
    const answer = answerFor(error);
    if (!answer.isExpected) {
      const code = error instanceof RingsteadError ? error.code : undefined;
      options.log.error("a request failed unexpectedly", {
        transactionId,
        code,
        error: messageOf(error),
        stack: error instanceof Error ? error.stack : undefined,
      });
    }
    // Whatever was to be said besides may be what failed.
    if (!answer.isExpected) exchange.origin = undefined;
    if (response.headersSent) response.destroy();
    else respondError(exchange, answer.status, answer.message);
  }
};

/** No token is an anonymous request; a bad one is refused, except that public containers stay public. */
const authenticate = (
  verifier: TokenVerifier,
  request: IncomingMessage,
): TokenContext | Promise<TokenContext> | undefined => {
  const given = request.headers["x-auth-token"] ?? request.headers["x-storage-token"];
  const token = Array.isArray(given) ? given[0] : given;
  if (token === undefined || token === "") return undefined;
  const service = request.headers["x-service-token"];
  return typeof service === "string" ? verifyForService(verifier, token, service) : verifier.verify(token);
};

/** Keystone's allow_expired_window: how long a service may go on with what it began with its caller's token. */
const EXPIRED_WINDOW_MS = 172_800_000;
const SERVICE_ROLE = "service";

/** The caller's token, which may have ended meanwhile where another service brings it and proves itself. */
const verifyForService = async (verifier: TokenVerifier, token: string, service: string): Promise<TokenContext> => {
  const { roles } = await verifier.verify(service);
  return verifier.verify(token, roles.includes(SERVICE_ROLE) ? EXPIRED_WINDOW_MS : 0);
};

const serveSpecial = async (options: SwiftServerOptions, exchange: Exchange, path: string): Promise<void> => {
  switch (path) {
    case "/healthcheck":
      return respond(exchange, 200, { "Content-Type": "text/plain" }, "OK");
    case "/info":
      if (!["GET", "HEAD"].includes(exchange.method)) return otherMethod(exchange, "fixed");
      return respond(
        exchange,
        200,
        { "Content-Type": "application/json; charset=UTF-8" },
        JSON.stringify(infoOf(options.version, options.services.policies)),
      );
    case "/auth/v1.0":
    case "/auth/v1":
    case "/auth": {
      const user = exchange.request.headers["x-auth-user"] ?? exchange.request.headers["x-storage-user"];
      const key = exchange.request.headers["x-auth-key"] ?? exchange.request.headers["x-storage-pass"];
      if (typeof user !== "string" || typeof key !== "string") {
        throw refuse(
          "unauthorized",
          "This server could not verify that you are authorized to access the document you requested.",
        );
      }
      const answer = await options.identity.v1Auth(user, key, exchange.request.socket.remoteAddress);
      return respond(exchange, 200, {
        "Content-Type": "text/html; charset=UTF-8",
        "X-Auth-Token": answer.token,
        "X-Storage-Token": answer.token,
        "X-Storage-Url": answer.storageUrl,
        "X-Auth-Token-Expires": answer.expiresInSeconds,
      });
    }
    default:
      throw refuse("unknown-path", "The resource could not be found.");
  }
};

/** What a client may rely on under each consistency, in the words of the README. */
const PROMISES: Readonly<Record<Consistency, string>> = {
  strong:
    "each object is linearizable, conditions are decided atomically, a write without a quorum of its replicas answers 503",
  available:
    "a success means that a quorum of copies is durable on replicas or on devices that stand in for them; reads and listings may be stale until those have sent on what they keep; conditions, POST, and changes of the container answer 503 without a quorum of replicas",
};

const infoOf = (version: string, policies: Policies): object => ({
  swift: {
    version,
    ...CONSTRAINTS,
    strict_cors_mode: true,
    allow_account_management: false,
    account_autocreate: true,
    policies: policies.all.map(({ isDefault, name }) => ({
      name,
      aliases: name,
      ...(isDefault ? { default: true } : {}),
    })),
  },
  ringstead: {
    consistency: policies.standard.consistency,
    policies: Object.fromEntries(
      policies.all.map(({ consistency, name }) => [name, { consistency, promise: PROMISES[consistency] }]),
    ),
  },
});

/** What may be done with each kind of resource, as OPTIONS and a refusal say it. */
const METHODS = {
  account: "POST, OPTIONS, GET, HEAD",
  container: "PUT, POST, OPTIONS, GET, DELETE, HEAD",
  object: "PUT, POST, OPTIONS, GET, DELETE, HEAD, COPY",
  fixed: "GET, HEAD, OPTIONS",
} as const;

/** OPTIONS, also a browser's for a page of another origin; any other method that a resource does not have. Errors: "method-not-allowed", "unauthorized". */
const otherMethod = (exchange: Exchange, kind: keyof typeof METHODS): void => {
  if (exchange.method !== "OPTIONS") {
    exchange.response.setHeader("Allow", METHODS[kind]);
    throw refuse("method-not-allowed", "The method is not allowed for this resource.");
  }
  const isOfContainer = kind === "container" || kind === "object";
  if (!isOfContainer || exchange.request.headers.origin === undefined) {
    return respond(exchange, 200, { Allow: METHODS[kind], "Content-Type": "text/html; charset=UTF-8" });
  }
  const asked = {
    method: header(exchange, "access-control-request-method"),
    headers: header(exchange, "access-control-request-headers"),
  };
  const headers = preflightHeaders(asked, exchange.origin, METHODS[kind]);
  exchange.origin = undefined;
  if (headers === undefined) {
    exchange.response.setHeader("Allow", METHODS[kind]);
    throw refuse("unauthorized", "Pages of this origin may not do this.");
  }
  respond(exchange, 200, { Allow: METHODS[kind], ...headers });
};

const serveStore = (services: SwiftServices, exchange: Exchange, path: string): Promise<void> | void => {
  const { account, container, object } = parseSwiftPath(path);
  if (container === undefined) {
    switch (exchange.method) {
      case "GET":
      case "HEAD":
        return readAccount(services, exchange, account);
      case "POST":
        return postAccount(services, exchange, account);
      default:
        return otherMethod(exchange, "account");
    }
  }
  if (object === undefined) {
    switch (exchange.method) {
      case "GET":
      case "HEAD":
        return readContainer(services, exchange, account, container);
      case "PUT":
        return putContainer(services, exchange, account, container);
      case "POST":
        return postContainer(services, exchange, account, container);
      case "DELETE":
        return deleteContainer(services, exchange, account, container);
      default:
        return otherMethod(exchange, "container");
    }
  }
  const place = { account, container, object };
  switch (exchange.method) {
    case "GET":
    case "HEAD":
      return readObject(services, exchange, place);
    case "PUT":
      return exchange.request.headers["x-copy-from"] === undefined
        ? putObject(services, exchange, place)
        : copyFrom(services, exchange, place);
    case "POST":
      return postObject(services, exchange, place);
    case "DELETE":
      return deleteObject(services, exchange, place);
    case "COPY":
      return copyToDestination(services, exchange, place);
    default:
      return otherMethod(exchange, "object");
  }
};
