import { randomUUID } from "node:crypto";
import { createServer, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { RingsteadError } from "../errors.ts";
import type { Log } from "../log.ts";
import { drain } from "./drain.ts";
import type { ErrorEdge, HttpErrorCode, HttpProblem } from "./error-edge.ts";
import { parseJsonBody } from "./json-body.ts";
import { type ListenAddress, listen } from "./listen.ts";
import type { AbsentRoute, HttpMethod, HttpRequest, HttpResponse, Route } from "./route.ts";
import { validator } from "./validate.ts";

/** Room for a token and a client's other headers. */
const HEADERS_MAX_BYTES = 32 * 1024;
const HEADERS_TIMEOUT_MS = 30_000;
/** A whole request, body included; control-plane bodies are small. */
const REQUEST_TIMEOUT_MS = 60_000;
/** Above the 60 s after which common load balancers drop an idle connection, so that they close first. */
const KEEP_ALIVE_TIMEOUT_MS = 75_000;
/** Connections beyond this are dropped by Node at once. */
const CONNECTIONS_MAX = 8_192;
const PATH_PARAMETER_MAX = 1_024;
/** What disposal waits for requests under way before it cuts them. */
const DRAIN_MS = 30_000;

const FORM_TYPE = "application/x-www-form-urlencoded";
const METHODS: readonly HttpMethod[] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
const JSON_TYPES = new Set(["", "application/json"]);
const HOST = /^[A-Za-z0-9.-]{1,253}(:\d{1,5})?$|^\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?$/;
const REQUEST_ID = /^req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export type HttpServerOptions<Context, Code extends string> = {
  readonly context: Context;
  readonly routes: readonly Route<Context>[];
  /** Known operations without a handler: 501 with their name. Those that `routes` has are skipped. */
  readonly absent?: readonly AbsentRoute[];
  readonly edge: ErrorEdge<Code>;
  readonly log: Log;
  readonly bodyLimitBytes: number;
  /** A path with a slash at its end is another one than that without: a list, asked for one thing without a name, is not found. Default: false. */
  readonly countsTrailingSlash?: boolean;
  /** On every answer. */
  readonly headers?: Readonly<Record<string, string>>;
  /** PEM texts. */
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer };
};

/** A server that is not listening yet, or is. Disposal stops accepting, waits up to 30 s for requests under way, cuts the rest. */
export type HttpServer = AsyncDisposable & {
  /** Resolves with the port (0 for a Unix socket) once connections are accepted. */
  listen(address: ListenAddress): Promise<number>;
};

const originOf = (request: FastifyRequest): string | undefined => {
  const { host } = request.headers;
  return host !== undefined && HOST.test(host) ? `${request.protocol}://${host}` : undefined;
};

const send = (reply: FastifyReply, response: HttpResponse): FastifyReply => {
  reply.code(response.status);
  if (response.headers !== undefined) reply.headers(response.headers);
  if (response.body === undefined) return reply.send();
  if (typeof response.body === "string") {
    if (!reply.hasHeader("content-type")) reply.header("content-type", "text/plain; charset=utf-8");
    return reply.send(response.body);
  }
  return reply.header("content-type", "application/json").send(JSON.stringify(response.body));
};

const problemOf = <Code extends string>(thrown: unknown, edge: ErrorEdge<Code>): HttpProblem => {
  const statuses: Readonly<Record<string, number>> = edge.status;
  const known = (code: HttpErrorCode, message: string): HttpProblem => ({
    status: edge.status[code],
    code,
    message,
    fields: {},
  });
  if (thrown instanceof RingsteadError) {
    const status = Object.hasOwn(statuses, thrown.code) ? statuses[thrown.code] : undefined;
    if (status !== undefined) return { status, code: thrown.code, message: thrown.message, fields: thrown.fields };
  } else if (thrown instanceof Error && "statusCode" in thrown) {
    // Fastify's own refusals, before any handler ran.
    if (thrown.statusCode === 413) return known("body-too-large", "Request is too large.");
    if (thrown.statusCode === 404) return known("not-found", "The resource could not be found.");
    if (typeof thrown.statusCode === "number" && thrown.statusCode < 500) return known("bad-request", thrown.message);
  }
  return known("internal-error", "An unexpected error prevented the server from fulfilling your request.");
};

const rawServer = (
  handler: Parameters<typeof createServer>[1],
  tls: HttpServerOptions<never, never>["tls"],
): Server => {
  const limits = {
    maxHeaderSize: HEADERS_MAX_BYTES,
    headersTimeout: HEADERS_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
  };
  const server = tls === undefined ? createServer(limits, handler) : createTlsServer({ ...limits, ...tls }, handler);
  server.maxConnections = CONNECTIONS_MAX;
  return server;
};

