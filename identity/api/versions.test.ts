import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestClient, textAt } from "../test-client.ts";
import { createTestInstallation, type TestInstallation } from "../test-service.ts";

let installation: TestInstallation;
let base = "";
const { call, adminToken } = createTestClient(() => base);

beforeAll(async () => {
  installation = createTestInstallation();
  base = `http://127.0.0.1:${(await installation.start()).port}`;
});

afterAll(() => installation[Symbol.asyncDispose]());

test("a client that asks at a URL of v2.0 finds v3, and a call of v2.0 says where that is", async () => {
  const found = await call("GET", "/v2.0/");
  expect(found.status).toBe(300);
  expect(found.body["versions"]).toEqual({
    values: [expect.objectContaining({ id: "v3.14", links: [{ rel: "self", href: `${base}/v3/` }] })],
  });
  const auth = { passwordCredentials: { username: "admin", password: "x" } };
  for (const answer of [
    await call("POST", "/v2.0/tokens", { body: { auth } }),
    await call("GET", "/v2.0/tenants", { token: await adminToken() }),
  ]) {
    expect(answer.status).toBe(410);
    expect(textAt(answer, "error.message")).toBe(`Identity v2.0 is not offered any more: use v3 at ${base}/v3.`);
  }
});
