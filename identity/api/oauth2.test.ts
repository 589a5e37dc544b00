import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestClient, textAt } from "../test-client.ts";
import { createTestInstallation, type TestInstallation } from "../test-service.ts";

let installation: TestInstallation;
let base = "";
let id = "";
let secret = "";
let admin = "";
const { call, adminToken } = createTestClient(() => base);

beforeAll(async () => {
  installation = createTestInstallation();
  base = `http://127.0.0.1:${(await installation.start()).port}`;
  admin = await adminToken();
  const me = textAt(await call("GET", "/v3/auth/tokens", { token: admin, subject: admin }), "token.user.id");
  const made = await call("POST", `/v3/users/${me}/application_credentials`, {
    token: admin,
    body: { application_credential: { name: "client", roles: [{ name: "reader" }] } },
  });
  id = textAt(made, "application_credential.id");
  secret = textAt(made, "application_credential.secret");
});

afterAll(() => installation[Symbol.asyncDispose]());

type Answer = { readonly status: number; readonly headers: Headers; readonly body: Record<string, unknown> };

const ask = async (authorization: string | undefined, form: string, type = "application/x-www-form-urlencoded") => {
  const headers = { "content-type": type, ...(authorization === undefined ? {} : { authorization }) };
  const response = await fetch(`${base}/v3/OS-OAUTH2/token`, { method: "POST", headers, body: form });
  const answer: Answer = {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Answer["body"],
  };
  return answer;
};

const basic = (user: string, password: string): string =>
  `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;

const GRANT = "grant_type=client_credentials";

test("an OAuth 2.0 client gets a token for its application credential, with that credential's rights and no others", async () => {
  const answer = await ask(basic(id, secret), `${GRANT}&scope=whatever&__proto__=x`);
  expect(answer.status).toBe(200);
  expect(answer.headers.get("cache-control")).toBe("no-store");
  expect(answer.body).toEqual({
    access_token: expect.any(String),
    token_type: "Bearer",
    expires_in: expect.any(Number),
  });
  expect(answer.body["expires_in"]).toBeGreaterThan(3590);
  const token = String(answer.body["access_token"]);
  const shown = await call("GET", "/v3/auth/tokens", { token, subject: token });
  expect(shown.body["token"]).toMatchObject({
    methods: ["application_credential"],
    roles: [{ name: "reader" }],
    application_credential: { id },
  });
  expect((await call("POST", "/v3/users", { token, body: { user: { name: "no" } } })).status).toBe(403);
});

test("what is no grant of a client is refused in OAuth's shape, and tells nothing of what exists", async () => {
  const refused: [string | undefined, string, number, string, string][] = [
    [undefined, GRANT, 401, "invalid_client", "OAuth2.0 client authorization is required."],
    ["Bearer x", GRANT, 401, "invalid_client", "OAuth2.0 client authorization type bearer is not supported."],
    [basic(id, ""), GRANT, 401, "invalid_client", "OAuth2.0 client authorization is invalid."],
    [basic("", secret), GRANT, 401, "invalid_client", "OAuth2.0 client authorization is invalid."],
    ["Basic %%%", GRANT, 401, "invalid_client", "OAuth2.0 client authorization is invalid."],
    [basic(id, secret), "", 400, "invalid_request", "The parameter grant_type is required."],
    [
      basic(id, secret),
      "grant_type=password",
      400,
      "unsupported_grant_type",
      "The parameter grant_type password is not supported.",
    ],
    [basic(id, "x".repeat(5000)), GRANT, 400, "invalid_request", "The secret is too long."],
    [basic(id, "wrong"), GRANT, 401, "invalid_client", "The request you have made requires authentication."],
    [basic("0".repeat(32), secret), GRANT, 401, "invalid_client", "The request you have made requires authentication."],
  ];
  for (const [authorization, form, status, error, description] of refused) {
    const answer = await ask(authorization, form);
    expect([answer.status, answer.body]).toEqual([status, { error, error_description: description }]);
    expect(answer.headers.get("www-authenticate")).toBe(status === 401 ? `Keystone uri="${base}/v3"` : null);
  }
  const methods = ["GET", "PUT", "PATCH", "DELETE"];
  for (const method of methods) {
    const answer = await call(method, "/v3/OS-OAUTH2/token");
    expect([answer.status, answer.body["error"]]).toEqual([405, "other_error"]);
  }
});

test("a form is read where it is asked for, and nowhere else", async () => {
  const headers = { "content-type": "application/x-www-form-urlencoded" };
  const answer = await fetch(`${base}/v3/auth/tokens`, { method: "POST", headers, body: "auth=x" });
  expect(answer.status).toBe(400);
  expect((await ask(basic(id, secret), "<xml/>", "application/xml")).status).toBe(400);
});

test("certificates and revocation lists of PKI tokens are gone, and the answer says so", async () => {
  for (const path of ["/v3/OS-SIMPLE-CERT/ca", "/v3/OS-SIMPLE-CERT/certificates", "/v3/auth/tokens/OS-PKI/revoked"]) {
    const answer = await call("GET", path);
    expect([path, answer.status, answer.body["error"]]).toEqual([
      path,
      410,
      {
        code: 410,
        title: "Gone",
        message: "This API is no longer available due to the removal of support for PKI tokens.",
      },
    ]);
  }
});
