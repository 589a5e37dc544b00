import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestAdministrator, type TestAdministrator } from "../test-administrator.ts";
import { type Answer, at, createTestClient, listAt, textAt } from "../test-client.ts";

let service: TestAdministrator;

beforeAll(async () => {
  service = await startTestAdministrator();
});
afterAll(() => service[Symbol.asyncDispose]());

const asAdmin = (method: string, path: string, body?: unknown): Promise<Answer> => service.asAdmin(method, path, body);
const createService = (fields: object): Promise<string> => service.create("service", fields);
const createEndpoint = (fields: object): Promise<string> => service.create("endpoint", fields);
const messageOf = (answer: Answer): unknown => at(answer, "error.message");

const FACE = { interface: "public", url: "http://h/$(project_id)s", region_id: "RegionOne" };

/** Types and URLs of the catalog that a token has now. */
const catalog = async (token?: string): Promise<Record<string, unknown[]>> => {
  const answer =
    token === undefined
      ? await asAdmin("GET", "/auth/catalog")
      : await service.call("GET", "/v3/auth/catalog", { token });
  return Object.fromEntries(
    listAt(answer, "catalog").map(({ type, endpoints }) => [
      type,
      (endpoints as { url: string }[]).map(({ url }) => url),
    ]),
  );
};

test("a service has a type, an empty name unless it is given one, and what this service only keeps", async () => {
  const answer = await asAdmin("POST", "/services", { service: { type: "tape-archive", further: "kept" } });
  const id = textAt(answer, "service.id");
  const links = { self: `${service.base}/v3/services/${id}` };
  expect([answer.status, answer.body]).toEqual([
    201,
    { service: { id, type: "tape-archive", name: "", enabled: true, further: "kept", links } },
  ]);
  const changed = await asAdmin("PATCH", `/services/${id}`, { service: { name: "tapes", description: "d" } });
  expect(changed.body).toMatchObject({ service: { name: "tapes", description: "d", further: "kept", enabled: true } });
  expect(listAt(await asAdmin("GET", "/services?type=tape-archive"), "services")).toHaveLength(1);
  expect(listAt(await asAdmin("GET", "/services?name=tapes"), "services")).toHaveLength(1);
  expect((await asAdmin("DELETE", `/services/${id}`)).status).toBe(204);
  for (const method of ["GET", "DELETE"]) expect((await asAdmin(method, `/services/${id}`)).status).toBe(404);
});

test("services without a type or with fields of wrong types are refused with 400", async () => {
  for (const fields of [
    {},
    { type: "" },
    { type: null },
    { type: "x".repeat(256) },
    { type: "t", name: "" },
    { type: "t", enabled: 1 },
  ]) {
    expect((await asAdmin("POST", "/services", { service: fields })).status, JSON.stringify(fields)).toBe(400);
  }
  expect((await asAdmin("PATCH", "/services/nowhere", { service: {} })).status).toBe(400);
});

test("an endpoint is in the catalog at once, follows its changes, and leaves with its service", async () => {
  const id = await createService({ type: "compute", name: "nova" });
  const endpoint = await createEndpoint({ ...FACE, service_id: id });
  const project = textAt(await asAdmin("GET", "/projects?name=admin"), "projects.0.id");
  expect((await catalog())["compute"]).toEqual([`http://h/${project}`]);
  const changed = await asAdmin("PATCH", `/endpoints/${endpoint}`, { endpoint: { url: "http://other/v2.1" } });
  expect(changed.body).toMatchObject({
    endpoint: {
      url: "http://other/v2.1",
      interface: "public",
      region: "RegionOne",
      region_id: "RegionOne",
      service_id: id,
    },
  });
  expect((await catalog())["compute"]).toEqual(["http://other/v2.1"]);
  await asAdmin("PATCH", `/endpoints/${endpoint}`, { endpoint: { enabled: false } });
  expect(await catalog()).not.toHaveProperty("compute");
  await asAdmin("PATCH", `/endpoints/${endpoint}`, { endpoint: { enabled: true } });
  await asAdmin("PATCH", `/services/${id}`, { service: { enabled: false } });
  expect(await catalog()).not.toHaveProperty("compute");
  expect((await asAdmin("DELETE", `/services/${id}`)).status).toBe(204);
  expect((await asAdmin("GET", `/endpoints/${endpoint}`)).status).toBe(404);
});

