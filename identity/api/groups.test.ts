import { afterAll, beforeAll, expect, test } from "vitest";
import { type Answer, at, createTestClient, listAt, textAt, tokenOf } from "../test-client.ts";
import { createTestInstallation, type TestInstallation } from "../test-service.ts";

let installation: TestInstallation;
let base = "";
let admin = "";
const { call, login, adminToken } = createTestClient(() => base);
const PASSWORD = "a member's password";

const start = async (): Promise<void> => {
  const service = await installation.start();
  base = `http://127.0.0.1:${service.port}`;
  admin = await adminToken();
};

/** Beneath a service that is stopped. */
const sql = async (...statements: readonly string[]): Promise<void> => {
  await installation.stop();
  for (const statement of statements) await installation.query(statement);
  await start();
};

beforeAll(async () => {
  installation = createTestInstallation();
  await start();
});

afterAll(() => installation[Symbol.asyncDispose]());

const create = (group: unknown, token = admin): Promise<Answer> =>
  call("POST", "/v3/groups", { token, body: { group } });
const newGroup = async (name: string, fields: object = {}): Promise<string> =>
  textAt(await create({ name, ...fields }), "group.id");
const newUser = async (name: string, fields: object = {}): Promise<string> => {
  const body = { user: { name, password: PASSWORD, ...fields } };
  return textAt(await call("POST", "/v3/users", { token: admin, body }), "user.id");
};
const member = (method: string, groupId: string, userId: string, token = admin): Promise<Answer> =>
  call(method, `/v3/groups/${groupId}/users/${userId}`, { token });
const idsAt = (answer: Answer, path: string): unknown[] => listAt(answer, path).map((item) => item["id"]);
const get = (path: string, token = admin): Promise<Answer> => call("GET", path, { token });

test("a group is created, shown, changed and deleted, with whatever else a client gives kept", async () => {
  const created = await create({ name: " staff ", further: "kept" });
  const id = textAt(created, "group.id");
  const links = { self: `${base}/v3/groups/${id}` };
  const group = { id, name: "staff", domain_id: "default", description: "", further: "kept", links };
  expect([created.status, created.body]).toEqual([201, { group }]);
  expect((await get(`/v3/groups/${id}`)).body).toEqual({ group });
  const patch = (fields: unknown) => call("PATCH", `/v3/groups/${id}`, { token: admin, body: { group: fields } });
  expect((await patch({ description: "e", further: "other" })).body).toEqual({
    group: { ...group, description: "e", further: "other" },
  });
  expect(at(await patch({ description: null }), "group.description")).toBe("");
  for (const fields of [{}, { name: "" }, { name: null }, { domain_id: "nowhere" }, { id: "other" }, "x"]) {
    expect((await patch(fields)).status).toBe(400);
  }
  expect((await call("DELETE", `/v3/groups/${id}`, { token: admin })).status).toBe(204);
  expect((await get(`/v3/groups/${id}`)).status).toBe(404);
  expect((await call("DELETE", `/v3/groups/${id}`, { token: admin })).status).toBe(404);
});

test("bad bodies of groups are refused with 400, and a name that its domain has with 409", async () => {
  for (const group of [{}, { name: "" }, { name: "x".repeat(256) }, { name: 1 }, { name: "x", description: 1 }, null]) {
    expect((await create(group)).status).toBe(400);
  }
  expect((await create({ name: "x", domain_id: "nowhere" })).status).toBe(404);
  const id = await newGroup("once");
  const second = await create({ name: "once" });
  expect([second.status, textAt(second, "error.message")]).toEqual([
    409,
    "Conflict occurred attempting to store group - Duplicate entry found with name once at domain ID default.",
  ]);
  const other = await newGroup("__proto__");
  const body = { group: { name: "once" } };
  expect((await call("PATCH", `/v3/groups/${other}`, { token: admin, body })).status).toBe(409);
  expect((await call("PATCH", `/v3/groups/${id}`, { token: admin, body })).status).toBe(200);
  expect(idsAt(await get("/v3/groups?name=__proto__"), "groups")).toEqual([other]);
  expect(idsAt(await get("/v3/groups?name__contains=nc"), "groups")).toEqual([id]);
});

test("memberships are made, seen from both sides, and ended", async () => {
  const group = await newGroup("crew");
  const user = await newUser("sailor");
  expect((await member("GET", group, user)).status).toBe(404);
  for (let index = 0; index < 2; index += 1) expect((await member("PUT", group, user)).status).toBe(204);
  expect((await member("GET", group, user)).status).toBe(204);
  expect((await member("HEAD", group, user)).status).toBe(204);
  expect(idsAt(await get(`/v3/groups/${group}/users`), "users")).toEqual([user]);
  expect(idsAt(await get(`/v3/groups/${group}/users?name=other`), "users")).toEqual([]);
  const ended = `/v3/groups/${group}/users?password_expires_at=lt:2020-01-01T00:00:00Z`;
  expect(idsAt(await get(ended), "users")).toEqual([]);
  const groups = await get(`/v3/users/${user}/groups`);
  expect(listAt(groups, "groups")).toMatchObject([{ id: group, name: "crew", membership_expires_at: null }]);
  expect(idsAt(await get(`/v3/users/${user}/groups?name=none`), "groups")).toEqual([]);
  expect((await member("DELETE", group, user)).status).toBe(204);
  const again = await member("DELETE", group, user);
  expect([again.status, textAt(again, "error.message")]).toEqual([404, `User '${user}' not found in group '${group}'`]);
  for (const [groupId, userId] of [
    ["nowhere", user],
    [group, "nowhere"],
  ] as const) {
    for (const method of ["PUT", "GET", "DELETE"]) expect((await member(method, groupId, userId)).status).toBe(404);
  }
  expect((await get("/v3/groups/nowhere/users")).status).toBe(404);
  expect((await get("/v3/users/nowhere/groups")).status).toBe(404);
});

