import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { SignedRequest } from "../core/authentication-request.ts";

/** Parameters of OAuth 1.0a as the Authorization header has them, decoded. */
export type OauthParameters = ReadonlyMap<string, string>;

const HEADER_MAX = 8_192;
const PARAMETERS_MAX = 32;
const ALGORITHMS: Readonly<Record<string, string>> = { "HMAC-SHA1": "sha1", "HMAC-SHA256": "sha256" };
/** Text of the header that no signature covers. */
const UNSIGNED = new Set(["realm", "oauth_signature"]);
const DEFAULT_PORTS: Readonly<Record<string, string>> = { "http:": ":80", "https:": ":443" };

/** RFC 3986: what `encodeURIComponent` leaves and a signer does not. Source: RFC 5849, section 3.6. */
const quote = (text: string): string =>
  encodeURIComponent(text).replaceAll(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );

const unquote = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
};

/** The parameters of `OAuth name="value", …`; undefined where the header is another, malformed, or says something twice. */
export const oauthParameters = (header: string | undefined): OauthParameters | undefined => {
  if (header === undefined || header.length > HEADER_MAX) return undefined;
  const [, list] = /^OAuth\s+(.*)$/i.exec(header) ?? [];
  if (list === undefined) return undefined;
  const parameters = new Map<string, string>();
  for (const part of list.split(",")) {
    const [, rawName = "", rawValue = ""] = /^\s*([^=\s"]+)="([^"]*)"\s*$/.exec(part) ?? [];
    const name = unquote(rawName);
    const value = unquote(rawValue);
    if (name === undefined || name === "" || value === undefined || parameters.has(name)) return undefined;
    parameters.set(name, value);
  }
  return parameters.size > PARAMETERS_MAX ? undefined : parameters;
};

const compare = (left: string, right: string): number => (left < right ? -1 : Number(left > right));

/** What is signed. Source: RFC 5849, section 3.4.1. Bodies of our operations are JSON or empty, and no part of it. */
export const signatureBase = (request: SignedRequest, origin: string, parameters: OauthParameters): string => {
  const { protocol, host } = new URL(origin);
  const port = DEFAULT_PORTS[protocol] ?? "";
  const bareHost = host.endsWith(port) ? host.slice(0, host.length - port.length) : host;
  const pairs = [...request.query, ...[...parameters].filter(([name]) => !UNSIGNED.has(name))]
    .map(([name, value]): [string, string] => [quote(name), quote(value)])
    .toSorted(([leftName, left], [rightName, right]) => compare(leftName, rightName) || compare(left, right))
    .map(([name, value]) => `${name}=${value}`);
  return [request.method.toUpperCase(), `${protocol}//${bareHost}${request.path}`, pairs.join("&")]
    .map(quote)
    .join("&");
};

const isEqual = (left: string, right: string): boolean =>
  timingSafeEqual(createHash("sha256").update(left).digest(), createHash("sha256").update(right).digest());

export type OauthSecrets = { readonly consumer: string; readonly token: string };

/** The signature of the request; undefined where it names a method that is not offered: RSA has no keys here, PLAINTEXT signs nothing. */
export const oauthSignature = (
  request: SignedRequest,
  origin: string,
  parameters: OauthParameters,
  secrets: OauthSecrets,
): string | undefined => {
  const name = parameters.get("oauth_signature_method") ?? "";
  const algorithm = Object.hasOwn(ALGORITHMS, name) ? ALGORITHMS[name] : undefined;
  if (algorithm === undefined) return undefined;
  const key = `${quote(secrets.consumer)}&${quote(secrets.token)}`;
  return createHmac(algorithm, key)
    .update(signatureBase(request, origin, parameters))
    .digest("base64");
};

/** Whether the secrets signed the request. Where TLS ends before this server, its client signed `https`. */
export const isSignedWith = (request: SignedRequest, parameters: OauthParameters, secrets: OauthSecrets): boolean => {
  const { origin } = request;
  const given = parameters.get("oauth_signature");
  if (origin === undefined || given === undefined) return false;
  const origins = new Set([origin, origin.replace(/^http:/, "https:")]);
  return [...origins].some((candidate) => {
    const signature = oauthSignature(request, candidate, parameters, secrets);
    return signature !== undefined && isEqual(signature, given);
  });
};