/** Builds the server of one API: routes, body parsing, validation, request ids, access log, and the one place where errors become answers. */
export const createHttpServer = <Context, Code extends string>(
  options: HttpServerOptions<Context, Code>,
): HttpServer => {
  const { edge, log } = options;
  const fastify = Fastify({
    serverFactory: (handler) => rawServer(handler, options.tls),
    bodyLimit: options.bodyLimitBytes,
    forceCloseConnections: "idle",
    genReqId: () => `req-${randomUUID()}`,
    routerOptions: { ignoreTrailingSlash: !(options.countsTrailingSlash ?? false), maxParamLength: PATH_PARAMETER_MAX },
    frameworkErrors: (error, request, reply) => {
      void fail(error, request, reply);
    },
    clientErrorHandler: (error, socket) => {
      if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
      // Bytes that are no HTTP have no request to answer through.
      const { body } = edge.answer(
        problemOf(new RingsteadError("bad-request", "The request is not HTTP."), edge),
        undefined,
      );
      const text = JSON.stringify(body);
      socket.end(
        `HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
      );
    },
  });

  const fail = (thrown: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    const problem = problemOf(thrown, edge);
    if (problem.status >= 500 && problem.code !== "not-implemented") {
      log.error("request failed", { requestId: request.id, path: request.url, error: thrown });
    }
    const { headers, body } = edge.answer(problem, originOf(request));
    return send(reply, { status: problem.status, body, ...(headers === undefined ? {} : { headers }) });
  };

  installBodyParser(fastify);
  fastify.addHook("onRequest", async (request, reply) => {
    reply.headers({ "x-openstack-request-id": request.id, ...options.headers });
  });
  fastify.addHook("onResponse", async (request, reply) => {
    const given = request.headers["x-openstack-request-id"];
    log.info("request", {
      requestId: request.id,
      // The caller's own id joins the logs of the services that one operation passed through.
      ...(typeof given === "string" && REQUEST_ID.test(given) ? { globalRequestId: given } : {}),
      remote: request.ip,
      method: request.method,
      path: request.url.split("?", 1)[0],
      status: reply.statusCode,
      durationMs: Math.round(reply.elapsedTime * 10) / 10,
    });
  });
  fastify.setErrorHandler(fail);
  fastify.setNotFoundHandler((request, reply) =>
    fail(new RingsteadError("not-found", "The requested URL was not found on the server."), request, reply),
  );
  addRoutes(fastify, options);

  return {
    listen: async (address) => {
      await fastify.ready();
      return listen(fastify.server, address);
    },
    [Symbol.asyncDispose]: async () => {
      await drain(fastify.server, DRAIN_MS);
      await fastify.close();
    },
  };
};

declare module "fastify" {
  interface FastifyContextConfig {
    /** As the route says of itself. */
    takesForm?: boolean;
  }
}

/** Every body is JSON, said or unsaid, or a form where the route takes one; anything else is named a bad request, as the Python services do. */
const installBodyParser = (fastify: FastifyInstance): void => {
  const parse = async (request: FastifyRequest, body: string | Buffer): Promise<unknown> => {
    const type = (request.headers["content-type"] ?? "").split(";", 1)[0]?.trim().toLowerCase() ?? "";
    const text = body.toString();
    if (request.routeOptions.config.takesForm === true && type === FORM_TYPE)
      return Object.fromEntries(new URLSearchParams(text));
    if (text !== "" && !JSON_TYPES.has(type)) {
      throw new RingsteadError(
        "bad-request",
        "Expecting to find application/json in Content-Type header. The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.",
      );
    }
    return parseJsonBody(text);
  };
  fastify.removeAllContentTypeParsers();
  fastify.addContentTypeParser("*", { parseAs: "string" }, parse);
};

const addRoutes = <Context, Code extends string>(
  fastify: FastifyInstance,
  options: HttpServerOptions<Context, Code>,
): void => {
  const offered = new Map<string, Set<HttpMethod>>();
  const offer = (path: string, method: HttpMethod): void => {
    const methods = offered.get(path) ?? new Set();
    methods.add(method);
    offered.set(path, methods);
  };

  for (const route of options.routes) {
    offer(route.path, route.method);
    const { params, query, body } = route.request;
    const check = {
      params: params && validator(params, "path"),
      query: query && validator(query, "query"),
      body: body && validator(body, "body"),
    };
    fastify.route({
      method: route.method,
      url: route.path,
      config: { takesForm: route.takesForm === true },
      handler: async (request, reply) => {
        const checked: HttpRequest = {
          requestId: request.id,
          method: request.method,
          path: request.url.split("?", 1)[0] ?? "/",
          origin: originOf(request),
          remoteAddress: request.ip,
          params: check.params?.(request.params),
          query: check.query?.(request.query),
          body: check.body?.(request.body),
          header: (name) => {
            const value = request.headers[name];
            return Array.isArray(value) ? value.join(", ") : value;
          },
        };
        return send(reply, await route.handler(checked, options.context));
      },
    });
  }

  for (const { method, path } of options.absent ?? []) {
    if (offered.get(path)?.has(method)) continue;
    offer(path, method);
    const refusal = (): never => {
      throw new RingsteadError(
        "not-implemented",
        `${method} ${path.replaceAll(/:(\w+)/g, "{$1}")} is not implemented.`,
      );
    };
    fastify.route({ method, url: path, handler: refusal });
  }

  for (const [path, methods] of offered) {
    const others = METHODS.filter((method) => !methods.has(method));
    if (others.length === 0) continue;
    const allow = [...methods, ...(methods.has("GET") ? ["HEAD"] : [])].join(", ");
    fastify.route({
      method: others,
      url: path,
      // A GET that is refused must not bring a HEAD route with it.
      exposeHeadRoute: false,
      handler: (_request, reply) => {
        reply.header("allow", allow);
        throw new RingsteadError("method-not-allowed", "The method is not allowed for the requested URL.");
      },
    });
  }
};
