import { SignJWT, UnsecuredJWT } from "jose";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { CLIENT_ID, CLIENT_SECRET, createOidcFixture } from "../../oidc-fixture.ts";
import { at, tokenOf, createTestClient } from "../../test-client.ts";
import { createTestInstallation } from "../../test-service.ts";
import { AUTH, PERSON, createFederationFixture } from "./federation-fixture.ts";

const federation = createFederationFixture();
const { call, rescope, adminToken, send, byToken, loginAs, setRules, setProvider } = federation;

beforeAll(() => federation.start());
beforeEach(() => federation.reset());
afterAll(() => federation[Symbol.asyncDispose]());

test("an access token of the real provider for this service logs a program in", async () => {
  await setRules({
    local: [{ user: { name: "robot {0}" } }],
    remote: [{ type: "sub" }, { type: "groups", any_one_of: ["robots"] }],
  });
  const answer = await byToken(await federation.provider.clientToken());
  expect([answer.status, at(answer, "token.user.name")]).toEqual([201, `robot ${CLIENT_ID}`]);
});

test("tokens that are altered, old, early, another's, another audience's, unsigned or of another kind are refused", async () => {
  const seconds = Math.floor(federation.now() / 1000);
  const good = await federation.provider.sign({ email: "a@example.com" });
  expect((await byToken(good)).status).toBe(201);
  const claims = {
    iss: federation.provider.issuer,
    sub: "alice",
    aud: CLIENT_ID,
    iat: seconds,
    exp: seconds + 300,
    email: "x",
  };
  const [head = "", body = "", signature = ""] = good.split(".");
  const forged = Buffer.from(JSON.stringify({ ...claims, sub: "admin" })).toString("base64url");
  const bad = [
    `${head}.${forged}.${signature}`,
    `${head}.${body}.${signature.slice(0, -4)}AAAA`,
    await federation.provider.sign({ email: "x", exp: seconds - 60 }),
    await federation.provider.sign({ email: "x", nbf: seconds + 600 }),
    await federation.provider.sign({ email: "x", iss: "https://evil.example" }),
    await federation.provider.sign({ email: "x", aud: "another client" }),
    await federation.provider.sign({ email: "x", sub: "" }),
    await federation.provider.sign({ email: "x" }, { typ: "logout+jwt" }),
    new UnsecuredJWT(claims).encode(),
    await new SignJWT(claims).setProtectedHeader({ alg: "HS256" }).sign(Buffer.from(CLIENT_SECRET.padEnd(32, "x"))),
    "nonsense",
    "a.b.c",
    "x".repeat(20_000),
    await adminToken(),
  ];
  for (const token of bad)
    expect([token.slice(0, 20), (await byToken(token)).status]).toEqual([token.slice(0, 20), 401]);
  expect((await call("POST", AUTH)).status).toBe(401);
  expect((await call("POST", AUTH, { headers: { authorization: "Basic x" } })).status).toBe(401);
});

test("headers with names of claims say nothing", async () => {
  await setRules({ local: [{ user: { name: "{0}" } }], remote: [{ type: "HTTP_OIDC_ROLE" }] });
  const authorization = `Bearer ${await federation.provider.sign({ email: "x" })}`;
  const headers = { authorization, "oidc-role": "root", "http-oidc-role": "root", remote_user: "root" };
  expect((await call("POST", AUTH, { headers })).status).toBe(401);
});

test("a provider that is disabled, unknown, not configured or under another remote id lets nobody in", async () => {
  const unknown = AUTH.replace("/sso/", "/nowhere/");
  const headers = async () => ({
    authorization: `Bearer ${await federation.provider.sign({ email: "x@example.com" })}`,
  });
  expect((await call("POST", unknown, { headers: await headers() })).status).toBe(404);
  expect((await call("POST", AUTH.replace("/openid/", "/mapped/"), { headers: await headers() })).status).toBe(404);
  expect((await call("POST", AUTH.replace("/openid/", "/saml2/"), { headers: await headers() })).status).toBe(401);
  await setProvider({ remote_ids: ["https://other.example"] });
  expect((await loginAs({ email: "x@example.com" })).status).toBe(403);
  await setProvider({ remote_ids: [] });
  const before = await loginAs({ email: "x@example.com" });
  expect(before.status).toBe(201);
  await setProvider({ enabled: false });
  expect((await loginAs({ email: "x@example.com" })).status).toBe(403);
  // What it vouched for before is void too.
  expect((await rescope(tokenOf(before))).status).toBe(404);
  await send("PUT", "/v3/OS-FEDERATION/identity_providers/bare", { identity_provider: { enabled: true } });
  const protocol = { mapping_id: "people" };
  await send("PUT", "/v3/OS-FEDERATION/identity_providers/bare/protocols/openid", { protocol });
  expect((await call("POST", AUTH.replace("/sso/", "/bare/"), { headers: await headers() })).status).toBe(401);
});

test("the provider's documents are fetched once for many logins", async () => {
  await loginAs({ email: "x@example.com" });
  const before = new Map(federation.provider.requests);
  await Promise.all(
    Array.from({ length: 10 }, (_, index) => loginAs({ sub: `crowd-${index}`, email: "x@example.com" })),
  );
  await Promise.all(Array.from({ length: 10 }, () => byToken("a.b.c")));
  expect(federation.provider.requests).toEqual(before);
});

test("a provider that is away answers 503, and later logins work again", async () => {
  const away = createTestInstallation();
  const silent = await createOidcFixture(federation.now);
  try {
    const service = await away.start({
      file: { identity: { oidc: { sso: { issuer: silent.issuer, client_id: CLIENT_ID } } } },
      nowMs: federation.now,
    });
    const client = createTestClient(() => `http://127.0.0.1:${service.port}`);
    const token = await client.adminToken();
    const put = (path: string, body: unknown) => client.call("PUT", `/v3/OS-FEDERATION${path}`, { token, body });
    await put("/identity_providers/sso", { identity_provider: { enabled: true } });
    await put("/mappings/people", { mapping: { rules: [PERSON] } });
    await put("/identity_providers/sso/protocols/openid", { protocol: { mapping_id: "people" } });
    const attempt = async () => {
      const authorization = `Bearer ${await silent.sign({ email: "x@example.com" })}`;
      return (await client.call("POST", AUTH, { headers: { authorization } })).status;
    };
    expect(await attempt()).toBe(503);
    silent.serve(["http://127.0.0.1:1/"]);
    // Not asked again at once.
    expect(await attempt()).toBe(503);
    expect(silent.requests.get("/.well-known/openid-configuration")).toBe(1);
    federation.advance(6_000);
    silent.broken.add("/jwks");
    expect(await attempt()).toBe(503);
    silent.broken.clear();
    expect(await attempt()).toBe(201);
  } finally {
    await away[Symbol.asyncDispose]();
    await silent[Symbol.asyncDispose]();
  }
});
