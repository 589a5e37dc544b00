import { afterAll, beforeAll, expect, test } from "vitest";
import { ADMIN_SCOPE, ADMIN_USER, at, createTestClient, listAt, textAt } from "../../test-client.ts";
import { createTestInstallation, type TestInstallation } from "../../test-service.ts";

let installation: TestInstallation;
let base = "";
let admin = "";
const { call, login, adminToken } = createTestClient(() => base);

const FEDERATION = "/v3/OS-FEDERATION";
const RULES = [{ local: [{ user: { name: "{0}" } }], remote: [{ type: "REMOTE_USER" }] }];

const send = (method: string, path: string, body?: unknown) =>
  call(method, FEDERATION + path, { token: admin, ...(body === undefined ? {} : { body }) });

beforeAll(async () => {
  installation = createTestInstallation();
  const service = await installation.start();
  base = `http://127.0.0.1:${service.port}`;
  admin = await adminToken();
});

afterAll(() => installation[Symbol.asyncDispose]());

test("an identity provider is made with a domain of its own, shown, changed and removed", async () => {
  const given = { description: "d", enabled: true, remote_ids: ["https://idp.example"] };
  const made = await send("PUT", "/identity_providers/sso", { identity_provider: given });
  expect(made.status).toBe(201);
  const domainId = textAt(made, "identity_provider.domain_id");
  const self = `${base}${FEDERATION}/identity_providers/sso`;
  const links = { self, protocols: `${self}/protocols` };
  const whole = { id: "sso", domain_id: domainId, ...given, authorization_ttl: null, links };
  expect(made.body).toEqual({ identity_provider: whole });
  expect((await send("GET", "/identity_providers/sso")).body).toEqual({ identity_provider: whole });
  expect(listAt(await send("GET", "/identity_providers?id=sso"), "identity_providers")).toEqual([whole]);
  expect(listAt(await send("GET", "/identity_providers?enabled=false"), "identity_providers")).toEqual([]);
  expect((await call("GET", `/v3/domains/${domainId}`, { token: admin })).status).toBe(200);
  const change = { enabled: false, remote_ids: ["https://idp2.example"] };
  const changed = await send("PATCH", "/identity_providers/sso", { identity_provider: change });
  expect(changed.body).toEqual({ identity_provider: { ...whole, ...change } });
  expect((await send("DELETE", "/identity_providers/sso")).status).toBe(204);
  const gone = await send("GET", "/identity_providers/sso");
  expect([gone.status, at(gone, "error.message")]).toEqual([404, "Could not find Identity Provider: sso."]);
});

test("a provider's id and remote ids are its own, and what is wrong with a body is said", async () => {
  const provider = (id: string, identity_provider: unknown) =>
    send("PUT", `/identity_providers/${id}`, { identity_provider });
  expect((await provider("one", { remote_ids: ["https://a"], domain_id: "default" })).status).toBe(201);
  expect((await provider("one", {})).status).toBe(409);
  const domains = listAt(await call("GET", "/v3/domains", { token: admin }), "domains").length;
  expect((await provider("two", { remote_ids: ["https://b", "https://a"] })).status).toBe(409);
  // Nothing is left of it, nor of the domain that it would have had.
  expect((await send("GET", "/identity_providers/two")).status).toBe(404);
  expect(listAt(await call("GET", "/v3/domains", { token: admin }), "domains")).toHaveLength(domains);
  expect((await provider("two", { domain_id: "nowhere" })).status).toBe(404);
  const wrong = [
    { odd: 1 },
    { enabled: "yes" },
    { remote_ids: ["a", "a"] },
    { remote_ids: [1] },
    { authorization_ttl: -1 },
    { domain_id: "a b" },
    "x",
    null,
  ];
  for (const body of wrong) expect((await provider("two", body)).status).toBe(400);
  expect((await send("PATCH", "/identity_providers/one", { identity_provider: {} })).status).toBe(400);
  expect((await send("PATCH", "/identity_providers/one", { identity_provider: { domain_id: "x" } })).status).toBe(400);
  expect((await provider("x".repeat(65), {})).status).toBe(400);
});

test("a mapping is kept as it was given; one that is none, or could not be matched in linear time, is refused", async () => {
  const mapping = (id: string, rules: unknown) => send("PUT", `/mappings/${id}`, { mapping: { rules } });
  const made = await mapping("map1", RULES);
  expect([made.status, at(made, "mapping.rules")]).toEqual([201, RULES]);
  expect((await mapping("map1", RULES)).status).toBe(409);
  expect(listAt(await send("GET", "/mappings"), "mappings").map(({ id }) => id)).toEqual(["map1"]);
  const other = [{ local: [{ group: { id: "g" } }], remote: [{ type: "x", any_one_of: ["^a"], regex: true }] }];
  expect((await send("PATCH", "/mappings/map1", { mapping: { rules: other } })).status).toBe(200);
  expect(at(await send("GET", "/mappings/map1"), "mapping.rules")).toEqual(other);
  const local = [{ user: { name: "x" } }];
  const wrong = [
    [],
    [{ local, remote: [] }],
    [{ local, remote: [{ type: "x", odd: 1 }] }],
    [{ local, remote: [{ any_one_of: ["x"] }] }],
    [{ local, remote: [{ type: "x", any_one_of: ["x"], whitelist: ["x"] }] }],
    [{ local: [{ user: { type: "odd" } }], remote: [{ type: "x" }] }],
    [{ local: [{ group: { name: "x" } }], remote: [{ type: "x" }] }],
    [{ local, remote: [{ type: "x", any_one_of: ["(a)\\1"], regex: true }] }],
    [{ local, remote: [{ type: "x", any_one_of: ["("], regex: true }] }],
    "x",
  ];
  for (const rules of wrong) {
    expect((await mapping("bad", rules)).status).toBe(400);
    expect((await send("PATCH", "/mappings/map1", { mapping: { rules } })).status).toBe(400);
  }
  expect((await send("DELETE", "/mappings/map1")).status).toBe(204);
  const gone = await send("GET", "/mappings/map1");
  expect([gone.status, at(gone, "error.message")]).toEqual([404, "Could not find mapping: map1."]);
});