test("the old word region makes the region, the newer region_id must name one", async () => {
  const id = await createService({ type: "old" });
  const made = await asAdmin("POST", "/endpoints", {
    endpoint: { service_id: id, interface: "internal", url: "http://i", region: "new-region" },
  });
  expect(made.body).toMatchObject({ endpoint: { region: "new-region", region_id: "new-region" } });
  expect((await asAdmin("GET", "/regions/new-region")).status).toBe(200);
  const absent = await asAdmin("POST", "/endpoints", { endpoint: { ...FACE, service_id: id, region_id: "nowhere" } });
  expect([absent.status, messageOf(absent)]).toEqual([
    400,
    expect.stringContaining("Expecting to find endpoint region_id in region table."),
  ]);
  const endpointId = textAt(made, "endpoint.id");
  const moved = await asAdmin("PATCH", `/endpoints/${endpointId}`, { endpoint: { region: "another" } });
  expect(at(moved, "endpoint.region_id")).toBe("another");
  const bare = await createEndpoint({ service_id: id, interface: "admin", url: "http://i" });
  expect(at(await asAdmin("GET", `/endpoints/${bare}`), "endpoint.region_id")).toBeNull();
});

test("endpoints of an absent service, of another interface, or with a URL that no catalog can say are refused with 400", async () => {
  const id = await createService({ type: "strict" });
  const endpoint = await createEndpoint({ ...FACE, service_id: id });
  for (const fields of [
    { service_id: "nowhere" },
    { service_id: 5 },
    { interface: "odd" },
    { interface: null },
    { url: "no url" },
    { url: "" },
    { url: `http://${"x".repeat(230)}` },
    { url: "http://i/%(nonsense)s" },
    { url: "http://i/$(constructor)s" },
    { enabled: "true" },
  ]) {
    const what = JSON.stringify(fields);
    const created = await asAdmin("POST", "/endpoints", { endpoint: { ...FACE, service_id: id, ...fields } });
    expect(created.status, what).toBe(400);
    expect((await asAdmin("PATCH", `/endpoints/${endpoint}`, { endpoint: fields })).status, what).toBe(400);
  }
  for (const missing of ["service_id", "interface", "url"] as const) {
    const whole: Record<string, string> = { ...FACE, service_id: id };
    delete whole[missing];
    expect((await asAdmin("POST", "/endpoints", { endpoint: whole })).status, missing).toBe(400);
  }
});

test("an endpoint that an operator changed stays so through a restart", async () => {
  await using own = await startTestAdministrator();
  const identity = textAt(await own.asAdmin("GET", "/services?type=identity"), "services.0.id");
  const found = await own.asAdmin("GET", `/endpoints?service_id=${identity}&interface=public`);
  const id = textAt(found, "endpoints.0.id");
  await own.asAdmin("PATCH", `/endpoints/${id}`, { endpoint: { url: "https://cloud.example/v3" } });
  const { port } = await own.installation.start();
  const again = createTestClient(() => `http://127.0.0.1:${port}`);
  const { body } = await again.call("GET", `/v3/endpoints/${id}`, { token: await again.adminToken() });
  expect(body).toMatchObject({ endpoint: { url: "https://cloud.example/v3" } });
});

