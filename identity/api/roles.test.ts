import { afterAll, beforeAll, expect, test } from "vitest";
import { at, listAt, textAt } from "../test-client.ts";
import { GrantsFixture } from "./grants-fixture.ts";

let service: GrantsFixture;

beforeAll(async () => {
  service = await GrantsFixture.start();
});

afterAll(() => service[Symbol.asyncDispose]());

const post = (role: unknown) => service.call("POST", "/v3/roles", { body: { role } });
const namesOf = async (query: string) =>
  listAt(await service.call("GET", `/v3/roles${query}`), "roles").map(({ name }) => name);

test("a role is made, found by its name, changed and removed, with what a client keeps in it", async () => {
  const made = await post({ name: "auditor", description: "d", further: "kept" });
  expect(made.status).toBe(201);
  const id = textAt(made, "role.id");
  expect(made.body).toEqual({
    role: {
      id,
      name: "auditor",
      domain_id: null,
      description: "d",
      options: {},
      further: "kept",
      links: { self: expect.stringMatching(`/v3/roles/${id}$`) as string },
    },
  });
  expect(await namesOf("?name=auditor")).toEqual(["auditor"]);
  expect(await namesOf("?name__startswith=audi")).toEqual(["auditor"]);
  expect(await namesOf("?domain_id=default")).toEqual([]);
  const changed = await service.call("PATCH", `/v3/roles/${id}`, { body: { role: { description: "e" } } });
  expect(changed.body).toMatchObject({ role: { description: "e", further: "kept", name: "auditor" } });
  expect(await service.status("HEAD", `/v3/roles/${id}`)).toBe(200);
  expect(await service.status("DELETE", `/v3/roles/${id}`)).toBe(204);
  expect(await service.status("GET", `/v3/roles/${id}`)).toBe(404);
});

test("a name is taken once among the roles of all domains, and once in each domain", async () => {
  const domain = await service.domain("names");
  expect((await post({ name: "same" })).status).toBe(201);
  const twice = await post({ name: "same" });
  expect([twice.status, textAt(twice, "error.message")]).toEqual([
    409,
    "Conflict occurred attempting to store role - Duplicate entry found with name same.",
  ]);
  expect((await post({ name: "same", domain_id: domain })).status).toBe(201);
  expect((await post({ name: "same", domain_id: domain })).status).toBe(409);
  const other = textAt(await post({ name: "other", domain_id: domain }), "role.id");
  const rename = (name: string) => service.status("PATCH", `/v3/roles/${other}`, { body: { role: { name } } });
  expect([await rename("same"), await rename("other"), await rename("new")]).toEqual([409, 200, 200]);
  expect(await namesOf(`?domain_id=${domain}&sort_key=name`)).toEqual(["new", "same"]);
  expect((await post({ name: "lost", domain_id: "nowhere" })).status).toBe(404);
});

test("an immutable role stays as it is until it stops being immutable", async () => {
  const id = textAt(await post({ name: "fixed", options: { immutable: true } }), "role.id");
  const patch = (role: object) => service.call("PATCH", `/v3/roles/${id}`, { body: { role } });
  const refused = await patch({ name: "loose" });
  expect([refused.status, textAt(refused, "error.message")]).toEqual([
    403,
    `Unable to update immutable role resource: ${id}. Set resource option "immutable" to false first.`,
  ]);
  expect((await patch({ name: "loose", options: { immutable: false } })).status).toBe(403);
  expect(await service.status("DELETE", `/v3/roles/${id}`)).toBe(403);
  expect(at(await patch({ options: { immutable: null } }), "role.options")).toEqual({});
  expect((await patch({ name: "loose" })).status).toBe(200);
  expect(await service.status("DELETE", `/v3/roles/${id}`)).toBe(204);
});

test("what is no role is refused, and a role changes neither id nor domain", async () => {
  const bad = [
    {},
    { name: "" },
    { name: "  " },
    { name: "x".repeat(256) },
    { name: null },
    { name: 5 },
    { name: "x", description: null },
    { name: "x", options: { other: true } },
    { name: "x", options: { immutable: "yes" } },
    { name: "x", domain_id: 7 },
    null,
    [],
  ];
  for (const role of bad) expect([role, (await post(role)).status]).toEqual([role, 400]);
  const odd = await post({ name: "constructor", constructor: { prototype: {} }, toString: 1 });
  expect(odd.status).toBe(201);
  const id = textAt(odd, "role.id");
  const patch = (role: object) => service.status("PATCH", `/v3/roles/${id}`, { body: { role } });
  expect([await patch({ id: "other" }), await patch({ domain_id: "default" }), await patch({})]).toEqual([
    400, 400, 400,
  ]);
});

test("roles of all domains and of one are guarded by rules of their own", async () => {
  const domain = await service.domain("guarded");
  const manager = await service.user("guarding", domain);
  await service.call("PUT", `/v3/domains/${domain}/users/${manager}/roles/${service.role("manager")}`);
  const token = await service.token(manager, { domain: { id: domain } });
  const local = await service.newRole("guarded", domain);
  const get = (path: string) => service.status("GET", `/v3/roles${path}`, { token });
  expect([await get(""), await get(`/${service.role("member")}`)]).toEqual([200, 200]);
  expect([await get(`/${service.role("admin")}`), await get(`/${local}`)]).toEqual([403, 403]);
  expect([await get(`?domain_id=${domain}`), await get("/nowhere")]).toEqual([403, 403]);
  expect(await service.status("DELETE", `/v3/roles/${local}`, { token })).toBe(403);
});

