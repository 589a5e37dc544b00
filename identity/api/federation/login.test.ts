import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { SignJWT, UnsecuredJWT } from "jose";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import {
  AUDIENCE,
  CLIENT_ID,
  CLIENT_SECRET,
  createBrowser,
  createOidcFixture,
  type OidcFixture,
} from "../../oidc-fixture.ts";
import { type Answer, at, createTestClient, listAt, textAt, tokenOf } from "../../test-client.ts";
import { createTestInstallation, type TestInstallation } from "../../test-service.ts";

const DASHBOARD = "https://dashboard.example/auth/websso/";
const AUTH = "/v3/OS-FEDERATION/identity_providers/sso/protocols/openid/auth";
const WEBSSO = "/v3/auth/OS-FEDERATION/identity_providers/sso/protocols/openid/websso";

let installation: TestInstallation;
let provider: OidcFixture;
let base = "";
let admin = "";
let memberId = "";
let offsetMs = 0;
const now = (): number => Date.now() + offsetMs;
const { call, authenticate, login, rescope, adminToken } = createTestClient(() => base);

const send = async (method: string, path: string, body?: unknown): Promise<Answer> =>
  call(method, path, { token: admin, ...(body === undefined ? {} : { body }) });

const byToken = (token: string): Promise<Answer> =>
  call("POST", AUTH, { headers: { authorization: `Bearer ${token}` } });
const loginAs = async (claims: Record<string, unknown>): Promise<Answer> => byToken(await provider.sign(claims));

const setRules = async (...rules: unknown[]): Promise<void> => {
  const answer = await send("PATCH", "/v3/OS-FEDERATION/mappings/people", { mapping: { rules } });
  expect(answer.status).toBe(200);
};
const setProvider = async (identity_provider: object): Promise<void> => {
  expect((await send("PATCH", "/v3/OS-FEDERATION/identity_providers/sso", { identity_provider })).status).toBe(200);
};

const newGroup = async (name: string): Promise<string> =>
  textAt(await send("POST", "/v3/groups", { group: { name } }), "group.id");
const newProject = async (name: string): Promise<string> =>
  textAt(await send("POST", "/v3/projects", { project: { name } }), "project.id");

const PERSON = { local: [{ user: { name: "{0}", email: "{1}" } }], remote: [{ type: "sub" }, { type: "OIDC-email" }] };
const GROUPS = { local: [{ groups: "{0}", domain: { id: "default" } }], remote: [{ type: "HTTP_OIDC_GROUPS" }] };

beforeAll(async () => {
  installation = createTestInstallation();
  provider = await createOidcFixture(now);
  const secretFile = join(installation.paths.dataDir, "client-secret");
  writeFileSync(secretFile, `${CLIENT_SECRET}\n`, { mode: 0o600 });
  const service = await installation.start({
    file: {
      identity: {
        login_failures_per_minute: 1_000,
        oidc: {
          sso: {
            issuer: provider.issuer,
            client_id: CLIENT_ID,
            client_secret_file: secretFile,
            audiences: [AUDIENCE],
            scopes: ["openid", "email", "groups"],
            trusted_dashboards: [DASHBOARD],
          },
        },
      },
    },
    nowMs: now,
  });
  base = `http://127.0.0.1:${service.port}`;
  provider.serve([base + WEBSSO]);
  provider.accounts.set("alice", { email: "alice@example.com", groups: ["staff"] });
  admin = await adminToken();
  const roles = listAt(await call("GET", "/v3/roles?name=member", { token: admin }), "roles");
  memberId = String(roles[0]?.["id"]);
  const identity_provider = { enabled: true, remote_ids: [provider.issuer] };
  await send("PUT", "/v3/OS-FEDERATION/identity_providers/sso", { identity_provider });
  await send("PUT", "/v3/OS-FEDERATION/mappings/people", { mapping: { rules: [PERSON] } });
  const protocol = { mapping_id: "people" };
  await send("PUT", "/v3/OS-FEDERATION/identity_providers/sso/protocols/openid", { protocol });
});

beforeEach(async () => {
  admin = await adminToken();
  await setRules(PERSON);
  await setProvider({ enabled: true, authorization_ttl: null, remote_ids: [provider.issuer] });
});

afterAll(async () => {
  await installation[Symbol.asyncDispose]();
  await provider[Symbol.asyncDispose]();
});

