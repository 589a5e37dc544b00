import { createHash, timingSafeEqual } from "node:crypto";
import { AWS4_ALGORITHM, AWS4_REQUEST, awsSignature, awsSigningKey } from "../../common/aws-signing-key.ts";
import { RingsteadError } from "../../common/errors.ts";

/** What of a request its signature is about. `url` as it came, `headers` by their names in small letters. */
export type SignableRequest = {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, readonly string[] | undefined>>;
};

/** Who says to have signed a request, and the text that must have been signed. */
export type RequestSignature = {
  readonly access: string;
  readonly day: string;
  readonly region: string;
  readonly text: string;
  readonly signature: string;
};

/** How far the clocks of a client and this host may be apart. */
const SKEW_LIMIT_MS = 15 * 60_000;
/** A presigned URL is good for a week at most. */
const EXPIRES_LIMIT_SECONDS = 604_800;
const SERVICE = "s3";
const UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD";
const PAYLOAD_HASH =
  /^(?:[0-9a-f]{64}|UNSIGNED-PAYLOAD|STREAMING-(?:UNSIGNED-PAYLOAD-TRAILER|AWS4-HMAC-SHA256-PAYLOAD(?:-TRAILER)?))$/;
const AMZ_TIME = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/;
const UNRESERVED = /[A-Za-z0-9\-._~]/;
const SIGNATURE = /^[0-9a-f]{64}$/;

const refuse = (code: string, message: string): RingsteadError => new RingsteadError(code, message);
const malformedHeader = (message: string): RingsteadError => refuse("authorization-header-malformed", message);
const malformedQuery = (message: string): RingsteadError => refuse("authorization-query-malformed", message);

