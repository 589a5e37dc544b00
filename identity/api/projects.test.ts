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
const post = (fields: object): Promise<Answer> => asAdmin("POST", "/projects", { project: fields });
const patch = (id: string, fields: object): Promise<Answer> => asAdmin("PATCH", `/projects/${id}`, { project: fields });
const createProject = (fields: object): Promise<string> => service.create("project", fields);
const messageOf = (answer: Answer): unknown => at(answer, "error.message");

const namesOf = async (query: string, token?: string): Promise<unknown[]> => {
  const answer =
    token === undefined
      ? await asAdmin("GET", `/projects?${query}`)
      : await call("GET", `/v3/projects?${query}`, { token });
  return listAt(answer, "projects")
    .map(({ name }) => String(name))
    .toSorted();
};

/** Projects beneath one another, the first beneath `parent`. */
const chain = async (names: readonly string[], parent?: string): Promise<string[]> => {
  const ids: string[] = [];
  for (const name of names) {
    const above = ids.at(-1) ?? parent;
    ids.push(await createProject({ name, ...(above === undefined ? {} : { parent_id: above }) }));
  }
  return ids;
};

test("a project is made in the default domain unless another is named, beneath it, with what this service only keeps", async () => {
  const answer = await post({ name: " first ", further: "kept", tags: [" red ", "blue"] });
  expect(answer.status).toBe(201);
  const id = textAt(answer, "project.id");
  const expected = {
    id,
    name: "first",
    domain_id: "default",
    description: "",
    enabled: true,
    parent_id: "default",
    is_domain: false,
    tags: ["blue", "red"],
    options: {},
    further: "kept",
    links: { self: `${service.base}/v3/projects/${id}` },
  };
  expect(answer.body).toEqual({ project: expected });
  expect((await asAdmin("GET", `/projects/${id}`)).body).toEqual({ project: expected });
  expect((await asAdmin("GET", "/projects/nowhere")).status).toBe(404);
});

test("a name is taken once in its domain, and free in another", async () => {
  const domain = await service.create("domain", { name: "names" });
  await createProject({ name: "taken" });
  expect((await post({ name: "taken" })).status).toBe(409);
  const id = await createProject({ name: "taken", domain_id: domain });
  expect((await patch(id, { name: "free" })).status).toBe(200);
  await createProject({ name: "taken", domain_id: domain });
  expect((await patch(id, { name: "taken" })).status).toBe(409);
  // Domains are apart from projects.
  await createProject({ name: "names", domain_id: domain });
});

test("parents must be there, be in the same domain and be enabled", async () => {
  const domain = await service.create("domain", { name: "parents" });
  const project = await createProject({ name: "parent" });
  const disabled = await createProject({ name: "off", enabled: false });
  const refusals = [
    { parent_id: "nowhere" },
    { domain_id: "nowhere" },
    { domain_id: project },
    { parent_id: project, domain_id: domain },
    { parent_id: domain },
    { parent_id: disabled },
    { parent_id: project, is_domain: true },
    { domain_id: "default", is_domain: true },
  ];
  for (const place of refusals) {
    const answer = await post({ name: "adrift", ...place });
    expect(answer.status, JSON.stringify(place)).toBe(400);
  }
  expect(await namesOf("name=adrift")).toEqual([]);
});

test("a branch is no deeper than the configuration allows", async () => {
  const ids = await chain(["1", "2", "3", "4", "5"]);
  const refused = await post({ name: "6", parent_id: ids[4] });
  expect([refused.status, messageOf(refused)]).toEqual([403, `Max hierarchy depth reached for ${ids[4]} branch.`]);
});

test("fields of wrong types are refused with 400", async () => {
  for (const fields of [
    {},
    { name: 5 },
    { name: null },
    { name: " " },
    { name: "x".repeat(65) },
    { name: "n", enabled: "yes" },
    { name: "n", is_domain: "yes" },
    { name: "n", domain_id: "" },
    { name: "n", parent_id: 5 },
    { name: "n", tags: ["a,b"] },
    { name: "n", tags: ["a", "a"] },
    { name: "n", tags: "a" },
    { name: "n", options: { odd: true } },
    { name: "n", options: null },
  ]) {
    expect((await post(fields)).status, JSON.stringify(fields)).toBe(400);
  }
  expect((await patch("nowhere", {})).status).toBe(400);
  expect((await patch("nowhere", { name: "n" })).status).toBe(404);
});

