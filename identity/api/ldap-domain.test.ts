import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ldapContractEntries, ldapContractOptions } from "../store/ldap-contract-entries.ts";
import { SlapdFixture, whyNoSlapd } from "../store/slapd-fixture.ts";
import { type Answer, at, createTestClient, listAt, textAt, tokenOf } from "../test-client.ts";
import { createTestInstallation, type TestInstallation } from "../test-service.ts";

const reason = whyNoSlapd();

describe.skipIf(reason !== undefined)(`a domain with a directory${reason === undefined ? "" : ` (${reason})`}`, () => {
  let server: SlapdFixture;
  let installation: TestInstallation;
  let base = "";
  let admin = "";
  let domainId = "";
  const { call, login, adminToken } = createTestClient(() => base);

  beforeAll(async () => {
    server = await SlapdFixture.start(ldapContractEntries());
    installation = createTestInstallation();
    base = `http://127.0.0.1:${(await installation.start()).port}`;
    admin = await adminToken();
    const body = { domain: { name: "directory" } };
    domainId = textAt(await call("POST", "/v3/domains", { token: admin, body }), "domain.id");
    const config = { identity: { driver: "ldap" }, ldap: ldapContractOptions(server.url) };
    expect((await send("PUT", `/v3/domains/${domainId}/config`, { config })).status).toBe(201);
  });

  afterAll(async () => {
    await installation[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });

  const send = (method: string, path: string, body?: unknown): Promise<Answer> =>
    call(method, path, { token: admin, ...(body === undefined ? {} : { body }) });
  const get = (path: string): Promise<Answer> => send("GET", path);
  const userId = async (name: string): Promise<string> =>
    String(listAt(await get(`/v3/users?domain_id=${domainId}&name=${name}`), "users")[0]?.["id"]);
  const loginAs = (name: string, scope?: unknown): Promise<Answer> =>
    login({ name, domain: { id: domainId }, password: `${name.toLowerCase()}'s password` }, scope);

  test("its users are listed, shown, and log in with the directory's passwords", async () => {
    const users = listAt(await get(`/v3/users?domain_id=${domainId}&sort_key=name`), "users");
    expect(users.map((user) => user["name"]).slice(0, 3)).toEqual(["Alan", "alice", "bob"]);
    const id = await userId("alice");
    expect(at(await get(`/v3/users/${id}`), "user")).toEqual({
      id,
      name: "alice",
      domain_id: domainId,
      enabled: true,
      email: "alice@example.org",
      password_expires_at: null,
      options: {},
      links: { self: `${base}/v3/users/${id}` },
    });
    const session = await loginAs("alice");
    expect([session.status, at(session, "token.user.domain.id")]).toEqual([201, domainId]);
    expect((await login({ id, password: "wrong" })).status).toBe(401);
    expect((await login({ id, password: "" })).status).toBe(401);
    expect((await loginAs("bob")).status).toBe(401);
    expect((await login({ name: "alice*", domain: { id: domainId }, password: "alice's password" })).status).toBe(401);
  });

  test("roles of its users and groups hold as those of others", async () => {
    const role = String(listAt(await get("/v3/roles?name=reader"), "roles")[0]?.["id"]);
    const project = textAt(await send("POST", "/v3/projects", { project: { name: "of-directory" } }), "project.id");
    const group = String(listAt(await get(`/v3/groups?domain_id=${domainId}&name=staff`), "groups")[0]?.["id"]);
    const scope = { project: { id: project } };
    expect((await loginAs("Alan", scope)).status).toBe(401);
    expect((await send("PUT", `/v3/projects/${project}/groups/${group}/roles/${role}`)).status).toBe(204);
    const session = await loginAs("Alan", scope);
    expect([session.status, listAt(session, "token.roles").map((one) => one["name"])]).toEqual([201, ["reader"]]);
    const members = listAt(await get(`/v3/groups/${group}/users?enabled=true`), "users").map((user) => user["name"]);
    expect(new Set(members)).toEqual(new Set(["Alan", "alice"]));
    const alan = await userId("Alan");
    expect(listAt(await get(`/v3/users/${alan}/groups`), "groups").map((one) => one["id"])).toEqual([group]);
    expect((await send("HEAD", `/v3/groups/${group}/users/${alan}`)).status).toBe(204);
    expect((await call("GET", `/v3/users/${alan}`, { token: tokenOf(session) })).status).toBe(200);
  });

  test("nothing of it is written", async () => {
    const alice = await userId("alice");
    const staff = String(listAt(await get(`/v3/groups?domain_id=${domainId}&name=staff`), "groups")[0]?.["id"]);
    const local = textAt(await send("POST", "/v3/users", { user: { name: "local" } }), "user.id");
    const change = { user: { original_password: "alice's password", password: "x" } };
    const refused = [
      await send("POST", "/v3/users", { user: { name: "x", domain_id: domainId } }),
      await send("PATCH", `/v3/users/${alice}`, { user: { enabled: false } }),
      await send("DELETE", `/v3/users/${alice}`),
      await send("POST", "/v3/groups", { group: { name: "x", domain_id: domainId } }),
      await send("PATCH", `/v3/groups/${staff}`, { group: { name: "x" } }),
      await send("DELETE", `/v3/groups/${staff}`),
      await send("PUT", `/v3/groups/${staff}/users/${alice}`),
      await send("PUT", `/v3/groups/${staff}/users/${local}`),
      await send("DELETE", `/v3/groups/${staff}/users/${alice}`),
      await call("POST", `/v3/users/${alice}/password`, { body: change }),
    ];
    expect(refused.map(({ status }) => status)).toEqual(refused.map(() => 403));
    expect((await loginAs("alice")).status).toBe(201);
  });

  test("while it is away role assignments are listed without its names and members, and say so; what decides on rights answers 503", async () => {
    const role = String(listAt(await get("/v3/roles?name=reader"), "roles")[0]?.["id"]);
    const project = textAt(await send("POST", "/v3/projects", { project: { name: "listed" } }), "project.id");
    const group = String(listAt(await get(`/v3/groups?domain_id=${domainId}&name=staff`), "groups")[0]?.["id"]);
    const [alice, alan, bob] = [await userId("alice"), await userId("Alan"), await userId("bob")];
    const local = textAt(await send("POST", "/v3/users", { user: { name: "local too" } }), "user.id");
    for (const actor of [`groups/${group}`, `users/${alice}`, `users/${local}`]) {
      expect((await send("PUT", `/v3/projects/${project}/${actor}/roles/${role}`)).status).toBe(204);
    }
    const path = `/v3/role_assignments?scope.project.id=${project}&include_names`;
    const actorsOf = (answer: Answer) =>
      listAt(answer, "role_assignments").map((one) => {
        const actor = (one["user"] ?? one["group"]) as { id: string; name: string };
        return `${actor.id} ${actor.name}`;
      });
    const granted = [`${group} staff`, `${alice} alice`, `${local} local too`];
    const effective = [`${alan} Alan`, `${alice} alice`, `${alice} alice`, `${bob} bob`, `${local} local too`].sort();
    const session = tokenOf(await loginAs("Alan", { project: { id: project } }));
    expect(session).not.toBe("");
    expect(actorsOf(await get(path)).sort()).toEqual(granted.sort());
    expect(actorsOf(await get(`${path}&effective`)).sort()).toEqual(effective);
    await server.stop();
    try {
      // What was read a moment ago is known for a second.
      const nameless = [`${group} `, `${alice} `, `${local} local too`].sort();
      await expect.poll(async () => actorsOf(await get(path)).sort(), { timeout: 5_000 }).toEqual(nameless);
      const listed = await get(path);
      expect([listed.status, at(listed, "truncated")]).toEqual([200, true]);
      const expanded = await get(`${path}&effective`);
      expect([expanded.status, at(expanded, "truncated")]).toEqual([200, true]);
      expect(actorsOf(expanded).sort()).toEqual([`${alice} `, `${local} local too`].sort());
      // Grants as they were made need no directory.
      const bare = await get(`/v3/role_assignments?scope.project.id=${project}`);
      expect([listAt(bare, "role_assignments").length, at(bare, "truncated")]).toEqual([3, undefined]);
      // One user's rights, and a token, are whole or not given.
      expect((await get(`/v3/role_assignments?user.id=${alan}&effective`)).status).toBe(503);
      const own = () => call("GET", "/v3/auth/tokens", { token: session, subject: session });
      await expect.poll(async () => (await own()).status, { timeout: 5_000 }).toBe(503);
      expect((await loginAs("Alan", { project: { id: project } })).status).toBe(503);
    } finally {
      await server.run();
    }
    await expect
      .poll(async () => actorsOf(await get(`${path}&effective`)).sort(), { timeout: 10_000 })
      .toEqual(effective);
    expect(at(await get(`${path}&effective`), "truncated")).toBeUndefined();
  });

  test("while it is away its users are answered 503, everybody else is served", async () => {
    const alice = await userId("alice");
    const session = tokenOf(await loginAs("alice"));
    await server.stop();
    try {
      expect((await loginAs("alice")).status).toBe(503);
      await expect.poll(async () => (await get(`/v3/users/${alice}`)).status, { timeout: 5_000 }).toBe(503);
      expect((await call("GET", `/v3/users/${alice}`, { token: session })).status).toBe(503);
      expect((await get("/v3/users")).status).toBe(200);
      expect(await adminToken()).not.toBe("");
    } finally {
      await server.run();
    }
    await expect.poll(async () => (await loginAs("alice")).status, { timeout: 10_000 }).toBe(201);
  });
});