test("a token of the provider becomes an unscoped token, and its user one of the provider's domain", async () => {
  const answer = await loginAs({ email: "alice@example.com" });
  expect(answer.status).toBe(201);
  const domainId = textAt(await send("GET", "/v3/OS-FEDERATION/identity_providers/sso"), "identity_provider.domain_id");
  expect(answer.body["token"]).toMatchObject({
    methods: ["openid"],
    user: {
      name: "alice",
      domain: { id: domainId },
      "OS-FEDERATION": { identity_provider: { id: "sso" }, protocol: { id: "openid" }, groups: [] },
    },
  });
  expect(at(answer, "token.project")).toBeUndefined();
  const id = textAt(answer, "token.user.id");
  const shown = await send("GET", `/v3/users/${id}`);
  expect(shown.body["user"]).toMatchObject({
    name: "alice",
    email: "alice@example.com",
    federated: [{ idp_id: "sso", protocols: [{ protocol_id: "openid", unique_id: "alice" }] }],
  });
  const found = await send("GET", "/v3/users?idp_id=sso&unique_id=alice");
  expect(listAt(found, "users").map((user) => user["id"])).toEqual([id]);
  // The same user comes again, by either method.
  const again = await call("GET", AUTH, {
    headers: { authorization: `Bearer ${await provider.sign({ email: "alice@example.com" })}` },
  });
  expect([again.status, at(again, "token.user.id")]).toEqual([201, id]);
});

test("an access token of the real provider for this service logs a program in", async () => {
  await setRules({
    local: [{ user: { name: "robot {0}" } }],
    remote: [{ type: "sub" }, { type: "groups", any_one_of: ["robots"] }],
  });
  const answer = await byToken(await provider.clientToken());
  expect([answer.status, at(answer, "token.user.name")]).toEqual([201, `robot ${CLIENT_ID}`]);
});

test("groups of the mapping give their roles for the time of the token, and to its new scopes", async () => {
  const groupId = await newGroup("staff");
  const projectId = await newProject("office");
  await send("PUT", `/v3/projects/${projectId}/groups/${groupId}/roles/${memberId}`);
  await setRules(PERSON, GROUPS);
  const claims = { sub: "bob", email: "b@example.com", groups: ["staff", "unknown here"] };
  const unscoped = await loginAs(claims);
  expect(at(unscoped, "token.user.OS-FEDERATION.groups")).toEqual([{ id: groupId }]);
  const token = tokenOf(unscoped);
  const projects = await call("GET", "/v3/OS-FEDERATION/projects", { token });
  expect(listAt(projects, "projects").map(({ id }) => id)).toEqual([projectId]);
  const scoped = await rescope(token, { project: { id: projectId } });
  expect([scoped.status, at(scoped, "token.user.OS-FEDERATION.groups")]).toEqual([201, [{ id: groupId }]]);
  expect(listAt(scoped, "token.roles").map(({ name }) => name)).toContain("member");
  expect((await call("GET", "/v3/auth/catalog", { token: tokenOf(scoped) })).status).toBe(200);
  // Keystone's own name for it.
  const mapped = await authenticate({ methods: ["mapped"], mapped: { id: token } }, { project: { id: projectId } });
  expect(mapped.status).toBe(201);
  // Nobody is in the group for longer.
  expect(listAt(await send("GET", `/v3/groups/${groupId}/users`), "users")).toEqual([]);
  const without = await loginAs({ ...claims, groups: ["unknown here"] });
  expect((await rescope(tokenOf(without), { project: { id: projectId } })).status).toBe(401);
});

test("with a time to live, memberships last that long, and end when the provider says so earlier", async () => {
  const groupId = await newGroup("lasting");
  const keptId = await newGroup("kept by hand");
  await setProvider({ authorization_ttl: 5 });
  await setRules(PERSON, GROUPS);
  const claims = { sub: "carol", email: "c@example.com", groups: ["lasting"] };
  const first = await loginAs(claims);
  const id = textAt(first, "token.user.id");
  await send("PUT", `/v3/groups/${keptId}/users/${id}`);
  const groups = async () =>
    new Set(listAt(await send("GET", `/v3/users/${id}/groups`), "groups").map((one) => one["id"]));
  expect(await groups()).toEqual(new Set([groupId, keptId]));
  offsetMs += 4 * 60_000;
  await loginAs(claims);
  offsetMs += 4 * 60_000;
  admin = await adminToken();
  expect(await groups()).toEqual(new Set([groupId, keptId]));
  offsetMs += 2 * 60_000;
  expect(await groups()).toEqual(new Set([keptId]));
  await loginAs(claims);
  expect(await groups()).toEqual(new Set([groupId, keptId]));
  await loginAs({ ...claims, groups: ["other"] });
  expect(await groups()).toEqual(new Set([keptId]));
});

