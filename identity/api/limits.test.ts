import { afterAll, beforeAll, expect, test } from "vitest";
import { at, listAt, textAt } from "../test-client.ts";
import { GrantsFixture } from "./grants-fixture.ts";

let service: GrantsFixture;
let serviceId: string;

beforeAll(async () => {
  service = await GrantsFixture.start();
  serviceId = String(listAt(await service.call("GET", "/v3/services"), "services")[0]?.["id"]);
});

afterAll(() => service[Symbol.asyncDispose]());

const register = (...registered_limits: object[]) =>
  service.call("POST", "/v3/registered_limits", {
    body: { registered_limits: registered_limits.map((limit) => ({ service_id: serviceId, ...limit })) },
  });
const limit = (...limits: object[]) =>
  service.call("POST", "/v3/limits", {
    body: { limits: limits.map((item) => ({ service_id: serviceId, ...item })) },
  });
const messageOf = (answer: { body: Readonly<Record<string, unknown>> }) => at(answer, "error.message");

test("registered limits are made many at once, listed by what they are of, and changed", async () => {
  const made = await register(
    { region_id: "RegionOne", resource_name: "cores", default_limit: 10, description: "d" },
    { resource_name: "ram", default_limit: 1024 },
  );
  expect(made.status).toBe(201);
  expect(Object.keys(made.body)).toEqual(["registered_limits"]);
  const [cores, ram] = listAt(made, "registered_limits");
  expect(ram).toMatchObject({ region_id: null, resource_name: "ram", default_limit: 1024, description: null });
  const id = String(cores?.["id"]);
  const names = async (query: string) =>
    listAt(await service.call("GET", `/v3/registered_limits?${query}`), "registered_limits").map(
      ({ resource_name }) => resource_name,
    );
  expect(await names("resource_name=cores")).toEqual(["cores"]);
  expect(await names(`service_id=${serviceId}&region_id=RegionOne`)).toEqual(["cores"]);
  expect(await names("service_id=other")).toEqual([]);
  const patch = (registered_limit: object) =>
    service.call("PATCH", `/v3/registered_limits/${id}`, { body: { registered_limit } });
  expect(at(await patch({ default_limit: 20, description: null }), "registered_limit")).toMatchObject({
    default_limit: 20,
    description: null,
    resource_name: "cores",
  });
  expect((await patch({ default_limit: -2 })).status).toBe(400);
  expect((await patch({ service_id: "nowhere" })).status).toBe(400);
  expect((await patch({ region_id: null, resource_name: "ram" })).status).toBe(409);
  expect(await service.status("DELETE", `/v3/registered_limits/${id}`)).toBe(204);
  expect(await service.status("GET", `/v3/registered_limits/${id}`)).toBe(404);
});

test("a registered limit is made once, of a service and a region that are there, or none of a request is", async () => {
  expect((await register({ resource_name: "disk", default_limit: 1 })).status).toBe(201);
  const twice = await register({ resource_name: "new", default_limit: 1 }, { resource_name: "disk", default_limit: 1 });
  expect([twice.status, messageOf(twice)]).toEqual([
    409,
    "Conflict occurred attempting to store registered_limit - Duplicate entry.",
  ]);
  expect(at(await service.call("GET", "/v3/registered_limits?resource_name=new"), "registered_limits")).toEqual([]);
  const lost = await register({ service_id: "nowhere", resource_name: "x", default_limit: 1 });
  expect([lost.status, messageOf(lost)]).toEqual([
    400,
    expect.stringMatching(/^Expecting to find service_id in registered_limit\./),
  ]);
  const bad = [
    { resource_name: "x" },
    { resource_name: "", default_limit: 1 },
    { resource_name: "x", default_limit: 2 ** 31 },
    { resource_name: "x", default_limit: "1" },
    { resource_name: "x", default_limit: 1, more: 1 },
    { resource_name: "x", default_limit: 1, region_id: "nowhere" },
  ];
  for (const item of bad) expect([item, (await register(item)).status]).toEqual([item, 400]);
  expect((await register()).status).toBe(400);
});

