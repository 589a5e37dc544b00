import { TEST_PASSWORD } from "./test-service.ts";

export type Answer<Body = Readonly<Record<string, unknown>>> = {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Body;
};

/** What an answer's body has at `path`, such as `token.roles`; undefined where a part of the path is not there. */
export const at = ({ body }: Pick<Answer, "body">, path: string): unknown => {
  let value: unknown = body;
  for (const name of path.split(".")) {
    value =
      typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>)[name] : undefined;
  }
  return value;
};

/** The text at `path`; a test that goes on without it would test nothing. */
export const textAt = (answer: Answer, path: string): string => {
  const value = at(answer, path);
  if (typeof value === "string") return value;
  throw new Error(`no text at ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
};

/** The things of the list at `path`. */
export const listAt = (answer: Answer, path: string): readonly Readonly<Record<string, unknown>>[] => {
  const value = at(answer, path);
  if (Array.isArray(value)) return value as Readonly<Record<string, unknown>>[];
  throw new Error(`no list at ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
};

export type CallOptions = {
  readonly token?: string;
  readonly subject?: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
};

export const DEFAULT_DOMAIN = { id: "default" };
export const ADMIN_USER = { name: "admin", domain: DEFAULT_DOMAIN, password: TEST_PASSWORD };
export const ADMIN_SCOPE = { project: { name: "admin", domain: DEFAULT_DOMAIN } };

/** A client of the service at `base` (`http://127.0.0.1:PORT`) for tests. `Body`: what a test takes the bodies of answers for. */
export const createTestClient = <Body = Answer["body"]>(base: () => string) => {
  const call = async (method: string, path: string, options: CallOptions = {}): Promise<Answer<Body>> => {
    const response = await fetch(base() + path, {
      method,
      redirect: "manual",
      headers: {
        ...(options.body === undefined ? {} : { "content-type": "application/json" }),
        ...(options.token === undefined ? {} : { "x-auth-token": options.token }),
        ...(options.subject === undefined ? {} : { "x-subject-token": options.subject }),
        ...options.headers,
      },
      ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
    });
    const text = await response.text();
    return {
      status: response.status,
      headers: response.headers,
      body: JSON.parse(text === "" ? "{}" : text) as Body,
    };
  };
  const authenticate = (identity: object, scope?: unknown): Promise<Answer<Body>> =>
    call("POST", "/v3/auth/tokens", { body: { auth: { identity, ...(scope === undefined ? {} : { scope }) } } });
  const login = (user: object, scope?: unknown): Promise<Answer<Body>> =>
    authenticate({ methods: ["password"], password: { user } }, scope);
  const rescope = (token: string, scope?: unknown): Promise<Answer<Body>> =>
    authenticate({ methods: ["token"], token: { id: token } }, scope);
  const adminToken = async (): Promise<string> => tokenOf(await login(ADMIN_USER, ADMIN_SCOPE));
  return { call, authenticate, login, rescope, adminToken };
};

/** The token that an answer issued. */
export const tokenOf = (answer: Pick<Answer, "headers">): string => answer.headers.get("x-subject-token") ?? "";