test("projects of the mapping are made once, in the provider's domain, with the user's roles", async () => {
  await setRules(PERSON, {
    local: [{ projects: [{ name: "{0}'s project", roles: [{ name: "member" }, { name: "reader" }] }] }],
    remote: [{ type: "sub" }],
  });
  const claims = { sub: "dave", email: "d@example.com" };
  const both = await Promise.all([loginAs(claims), loginAs(claims)]);
  expect(both.map(({ status }) => status)).toEqual([201, 201]);
  const token = tokenOf(await loginAs(claims));
  const projects = listAt(await call("GET", "/v3/auth/projects", { token }), "projects");
  expect(projects).toHaveLength(1);
  expect(projects[0]).toMatchObject({
    name: "dave's project",
    domain_id: textAt(await loginAs(claims), "token.user.domain.id"),
  });
  const scoped = await rescope(token, { project: { id: projects[0]?.["id"] } });
  expect(listAt(scoped, "token.roles").map(({ name }) => name)).toEqual(["member", "reader"]);
  await setRules(PERSON, {
    local: [{ projects: [{ name: "other", roles: [{ name: "no such role" }] }] }],
    remote: [{ type: "sub" }],
  });
  expect((await loginAs(claims)).status).toBe(401);
  expect(listAt(await send("GET", "/v3/projects?name=other"), "projects")).toEqual([]);
});

test("a mapping to a local user logs that one in, without a shadow, and only if there", async () => {
  await setRules({
    local: [{ user: { name: "{0}", type: "local", domain: { id: "default" } } }],
    remote: [{ type: "sub" }],
  });
  const body = { user: { name: "erin", password: "pw" } };
  const id = textAt(await send("POST", "/v3/users", body), "user.id");
  const answer = await loginAs({ sub: "erin" });
  expect([answer.status, at(answer, "token.user.id"), at(answer, "token.user.OS-FEDERATION")]).toEqual([
    201,
    id,
    undefined,
  ]);
  expect((await loginAs({ sub: "nobody" })).status).toBe(401);
  const options = { multi_factor_auth_rules: [["openid", "password"]] };
  await send("PATCH", `/v3/users/${id}`, { user: { options } });
  const half = await loginAs({ sub: "erin" });
  expect([half.status, at(half, "required_auth_methods")]).toEqual([401, [["openid", "password"]]]);
});

test("a user whose name is taken gets another, and never the other's account", async () => {
  await send("PUT", "/v3/OS-FEDERATION/identity_providers/shared", { identity_provider: { domain_id: "default" } });
  const first = textAt(await loginAs({ sub: "twin-1", email: "t@example.com" }), "token.user.id");
  await setRules({ local: [{ user: { id: "{0}", name: "Twin" } }], remote: [{ type: "sub" }] });
  const one = await loginAs({ sub: "twin-1" });
  const other = await loginAs({ sub: "twin-2" });
  expect([at(one, "token.user.id"), at(one, "token.user.name")]).toEqual([first, "Twin"]);
  expect([other.status, at(other, "token.user.name")]).toEqual([201, "Twin (sso)"]);
  expect(at(other, "token.user.id")).not.toBe(first);
  expect(at(await loginAs({ sub: "twin-2" }), "token.user.id")).toBe(at(other, "token.user.id"));
});

