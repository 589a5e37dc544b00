import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestAdministrator, type TestAdministrator, USER_PASSWORD } from "../test-administrator.ts";
import { type Answer, at, listAt, textAt, tokenOf } from "../test-client.ts";

let service: TestAdministrator;

beforeAll(async () => {
  service = await startTestAdministrator();
});
afterAll(() => service[Symbol.asyncDispose]());

const asAdmin = (method: string, path: string, body?: unknown): Promise<Answer> => service.asAdmin(method, path, body);
const call: TestAdministrator["call"] = (...request) => service.call(...request);
const login = (id: string, scope?: object): Promise<Answer> => service.login({ id, password: USER_PASSWORD }, scope);
const createDomain = (fields: object): Promise<string> => service.create("domain", fields);
const patchDomain = (id: string, fields: object): Promise<Answer> =>
  asAdmin("PATCH", `/domains/${id}`, { domain: fields });

/** The value `n` of a query. */
const count = async (sql: string): Promise<unknown> => (await service.installation.query(sql))[0]?.["n"];

/** What the last write said of tokens. */
const lastRevocations = async (): Promise<unknown> =>
  JSON.parse(String(await count("SELECT revocations AS n FROM changes ORDER BY id DESC LIMIT 1")));

test("a domain is made with what was given, what was not, and what this service only keeps", async () => {
  const answer = await asAdmin("POST", "/domains", {
    domain: { name: " acme ", description: "d", tags: ["b", "a"], further: "kept", parent_id: "dropped" },
  });
  expect(answer.status).toBe(201);
  const id = textAt(answer, "domain.id");
  const expected = {
    id,
    name: "acme",
    description: "d",
    enabled: true,
    tags: ["a", "b"],
    options: {},
    further: "kept",
    links: { self: `${service.base}/v3/domains/${id}` },
  };
  expect(answer.body).toEqual({ domain: expected });
  expect((await asAdmin("GET", `/domains/${id}`)).body).toEqual({ domain: expected });
  expect(listAt(await asAdmin("GET", "/domains?name=acme"), "domains")).toEqual([expected]);
  expect(listAt(await asAdmin("GET", "/domains?enabled=false"), "domains")).toEqual([]);
});

test("the name of a domain is taken once, when it is made and when it is changed", async () => {
  const twice = await asAdmin("POST", "/domains", { domain: { name: "Default" } });
  expect([twice.status, at(twice, "error.message")]).toEqual([
    409,
    "Conflict occurred attempting to store project - it is not permitted to have two projects acting as domains with the same name: Default.",
  ]);
  const id = await createDomain({ name: "second" });
  expect((await patchDomain(id, { name: "Default" })).status).toBe(409);
  expect((await patchDomain(id, { name: "second" })).status).toBe(200);
});

test("an id of one's own is a UUID without hyphens, and taken once", async () => {
  const explicit = { name: "explicit", explicit_domain_id: "a".repeat(32) };
  expect(await createDomain(explicit)).toBe("a".repeat(32));
  expect((await asAdmin("POST", "/domains", { domain: { ...explicit, name: "other" } })).status).toBe(409);
  for (const id of ["default", "x", 5, "A".repeat(32)]) {
    const answer = await asAdmin("POST", "/domains", { domain: { name: "third", explicit_domain_id: id } });
    expect(answer.status).toBe(400);
  }
});

test("fields of wrong types, without a name, or beyond their limits are refused with 400", async () => {
  const bad = [
    {},
    { name: "" },
    { name: "   " },
    { name: "x".repeat(65) },
    { name: null },
    { name: "n", enabled: "true" },
    { name: "n", enabled: null },
    { name: "n", description: 5 },
    { name: "n", tags: ["a", "a"] },
    { name: "n", options: { odd: true } },
    { name: "n", options: { immutable: "yes" } },
  ];
  for (const fields of bad) {
    expect((await asAdmin("POST", "/domains", { domain: fields })).status, JSON.stringify(fields)).toBe(400);
  }
  expect((await patchDomain("default", {})).status).toBe(400);
  expect((await asAdmin("POST", "/domains", {})).status).toBe(400);
});

test("what a domain is not given in a change stays, and null takes a description away", async () => {
  const id = await createDomain({ name: "changed", description: "d", tags: ["t"], further: "kept" });
  const renamed = await patchDomain(id, { name: "changed again" });
  expect(renamed.body).toMatchObject({
    domain: { name: "changed again", description: "d", tags: ["t"], further: "kept" },
  });
  expect((await patchDomain(id, { description: null, tags: [] })).body).toMatchObject({
    domain: { description: "", tags: [] },
  });
});

test("an immutable domain takes nothing but the end of that", async () => {
  const id = await createDomain({ name: "fixed", options: { immutable: true } });
  for (const fields of [{ name: "x" }, { enabled: false }, { options: { immutable: false }, name: "x" }]) {
    expect((await patchDomain(id, fields)).status).toBe(403);
  }
  expect((await asAdmin("DELETE", `/domains/${id}`)).status).toBe(403);
  expect((await patchDomain(id, { options: { immutable: null } })).body).toMatchObject({ domain: { options: {} } });
  expect((await patchDomain(id, { enabled: false })).status).toBe(200);
  expect((await asAdmin("DELETE", `/domains/${id}`)).status).toBe(204);
});