test("a role that goes takes its grants, implications and delegations, and the rights of living tokens", async () => {
  const user = await service.user("holder");
  const project = await service.project("holding");
  const [prior, role] = [await service.newRole("prior"), await service.newRole("going")];
  await service.call("PUT", `/v3/roles/${prior}/implies/${role}`);
  await service.call("PUT", `/v3/projects/${project}/users/${user}/roles/${role}`);
  await service.call("PUT", `/v3/domains/default/users/${user}/roles/${prior}`);
  const token = await service.token(user, { project: { id: project } });
  const trust = {
    trustor_user_id: user,
    trustee_user_id: user,
    project_id: project,
    impersonation: false,
    roles: [{ id: role }],
  };
  const trustId = textAt(await service.call("POST", "/v3/OS-TRUST/trusts", { token, body: { trust } }), "trust.id");
  const body = { application_credential: { name: "going" } };
  const credential = await service.call("POST", `/v3/users/${user}/application_credentials`, { token, body });
  const applicationCredentialId = textAt(credential, "application_credential.id");
  expect(await service.status("DELETE", `/v3/roles/${role}`)).toBe(204);
  expect(await service.revocations()).toEqual(
    expect.arrayContaining([
      { kind: "recheck", userId: user, projectId: project },
      { kind: "recheck", userId: user, domainId: "default" },
      { kind: "revoke", trustId },
      { kind: "revoke", applicationCredentialId },
    ]),
  );
  expect(await service.status("GET", "/v3/auth/catalog", { token })).toBe(401);
  expect(await service.status("GET", `/v3/OS-TRUST/trusts/${trustId}`)).toBe(404);
  expect(at(await service.call("GET", `/v3/roles/${prior}/implies`), "role_inference.implies")).toEqual([]);
  expect(at(await service.call("GET", `/v3/role_assignments?role.id=${role}`), "role_assignments")).toEqual([]);
});

test("implications are made once, shown, listed and removed", async () => {
  const [prior, implied] = [await service.newRole("above"), await service.newRole("beneath")];
  const path = `/v3/roles/${prior}/implies/${implied}`;
  expect(await service.status("GET", path)).toBe(404);
  const made = await service.call("PUT", path);
  expect(made.status).toBe(201);
  const base = textAt(made, "links.self").replace(/\/roles\/.*$/, "");
  const named = (id: string, name: string) => ({ id, name, links: { self: `${base}/roles/${id}` } });
  const body = {
    role_inference: { prior_role: named(prior, "above"), implies: named(implied, "beneath") },
    links: { self: `${base}/roles/${prior}/implies/${implied}` },
  };
  expect(made.body).toEqual(body);
  expect((await service.call("PUT", path)).status).toBe(409);
  expect((await service.call("GET", path)).body).toEqual(body);
  expect(await service.status("HEAD", path)).toBe(204);
  const list = await service.call("GET", `/v3/roles/${prior}/implies`);
  expect(at(list, "role_inference.implies")).toEqual([named(implied, "beneath")]);
  const all = listAt(await service.call("GET", "/v3/role_inferences"), "role_inferences");
  expect(all).toContainEqual({ prior_role: named(prior, "above"), implies: [named(implied, "beneath")] });
  expect(all).toHaveLength(4);
  expect(await service.status("DELETE", path)).toBe(204);
  const again = await service.call("DELETE", path);
  expect([again.status, textAt(again, "error.message")]).toEqual([404, `${prior} does not imply ${implied}.`]);
  expect(await service.status("GET", "/v3/roles/nowhere/implies")).toBe(404);
  expect(await service.status("PUT", `/v3/roles/${prior}/implies/nowhere`)).toBe(404);
});

test("nobody becomes admin by the way, and no role of all domains implies one of a single domain", async () => {
  const role = await service.newRole("climber");
  const local = await service.newRole("local climber", "default");
  const put = (prior: string, implied: string) => service.status("PUT", `/v3/roles/${prior}/implies/${implied}`);
  expect(await put(role, service.role("admin"))).toBe(403);
  expect(await put(local, service.role("admin"))).toBe(403);
  expect(await put(role, local)).toBe(403);
  expect(await put(local, role)).toBe(201);
});

test("a circle of implications is accepted and harmless", async () => {
  const [one, two] = [await service.newRole("one"), await service.newRole("two")];
  const put = (prior: string, implied: string) => service.status("PUT", `/v3/roles/${prior}/implies/${implied}`);
  expect([await put(one, two), await put(two, one), await put(one, one)]).toEqual([201, 201, 201]);
  const user = await service.user("circular");
  const project = await service.project("circular");
  await service.call("PUT", `/v3/projects/${project}/users/${user}/roles/${one}`);
  const login = await service.login(user, { project: { id: project } });
  expect(listAt(login, "token.roles").map(({ name }) => name)).toEqual(["one", "two"]);
});

test("an implication that goes ends rights of tokens under way", async () => {
  const user = await service.user("implied");
  const project = await service.project("implied");
  const local = await service.newRole("giver", "default");
  await service.call("PUT", `/v3/roles/${local}/implies/${service.role("reader")}`);
  await service.call("PUT", `/v3/projects/${project}/users/${user}/roles/${local}`);
  const token = await service.token(user, { project: { id: project } });
  expect(await service.status("GET", "/v3/auth/catalog", { token })).toBe(200);
  await service.call("DELETE", `/v3/roles/${local}/implies/${service.role("reader")}`);
  expect(await service.revocations()).toEqual([{ kind: "recheck", userId: user, projectId: project }]);
  expect(await service.status("GET", "/v3/auth/catalog", { token })).toBe(401);
  expect(listAt(await service.call("GET", `/v3/users/${user}/projects`), "projects")).toEqual([]);
});
