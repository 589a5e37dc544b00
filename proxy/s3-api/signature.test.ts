import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { codeOf } from "../../common/errors.ts";
import { isSignedBy, readSignature, type SignableRequest } from "./signature.ts";

/** The examples of the Amazon S3 API reference, "Signature Calculations for the Authorization Header". */
const ACCESS = "AKIAIOSFODNN7EXAMPLE";
const SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SIGNED_AT_MS = Date.UTC(2013, 4, 24);
const EMPTY_HASH = createHash("sha256").update("").digest("hex");

const request = (
  method: string,
  url: string,
  signature: string,
  headers: Readonly<Record<string, string>> = {},
): SignableRequest => {
  const signed: Record<string, string> = {
    host: "examplebucket.s3.amazonaws.com",
    "x-amz-content-sha256": EMPTY_HASH,
    "x-amz-date": "20130524T000000Z",
    ...headers,
  };
  const names = Object.keys(signed).toSorted().join(";");
  const authorization = `AWS4-HMAC-SHA256 Credential=${ACCESS}/20130524/us-east-1/s3/aws4_request,SignedHeaders=${names},Signature=${signature}`;
  const all = Object.entries({ authorization, ...signed }).map(([name, value]) => [name, [value]] as const);
  return { method, url, headers: Object.fromEntries(all) };
};

const GET_OBJECT = request("GET", "/test.txt", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41", {
  range: "bytes=0-9",
});
const PRESIGNED = `/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=${ACCESS}%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404`;
const presigned = (url = PRESIGNED): SignableRequest => ({
  method: "GET",
  url,
  headers: { host: ["examplebucket.s3.amazonaws.com"] },
});

const verdict = (signable: SignableRequest, nowMs = SIGNED_AT_MS, secret = SECRET): string | boolean => {
  try {
    const signature = readSignature(signable, nowMs);
    return signature === undefined ? "anonymous" : isSignedBy(signature, secret);
  } catch (error) {
    return codeOf(error) ?? "thrown";
  }
};