test("limits are for a project or a domain, of something registered, and hold it in place", async () => {
  const project = await service.project("limited");
  const registered = await register({ resource_name: "volumes", default_limit: 10 });
  const registeredId = textAt(registered, "registered_limits.0.id");
  const resource_name = "volumes";
  const made = await limit(
    { project_id: project, resource_name, resource_limit: 5 },
    { domain_id: "default", resource_name, resource_limit: 0, description: "none" },
  );
  expect(made.status).toBe(201);
  const [ofProject, ofDomain] = listAt(made, "limits");
  expect(ofProject).toEqual({
    id: expect.any(String) as string,
    project_id: project,
    domain_id: null,
    resource_limit: 5,
    description: null,
    service_id: serviceId,
    region_id: null,
    resource_name,
    links: { self: expect.stringContaining("/v3/limits/") as string },
  });
  expect(ofDomain).toMatchObject({ project_id: null, domain_id: "default", resource_limit: 0 });
  const twice = await limit({ project_id: project, resource_name, resource_limit: 6 });
  expect([twice.status, messageOf(twice)]).toEqual([
    409,
    "Conflict occurred attempting to store limit - Duplicate entry.",
  ]);
  // The project of a domain is the domain.
  expect((await limit({ project_id: "default", resource_name, resource_limit: 6 })).status).toBe(409);
  const unknown = await limit({ project_id: project, resource_name: "unknown", resource_limit: 6 });
  expect([unknown.status, messageOf(unknown)]).toEqual([
    403,
    "Unable to create a limit that has no corresponding registered limit.",
  ]);
  const item = { resource_name, resource_limit: 1 };
  for (const wrong of [
    item,
    { ...item, project_id: project, domain_id: "default" },
    { ...item, project_id: "nowhere" },
  ]) {
    expect([wrong, (await limit(wrong)).status]).toEqual([wrong, 400]);
  }
  expect((await limit({ ...item, domain_id: project })).status).toBe(400);

  const path = `/v3/limits/${String(ofProject?.["id"])}`;
  const patch = (fields: object) => service.call("PATCH", path, { body: { limit: fields } });
  expect(at(await patch({ resource_limit: 0, description: "e" }), "limit")).toMatchObject({
    resource_limit: 0,
    description: "e",
    resource_name,
  });
  expect((await patch({ project_id: project })).status).toBe(400);

  const inUse = `Unable to update or delete registered limit ${registeredId} because there are project limits associated with it.`;
  const registeredPath = `/v3/registered_limits/${registeredId}`;
  const body = { registered_limit: { default_limit: 11 } };
  for (const refused of [
    await service.call("DELETE", registeredPath),
    await service.call("PATCH", registeredPath, { body }),
  ]) {
    expect([refused.status, messageOf(refused)]).toEqual([403, inUse]);
  }
  expect(await service.status("DELETE", path)).toBe(204);
  expect(await service.status("DELETE", path)).toBe(404);
  expect(await service.status("DELETE", `/v3/limits/${String(ofDomain?.["id"])}`)).toBe(204);
  expect(await service.status("DELETE", registeredPath)).toBe(204);
});