test("a membership that a provider gave ends by itself, and one that is given by hand stays", async () => {
  const group = await newGroup("passing");
  const [gone, living] = [await newUser("gone"), await newUser("living")];
  const endsAtMs = Date.now() + 3_600_000;
  await sql(
    `INSERT INTO group_members VALUES ('${group}', '${gone}', ${Date.now() - 1})`,
    `INSERT INTO group_members VALUES ('${group}', '${living}', ${endsAtMs})`,
  );
  expect(idsAt(await get(`/v3/groups/${group}/users`), "users")).toEqual([living]);
  expect((await member("GET", group, gone)).status).toBe(404);
  const ends = listAt(await get(`/v3/users/${living}/groups`), "groups")[0]?.["membership_expires_at"];
  expect(Date.parse(`${String(ends)}Z`)).toBe(endsAtMs);
  expect((await member("PUT", group, living)).status).toBe(204);
  expect(listAt(await get(`/v3/users/${living}/groups`), "groups")[0]?.["membership_expires_at"]).toBeNull();
});

test("a right through a group begins and ends with the membership, and with the group", async () => {
  const group = await newGroup("readers");
  const user = await newUser("reader-by-group");
  const roles = await get("/v3/roles?name=reader");
  const project = textAt(
    await call("POST", "/v3/projects", { token: admin, body: { project: { name: "of-readers" } } }),
    "project.id",
  );
  await sql(
    `INSERT INTO assignments VALUES ('group', '${group}', 'project', '${project}', '${String(listAt(roles, "roles")[0]?.["id"])}', 0)`,
  );
  const asReader = () => login({ id: user, password: PASSWORD }, { project: { id: project } });
  const validates = async (token: string) =>
    (await call("GET", "/v3/auth/tokens", { token: admin, subject: token })).status;
  expect((await asReader()).status).toBe(401);
  expect((await member("PUT", group, user)).status).toBe(204);
  const first = tokenOf(await asReader());
  expect(await validates(first)).toBe(200);
  expect((await member("DELETE", group, user)).status).toBe(204);
  expect(await validates(first)).toBe(404);
  expect((await member("PUT", group, user)).status).toBe(204);
  const second = tokenOf(await asReader());
  expect(await validates(second)).toBe(200);
  expect((await call("DELETE", `/v3/groups/${group}`, { token: admin })).status).toBe(204);
  expect(await validates(second)).toBe(404);
  expect(idsAt(await get(`/v3/users/${user}/groups`), "groups")).toEqual([]);
});

test("a manager of a domain puts users of that domain, and no others, into its groups", async () => {
  const body = { domain: { name: "of-groups" } };
  const domainId = textAt(await call("POST", "/v3/domains", { token: admin, body }), "domain.id");
  const manager = await newUser("group-manager", { domain_id: domainId });
  const stranger = await newUser("stranger-to-groups");
  const foreign = await newGroup("foreign");
  const role = String(listAt(await get("/v3/roles?name=manager"), "roles")[0]?.["id"]);
  await sql(`INSERT INTO assignments VALUES ('user', '${manager}', 'domain', '${domainId}', '${role}', 0)`);
  const token = tokenOf(await login({ id: manager, password: PASSWORD }, { domain: { id: domainId } }));
  const made = await create({ name: "own" }, token);
  const own = textAt(made, "group.id");
  expect([made.status, at(made, "group.domain_id")]).toEqual([201, domainId]);
  expect((await create({ name: "own", domain_id: "default" }, token)).status).toBe(403);
  expect(idsAt(await get("/v3/groups", token), "groups")).toEqual([own]);
  expect((await member("PUT", own, manager, token)).status).toBe(204);
  expect((await member("PUT", own, stranger, token)).status).toBe(403);
  expect((await member("PUT", foreign, manager, token)).status).toBe(403);
  expect((await member("PUT", foreign, manager)).status).toBe(204);
  expect(idsAt(await get(`/v3/users/${manager}/groups`, token), "groups")).toEqual([own]);
  expect((await call("DELETE", `/v3/groups/${foreign}`, { token })).status).toBe(403);
  expect((await member("DELETE", own, manager, token)).status).toBe(204);
});

test("a user sees the own groups and manages none", async () => {
  const group = await newGroup("seen");
  const user = await newUser("seeing");
  expect((await member("PUT", group, user)).status).toBe(204);
  const token = tokenOf(await login({ id: user, password: PASSWORD }));
  const other = await newUser("unseen");
  expect((await get(`/v3/users/${user}/groups`, token)).status).toBe(200);
  expect((await get(`/v3/users/${other}/groups`, token)).status).toBe(403);
  expect((await get("/v3/groups", token)).status).toBe(403);
  expect((await get(`/v3/groups/${group}`, token)).status).toBe(403);
  expect((await member("PUT", group, other, token)).status).toBe(403);
  expect((await call("DELETE", `/v3/groups/${group}`, { token })).status).toBe(403);
});
