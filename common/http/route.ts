import type { Static, TSchema } from "typebox";

export type HttpMethod = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

/** Schemas of the parts of a request. A part without a schema is not looked at: its handler cannot see it typed. */
export type RequestSchema = {
  readonly params?: TSchema;
  readonly query?: TSchema;
  readonly body?: TSchema;
};

type Part<Schema> = Schema extends TSchema ? Static<Schema> : unknown;

/** A request whose parts have passed their schemas. */
export type HttpRequest<Request extends RequestSchema = RequestSchema> = {
  readonly requestId: string;
  readonly method: string;
  /** The path as the client wrote it, without the query. */
  readonly path: string;
  /** `scheme://host[:port]` as the client addressed this server; undefined without a usable Host header. */
  readonly origin: string | undefined;
  readonly remoteAddress: string;
  readonly params: Part<Request["params"]>;
  readonly query: Part<Request["query"]>;
  readonly body: Part<Request["body"]>;
  /** A header's value; `name` in lower case. */
  header(name: string): string | undefined;
};

export type HttpResponse = {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** An object is answered as JSON, a string as text/plain, nothing as an empty body. */
  readonly body?: object | string;
};

/** One operation: what it answers to, what it accepts, what it does. HEAD is served beside every GET. */
export type Route<Context> = {
  readonly method: HttpMethod;
  /** In the form `/v3/users/:user_id`. */
  readonly path: string;
  /** The body is a form (`application/x-www-form-urlencoded`), and reaches the schema as an object of texts; JSON where it is not set. */
  readonly takesForm?: boolean;
  readonly request: RequestSchema;
  // A method, not a property: a handler of a narrower request stands in a list of routes.
  handler(request: HttpRequest, context: Context): Promise<HttpResponse> | HttpResponse;
};

/** An operation with its handler's types taken from its schemas. */
export type TypedRoute<Context, Request extends RequestSchema> = Omit<Route<Context>, "request" | "handler"> & {
  readonly request: Request;
  handler(request: HttpRequest<Request>, context: Context): Promise<HttpResponse> | HttpResponse;
};

/** An operation of the API that this program knows and does not offer; it answers 501 with its name. */
export type AbsentRoute = Pick<Route<never>, "method" | "path">;