test("a project with an association sees only what is associated with it, others go on seeing all", async () => {
  const compute = await createService({ type: "filtered", name: "f" });
  const seen = await createEndpoint({ ...FACE, service_id: compute, url: "http://seen" });
  const hidden = await createEndpoint({ ...FACE, service_id: compute, url: "http://hidden" });
  const project = await service.create("project", { name: "filtered" });
  const { token } = await service.bearer(`/projects/${project}`, "reader");
  expect((await catalog(token))["filtered"]?.toSorted()).toEqual(["http://hidden", "http://seen"]);
  const path = `/OS-EP-FILTER/projects/${project}/endpoints/${seen}`;
  expect((await asAdmin("GET", path)).status).toBe(404);
  expect((await asAdmin("PUT", path)).status).toBe(204);
  expect((await asAdmin("PUT", path)).status).toBe(409);
  expect((await asAdmin("GET", path)).status).toBe(204);
  expect(await catalog(token)).toEqual({ filtered: ["http://seen"] });
  expect((await catalog())["filtered"]).toHaveLength(2);
  const listed = await asAdmin("GET", `/OS-EP-FILTER/projects/${project}/endpoints`);
  expect(listAt(listed, "endpoints").map(({ id }) => id)).toEqual([seen]);
  const projects = await asAdmin("GET", `/OS-EP-FILTER/endpoints/${seen}/projects`);
  expect(listAt(projects, "projects")).toMatchObject([{ id: project, tags: [] }]);
  // What is disabled is not shown, and does not open the rest.
  await asAdmin("PATCH", `/endpoints/${seen}`, { endpoint: { enabled: false } });
  expect(await catalog(token)).toEqual({});
  expect((await asAdmin("DELETE", path)).status).toBe(204);
  expect((await asAdmin("DELETE", path)).status).toBe(404);
  expect((await catalog(token))["filtered"]).toEqual(["http://hidden"]);
  for (const absent of [
    `/OS-EP-FILTER/projects/nowhere/endpoints/${hidden}`,
    `/OS-EP-FILTER/projects/${project}/endpoints/nowhere`,
  ]) {
    expect((await asAdmin("PUT", absent)).status).toBe(404);
  }
});

test("a group of endpoints is associated as a whole, and what it lets through follows its filters", async () => {
  const id = await createService({ type: "grouped" });
  const open = await createEndpoint({ ...FACE, service_id: id, url: "http://open" });
  await createEndpoint({ ...FACE, service_id: id, interface: "admin", url: "http://closed" });
  const project = await service.create("project", { name: "grouped" });
  const { token } = await service.bearer(`/projects/${project}`, "reader");
  const made = await asAdmin("POST", "/OS-EP-FILTER/endpoint_groups", {
    endpoint_group: { name: "open ones", filters: { interface: "public", service_id: id } },
  });
  const group = textAt(made, "endpoint_group.id");
  const path = `/OS-EP-FILTER/endpoint_groups/${group}`;
  expect([made.status, made.body]).toEqual([
    201,
    {
      endpoint_group: {
        id: group,
        name: "open ones",
        description: null,
        filters: { interface: "public", service_id: id },
        links: { self: `${service.base}/v3${path}` },
      },
    },
  ]);
  expect(listAt(await asAdmin("GET", `${path}/endpoints`), "endpoints").map((one) => one["id"])).toEqual([open]);
  expect((await asAdmin("GET", `${path}/projects/${project}`)).status).toBe(404);
  expect((await asAdmin("PUT", `${path}/projects/${project}`)).status).toBe(204);
  expect((await asAdmin("PUT", `${path}/projects/${project}`)).status).toBe(409);
  expect((await asAdmin("GET", `${path}/projects/${project}`)).body).toMatchObject({
    project_endpoint_group: { endpoint_group_id: group, project_id: project },
  });
  expect(await catalog(token)).toEqual({ grouped: ["http://open"] });
  const ofProject = await asAdmin("GET", `/OS-EP-FILTER/projects/${project}/endpoint_groups`);
  expect(listAt(ofProject, "endpoint_groups").map((one) => one["id"])).toEqual([group]);
  expect(listAt(await asAdmin("GET", `${path}/projects`), "projects").map((one) => one["id"])).toEqual([project]);
  await asAdmin("PATCH", path, { endpoint_group: { filters: { service_id: id, interface: "admin" } } });
  expect(await catalog(token)).toEqual({ grouped: ["http://closed"] });
  expect((await asAdmin("DELETE", `${path}/projects/${project}`)).status).toBe(204);
  expect((await asAdmin("DELETE", `${path}/projects/${project}`)).status).toBe(404);
  await asAdmin("PUT", `${path}/projects/${project}`);
  expect((await asAdmin("DELETE", path)).status).toBe(204);
  expect((await catalog(token))["grouped"]).toHaveLength(2);
});