test("a project that is a domain is a domain, with the rules of one", async () => {
  const id = await createProject({ name: "by project", is_domain: true });
  expect((await asAdmin("GET", `/projects/${id}`)).body).toMatchObject({
    project: { domain_id: null, parent_id: null, is_domain: true },
  });
  expect(at(await asAdmin("GET", `/domains/${id}`), "domain.name")).toBe("by project");
  expect(await namesOf("name=by%20project")).toEqual([]);
  expect(await namesOf("is_domain=true&name=by%20project")).toEqual(["by project"]);
  expect((await post({ name: "by project", is_domain: true })).status).toBe(409);
  expect((await asAdmin("DELETE", `/projects/${id}`)).status).toBe(403);
  expect((await patch(id, { enabled: false })).status).toBe(200);
  expect((await asAdmin("DELETE", `/projects/${id}`)).status).toBe(204);
});

test("where a project is does not change", async () => {
  const [upper = "", lower = ""] = await chain(["upper", "lower"]);
  const moved = await patch(lower, { parent_id: "default" });
  expect([moved.status, messageOf(moved)]).toEqual([403, "Update of `parent_id` is not allowed."]);
  expect((await patch(lower, { domain_id: "nowhere" })).status).toBe(400);
  expect((await patch(lower, { is_domain: true })).status).toBe(400);
  const same = { parent_id: upper, domain_id: "default", is_domain: false, description: "d" };
  expect((await patch(lower, same)).body).toMatchObject({ project: { ...same } });
});

test("parents and subtree are shown as nested ids, or as lists of what the caller has a role in", async () => {
  const [top = "", middle = "", leaf = ""] = await chain(["top", "middle", "leaf"]);
  const ids = await asAdmin("GET", `/projects/${middle}?parents_as_ids&subtree_as_ids`);
  expect(at(ids, "project.parents")).toEqual({ [top]: { default: null } });
  expect(at(ids, "project.subtree")).toEqual({ [leaf]: null });
  expect(at(await asAdmin("GET", `/projects/${leaf}?subtree_as_ids`), "project.subtree")).toBeNull();
  expect(at(await asAdmin("GET", `/projects/${middle}?parents_as_list`), "project.parents")).toEqual([]);
  const { id, token } = await service.bearer(`/projects/${middle}`, "reader");
  await service.grant(`/projects/${top}/users/${id}`, "reader");
  await service.grant(`/projects/${leaf}/users/${id}`, "reader");
  const lists = await call("GET", `/v3/projects/${middle}?parents_as_list&subtree_as_list=true&include_limits`, {
    token,
  });
  expect(at(lists, "project.parents")).toMatchObject([{ project: { id: top, limits: [] } }]);
  expect(at(lists, "project.subtree")).toMatchObject([{ project: { id: leaf, tags: [], limits: [] } }]);
  for (const relation of ["parents", "subtree"]) {
    const both = await asAdmin("GET", `/projects/${middle}?${relation}_as_list&${relation}_as_ids`);
    expect(both.status).toBe(400);
  }
  const plain = await asAdmin("GET", `/projects/${middle}?parents_as_ids=false`);
  expect(plain.body["project"]).not.toHaveProperty("parents");
});

test("a project is disabled after those below it and enabled after those above it, or all together", async () => {
  const [top = "", , leaf = ""] = await chain(["switch", "switch middle", "switch leaf"]);
  const refused = await patch(top, { enabled: false });
  expect([refused.status, messageOf(refused)]).toEqual([
    403,
    `Cannot disable project ${top} since its subtree contains enabled projects.`,
  ]);
  const other = await asAdmin("PATCH", `/projects/${top}/cascade`, { project: { enabled: false, name: "x" } });
  expect(other.status).toBe(400);
  const all = await asAdmin("PATCH", `/projects/${top}/cascade`, { project: { enabled: false } });
  expect([all.status, at(all, "project.enabled")]).toEqual([200, false]);
  expect(at(await asAdmin("GET", `/projects/${leaf}`), "project.enabled")).toBe(false);
  expect((await patch(leaf, { enabled: true })).status).toBe(403);
  await asAdmin("PATCH", `/projects/${top}/cascade`, { project: { enabled: true } });
  expect(at(await asAdmin("GET", `/projects/${leaf}`), "project.enabled")).toBe(true);
});

