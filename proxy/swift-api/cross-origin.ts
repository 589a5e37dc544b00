import type { OutgoingHttpHeaders } from "node:http";
import { RingsteadError } from "../../common/errors.ts";
import type { Containers } from "../object-service/containers.ts";
import { parseSwiftPath } from "./swift-path.ts";

/** What a container's metadata lets pages of one origin do (CORS). */
export type OriginRule = {
  /** `*`, or the origin itself. */
  readonly allowOrigin: string;
  /** Headers that pages may see beside those that they always may. */
  readonly exposed: readonly string[];
  /** Seconds for which a browser may remember it. */
  readonly maxAge: string | undefined;
};

const PREFIX = "x-container-meta-access-control-";
/** Headers that any page may see, as Swift has it. */
const EXPOSED = [
  "cache-control",
  "content-language",
  "content-type",
  "etag",
  "expires",
  "last-modified",
  "pragma",
  "x-openstack-request-id",
  "x-timestamp",
  "x-trans-id",
];

const words = (text: string | undefined): string[] => (text ?? "").split(/[\s,]+/).filter((word) => word !== "");

/** Names of headers in what an owner or a page wrote; anything else could not be said in an answer. */
const headerNames = (text: string | undefined): string[] =>
  words(text).filter((word) => /^[!#$%&'*+.^_`|~\w-]+$/.test(word));

/** The rule of a container with these headers for `origin`; undefined where its pages may do nothing. */
const originRuleOf = (headers: Readonly<Record<string, string>>, origin: string): OriginRule | undefined => {
  const allowed = words(headers[`${PREFIX}allow-origin`]);
  if (!allowed.includes("*") && !allowed.includes(origin)) return undefined;
  const maxAge = headers[`${PREFIX}max-age`] ?? "";
  return {
    allowOrigin: allowed.includes("*") ? "*" : origin,
    exposed: headerNames(headers[`${PREFIX}expose-headers`]).map((name) => name.toLowerCase()),
    maxAge: /^\d+$/.test(maxAge) ? maxAge : undefined,
  };
};

/** The rule for `origin` of the container that a request's path names; undefined also where there is none. */
export const findOriginRule = async (
  containers: Containers,
  path: string,
  origin: string,
): Promise<OriginRule | undefined> => {
  try {
    const { account, container } = parseSwiftPath(path);
    if (container === undefined) return undefined;
    return originRuleOf((await containers.known(account, container)).headers, origin);
  } catch (error) {
    // The request itself meets the same, and is told.
    if (error instanceof RingsteadError) return undefined;
    throw error;
  }
};

const addVary = (headers: OutgoingHttpHeaders, name: string): void => {
  const given = headers["Vary"];
  headers["Vary"] = given === undefined ? name : `${name}, ${String(given)}`;
};

const addOrigin = (headers: OutgoingHttpHeaders, { allowOrigin }: OriginRule): void => {
  headers["Access-Control-Allow-Origin"] = allowOrigin;
  if (allowOrigin !== "*") addVary(headers, "Origin");
};

/** Adds to an answer's headers what its browser needs to show it to the page. */
export const exposeTo = (headers: OutgoingHttpHeaders, rule: OriginRule): void => {
  const metadata = Object.keys(headers)
    .map((name) => name.toLowerCase())
    .filter((name) => /^x-(container|object)-meta-/.test(name));
  headers["Access-Control-Expose-Headers"] = [...new Set([...EXPOSED, ...metadata, ...rule.exposed])].join(", ");
  addOrigin(headers, rule);
};

/** What a browser asks before it lets a page send a request. */
export type Preflight = { readonly method: string | undefined; readonly headers: string | undefined };

/** The answer's headers; undefined where the page may not. `methods` is what the resource has, separated by commas. */
export const preflightHeaders = (
  { method, headers: asked }: Preflight,
  rule: OriginRule | undefined,
  methods: string,
): OutgoingHttpHeaders | undefined => {
  if (rule === undefined || method === undefined || !methods.split(", ").includes(method)) return undefined;
  const headers: OutgoingHttpHeaders = { "Access-Control-Allow-Methods": methods };
  if (rule.maxAge !== undefined) headers["Access-Control-Max-Age"] = rule.maxAge;
  const names = headerNames(asked);
  if (names.length > 0) {
    headers["Access-Control-Allow-Headers"] = names.join(", ");
    addVary(headers, "Access-Control-Request-Headers");
  }
  addOrigin(headers, rule);
  return headers;
};
