import { globSync, readFileSync } from "node:fs";
import { createServer, request as httpRequest, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { silentLog } from "../../common/log.ts";
import { errorXml, s3ErrorOf } from "./s3-error.ts";
import { isS3Request } from "./s3-request.ts";
import { createS3Server, type S3Services, takeS3Requests } from "./s3-server.ts";

const servers: Server[] = [];
/** No key is known, and the identity service is away for one that begins with "away". */
const SERVICES: S3Services = {
  keys: {
    find: (access) =>
      access.startsWith("away") ? Promise.reject(new RingsteadError("identity-unavailable", "away")) : undefined,
  },
  clock: { nowMs: () => Date.UTC(2026, 0, 1) },
  log: silentLog,
};

const listening = async (server: Server): Promise<string> => {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
};

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
});

describe("the S3 port", () => {
  it("answers 501 NotImplemented in the shape of an S3 error, with the request's id in header and body", async () => {
    const origin = await listening(createS3Server(SERVICES, undefined));
    const response = await fetch(`${origin}/bucket/a%26b?list-type=2`, { method: "PUT", body: "x" });
    const text = await response.text();
    const id = response.headers.get("x-amz-request-id");
    expect(response.status).toBe(501);
    expect(response.headers.get("content-type")).toBe("application/xml");
    expect(id).toMatch(/^[0-9A-F]{16}$/);
    expect(text).toContain("<Code>NotImplemented</Code>");
    expect(text).toContain("<Resource>/bucket/a%26b</Resource>");
    expect(text).toContain(`<RequestId>${id}</RequestId>`);
  });

  it("answers HEAD without a body", async () => {
    const origin = await listening(createS3Server(SERVICES, undefined));
    const response = await fetch(`${origin}/bucket`, { method: "HEAD" });
    expect([response.status, await response.text()]).toEqual([501, ""]);
    expect(response.headers.has("x-amz-request-id")).toBe(true);
  });

  it("refuses a client that waits for 100 Continue before it has sent its body", async () => {
    const origin = await listening(createS3Server(SERVICES, undefined));
    const heard = await new Promise<string>((resolve, reject) => {
      const asked = httpRequest(`${origin}/b/o`, {
        method: "PUT",
        headers: { expect: "100-continue", "content-length": "5000000000" },
      });
      asked.on("continue", () => resolve("continue"));
      asked.on("response", (response) => {
        resolve(String(response.statusCode));
        response.resume();
        asked.destroy();
      });
      asked.on("error", reject);
      asked.flushHeaders();
    });
    expect(heard).toBe("501");
  });

  it("has an answer of its own for every code of its errors, and tells nobody what was not foreseen", () => {
    const codes = globSync("*.ts", { cwd: import.meta.dirname })
      .filter((file) => !file.endsWith(".test.ts"))
      .map((file) => readFileSync(join(import.meta.dirname, file), "utf8"))
      .flatMap((text) => [...text.matchAll(/\b(?:RingsteadError|refuse)\(\s*"([a-z0-9-]+)"/g)])
      .map(([, code = ""]) => code);
    expect(codes.length).toBeGreaterThan(8);
    for (const code of codes)
      expect([code, s3ErrorOf(new RingsteadError(code, "said")).message]).toEqual([code, "said"]);
    expect(s3ErrorOf(new Error("secret"))).toMatchObject({ status: 500, code: "InternalError" });
    expect(s3ErrorOf(new Error("secret")).message).not.toContain("secret");
  });

  it("says a name that is no XML as XML", () => {
    expect(errorXml({ status: 501, code: "C", message: "a<b" }, "/x&\u0001", "ID")).toBe(
      '<?xml version="1.0" encoding="UTF-8"?>\n' +
        "<Error><Code>C</Code><Message>a&lt;b</Message><Resource>/x&amp;\ufffd</Resource><RequestId>ID</RequestId></Error>",
    );
  });
});

describe("the port that both faces share", () => {
  it("takes signed requests and leaves all others to Swift", async () => {
    const server = createServer((_request, response) => response.end("swift"));
    takeS3Requests(server, SERVICES);
    const origin = await listening(server);
    const headers = {
      authorization:
        "AWS4-HMAC-SHA256 Credential=A/20260101/r/s3/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=0",
      "x-amz-date": "20260101T000000Z",
      "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
    };
    const signed = await fetch(`${origin}/b/o`, { headers });
    expect([signed.status, await signed.text()]).toEqual([
      403,
      expect.stringContaining("<Code>InvalidAccessKeyId</Code>"),
    ]);
    const away = { ...headers, authorization: headers.authorization.replace("Credential=A/", "Credential=away/") };
    expect((await fetch(`${origin}/b/o`, { headers: away })).status).toBe(503);
    expect((await fetch(`${origin}/b/o?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0`)).status).toBe(400);
    const plain = await fetch(`${origin}/v1/AUTH_a/b?temp_url_sig=0&temp_url_expires=1`);
    expect([plain.status, await plain.text()]).toEqual([200, "swift"]);
  });

  it.each([
    ["AWS AKIA:c2lnbmF0dXJl", "/b/o", true],
    ["AWS4-ECDSA-P256-SHA256 Credential=A", "/b/o", true],
    ["Basic AWS4", "/b/o", false],
    [undefined, "/b/o?AWSAccessKeyId=A&Expires=1&Signature=s", true],
    [undefined, "/b/o?AWSAccessKeyId=A", false],
    [undefined, "/v1/AUTH_a/c?prefix=X-Amz-Signature", false],
    [undefined, "/v1/AUTH_a/X-Amz-Signature=1", false],
  ])("authorization %s with %s: S3 is %s", (authorization, url, expected) => {
    expect(isS3Request({ headers: authorization === undefined ? {} : { authorization }, url })).toBe(expected);
  });
});