test("a token for a project ends where the project is disabled or deleted", async () => {
  const id = await createProject({ name: "ending" });
  const { token } = await service.bearer(`/projects/${id}`, "reader");
  const look = async (): Promise<number> => (await call("GET", `/v3/projects/${id}`, { token })).status;
  expect(await look()).toBe(200);
  await patch(id, { enabled: false });
  expect(await look()).toBe(401);
  await patch(id, { enabled: true });
  expect(await look()).toBe(200);
  expect((await asAdmin("DELETE", `/projects/${id}`)).status).toBe(204);
  expect(await look()).toBe(401);
});

test("a project with others below it is deleted with them or not at all, and only once they are disabled", async () => {
  const [top = "", middle = "", leaf = ""] = await chain(["heap", "heap middle", "heap leaf"]);
  expect((await asAdmin("DELETE", `/projects/${top}`)).status).toBe(403);
  expect((await asAdmin("DELETE", `/projects/${top}/cascade`)).status).toBe(403);
  await asAdmin("PATCH", `/projects/${middle}/cascade`, { project: { enabled: false } });
  await patch(leaf, { options: { immutable: true } });
  expect((await asAdmin("DELETE", `/projects/${top}/cascade`)).status).toBe(403);
  await patch(leaf, { options: { immutable: false } });
  expect((await asAdmin("DELETE", `/projects/${top}/cascade`)).status).toBe(204);
  for (const id of [top, middle, leaf]) expect((await asAdmin("GET", `/projects/${id}`)).status).toBe(404);
});

test("what belongs to a deleted project goes, and users lose it as their default", async () => {
  const id = await createProject({ name: "leaving", tags: ["t"] });
  const user = await service.create("user", { name: "stays", password: USER_PASSWORD, default_project_id: id });
  await service.grant(`/projects/${id}/users/${user}`, "member");
  const endpoint = textAt(await asAdmin("GET", "/endpoints"), "endpoints.0.id");
  expect((await asAdmin("PUT", `/OS-EP-FILTER/projects/${id}/endpoints/${endpoint}`)).status).toBe(204);
  const token = tokenOf(await service.login({ id: user, password: USER_PASSWORD }));
  expect((await asAdmin("DELETE", `/projects/${id}`)).status).toBe(204);
  expect((await call("GET", "/v3/auth/projects", { token })).status).toBe(401);
  expect(at(await asAdmin("GET", `/users/${user}`), "user.default_project_id") ?? null).toBeNull();
  expect(listAt(await asAdmin("GET", `/users/${user}/projects`), "projects")).toEqual([]);
  expect(listAt(await asAdmin("GET", `/OS-EP-FILTER/endpoints/${endpoint}/projects`), "projects")).toEqual([]);
});

test("an immutable project takes nothing but the end of that", async () => {
  const id = await createProject({ name: "stone", options: { immutable: true } });
  const refused = await patch(id, { description: "x" });
  expect([refused.status, messageOf(refused)]).toEqual([
    403,
    `Unable to update immutable project resource: \`${id}. Set resource option "immutable" to false first.`,
  ]);
  expect((await asAdmin("DELETE", `/projects/${id}`)).status).toBe(403);
  expect((await asAdmin("PATCH", `/projects/${id}/cascade`, { project: { enabled: false } })).status).toBe(403);
  for (const [method, path, body] of [
    ["PUT", "tags", { tags: ["a"] }],
    ["PUT", "tags/a", undefined],
    ["DELETE", "tags", undefined],
    ["DELETE", "tags/a", undefined],
  ] as const) {
    expect((await asAdmin(method, `/projects/${id}/${path}`, body)).status, `${method} ${path}`).toBe(403);
  }
  expect((await patch(id, { options: { immutable: false } })).body).toMatchObject({
    project: { options: { immutable: false } },
  });
  expect((await patch(id, { description: "x" })).status).toBe(200);
});