test("tokens that are altered, old, early, another's, another audience's, unsigned or of another kind are refused", async () => {
  const seconds = Math.floor(now() / 1000);
  const good = await provider.sign({ email: "a@example.com" });
  expect((await byToken(good)).status).toBe(201);
  const claims = { iss: provider.issuer, sub: "alice", aud: CLIENT_ID, iat: seconds, exp: seconds + 300, email: "x" };
  const [head = "", body = "", signature = ""] = good.split(".");
  const forged = Buffer.from(JSON.stringify({ ...claims, sub: "admin" })).toString("base64url");
  const bad = [
    `${head}.${forged}.${signature}`,
    `${head}.${body}.${signature.slice(0, -4)}AAAA`,
    await provider.sign({ email: "x", exp: seconds - 60 }),
    await provider.sign({ email: "x", nbf: seconds + 600 }),
    await provider.sign({ email: "x", iss: "https://evil.example" }),
    await provider.sign({ email: "x", aud: "another client" }),
    await provider.sign({ email: "x", sub: "" }),
    await provider.sign({ email: "x" }, { typ: "logout+jwt" }),
    new UnsecuredJWT(claims).encode(),
    await new SignJWT(claims).setProtectedHeader({ alg: "HS256" }).sign(Buffer.from(CLIENT_SECRET.padEnd(32, "x"))),
    "nonsense",
    "a.b.c",
    "x".repeat(20_000),
    admin,
  ];
  for (const token of bad)
    expect([token.slice(0, 20), (await byToken(token)).status]).toEqual([token.slice(0, 20), 401]);
  expect((await call("POST", AUTH)).status).toBe(401);
  expect((await call("POST", AUTH, { headers: { authorization: "Basic x" } })).status).toBe(401);
});

test("headers with names of claims say nothing", async () => {
  await setRules({ local: [{ user: { name: "{0}" } }], remote: [{ type: "HTTP_OIDC_ROLE" }] });
  const authorization = `Bearer ${await provider.sign({ email: "x" })}`;
  const headers = { authorization, "oidc-role": "root", "http-oidc-role": "root", remote_user: "root" };
  expect((await call("POST", AUTH, { headers })).status).toBe(401);
});

test("a provider that is disabled, unknown, not configured or under another remote id lets nobody in", async () => {
  const unknown = AUTH.replace("/sso/", "/nowhere/");
  const headers = async () => ({ authorization: `Bearer ${await provider.sign({ email: "x@example.com" })}` });
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

test("a user of the provider who is disabled here stays out, also of living tokens", async () => {
  const answer = await loginAs({ sub: "frank", email: "f@example.com" });
  const id = textAt(answer, "token.user.id");
  expect((await send("PATCH", `/v3/users/${id}`, { user: { enabled: false } })).status).toBe(200);
  expect((await loginAs({ sub: "frank", email: "f@example.com" })).status).toBe(401);
  expect((await rescope(tokenOf(answer))).status).toBe(404);
});

test("the provider's documents are fetched once for many logins", async () => {
  await loginAs({ email: "x@example.com" });
  const before = new Map(provider.requests);
  await Promise.all(
    Array.from({ length: 10 }, (_, index) => loginAs({ sub: `crowd-${index}`, email: "x@example.com" })),
  );
  await Promise.all(Array.from({ length: 10 }, () => byToken("a.b.c")));
  expect(provider.requests).toEqual(before);
});

test("a browser goes to the provider, logs in there and comes back to the dashboard with a token", async () => {
  await setRules(PERSON, GROUPS);
  const browser = createBrowser();
  const start = new URL(`${base}${WEBSSO}?origin=${encodeURIComponent(DASHBOARD)}`);
  const { response } = await browser.walk(start, "alice");
  const page = await response.text();
  expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"]);
  expect(page).toContain(`action="${DASHBOARD}"`);
  expect(response.headers.get("content-security-policy")).toContain("form-action https://dashboard.example;");
  expect(response.headers.get("cache-control")).toBe("no-store");
  const [, token = ""] = /name="token" id="token" value="([^"]+)"/.exec(page) ?? [];
  const own = await call("GET", "/v3/auth/tokens", { token, subject: token });
  expect(own.body["token"]).toMatchObject({ methods: ["openid"], user: { name: "alice" } });
  // Claims that only the provider's userinfo has.
  const user = await send("GET", `/v3/users/${textAt(own, "token.user.id")}`);
  expect(at(user, "user.email")).toBe("alice@example.com");
});

test("without a provider's name a browser goes to the only one that has the protocol", async () => {
  const path = `${base}/v3/auth/OS-FEDERATION/websso/openid?origin=${encodeURIComponent(DASHBOARD)}`;
  const response = await createBrowser().visit(new URL(path));
  expect([response.status, response.headers.get("location")?.startsWith(`${provider.issuer}/auth?`)]).toEqual([
    302,
    true,
  ]);
  const other = await fetch(`${base}/v3/auth/OS-FEDERATION/websso/saml2?origin=x`, { redirect: "manual" });
  expect(other.status).toBe(401);
});