test("a protocol is its provider's and has a mapping that is there", async () => {
  await send("PUT", "/mappings/rules", { mapping: { rules: RULES } });
  await send("PUT", "/identity_providers/p", { identity_provider: { domain_id: "default" } });
  const path = "/identity_providers/p/protocols/openid";
  const protocol = (where: string, body: unknown) => send("PUT", where, { protocol: body });
  const made = await protocol(path, { mapping_id: "rules" });
  const provider = `${base}${FEDERATION}/identity_providers/p`;
  const links = { self: `${provider}/protocols/openid`, identity_provider: provider };
  expect([made.status, made.body["protocol"]]).toEqual([201, { id: "openid", mapping_id: "rules", links }]);
  expect((await protocol(path, { mapping_id: "rules" })).status).toBe(409);
  expect(listAt(await send("GET", "/identity_providers/p/protocols"), "protocols")).toHaveLength(1);
  expect((await send("PATCH", path, { protocol: { remote_id_attribute: "iss" } })).body["protocol"]).toMatchObject({
    mapping_id: "rules",
    remote_id_attribute: "iss",
  });
  const nowhere = await protocol("/identity_providers/p/protocols/x", { mapping_id: "nowhere" });
  expect([nowhere.status, at(nowhere, "error.message")]).toEqual([400, "Invalid mapping id: nowhere"]);
  expect((await send("PATCH", path, { protocol: { mapping_id: "nowhere" } })).status).toBe(400);
  expect((await protocol("/identity_providers/nowhere/protocols/x", { mapping_id: "rules" })).status).toBe(404);
  for (const body of [{}, { mapping_id: "a b" }, { mapping_id: "rules", odd: 1 }, { mapping_id: null }]) {
    expect((await protocol("/identity_providers/p/protocols/x", body)).status).toBe(400);
  }
  expect((await send("DELETE", path)).status).toBe(204);
  expect((await send("GET", path)).status).toBe(404);
  expect((await send("GET", "/identity_providers/nowhere/protocols")).status).toBe(404);
});

test("with a provider its protocols and remote ids go", async () => {
  await send("PUT", "/mappings/rules2", { mapping: { rules: RULES } });
  const identity_provider = { remote_ids: ["https://gone"], domain_id: "default" };
  await send("PUT", "/identity_providers/gone", { identity_provider });
  await send("PUT", "/identity_providers/gone/protocols/openid", { protocol: { mapping_id: "rules2" } });
  expect((await send("DELETE", "/identity_providers/gone")).status).toBe(204);
  expect((await send("PUT", "/identity_providers/gone", { identity_provider })).status).toBe(201);
  expect(listAt(await send("GET", "/identity_providers/gone/protocols"), "protocols")).toEqual([]);
});

test("service providers that are enabled stand in scoped tokens", async () => {
  const service_provider = { auth_url: "https://sp.example/auth", sp_url: "https://sp.example/sp", description: "d" };
  const made = await send("PUT", "/service_providers/sp1", { service_provider });
  expect(made.body["service_provider"]).toMatchObject({
    ...service_provider,
    id: "sp1",
    enabled: false,
    relay_state_prefix: "ss:mem:",
  });
  expect(at(await login(ADMIN_USER, ADMIN_SCOPE), "token.service_providers")).toBeUndefined();
  expect((await send("PATCH", "/service_providers/sp1", { service_provider: { enabled: true } })).status).toBe(200);
  expect(listAt(await send("GET", "/service_providers?enabled=true"), "service_providers")).toHaveLength(1);
  const shown = { auth_url: service_provider.auth_url, id: "sp1", sp_url: service_provider.sp_url };
  expect(at(await login(ADMIN_USER, ADMIN_SCOPE), "token.service_providers")).toEqual([shown]);
  expect((await send("PUT", "/service_providers/sp1", { service_provider })).status).toBe(409);
  for (const body of [{}, { ...service_provider, odd: 1 }, { ...service_provider, auth_url: "no url" }]) {
    expect((await send("PUT", "/service_providers/sp2", { service_provider: body })).status).toBe(400);
  }
  expect((await send("DELETE", "/service_providers/sp1")).status).toBe(204);
  const gone = await send("GET", "/service_providers/sp1");
  expect([gone.status, at(gone, "error.message")]).toEqual([404, "Could not find Service Provider: sp1."]);
});

test("who is no administrator changes nothing of it", async () => {
  const body = { user: { name: "plain", password: "pw", default_project_id: null } };
  const id = textAt(await call("POST", "/v3/users", { token: admin, body }), "user.id");
  const token = (await login({ id, password: "pw" })).headers.get("x-subject-token") ?? "";
  for (const [method, path, given] of [
    ["PUT", "/identity_providers/x", { identity_provider: {} }],
    ["GET", "/identity_providers", undefined],
    ["PUT", "/mappings/x", { mapping: { rules: RULES } }],
    ["DELETE", "/service_providers/x", undefined],
  ] as const) {
    const answer = await call(method, FEDERATION + path, { token, ...(given === undefined ? {} : { body: given }) });
    expect(answer.status).toBe(403);
  }
});
