import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { at, listAt, textAt, tokenOf } from "../../test-client.ts";
import { AUTH, PERSON, GROUPS, createFederationFixture } from "./federation-fixture.ts";

const federation = createFederationFixture();
const { call, authenticate, login, rescope, send, loginAs, setRules, setProvider, newGroup, newProject } = federation;

beforeAll(() => federation.start());
beforeEach(() => federation.reset());
afterAll(() => federation[Symbol.asyncDispose]());

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
    headers: { authorization: `Bearer ${await federation.provider.sign({ email: "alice@example.com" })}` },
  });
  expect([again.status, at(again, "token.user.id")]).toEqual([201, id]);
});

test("groups of the mapping give their roles for the time of the token, and to its new scopes", async () => {
  const groupId = await newGroup("staff");
  const projectId = await newProject("office");
  await send("PUT", `/v3/projects/${projectId}/groups/${groupId}/roles/${federation.memberId}`);
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
  federation.advance(4 * 60_000);
  await loginAs(claims);
  federation.advance(4 * 60_000);
  await federation.logInAgain();
  expect(await groups()).toEqual(new Set([groupId, keptId]));
  federation.advance(2 * 60_000);
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

test("a user of the provider who is disabled here stays out, also of living tokens", async () => {
  const answer = await loginAs({ sub: "frank", email: "f@example.com" });
  const id = textAt(answer, "token.user.id");
  expect((await send("PATCH", `/v3/users/${id}`, { user: { enabled: false } })).status).toBe(200);
  expect((await loginAs({ sub: "frank", email: "f@example.com" })).status).toBe(401);
  expect((await rescope(tokenOf(answer))).status).toBe(404);
});

test("a federated user who was removed comes back as another, without the old one's rights", async () => {
  const first = await loginAs({ sub: "gone", email: "g@example.com" });
  const id = textAt(first, "token.user.id");
  const projectId = await newProject("of the gone");
  await send("PUT", `/v3/projects/${projectId}/users/${id}/roles/${federation.memberId}`);
  expect((await send("DELETE", `/v3/users/${id}`)).status).toBe(204);
  expect((await rescope(tokenOf(first))).status).toBe(404);
  const second = await loginAs({ sub: "gone", email: "g@example.com" });
  expect(second.status).toBe(201);
  expect(at(second, "token.user.id")).not.toBe(id);
  expect(listAt(await call("GET", "/v3/auth/projects", { token: tokenOf(second) }), "projects")).toEqual([]);
  expect((await login({ id: textAt(second, "token.user.id"), password: "" })).status).toBe(401);
});
