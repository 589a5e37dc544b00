import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TestInstallation } from "../../scripts/scenarios/installation.ts";
import { ObjectClient } from "../../scripts/scenarios/object-client.ts";
import { answersOf, RECORDED, type SwiftAnswer } from "./swift-answers.ts";
import { SWIFT_REQUESTS, type SwiftRequest } from "./swift-requests.ts";

const CONDITIONAL = "Swift looks at no condition of a write but If-None-Match: *; here all are decided, atomically";
const PARTS = "Swift sends the range whatever If-Range says";

/** What is answered otherwise than by Swift, on purpose: the status, and why. */
const DIFFERENCES: Readonly<Record<string, { readonly status: number; readonly why: string }>> = {
  'PUT /c1/etag {"ETag":"781E5E245D69B566979B86E28D23F2C7"}': { status: 201, why: "digits are digits" },
  'PUT /c1/once {"If-Match":"abc"}': { status: 412, why: CONDITIONAL },
  'PUT /c1/once {"If-Unmodified-Since":"Thu, 01 Jan 1970 00:00:01 GMT"}': { status: 412, why: CONDITIONAL },
  'DELETE /c1/once {"If-Match":"abc"}': { status: 412, why: CONDITIONAL },
  'DELETE /c1/once {"If-None-Match":"*"}': { status: 412, why: CONDITIONAL },
  "DELETE /c1/once {}": { status: 204, why: "so it is there still" },
  'GET /c1/o {"Range":"bytes=0-4","If-Range":"other"}': { status: 200, why: PARTS },
  'GET /c1/o {"Range":"bytes=0-4","If-Range":"Thu, 01 Jan 1970 00:00:01 GMT"}': { status: 200, why: PARTS },
  "GET /l?limit=-1 {}": { status: 412, why: "a limit that is none is refused, as by later releases" },
  "GET /l?limit=x {}": { status: 412, why: "a limit that is none is refused, as by later releases" },
  "GET /l?marker=%00 {}": { status: 412, why: "no name has a NUL" },
  "GET /v2/x {}": { status: 404, why: "as any other path that is not there" },
};

const nameOf = ({ method, path, headers }: SwiftRequest): string => `${method} ${path} ${JSON.stringify(headers)}`;

const installation = new TestInstallation(["--only", "object"]);
const recorded = JSON.parse(readFileSync(RECORDED, "utf8")) as SwiftAnswer[];
let answers: readonly SwiftAnswer[] = [];

beforeAll(async () => {
  const { url, token } = await ObjectClient.login((await installation.up()).swiftAuthV1);
  answers = await answersOf(url, token);
});

afterAll(async () => {
  await installation[Symbol.asyncDispose]();
});

test("every request was recorded, and every difference is one of a request", () => {
  expect(recorded).toHaveLength(SWIFT_REQUESTS.length);
  const names = new Set(SWIFT_REQUESTS.map(nameOf));
  expect(Object.keys(DIFFERENCES).filter((name) => !names.has(name))).toEqual([]);
});

describe("the answer is that of Swift 2.30.1", () => {
  for (const [index, request] of SWIFT_REQUESTS.entries()) {
    const name = nameOf(request);
    const difference = DIFFERENCES[name];
    test(`${index}: ${name.slice(0, 140)}${difference === undefined ? "" : `: not, ${difference.why}`}`, () => {
      if (difference === undefined) expect(answers[index]).toEqual(recorded[index]);
      else expect(answers[index]?.status).toBe(difference.status);
    });
  }
});

test("what an owner says to pages of other origins cannot break an answer", async () => {
  const client = await ObjectClient.login(installation.ready().swiftAuthV1);
  const odd = Buffer.from("€ X-Good a\u00e9", "utf8").toString("latin1");
  const rule = {
    "X-Container-Meta-Access-Control-Allow-Origin": "*",
    "X-Container-Meta-Access-Control-Expose-Headers": odd,
    "X-Container-Meta-Access-Control-Max-Age": odd,
  };
  expect((await client.request("PUT", "/odd", { headers: rule })).status).toBe(201);
  const listed = await client.request("GET", "/odd", { headers: { Origin: "http://a.example" } });
  expect([listed.status, listed.headers.get("access-control-expose-headers")?.endsWith(", x-good")]).toEqual([
    204,
    true,
  ]);
  const asked = { Origin: "http://a.example", "Access-Control-Request-Method": "GET" };
  const preflight = await client.request("OPTIONS", "/odd", {
    headers: { ...asked, "Access-Control-Request-Headers": odd },
  });
  expect([preflight.status, preflight.headers.get("access-control-allow-headers")]).toEqual([200, "X-Good"]);
  expect(preflight.headers.get("access-control-max-age")).toBeNull();
});

test("a copy has the limits of names that a PUT has", async () => {
  const client = await ObjectClient.login(installation.ready().swiftAuthV1);
  const headers = { Destination: `kept/${"n".repeat(1025)}` };
  expect((await client.request("COPY", "/kept/none", { headers })).status).toBe(400);
  const foreign = { Destination: "kept/x", "Destination-Account": ".shards_AUTH_x" };
  expect((await client.request("COPY", "/kept/none", { headers: foreign })).status).toBe(404);
});
