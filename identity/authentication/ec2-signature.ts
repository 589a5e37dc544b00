import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { AWS4_ALGORITHM, AWS4_REQUEST, awsSignature, awsSigningKey } from "../../common/aws-signing-key.ts";

/** A request that somebody signed with an EC2 key, as its receiver describes it to Keystone. */
export type SignedRequest = {
  readonly signature: string;
  readonly verb: string;
  readonly host: string;
  readonly path: string;
  readonly params: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string>>;
  /** Of the body, SHA-256 as hexadecimal digits; version 4 only. */
  readonly bodyHash: string;
};

const hmac = (algorithm: "sha1" | "sha256", key: string | Buffer, text: string | Buffer): Buffer =>
  createHmac(algorithm, key).update(text).digest();

const equalText = (left: string, right: string): boolean => {
  const a = createHash("sha256").update(left).digest();
  const b = createHash("sha256").update(right).digest();
  return timingSafeEqual(a, b);
};

/** RFC 3986: what `encodeURIComponent` leaves and a signer does not. */
const quote = (text: string): string =>
  encodeURIComponent(text.toWellFormed()).replaceAll(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );

const compare = (left: string, right: string): number => (left < right ? -1 : Number(left > right));

const canonicalQuery = (params: Readonly<Record<string, string>>): string =>
  Object.keys(params)
    .toSorted(compare)
    .map((name) => `${quote(name)}=${quote(params[name] ?? "")}`)
    .join("&");

const own = (record: Readonly<Record<string, string>>, name: string): string | undefined =>
  Object.hasOwn(record, name) ? record[name] : undefined;

const authorizationOf = ({ headers }: SignedRequest): string | undefined =>
  own(headers, "Authorization") ?? own(headers, "authorization");

const isVersion4 = (request: SignedRequest): boolean =>
  authorizationOf(request)?.startsWith(AWS4_ALGORITHM) === true ||
  own(request.params, "X-Amz-Algorithm") === AWS4_ALGORITHM;

/** A member of the Authorization header, or of the query. */
const authorizationMember = (request: SignedRequest, name: string): string | undefined => {
  const header = authorizationOf(request);
  if (header === undefined) return own(request.params, `X-Amz-${name}`);
  return new RegExp(`(?:^|[ ,])${name}=([^,]*)`).exec(header)?.[1]?.trim();
};

const version4 = (request: SignedRequest, secret: string): string | undefined => {
  const { verb, path, params, headers, bodyHash } = request;
  const credential = authorizationMember(request, "Credential")?.split("/");
  const signedHeaders = authorizationMember(request, "SignedHeaders");
  const lower = new Map(Object.entries(headers).map(([name, value]) => [name.toLowerCase().trim(), value.trim()]));
  const date = lower.get("x-amz-date") ?? own(params, "X-Amz-Date");
  if (credential?.length !== 5 || signedHeaders === undefined || date === undefined) return undefined;
  const [, day = "", region = "", service = ""] = credential;
  if (!date.startsWith(day)) return undefined;
  const lines = signedHeaders.split(";").flatMap((name) => {
    const value = lower.get(name);
    return value === undefined ? [] : [`${name}:${value}`];
  });
  const { "X-Amz-Signature": _signature, ...signedParams } = params;
  const query = verb.toUpperCase() === "POST" ? "" : canonicalQuery(signedParams);
  const canonical = [verb.toUpperCase(), path, query, `${lines.join("\n")}\n`, signedHeaders, bodyHash].join("\n");
  const digest = createHash("sha256").update(canonical).digest("hex");
  const text = [AWS4_ALGORITHM, date, credential.slice(1).join("/"), digest].join("\n");
  return awsSignature(awsSigningKey(secret, day, region, service), text);
};

const version2 = ({ verb, host, path, params }: SignedRequest, secret: string): string =>
  hmac(
    "sha256",
    secret,
    `${verb}\n${host}\n${path}\n${canonicalQuery({ ...params, SignatureMethod: "HmacSHA256" })}`,
  ).toString("base64");

const version1 = ({ params }: SignedRequest, secret: string): string => {
  const names = Object.keys(params).toSorted((left, right) => compare(left.toLowerCase(), right.toLowerCase()));
  return hmac("sha1", secret, names.map((name) => `${name}${params[name] ?? ""}`).join("")).toString("base64");
};

const version0 = ({ params }: SignedRequest, secret: string): string =>
  hmac("sha1", secret, `${own(params, "Action") ?? ""}${own(params, "Timestamp") ?? ""}`).toString("base64");

const expected = (request: SignedRequest, secret: string): string | undefined => {
  switch (own(request.params, "SignatureVersion")) {
    case "0":
      return version0(request, secret);
    case "1":
      return version1(request, secret);
    case "2":
      return version2(request, secret);
    case undefined:
    default:
      return isVersion4(request) ? version4(request, secret) : undefined;
  }
};

/** Whether `secret` signed the request. Some clients leave the port out of the host that they sign. */
export const isSignedBy = (request: SignedRequest, secret: string): boolean => {
  const bareHost = request.host.replace(/:\d+$/, "");
  return [request, { ...request, host: bareHost }].some((candidate) => {
    const signature = expected(candidate, secret);
    return signature !== undefined && equalText(signature, request.signature);
  });
};

/** Services whose version 4 signatures a text to sign may be for. */
const SERVICES = new Set(["s3", "iam", "sts"]);

/** Whether `secret` signed the text of an S3 request, in version 4 or in the old one (SHA-1). */
export const isTextSignedBy = (text: Buffer, signature: string, secret: string): boolean => {
  if (!text.subarray(0, 4).equals(Buffer.from("AWS4"))) {
    return equalText(hmac("sha1", secret, text).toString("base64"), signature);
  }
  const lines = text.toString("utf8").split("\n");
  const scope = lines[2]?.split("/") ?? [];
  const [date = "", region = "", service = "", end] = scope;
  if (lines.length !== 4 || lines[0] !== AWS4_ALGORITHM || scope.length !== 4) return false;
  if (end !== AWS4_REQUEST || !SERVICES.has(service)) return false;
  return equalText(awsSignature(awsSigningKey(secret, date, region, service), text), signature);
};

/** The time at which a request says that it was signed, undefined where it says none. */
export const signedAtMs = (request: SignedRequest): number | undefined => {
  const lower = new Map(Object.entries(request.headers).map(([name, value]) => [name.toLowerCase(), value]));
  const given = own(request.params, "Timestamp") ?? own(request.params, "X-Amz-Date") ?? lower.get("x-amz-date");
  if (given === undefined) return undefined;
  const compact = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(given);
  if (compact === null) return Date.parse(given);
  const [, year, month, day, hour, minute, second] = compact;
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
};