test("only pages on the list are handed a token", async () => {
  const statusFor = async (query: string): Promise<number> =>
    (await fetch(`${base}${WEBSSO}${query}`, { redirect: "manual" })).status;
  for (const origin of [
    "https://evil.example/",
    "https://dashboard.example",
    "https://dashboard.example.evil.example/auth/websso/",
    `${DASHBOARD}../evil`,
    `${DASHBOARD}?x`,
    "javascript:alert(1)",
    "nonsense",
  ]) {
    expect([origin, await statusFor(`?origin=${encodeURIComponent(origin)}`)]).toEqual([origin, 401]);
  }
  expect(await statusFor("")).toBe(400);
  expect(await statusFor(`?origin=${encodeURIComponent("HTTPS://Dashboard.Example/auth/websso/")}`)).toBe(302);
});

test("an answer that this browser did not ask for, or brings twice, is refused", async () => {
  const browser = createBrowser();
  const start = new URL(`${base}${WEBSSO}?origin=${encodeURIComponent(DASHBOARD)}`);
  const isAnswer = (url: URL): boolean => url.pathname === WEBSSO && url.searchParams.has("code");
  const { url: answer } = await browser.walk(start, "alice", isAnswer);
  expect(isAnswer(answer)).toBe(true);
  // Another browser, or one that began another login.
  expect((await createBrowser().visit(answer)).status).toBe(401);
  const stranger = createBrowser();
  await stranger.visit(start);
  expect((await stranger.visit(answer)).status).toBe(401);
  for (const [name, value] of [
    ["state", "x"],
    ["code", "x"],
    ["iss", "https://evil.example"],
  ] as const) {
    const altered = new URL(answer);
    altered.searchParams.set(name, value);
    expect([name, (await browser.visit(altered)).status]).toEqual([name, 401]);
  }
  expect((await browser.visit(answer)).status).toBe(200);
  // The cookie went with it, and the provider's code is used up.
  expect((await browser.visit(answer)).status).toBe(401);
});

test("a login that takes longer than ten minutes begins anew, one that the provider refuses ends", async () => {
  const browser = createBrowser();
  const start = new URL(`${base}${WEBSSO}?origin=${encodeURIComponent(DASHBOARD)}`);
  const isAnswer = (url: URL): boolean => url.searchParams.has("code");
  const { url: answer } = await browser.walk(start, "alice", isAnswer);
  const refused = new URL(base + WEBSSO);
  refused.searchParams.set("state", answer.searchParams.get("state") ?? "");
  refused.searchParams.set("error", "access_denied");
  expect((await browser.visit(refused)).status).toBe(401);
  offsetMs += 601_000;
  expect((await browser.visit(answer)).status).toBe(401);
});

test("a provider that is away answers 503, and later logins work again", async () => {
  const away = createTestInstallation();
  const silent = await createOidcFixture(now);
  try {
    const service = await away.start({
      file: { identity: { oidc: { sso: { issuer: silent.issuer, client_id: CLIENT_ID } } } },
      nowMs: now,
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
    offsetMs += 6_000;
    silent.broken.add("/jwks");
    expect(await attempt()).toBe(503);
    silent.broken.clear();
    expect(await attempt()).toBe(201);
  } finally {
    await away[Symbol.asyncDispose]();
    await silent[Symbol.asyncDispose]();
  }
});

test("a federated user who was removed comes back as another, without the old one's rights", async () => {
  const first = await loginAs({ sub: "gone", email: "g@example.com" });
  const id = textAt(first, "token.user.id");
  const projectId = await newProject("of the gone");
  await send("PUT", `/v3/projects/${projectId}/users/${id}/roles/${memberId}`);
  expect((await send("DELETE", `/v3/users/${id}`)).status).toBe(204);
  expect((await rescope(tokenOf(first))).status).toBe(404);
  const second = await loginAs({ sub: "gone", email: "g@example.com" });
  expect(second.status).toBe(201);
  expect(at(second, "token.user.id")).not.toBe(id);
  expect(listAt(await call("GET", "/v3/auth/projects", { token: tokenOf(second) }), "projects")).toEqual([]);
  expect((await login({ id: textAt(second, "token.user.id"), password: "" })).status).toBe(401);
});