/** Percent-encoding as version 4 wants it, of text that may be encoded already, otherwise or in part. `kept`: characters left as they are. */
const encoded = (text: string, kept: string): string =>
  text.replaceAll(/%([0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~]/g, (found, digits: string | undefined) => {
    if (digits === undefined) {
      return kept.includes(found) ? found : `%${found.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`;
    }
    const character = String.fromCharCode(Number.parseInt(digits, 16));
    return UNRESERVED.test(character) ? character : found.toUpperCase();
  });

type Parameter = readonly [name: string, value: string];

/** The query's parameters in canonical encoding; one without "=" has an empty value, and "+" is a blank. */
const parametersOf = (query: string): readonly Parameter[] =>
  query
    .split("&")
    .filter((part) => part !== "")
    .map((part) => {
      const plain = part.replaceAll("+", "%20");
      const at = plain.indexOf("=");
      return at === -1 ? [encoded(plain, ""), ""] : [encoded(plain.slice(0, at), ""), encoded(plain.slice(at + 1), "")];
    });

const compare = (left: string, right: string): number => (left < right ? -1 : Number(left > right));

const canonicalQuery = (parameters: readonly Parameter[]): string =>
  parameters
    .filter(([name]) => name !== "X-Amz-Signature")
    .toSorted(([name, value], [otherName, otherValue]) => compare(name, otherName) || compare(value, otherValue))
    .map(([name, value]) => `${name}=${value}`)
    .join("&");

/** Every header of S3's own must be signed, and the host, so that a request cannot be changed or sent elsewhere. */
const canonicalHeaders = (headers: SignableRequest["headers"], signed: readonly string[]): string => {
  const isCovered = (name: string): boolean => signed.includes(name);
  const forgotten = Object.keys(headers).find((name) => name.startsWith("x-amz-") && !isCovered(name));
  if (!isCovered("host") || forgotten !== undefined) {
    throw refuse(
      "access-denied",
      `There were headers present in the request which were not signed: ${forgotten ?? "host"}`,
    );
  }
  return signed
    .map((name) => {
      const values = (headers[name] ?? []).map((value) => value.trim().replaceAll(/ +/g, " "));
      return `${name}:${values.join(",")}\n`;
    })
    .join("");
};

const timeOf = (text: string): number | undefined => {
  const found = AMZ_TIME.exec(text);
  if (found === null) return undefined;
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = found.slice(1).map(Number);
  return Date.UTC(year, month - 1, day, hour, minute, second);
};

/** As in an `x-amz-date`. */
const amzTime = (timeMs: number): string => new Date(timeMs).toISOString().replaceAll(/[-:]|\.\d+/g, "");

type Claim = {
  readonly credential: string;
  readonly signedHeaders: string;
  readonly signature: string;
  readonly time: string;
  readonly payloadHash: string;
};

/** What both forms say in the same way. */
const signatureOf = (
  request: SignableRequest,
  path: string,
  parameters: readonly Parameter[],
  { credential, payloadHash, signature, signedHeaders, time }: Claim,
  malformed: (message: string) => RingsteadError,
): RequestSignature => {
  const scope = credential.split("/");
  // A key may itself hold slashes.
  const [day = "", region = "", service, end] = scope.slice(-4);
  const access = scope.slice(0, -4).join("/");
  if (scope.length < 5 || end !== AWS4_REQUEST || !/^\d{8}$/.test(day)) {
    throw malformed("The credential is malformed; expecting '<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request'.");
  }
  if (service !== SERVICE) throw malformed(`The service is wrong; expecting '${SERVICE}'.`);
  if (!time.startsWith(day)) throw malformed("The date in the credential scope is not that of the request.");
  const names = signedHeaders.split(";");
  const canonical = [
    request.method,
    encoded(path, "/"),
    canonicalQuery(parameters),
    canonicalHeaders(request.headers, names),
    signedHeaders,
    payloadHash,
  ].join("\n");
  const digest = createHash("sha256").update(canonical, "latin1").digest("hex");
  const text = [AWS4_ALGORITHM, time, `${day}/${region}/${SERVICE}/${AWS4_REQUEST}`, digest].join("\n");
  return { access, day, region, text, signature };
};

const single = (headers: SignableRequest["headers"], name: string): string | undefined => headers[name]?.[0];

/** The `Authorization` of version 4: three members, in any order. */
const headerClaim = (request: SignableRequest, authorization: string, nowMs: number): Claim => {
  const members = new Map<string, string>();
  for (const part of authorization.slice(AWS4_ALGORITHM.length).split(",")) {
    const at = part.indexOf("=");
    if (at !== -1) members.set(part.slice(0, at).trim(), part.slice(at + 1).trim());
  }
  const [credential, signedHeaders, signature] = ["Credential", "SignedHeaders", "Signature"].map((name) =>
    members.get(name),
  );
  if (credential === undefined || signedHeaders === undefined || signature === undefined) {
    throw malformedHeader(
      "The authorization header requires three components: Credential, SignedHeaders, and Signature.",
    );
  }
  const date = single(request.headers, "date");
  const timeMs = timeOf(single(request.headers, "x-amz-date") ?? "") ?? Date.parse(date ?? "");
  if (Number.isNaN(timeMs)) {
    throw refuse("access-denied", "AWS authentication requires a valid Date or x-amz-date header");
  }
  if (Math.abs(timeMs - nowMs) > SKEW_LIMIT_MS) {
    throw refuse(
      "request-time-too-skewed",
      "The difference between the request time and the current time is too large.",
    );
  }
  const payloadHash = single(request.headers, "x-amz-content-sha256");
  if (payloadHash === undefined) {
    throw refuse("invalid-request", "Missing required header for this request: x-amz-content-sha256");
  }
  if (!PAYLOAD_HASH.test(payloadHash)) {
    throw refuse(
      "invalid-argument",
      "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD or a valid sha256 value.",
    );
  }
  return { credential, signedHeaders, signature, time: amzTime(timeMs), payloadHash };
};

const decoded = (value: string): string => {
  try {
    return decodeURIComponent(value);
  } catch {
    throw malformedQuery("A parameter of the signature is not UTF-8.");
  }
};

const queryClaim = (request: SignableRequest, parameters: readonly Parameter[], nowMs: number): Claim => {
  const named = (name: string): string => {
    const found = parameters.find((parameter) => parameter[0] === `X-Amz-${name}`);
    if (found === undefined) {
      throw malformedQuery(
        "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
      );
    }
    return decoded(found[1]);
  };
  if (named("Algorithm") !== AWS4_ALGORITHM) throw malformedQuery(`X-Amz-Algorithm only supports "${AWS4_ALGORITHM}"`);
  const [time, expires] = [named("Date"), named("Expires")];
  const timeMs = timeOf(time);
  if (timeMs === undefined)
    throw malformedQuery("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"");
  if (!/^\d{1,9}$/.test(expires)) throw malformedQuery("X-Amz-Expires should be a number");
  if (Number(expires) > EXPIRES_LIMIT_SECONDS) {
    throw malformedQuery(
      "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds",
    );
  }
  if (timeMs - nowMs > SKEW_LIMIT_MS) throw refuse("access-denied", "Request is not valid yet");
  if (timeMs + Number(expires) * 1000 < nowMs) throw refuse("access-denied", "Request has expired");
  return {
    credential: named("Credential"),
    signedHeaders: named("SignedHeaders"),
    signature: named("Signature"),
    time,
    payloadHash:
      parameters.find(([name]) => name === "X-Amz-Content-Sha256")?.[1] ??
      single(request.headers, "x-amz-content-sha256") ??
      UNSIGNED_PAYLOAD,
  };
};

const isSignedInQuery = (parameters: readonly Parameter[]): boolean =>
  parameters.some(([name]) => name === "X-Amz-Algorithm" || name === "X-Amz-Signature");

const isVersion2 = (parameters: readonly Parameter[]): boolean =>
  parameters.some(([name]) => name === "AWSAccessKeyId") && parameters.some(([name]) => name === "Signature");

/**
 * The signature of a request, in its header or its query; undefined for an anonymous one. Nothing is known of its truth yet: see
 * `isSignedBy`. Throws RingsteadError with a code of `s3-error.ts`. Source: "Authenticating Requests (AWS Signature Version 4)" of the
 * Amazon S3 API reference.
 */
export const readSignature = (request: SignableRequest, nowMs: number): RequestSignature | undefined => {
  const at = request.url.indexOf("?");
  const path = at === -1 ? request.url : request.url.slice(0, at);
  const parameters = at === -1 ? [] : parametersOf(request.url.slice(at + 1));
  const authorization = single(request.headers, "authorization");
  const isInQuery = isSignedInQuery(parameters);
  if (authorization === undefined && !isInQuery && !isVersion2(parameters)) return undefined;
  if (authorization !== undefined && isInQuery) {
    throw refuse(
      "invalid-argument",
      "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified",
    );
  }
  if (request.headers["x-amz-security-token"] !== undefined) {
    throw refuse("invalid-token", "The provided token is malformed or otherwise invalid.");
  }
  if (isInQuery) {
    return signatureOf(request, path, parameters, queryClaim(request, parameters, nowMs), malformedQuery);
  }
  if (authorization?.startsWith(`${AWS4_ALGORITHM} `) !== true) {
    throw refuse(
      "invalid-request",
      `The authorization mechanism you have provided is not supported. Please use ${AWS4_ALGORITHM}.`,
    );
  }
  return signatureOf(request, path, parameters, headerClaim(request, authorization, nowMs), malformedHeader);
};

/** Whether `secret` made the signature; in constant time. */
export const isSignedBy = ({ day, region, signature, text }: RequestSignature, secret: string): boolean => {
  if (!SIGNATURE.test(signature)) return false;
  const expected = awsSignature(awsSigningKey(secret, day, region, SERVICE), text);
  return timingSafeEqual(Buffer.from(expected), Buffer.from(signature));
};
