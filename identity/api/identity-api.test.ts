import { request as httpRequest } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createIdentityClient, createTokenVerifier } from "../client.ts";
import { RevocationList } from "../core/revocation.ts";
import { ADMIN_USER, createTestClient, DEFAULT_DOMAIN, tokenOf } from "../test-client.ts";
import { IDENTITY_OPERATIONS } from "./operations.ts";
import { createTestInstallation, TEST_PASSWORD, type TestInstallation } from "../test-service.ts";

type Item = Record<"id" | "name" | "type" | "interface" | "url", string> & {
  endpoints: Item[];
  links: { self: string };
};
type Token = Record<"issued_at" | "expires_at", string> &
  Record<"methods" | "audit_ids", string[]> &
  Record<"roles" | "catalog", Item[]> &
  Record<"user" | "project", Item>;
type Collection =
  | "domains"
  | "projects"
  | "users"
  | "roles"
  | "regions"
  | "services"
  | "endpoints"
  | "catalog"
  | "system";
/** Whatever part a test looks at; the parts that are not there are undefined, which no expectation takes for them. */
type Body = Record<Collection, Item[]> & {
  token: Token;
  version: Item;
  versions: { values: object[] };
  error: { code: number; title: string; message: string };
  links: object;
};
let installation: TestInstallation;
let base: string;
let offsetMs = 0;

const { call, login, rescope } = createTestClient<Body>(() => base);
const DEFAULT = DEFAULT_DOMAIN;
const ADMIN = ADMIN_USER;
const PROJECT = { project: { name: "admin", domain: { name: "Default" } } };
const adminToken = async (): Promise<string> => tokenOf(await login(ADMIN, PROJECT));

const start = async (): Promise<void> => {
  const service = await installation.start({ nowMs: () => Date.now() + offsetMs });
  base = `http://127.0.0.1:${service.port}`;
};

/** Beneath a service that is stopped: one that runs is told of no change but its own. */
const sql = async (statement: string): Promise<void> => {
  await installation.stop();
  await installation.query(statement);
  await start();
};

beforeAll(async () => {
  installation = createTestInstallation();
  await start();
});

afterAll(() => installation[Symbol.asyncDispose]());

test("the version documents name v3 at the address that the client used", async () => {
  const root = await call("GET", "/");
  expect(root.status).toBe(300);
  expect(root.body.versions.values[0]).toMatchObject({
    status: "stable",
    links: [{ rel: "self", href: `${base}/v3/` }],
  });
  for (const path of ["/v3", "/v3/"]) {
    const version = await call("GET", path);
    expect([version.status, version.body.version.id]).toEqual([200, "v3.14"]);
  }
});