describe("signatures of version 4", () => {
  it.each([
    ["an object's range", GET_OBJECT],
    [
      "an upload under a name that needs encoding",
      request("PUT", "/test$file.text", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd", {
        date: "Fri, 24 May 2013 00:00:00 GMT",
        "x-amz-content-sha256": "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
      }),
    ],
    [
      "a parameter without a value",
      request("GET", "/?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
    ],
    [
      "parameters in any order",
      request("GET", "/?prefix=J&max-keys=2", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
    ["a presigned URL", presigned()],
  ])("%s of the reference is verified, and another secret is refused", (_name, signable) => {
    expect(verdict(signable)).toBe(true);
    expect(verdict(signable, SIGNED_AT_MS, "another")).toBe(false);
  });

  it("a path means the same however it is encoded", () => {
    const encodedOtherwise = { ...GET_OBJECT, url: "/%74est%2Etxt" };
    expect(verdict(encodedOtherwise)).toBe(true);
    expect(verdict({ ...GET_OBJECT, url: "/test.txt%2f" })).toBe(false);
  });

  it("whatever is changed in a request is noticed", () => {
    const changed = (headers: SignableRequest["headers"]): SignableRequest => ({
      ...GET_OBJECT,
      headers: { ...GET_OBJECT.headers, ...headers },
    });
    expect(verdict({ ...GET_OBJECT, method: "DELETE" })).toBe(false);
    expect(verdict({ ...GET_OBJECT, url: "/test.txt?acl" })).toBe(false);
    expect(verdict(changed({ range: ["bytes=0-10"] }))).toBe(false);
    expect(verdict(changed({ "x-amz-acl": ["public-read"] }))).toBe("access-denied");
    expect(verdict(presigned(PRESIGNED.replace("Expires=86400", "Expires=96400")))).toBe(false);
  });

  it("a request is good for a quarter of an hour, a presigned URL for as long as it says", () => {
    const minutes = (count: number): number => SIGNED_AT_MS + count * 60_000;
    expect(verdict(GET_OBJECT, minutes(14))).toBe(true);
    expect(verdict(GET_OBJECT, minutes(16))).toBe("request-time-too-skewed");
    expect(verdict(GET_OBJECT, minutes(-16))).toBe("request-time-too-skewed");
    expect(verdict(presigned(), minutes(24 * 60))).toBe(true);
    expect(verdict(presigned(), minutes(24 * 60 + 1))).toBe("access-denied");
    expect(verdict(presigned(), minutes(-16))).toBe("access-denied");
    expect(verdict(presigned(PRESIGNED.replace("Expires=86400", "Expires=700000")))).toBe(
      "authorization-query-malformed",
    );
  });

  const withHeader = (name: string, value: string | undefined): SignableRequest => {
    const { [name]: _gone, ...others } = GET_OBJECT.headers;
    return { ...GET_OBJECT, headers: value === undefined ? others : { ...others, [name]: [value] } };
  };
  const credential = (text: string): SignableRequest =>
    withHeader("authorization", `AWS4-HMAC-SHA256 Credential=${text},SignedHeaders=host,Signature=0`);

  it.each([
    ["nothing", withHeader("authorization", undefined), "anonymous"],
    ["version 2", withHeader("authorization", "AWS AKIA:c2lnbmF0dXJl"), "invalid-request"],
    ["an empty one", withHeader("authorization", "AWS4-HMAC-SHA256 "), "authorization-header-malformed"],
    ["half a credential", credential("A/20130524/us-east-1"), "authorization-header-malformed"],
    ["another service", credential("A/20130524/us-east-1/ec2/aws4_request"), "authorization-header-malformed"],
    ["another day", credential("A/20130525/us-east-1/s3/aws4_request"), "authorization-header-malformed"],
    ["a host that is not signed", credential("A/20130524/r/s3/aws4_request"), "access-denied"],
    ["no time", withHeader("x-amz-date", undefined), "access-denied"],
    ["no hash", withHeader("x-amz-content-sha256", undefined), "invalid-request"],
    ["a hash that is none", withHeader("x-amz-content-sha256", "abc"), "invalid-argument"],
    ["a session", withHeader("x-amz-security-token", "t"), "invalid-token"],
    ["two forms at once", { ...GET_OBJECT, url: PRESIGNED }, "invalid-argument"],
    ["a bare query", presigned("/?X-Amz-Signature=0"), "authorization-query-malformed"],
    ["a query that is no UTF-8", presigned(PRESIGNED.replace("20130524T", "%ff")), "authorization-query-malformed"],
  ])("%s: %o is %s", (_name, signable, expected) => {
    expect(verdict(signable)).toBe(expected);
  });

  it("no input does anything but give a signature, none, or a refusal with a code", () => {
    const text = fc.string({ unit: "binary-ascii", maxLength: 60 });
    const member = fc.oneof(text, fc.constantFrom("A/20130524/r/s3/aws4_request", "host", "0".repeat(64), "%", "/"));
    const headers = fc.dictionary(
      fc.constantFrom("host", "date", "x-amz-date", "x-amz-content-sha256", "x-amz-meta-a"),
      fc.array(member, { minLength: 1, maxLength: 2 }),
    );
    fc.assert(
      fc.property(fc.tuple(member, member, member), headers, text, ([a, b, c], others, query) => {
        const authorization = [`AWS4-HMAC-SHA256 Credential=${a},SignedHeaders=${b},Signature=${c}`];
        for (const signable of [
          { method: "GET", url: `/?${query}`, headers: { ...others, authorization } },
          { method: "GET", url: `/?X-Amz-Signature=${encodeURIComponent(a)}&${query}`, headers: others },
        ]) {
          expect(verdict(signable)).not.toBe(true);
          expect(verdict(signable)).not.toBe("thrown");
        }
      }),
    );
  });
});