test("a caller sees the limits of the token's scope, and shows no other", async () => {
  const domain = await service.domain("limits");
  const [mine, other] = [await service.project("mine", domain, domain), await service.project("other", domain, domain)];
  const user = await service.user("limited", domain);
  await service.call("PUT", `/v3/projects/${mine}/users/${user}/roles/${service.role("reader")}`);
  await service.call("PUT", `/v3/domains/${domain}/users/${user}/roles/${service.role("reader")}`);
  await register({ resource_name: "seen", default_limit: 1 });
  const made = await limit(
    ...[{ project_id: mine }, { project_id: other }, { domain_id: domain }, { domain_id: "default" }].map((owner) => ({
      ...owner,
      resource_name: "seen",
      resource_limit: 1,
    })),
  );
  const ids = listAt(made, "limits").map(({ id }) => String(id));
  const tokenOn = (scope: object) => service.token(user, scope);
  const seen = async (token: string, query = "") =>
    listAt(await service.call("GET", `/v3/limits?resource_name=seen${query}`, { token }), "limits")
      .map(({ id }) => String(id))
      .toSorted();
  const [onProject, onDomain] = [await tokenOn({ project: { id: mine } }), await tokenOn({ domain: { id: domain } })];
  expect(await seen(onProject)).toEqual(ids.slice(0, 1));
  expect(await seen(onDomain)).toEqual(ids.slice(0, 3).toSorted());
  expect(await seen(onDomain, `&project_id=${other}`)).toEqual(ids.slice(1, 2));
  expect(await seen(service.admin)).toEqual([]);
  await service.call("PUT", `/v3/system/users/${user}/roles/${service.role("reader")}`);
  expect(await seen(await tokenOn({ system: { all: true } }))).toEqual(ids.toSorted());
  const shown = (token: string) => Promise.all(ids.map((id) => service.status("GET", `/v3/limits/${id}`, { token })));
  expect(await shown(onProject)).toEqual([200, 403, 403, 403]);
  expect(await shown(onDomain)).toEqual([200, 200, 200, 403]);
  expect(await shown(service.admin)).toEqual([200, 200, 200, 200]);
  expect(await service.status("POST", "/v3/limits", { token: onProject, body: { limits: [{}] } })).toBe(400);
  const body = { limits: [{ service_id: serviceId, project_id: mine, resource_name: "seen", resource_limit: 9 }] };
  expect(await service.status("POST", "/v3/limits", { token: onProject, body })).toBe(403);
});

test("the model is told, and the strict one keeps projects within their domain", async () => {
  expect(at(await service.call("GET", "/v3/limits/model"), "model.name")).toBe("flat");
  await using strict = await GrantsFixture.start({ limit_model: "strict_two_level" });
  expect(at(await strict.call("GET", "/v3/limits/model"), "model")).toEqual({
    name: "strict_two_level",
    description: "This model requires project hierarchy never exceeds a depth of two",
  });
  const service_id = String(listAt(await strict.call("GET", "/v3/services"), "services")[0]?.["id"]);
  const of = { service_id, resource_name: "cores" };
  await strict.call("POST", "/v3/registered_limits", { body: { registered_limits: [{ ...of, default_limit: 10 }] } });
  const project = await strict.project("strict");
  const post = (...limits: object[]) =>
    strict.call("POST", "/v3/limits", { body: { limits: limits.map((item) => ({ ...of, ...item })) } });
  const refused = await post({ project_id: project, resource_limit: 11 });
  expect([refused.status, messageOf(refused)]).toEqual([
    403,
    `Invalid resource limit: The resource limit (project_id: ${project}, resource_name: cores, resource_limit: 11, service_id: ${service_id}, region_id: null) doesn't satisfy current hierarchy model.`,
  ]);
  expect(at(await strict.call("GET", `/v3/limits?project_id=${project}`), "limits")).toEqual([]);
  const made = await post({ project_id: project, resource_limit: 20 }, { domain_id: "default", resource_limit: 20 });
  expect(made.status).toBe(201);
  const [ofProject, ofDomain] = listAt(made, "limits").map(({ id }) => String(id));
  const patch = (id: string | undefined, resource_limit: number) =>
    strict.status("PATCH", `/v3/limits/${id}`, { body: { limit: { resource_limit } } });
  expect([await patch(ofDomain, 19), await patch(ofProject, 21)]).toEqual([403, 403]);
  expect([await patch(ofProject, 15), await patch(ofDomain, 15)]).toEqual([200, 200]);
});