test("lists are filtered by name with comparators, parent, domain, state and kind, sorted, and cut into pages", async () => {
  const domain = await service.create("domain", { name: "lists" });
  const parent = await createProject({ name: "Alpha", domain_id: domain });
  await createProject({ name: "alpine", domain_id: domain, parent_id: parent });
  await createProject({ name: "beta_1", domain_id: domain, enabled: false });
  const within = (query: string): Promise<unknown[]> => namesOf(`domain_id=${domain}&${query}`);
  expect(await within("name__contains=lp")).toEqual(["Alpha", "alpine"]);
  expect(await within("name__icontains=ALP")).toEqual(["Alpha", "alpine"]);
  expect(await within("name__startswith=alp")).toEqual(["alpine"]);
  expect(await within("name__contains=_")).toEqual(["beta_1"]);
  expect(await within(`parent_id=${parent}`)).toEqual(["alpine"]);
  expect(await within("enabled=false")).toEqual(["beta_1"]);
  expect(await within("is_domain=1")).toEqual([]);
  const page = await asAdmin("GET", `/projects?domain_id=${domain}&sort_key=name&sort_dir=desc&limit=2`);
  expect(listAt(page, "projects").map(({ name }) => name)).toEqual(["beta_1", "alpine"]);
  const next = new URL(textAt(page, "links.next"));
  const rest = await asAdmin("GET", next.pathname.replace("/v3", "") + next.search);
  expect(listAt(rest, "projects").map(({ name }) => name)).toEqual(["Alpha"]);
});

test("a token for a domain lists, makes and manages projects there, and nowhere else", async () => {
  const domain = await service.create("domain", { name: "confined" });
  const own = await createProject({ name: "own", domain_id: domain });
  const foreign = await createProject({ name: "foreign" });
  const reader = await service.bearer(`/domains/${domain}`, "reader");
  const manager = await service.bearer(`/domains/${domain}`, "manager");
  expect(await namesOf("", reader.token)).toEqual(["own"]);
  expect(await namesOf("domain_id=default", reader.token)).toEqual([]);
  expect((await call("GET", `/v3/projects/${own}`, reader)).status).toBe(200);
  expect((await call("GET", `/v3/projects/${foreign}`, reader)).status).toBe(403);
  const make = (token: string, project: object) => call("POST", "/v3/projects", { token, body: { project } });
  expect((await make(reader.token, { name: "made" })).status).toBe(403);
  const made = await make(manager.token, { name: "made" });
  expect([made.status, at(made, "project.domain_id")]).toEqual([201, domain]);
  expect((await make(manager.token, { name: "made", domain_id: "default" })).status).toBe(403);
  expect((await make(manager.token, { name: "made", parent_id: foreign })).status).toBe(400);
  expect((await make(manager.token, { name: "realm", is_domain: true })).status).toBe(403);
  for (const method of ["PATCH", "DELETE"]) {
    for (const path of [foreign, domain]) {
      const body = method === "PATCH" ? { body: { project: { description: "x" } } } : {};
      const answer = await call(method, `/v3/projects/${path}`, { token: manager.token, ...body });
      expect(answer.status, `${method} ${path}`).toBe(403);
    }
  }
});

test("a caller with a role in a project sees that one, and may not list", async () => {
  const id = await createProject({ name: "visited" });
  const { token } = await service.bearer(`/projects/${id}`, "member");
  expect((await call("GET", `/v3/projects/${id}`, { token })).status).toBe(200);
  expect((await call("GET", "/v3/projects", { token })).status).toBe(403);
  expect((await call("PATCH", `/v3/projects/${id}`, { token, body: { project: { name: "x" } } })).status).toBe(403);
  // Whether another is there at all stays unknown.
  expect((await call("GET", "/v3/projects/nowhere", { token })).status).toBe(403);
});