test("a domain that is enabled, and the default one whatever it is, cannot be deleted", async () => {
  const id = await createDomain({ name: "living" });
  const refused = await asAdmin("DELETE", `/domains/${id}`);
  expect([refused.status, at(refused, "error.message")]).toEqual([
    403,
    "Cannot delete a domain that is enabled, please disable it first.",
  ]);
  expect((await asAdmin("DELETE", "/domains/default")).status).toBe(403);
  expect((await asAdmin("DELETE", "/domains/nowhere")).status).toBe(404);
});

test("a disabled domain lets nobody in, and voids the tokens of its users and of its scope, until it is enabled again", async () => {
  const id = await createDomain({ name: "closing" });
  const user = await service.bearer(`/domains/${id}`, "reader");
  expect((await call("GET", `/v3/domains/${id}`, { token: user.token })).status).toBe(200);
  expect((await patchDomain(id, { enabled: false })).status).toBe(200);
  expect(await lastRevocations()).toMatchObject([{ kind: "recheck", domainId: id }]);
  expect((await call("GET", `/v3/domains/${id}`, { token: user.token })).status).toBe(401);
  expect((await login(user.id)).status).toBe(401);
  expect((await patchDomain(id, { enabled: true })).status).toBe(200);
  expect((await call("GET", `/v3/domains/${id}`, { token: user.token })).status).toBe(200);
});

test("with a token for a domain one sees that domain in the list, and no other", async () => {
  const id = await createDomain({ name: "seen" });
  const { token } = await service.bearer(`/domains/${id}`, "reader");
  const list = listAt(await call("GET", "/v3/domains", { token }), "domains");
  expect(list.map(({ name }) => name)).toEqual(["seen"]);
  expect((await call("GET", "/v3/domains/default", { token })).status).toBe(403);
  expect((await call("POST", "/v3/domains", { token, body: { domain: { name: "x" } } })).status).toBe(403);
});

test("a deleted domain takes everything in it along and leaves what is outside, less what pointed into it", async () => {
  const id = await createDomain({ name: "doomed", tags: ["t"] });
  const outer = await service.create("user", { name: "outsider", password: USER_PASSWORD });
  const user = await service.create("user", { name: "insider", domain_id: id, password: USER_PASSWORD });
  const group = await service.create("group", { name: "insiders", domain_id: id });
  const role = await service.create("role", { name: "inner", domain_id: id });
  const project = await service.create("project", { name: "upper", domain_id: id, tags: ["t"] });
  const child = await service.create("project", { name: "lower", parent_id: project, domain_id: id });
  const work = textAt(await asAdmin("GET", "/projects?name=service"), "projects.0.id");
  expect((await asAdmin("PUT", `/groups/${group}/users/${outer}`)).status).toBe(204);
  await service.grant(`/projects/${work}/groups/${group}`, "member");
  await service.grant(`/projects/${child}/users/${outer}`, "member");
  await service.grant(`/domains/${id}/users/${user}`, "member");
  expect((await asAdmin("PUT", `/projects/${project}/users/${user}/roles/${role}`)).status).toBe(204);
  const config = { config: { ldap: { url: "ldap://x", password: "p" } } };
  expect((await asAdmin("PUT", `/domains/${id}/config`, config)).status).toBe(201);
  expect((await asAdmin("PATCH", `/users/${outer}`, { user: { default_project_id: child } })).status).toBe(200);
  const through = tokenOf(await login(outer, { project: { id: work } }));
  expect((await call("GET", `/v3/projects/${work}`, { token: through })).status).toBe(200);

  expect((await patchDomain(id, { enabled: false })).status).toBe(200);
  expect((await asAdmin("DELETE", `/domains/${id}`)).status).toBe(204);
  expect(await lastRevocations()).toMatchObject([
    { kind: "recheck", projectId: work },
    { kind: "revoke", domainId: id },
  ]);
  for (const path of [`domains/${id}`, `users/${user}`, `groups/${group}`, `roles/${role}`, `projects/${child}`]) {
    expect((await asAdmin("GET", `/${path}`)).status, path).toBe(404);
  }
  expect((await call("GET", `/v3/projects/${work}`, { token: through })).status).toBe(401);
  expect(at(await asAdmin("GET", `/users/${outer}`), "user.default_project_id") ?? null).toBeNull();
  expect((await login(outer)).status).toBe(201);
  const gone = `'${[id, user, group, role, project, child].join("','")}'`;
  for (const [table, columns] of [
    ["assignments", ["actor_id", "target_id", "role_id"]],
    ["group_members", ["group_id", "user_id"]],
    ["project_tags", ["project_id"]],
    ["domain_configurations", ["domain_id"]],
    ["passwords", ["user_id"]],
  ] as const) {
    const where = columns.map((column) => `${column} IN (${gone})`).join(" OR ");
    expect(await count(`SELECT COUNT(*) AS n FROM ${table} WHERE ${where}`), table).toBe(0);
  }
});