test("a token's catalog is the one that its bearer is shown, follows changes at once, and has no projects' URLs without a project", async () => {
  const id = await createService({ type: "both" });
  const endpoint = await createEndpoint({ ...FACE, service_id: id, url: 'http://h/"q"/%(project_id)s/%(user_id)s' });
  await createEndpoint({ ...FACE, service_id: id, interface: "admin", url: "http://h/%(user_id)s" });
  const project = await service.create("project", { name: "both" });
  const ofProject = await service.bearer(`/projects/${project}`, "reader");
  const ofDomain = await service.bearer("/domains/default", "reader");
  const inToken = async (token: string) => {
    const answer = await service.call("GET", "/v3/auth/tokens", { token, subject: token });
    const shown = await service.call("GET", "/v3/auth/catalog", { token });
    expect(at(answer, "token.catalog")).toEqual(at(shown, "catalog"));
    const services = listAt(answer, "token.catalog").filter(({ type }) => type === "both");
    return services.flatMap(({ endpoints }) => (endpoints as { url: string }[]).map(({ url }) => url)).toSorted();
  };
  const [user, other] = [ofProject.id, ofDomain.id];
  expect(await inToken(ofProject.token)).toEqual([`http://h/"q"/${project}/${user}`, `http://h/${user}`]);
  expect(await inToken(ofDomain.token)).toEqual([`http://h/${other}`]);
  await asAdmin("PATCH", `/endpoints/${endpoint}`, { endpoint: { url: "http://changed" } });
  expect(await inToken(ofProject.token)).toEqual(["http://changed", `http://h/${user}`]);
  await asAdmin("DELETE", `/services/${id}`);
  expect(await inToken(ofProject.token)).toEqual([]);
});

test("endpoint groups need filters that endpoints have", async () => {
  for (const fields of [
    { name: "g" },
    { name: "g", filters: {} },
    { name: "g", filters: { odd: 1 } },
    { name: "g", filters: [] },
    { filters: { interface: "public" } },
    { name: "", filters: { interface: "public" } },
  ]) {
    const answer = await asAdmin("POST", "/OS-EP-FILTER/endpoint_groups", { endpoint_group: fields });
    expect(answer.status, JSON.stringify(fields)).toBe(400);
  }
  expect((await asAdmin("GET", "/OS-EP-FILTER/endpoint_groups/nowhere")).status).toBe(404);
});

test("who is no administrator changes nothing of the catalog", async () => {
  const project = await service.create("project", { name: "plain" });
  const { token } = await service.bearer(`/projects/${project}`, "manager");
  for (const [path, body] of [
    ["services", { service: { type: "t" } }],
    ["endpoints", { endpoint: { ...FACE, service_id: "s" } }],
    ["policies", { policy: { type: "t", blob: "b" } }],
    ["OS-EP-FILTER/endpoint_groups", { endpoint_group: { name: "g", filters: { interface: "public" } } }],
  ] as const) {
    expect((await service.call("POST", `/v3/${path}`, { token, body })).status, path).toBe(403);
    expect((await service.call("GET", `/v3/${path}`, { token })).status, path).toBe(403);
  }
});