test("a login by names gives a token scoped to the project, with roles and the rendered catalog", async () => {
  const answer = await login(ADMIN, PROJECT);
  expect(answer.status).toBe(201);
  expect(answer.headers.get("x-openstack-request-id")).toMatch(/^req-/);
  const { token } = answer.body;
  expect(token).toMatchObject({
    methods: ["password"],
    user: { name: "admin", domain: { id: "default", name: "Default" }, password_expires_at: null },
    project: { name: "admin", domain: { id: "default", name: "Default" } },
    is_domain: false,
  });
  expect(token.roles.map(({ name }) => name)).toEqual(["admin", "manager", "member", "reader"]);
  expect(token.issued_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  expect(Date.parse(token.expires_at) - Date.parse(token.issued_at)).toBe(3_600_000);
  const swift = token.catalog.find(({ type }) => type === "object-store");
  expect(swift?.endpoints.map(({ interface: face }) => face).toSorted()).toEqual(["admin", "internal", "public"]);
  for (const { url } of swift?.endpoints ?? []) expect(url).toBe(`http://127.0.0.1:8080/v1/AUTH_${token.project.id}`);
});

test("a token is verified by another process's verifier without asking", async () => {
  const verifier = createTokenVerifier({
    keysDir: installation.paths.identityDir,
    clock: { nowMs: Date.now },
    revocations: { list: new RevocationList(3_600_000), assertFresh: () => {}, recheck: undefined },
  });
  const answer = await login(ADMIN, PROJECT);
  expect(await verifier.verify(tokenOf(answer))).toMatchObject({
    userId: answer.body.token.user.id,
    userName: "admin",
    projectId: answer.body.token.project.id,
    projectName: "admin",
    domainId: "default",
    roles: ["admin", "manager", "member", "reader"],
    system: false,
  });
  expect(tokenOf(answer).length).toBeLessThan(700);
});

test("every kind of scope: unscoped, default, project by id, system; no catalog without a scope or when not wanted", async () => {
  for (const scope of [undefined, "unscoped", { unscoped: {} }]) {
    const { status, body } = await login(ADMIN, scope);
    expect(status).toBe(201);
    for (const key of ["project", "roles", "catalog", "system"]) expect(body.token).not.toHaveProperty(key);
  }
  const system = await login(ADMIN, { system: { all: true } });
  expect(system.body.token).toMatchObject({
    system: { all: true },
    catalog: [
      { type: "block-storage", endpoints: [] },
      { type: "identity" },
      { type: "object-store", endpoints: [] },
      { type: "volumev3", endpoints: [] },
    ],
  });
  const { id: projectId } = (await login(ADMIN, PROJECT)).body.token.project;
  const { id: userId } = system.body.token.user;
  const byId = await login({ id: userId, password: TEST_PASSWORD }, { project: { id: projectId } });
  expect(byId.body.token.project.id).toBe(projectId);
  const bare = await call("POST", "/v3/auth/tokens?nocatalog", {
    body: { auth: { identity: { methods: ["password"], password: { user: ADMIN } }, scope: PROJECT } },
  });
  expect(bare.body.token).not.toHaveProperty("catalog");
  await sql(`UPDATE users SET default_project_id = '${projectId}' WHERE name = 'admin'`);
  expect((await login(ADMIN)).body.token.project.id).toBe(projectId);
  expect((await login(ADMIN, "unscoped")).body.token).not.toHaveProperty("project");
  await sql("UPDATE users SET default_project_id = NULL");
});

test("wrong password, unknown user, unknown domain, project without a role: one and the same 401", async () => {
  const answers = [
    await login({ ...ADMIN, password: "wrong" }, PROJECT),
    await login({ ...ADMIN, password: "" }, PROJECT),
    await login({ ...ADMIN, name: "nobody" }, PROJECT),
    await login({ ...ADMIN, domain: { name: "nowhere" } }, PROJECT),
    await login(ADMIN, { project: { name: "service", domain: DEFAULT } }),
    await login(ADMIN, { project: { id: "f".repeat(32) } }),
    await login(ADMIN, { domain: DEFAULT }),
    await call("POST", "/v3/auth/tokens", { body: { auth: { identity: { methods: ["no-such"], "no-such": {} } } } }),
  ];
  for (const { status, headers, body } of answers) {
    expect(status).toBe(401);
    expect(headers.get("www-authenticate")).toBe(`Keystone uri="${base}/v3"`);
    expect(body).toEqual({
      error: { code: 401, title: "Unauthorized", message: "The request you have made requires authentication." },
    });
  }
});

test("malformed requests are 400 in Keystone's shape", async () => {
  const identity = { methods: ["password"], password: { user: ADMIN } };
  const bodies = [
    {},
    { auth: {} },
    { auth: { identity: {} } },
    { auth: { identity: { methods: [] } } },
    { auth: { identity: { methods: "password" } } },
    { auth: { identity: { methods: ["password"] } } },
    { auth: { identity: { methods: ["token"] } } },
    { auth: { identity: { methods: ["password"], password: { user: { name: "admin", password: "x" } } } } },
    { auth: { identity: { methods: ["password"], password: { user: { password: "x" } } } } },
    { auth: { identity, scope: { ...PROJECT, system: { all: true } } } },
    { auth: { identity, scope: {} } },
    { auth: { identity, scope: { system: { all: false } } } },
    { auth: { identity, scope: { project: { name: "admin" } } } },
  ];
  for (const body of bodies) {
    const answer = await call("POST", "/v3/auth/tokens", { body });
    expect([JSON.stringify(body), answer.status]).toEqual([JSON.stringify(body), 400]);
    expect(answer.body.error).toMatchObject({ code: 400, title: "Bad Request" });
  }
  const large = await login({ ...ADMIN, password: "x".repeat(200_000) });
  expect([large.status, large.body.error.code]).toEqual([413, 413]);
});

test("a token got by a token keeps the first one's end and names it", async () => {
  const first = await login(ADMIN);
  const second = await rescope(tokenOf(first), PROJECT);
  expect(second.status).toBe(201);
  const third = await rescope(tokenOf(second), { system: { all: true } });
  for (const { body } of [second, third]) {
    expect(body.token.expires_at).toBe(first.body.token.expires_at);
    expect(body.token.audit_ids[1]).toBe(first.body.token.audit_ids[0]);
    expect(body.token.methods.toSorted()).toEqual(["password", "token"]);
  }
});

test("a token is validated by GET and HEAD with the same body as at its issue", async () => {
  const issued = await login(ADMIN, PROJECT);
  const token = tokenOf(issued);
  const shown = await call("GET", "/v3/auth/tokens", { token, subject: token });
  expect(shown.status).toBe(200);
  expect(shown.body).toEqual(issued.body);
  expect(tokenOf(shown)).toBe(token);
  expect((await call("HEAD", "/v3/auth/tokens", { token, subject: token })).status).toBe(200);
  expect((await call("GET", "/v3/auth/tokens", { token, subject: `${token}x` })).status).toBe(404);
  expect((await call("GET", "/v3/auth/tokens", { token })).status).toBe(404);
  expect((await call("GET", "/v3/auth/tokens", { subject: token })).status).toBe(401);
});

test("a revoked token is refused, also after a restart, and only that one", async () => {
  const [token, other] = [await adminToken(), await adminToken()];
  expect((await call("DELETE", "/v3/auth/tokens", { token: other, subject: token })).status).toBe(204);
  await start();
  expect((await call("GET", "/v3/projects", { token })).status).toBe(401);
  expect((await call("GET", "/v3/auth/tokens", { token: other, subject: token })).status).toBe(404);
  expect((await rescope(token)).status).toBe(404);
  expect((await call("GET", "/v3/projects", { token: other })).status).toBe(200);
});

test("an expired token is refused", async () => {
  const token = await adminToken();
  // A second more: after a revocation tokens are issued up to half a second ahead.
  offsetMs = 3_601_000;
  try {
    expect((await call("GET", "/v3/projects", { token })).status).toBe(401);
  } finally {
    offsetMs = 0;
  }
});

test("a disabled user, project or domain ends what a live token can do", async () => {
  const token = await adminToken();
  const changes: [string, string][] = [
    ["UPDATE users SET enabled = 0", "UPDATE users SET enabled = 1"],
    ["UPDATE projects SET enabled = 0 WHERE is_domain = 0", "UPDATE projects SET enabled = 1 WHERE is_domain = 0"],
    ["UPDATE projects SET enabled = 0 WHERE is_domain = 1", "UPDATE projects SET enabled = 1 WHERE is_domain = 1"],
  ];
  const client = createIdentityClient(installation.paths.socket("control"));
  const { access } = await client.readyInfo();
  for (const [change, undo] of changes) {
    await sql(change);
    expect([change, (await call("GET", "/v3/users", { token })).status]).toEqual([change, 401]);
    expect([change, (await login(ADMIN, PROJECT)).status]).toEqual([change, 401]);
    await sql(undo);
  }
  await sql("UPDATE users SET enabled = 0");
  // The admin's own record still answers the supervisor; the key works no more.
  expect(await client.ec2(access)).toBeUndefined();
  await sql("UPDATE users SET enabled = 1");
  expect((await call("GET", "/v3/users", { token })).status).toBe(200);
});

test("everything kept is listed, filtered and shown", async () => {
  const token = await adminToken();
  const counts = { domains: 1, projects: 2, users: 1, roles: 6, regions: 1, services: 4, endpoints: 12 };
  for (const [plural, count] of Object.entries(counts) as [Collection, number][]) {
    const list = await call("GET", `/v3/${plural}`, { token });
    expect([plural, list.status, list.body[plural]?.length]).toEqual([plural, 200, count]);
    expect(list.body.links).toEqual({ next: null, previous: null, self: `${base}/v3/${plural}` });
    const item = list.body[plural][0]!;
    expect(item.links.self).toBe(`${base}/v3/${plural}/${item.id}`);
    const shown = await call("GET", `/v3/${plural}/${item.id}`, { token });
    expect((shown.body as unknown as Record<string, unknown>)[plural.slice(0, -1)]).toEqual(item);
    const missing = await call("GET", `/v3/${plural}/nothing`, { token });
    expect(missing.body.error).toMatchObject({ code: 404, title: "Not Found" });
  }
  const named = async (query: string): Promise<string[]> =>
    (await call("GET", `/v3/projects?${query}`, { token })).body.projects.map(({ name }) => name);
  expect(await named("name=service")).toEqual(["service"]);
  expect(await named("name=x'%20OR%20'1'='1")).toEqual([]);
  expect(await named("enabled=false")).toEqual([]);
  expect(await named("enabled")).toHaveLength(2);
  expect(await named("unknown=1")).toHaveLength(2);
  expect((await call("GET", "/v3/endpoints?interface=public", { token })).body.endpoints).toHaveLength(4);
});

test("a user sees its own projects, catalog and system role", async () => {
  const token = await adminToken();
  const { user } = (await login(ADMIN, PROJECT)).body.token;
  expect((await call("GET", "/v3/auth/projects", { token })).body.projects).toMatchObject([{ name: "admin" }]);
  expect((await call("GET", `/v3/users/${user.id}/projects`, { token })).body.projects).toMatchObject([
    { name: "admin" },
  ]);
  expect((await call("GET", "/v3/auth/catalog", { token })).body.catalog).toHaveLength(4);
  expect((await call("GET", "/v3/auth/system", { token })).body.system).toEqual([{ all: true }]);
  expect((await call("GET", "/v3/auth/domains", { token })).body.domains).toEqual([]);
  expect((await call("GET", "/v3/auth/catalog", { token: tokenOf(await login(ADMIN)) })).status).toBe(403);
});

test("every operation of the API is built", async () => {
  for (const { method, path } of IDENTITY_OPERATIONS) {
    const { status } = await fetch(base + path.replaceAll(/:\w+/g, "x"), { method });
    expect([method, path, status]).not.toEqual([method, path, 501]);
  }
});

test("unknown methods answer 405, unknown paths 404", async () => {
  const cases: [string, string, number, string][] = [
    ["POST", "/v3/users/x", 405, "The method is not allowed for the requested URL."],
    ["GET", "/v3/ec2tokens", 405, "The method is not allowed for the requested URL."],
    ["PUT", "/v3/auth/tokens", 405, "The method is not allowed for the requested URL."],
    ["GET", "/v3/nonsense", 404, "The requested URL was not found on the server."],
    ["POST", "/internal/v1-auth", 404, "The requested URL was not found on the server."],
    ["GET", "/internal/ready-info", 404, "The requested URL was not found on the server."],
  ];
  for (const [method, path, status, message] of cases) {
    const answer = await call(method, path);
    expect([path, answer.status, answer.body.error.message]).toEqual([path, status, message]);
  }
});

test("v1 login, S3 keys and the admin's data are told on the Unix socket", async () => {
  const client = createIdentityClient(installation.paths.socket("control"));
  const { projectId, access, secret } = await client.readyInfo();
  const v1 = await client.v1Auth("admin:admin", TEST_PASSWORD);
  expect(v1).toMatchObject({ storageUrl: `http://127.0.0.1:8080/v1/AUTH_${projectId}`, expiresInSeconds: 3600 });
  expect((await call("GET", "/v3/auth/projects", { token: v1.token })).status).toBe(200);
  for (const [user, key] of [
    ["admin:admin", "wrong"],
    ["admin", TEST_PASSWORD],
    [":admin", TEST_PASSWORD],
    ["service:admin", TEST_PASSWORD],
    ["", ""],
  ] as const) {
    await expect(client.v1Auth(user, key)).rejects.toMatchObject({ code: "unauthorized" });
  }
  expect(await client.ec2(access)).toMatchObject({
    access,
    secret,
    claims: { un: "admin", pj: projectId, pn: "admin", rl: ["admin", "manager", "member", "reader"] },
  });
  expect(await client.ec2("unknown/../key")).toBeUndefined();
  await expect(createIdentityClient("/nowhere.sock").readyInfo()).rejects.toMatchObject({
    code: "identity-unavailable",
  });
});

test("the whole public API is on the Unix socket too", async () => {
  const status = await new Promise((resolve, reject) => {
    const outgoing = httpRequest({ socketPath: installation.paths.socket("control"), path: "/v3" }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    outgoing.on("error", reject).end();
  });
  expect(status).toBe(200);
});

test("a storm of logins is answered with success or 503, never with a wrong verdict", async () => {
  const answers = await Promise.all(
    Array.from({ length: 100 }, (_, index) => login({ ...ADMIN, ...(index % 2 ? { password: "wrong" } : {}) })),
  );
  const statuses = answers.map(({ status }, index) => `${index % 2 ? "wrong" : "right"} ${status}`);
  expect(new Set(statuses).difference(new Set(["right 201", "wrong 401", "right 503", "wrong 503"]))).toEqual(
    new Set(),
  );
  expect(statuses.filter((status) => status.endsWith("503")).length).toBeLessThanOrEqual(34);
  expect((await login(ADMIN)).status).toBe(201);
});
