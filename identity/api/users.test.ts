import { randomBytes } from "node:crypto";
import { sql } from "kysely";
import { performance } from "node:perf_hooks";
import { withTransaction } from "../../common/sql/transaction.ts";
import type { IdentityDatabase } from "../store/records.ts";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ADMIN_SCOPE, ADMIN_USER, type Answer, at, createTestClient, listAt, textAt, tokenOf } from "../test-client.ts";
import { createTestInstallation, type TestInstallation } from "../test-service.ts";

let installation: TestInstallation;
let base = "";
let admin = "";
const { call, login, adminToken } = createTestClient(() => base);

const start = async (): Promise<void> => {
  const service = await installation.start();
  base = `http://127.0.0.1:${service.port}`;
  admin = await adminToken();
};

beforeAll(async () => {
  installation = createTestInstallation();
  await start();
});

afterAll(() => installation[Symbol.asyncDispose]());

const PASSWORD = "a user's password";
const create = (user: unknown, token = admin): Promise<Answer> => call("POST", "/v3/users", { token, body: { user } });
const update = (id: string, user: unknown, token = admin): Promise<Answer> =>
  call("PATCH", `/v3/users/${id}`, { token, body: { user } });
const newUser = async (name: string, fields: object = {}): Promise<string> =>
  textAt(await create({ name, password: PASSWORD, ...fields }), "user.id");
const loginAs = (id: string, password = PASSWORD, scope?: unknown): Promise<Answer> => login({ id, password }, scope);
const newDomain = async (name: string): Promise<string> =>
  textAt(await call("POST", "/v3/domains", { token: admin, body: { domain: { name } } }), "domain.id");
const roleId = async (name: string): Promise<string> =>
  String(listAt(await call("GET", `/v3/roles?name=${name}`, { token: admin }), "roles")[0]?.["id"]);

/** Beneath a service that is stopped, so that it has nothing in mind of before. */
const withDatabase = async <Result>(work: (database: IdentityDatabase) => Promise<Result>): Promise<Result> => {
  await installation.stop();
  const database = await installation.openDatabase();
  try {
    return await work(database);
  } finally {
    await database.destroy();
    await start();
  }
};

test("a user is created with what a client gives, and nothing that answers says a word of its password", async () => {
  const created = await create({
    name: "  bob ",
    password: PASSWORD,
    email: "bob@example.org",
    description: "d",
    options: { ignore_password_expiry: true, lock_password: null },
    password_expires_at: "2020-01-01T00:00:00",
    original_password: "typed here by mistake",
    default_project_id: "nowhere",
  });
  expect(created.status).toBe(201);
  const id = textAt(created, "user.id");
  expect(created.body).toEqual({
    user: {
      id,
      name: "bob",
      domain_id: "default",
      enabled: true,
      email: "bob@example.org",
      description: "d",
      default_project_id: "nowhere",
      password_expires_at: null,
      options: { ignore_password_expiry: true },
      links: { self: `${base}/v3/users/${id}` },
    },
  });
  expect((await call("GET", `/v3/users/${id}`, { token: admin })).body).toEqual(created.body);
  expect((await loginAs(id)).status).toBe(201);
  const kept = await installation.query(sql`SELECT * FROM users WHERE id = ${id}`);
  expect(JSON.stringify(kept)).not.toContain("mistake");
});

test("bad bodies are refused with 400 that says where, and create nothing", async () => {
  const bad: unknown[] = [
    {},
    { name: "" },
    { name: "   " },
    { name: null },
    { name: 7 },
    { name: "x".repeat(256) },
    { name: "y", enabled: "no" },
    { name: "y", enabled: null },
    { name: "y", domain_id: null },
    { name: "y", password: 7 },
    { name: "y", password: "p".repeat(4_097) },
    { name: "y", default_project_id: "default" },
    { name: "y", default_project_id: "" },
    { name: "y", options: { odd: 1 } },
    { name: "y", options: { lock_password: "yes" } },
    { name: "y", options: { multi_factor_auth_rules: [[]] } },
    { name: "y", options: { multi_factor_auth_rules: [["password"], ["password"]] } },
    { name: "y", options: { multi_factor_auth_rules: [["totp", "totp"]] } },
    { name: "y", federated: [{ idp_id: "nowhere", protocols: [{ protocol_id: "x", unique_id: "y" }] }] },
    { name: "y", federated: [{ idp_id: "nowhere", protocols: [] }] },
    "y",
    null,
  ];
  for (const user of bad) {
    const answer = await create(user);
    expect([answer.status, JSON.stringify(user).slice(0, 80)]).toEqual([400, JSON.stringify(user).slice(0, 80)]);
    expect(textAt(answer, "error.message")).not.toBe("");
  }
  expect((await call("POST", "/v3/users", { token: admin })).status).toBe(400);
  expect((await create({ name: "y", domain_id: "nowhere" })).status).toBe(404);
  expect(listAt(await call("GET", "/v3/users?name=y", { token: admin }), "users")).toEqual([]);
});

test("names that reach for prototypes are names like others", async () => {
  for (const name of ["__proto__", "constructor", "toString"]) {
    const id = await newUser(name, { [name === "toString" ? "valueOf" : "hasOwnProperty"]: "kept" });
    const found = await call("GET", `/v3/users?name=${name}`, { token: admin });
    expect(listAt(found, "users").map((user) => user["id"])).toEqual([id]);
  }
});

test("a name is unique in its domain, and free in another", async () => {
  const domainId = await newDomain("elsewhere");
  const id = await newUser("twice");
  const second = await create({ name: "twice" });
  expect([second.status, textAt(second, "error.message")]).toEqual([
    409,
    "Conflict occurred attempting to store user - Duplicate entry found with name twice at domain ID default.",
  ]);
  expect((await create({ name: "twice", domain_id: domainId })).status).toBe(201);
  const other = await newUser("thrice");
  expect((await update(other, { name: "twice" })).status).toBe(409);
  expect((await update(id, { name: "twice" })).status).toBe(200);
});

test("an update changes what it names and keeps the rest; domain and id are fixed", async () => {
  const id = await newUser("changing", { email: "a@example.org", options: { ignore_user_inactivity: true } });
  const changed = await update(id, {
    description: "e",
    options: { lock_password: true, ignore_user_inactivity: null },
  });
  expect(changed.status).toBe(200);
  expect(at(changed, "user")).toMatchObject({
    name: "changing",
    email: "a@example.org",
    description: "e",
    options: { lock_password: true },
  });
  expect(at(changed, "user.options")).toEqual({ lock_password: true });
  const project = listAt(await call("GET", "/v3/projects?name=admin", { token: admin }), "projects")[0]?.["id"];
  expect(at(await update(id, { default_project_id: project }), "user.default_project_id")).toBe(project);
  expect(at(await update(id, { default_project_id: null }), "user.default_project_id")).toBeUndefined();
  expect((await update(id, { default_project_id: "default" })).status).toBe(400);
  expect((await update(id, { domain_id: "nowhere" })).status).toBe(400);
  expect((await update(id, { domain_id: "default", id })).status).toBe(200);
  expect((await update(id, { id: "other" })).status).toBe(400);
  expect((await update(id, {})).status).toBe(400);
  expect((await update("nowhere", { name: "x" })).status).toBe(404);
});

test("a disabled user's tokens are void at once, and a login is refused until the user is enabled", async () => {
  const id = await newUser("switched");
  const token = tokenOf(await loginAs(id));
  expect((await call("GET", `/v3/users/${id}`, { token })).status).toBe(200);
  expect((await update(id, { enabled: false })).status).toBe(200);
  expect((await call("GET", `/v3/users/${id}`, { token })).status).toBe(401);
  expect((await loginAs(id)).status).toBe(401);
  expect((await update(id, { enabled: true })).status).toBe(200);
  expect((await loginAs(id)).status).toBe(201);
  expect((await call("GET", `/v3/users/${id}`, { token })).status).toBe(401);
});

test("a password that an administrator sets voids the user's tokens, and null takes the password away", async () => {
  const id = await newUser("reset");
  const token = tokenOf(await loginAs(id));
  expect((await update(id, { password: "another one" })).status).toBe(200);
  expect((await call("GET", `/v3/users/${id}`, { token })).status).toBe(401);
  expect((await loginAs(id)).status).toBe(401);
  expect((await loginAs(id, "another one")).status).toBe(201);
  expect((await update(id, { password: null })).status).toBe(200);
  for (const password of ["another one", "", "null"]) expect((await loginAs(id, password)).status).toBe(401);
});

test("an immutable user is neither changed nor deleted before it is released", async () => {
  const id = await newUser("fixed", { options: { immutable: true } });
  expect((await update(id, { description: "x" })).status).toBe(403);
  expect((await update(id, { description: "x", options: { immutable: false } })).status).toBe(403);
  expect((await call("DELETE", `/v3/users/${id}`, { token: admin })).status).toBe(403);
  expect((await update(id, { options: { immutable: null } })).status).toBe(200);
  expect((await call("DELETE", `/v3/users/${id}`, { token: admin })).status).toBe(204);
});

test("nothing of a deleted user is left in any table, and the user's tokens are void", async () => {
  const id = await newUser("going");
  const other = await newUser("staying");
  const token = tokenOf(await loginAs(id));
  const reader = await roleId("reader");
  const project = textAt(
    await call("POST", "/v3/projects", { token: admin, body: { project: { name: "of-going" } } }),
    "project.id",
  );
  const rows = `
      INSERT INTO groups VALUES ('g1', 'default', 'g1', '', '{}');
      INSERT INTO group_members VALUES ('g1', '${id}', NULL);
      INSERT INTO assignments VALUES ('user', '${id}', 'project', '${project}', '${reader}', 0);
      INSERT INTO credentials VALUES ('c1', 'cert', '${id}', NULL, NULL, '', '{}');
      INSERT INTO access_rules VALUES ('r1', '${id}', 'object-store', 'GET', '/v1');
      INSERT INTO application_credentials VALUES ('a1', '${id}', '${project}', 'a1', NULL, 'x', NULL, 0, NULL);
      INSERT INTO application_credential_rules VALUES ('a1', 'r1');
      INSERT INTO application_credential_roles VALUES ('a1', '${reader}');
      INSERT INTO trusts VALUES ('t1', '${id}', '${other}', '${project}', 0, NULL, NULL, 1, NULL, NULL, '{}');
      INSERT INTO trusts VALUES ('t2', '${other}', '${id}', '${project}', 0, NULL, NULL, 1, NULL, NULL, '{}');
      INSERT INTO trusts VALUES ('t3', '${other}', '${other}', '${project}', 0, NULL, NULL, 0, 't2', NULL, '{}');
      INSERT INTO trust_roles VALUES ('t3', '${reader}');
      INSERT INTO consumers VALUES ('k1', NULL, 's', '{}');
      INSERT INTO access_tokens VALUES ('o1', 's', '${id}', '${project}', '[]', 'k1', NULL);
      INSERT INTO identity_providers VALUES ('idp', 1, NULL, 'default', NULL, '{}');
      INSERT INTO federated_users VALUES ('${id}', 'idp', 'p', 'u', 'n')`;
  await withDatabase(async (database) => {
    for (const row of rows.split(";")) await sql.raw(row).execute(database);
  });
  const shown = await call("GET", `/v3/users/${id}`, { token: admin });
  expect(at(shown, "user.federated")).toEqual([{ idp_id: "idp", protocols: [{ protocol_id: "p", unique_id: "u" }] }]);
  for (const filter of ["idp_id=idp", "unique_id=u", "protocol_id=p&idp_id=idp"]) {
    const found = listAt(await call("GET", `/v3/users?${filter}`, { token: admin }), "users");
    expect(found.map((user) => user["id"])).toEqual([id]);
  }
  expect(listAt(await call("GET", "/v3/users?idp_id=idp&unique_id=x", { token: admin }), "users")).toEqual([]);
  expect((await call("DELETE", `/v3/users/${id}`, { token: admin })).status).toBe(204);
  expect((await call("GET", `/v3/users/${id}`, { token })).status).toBe(401);
  expect((await call("GET", `/v3/users/${id}`, { token: admin })).status).toBe(404);
  expect((await call("DELETE", `/v3/users/${id}`, { token: admin })).status).toBe(404);
  const left = await withDatabase(async (database) => {
    const found: string[] = [];
    for (const { name } of await database.introspection.getTables()) {
      const kept = JSON.stringify((await sql`SELECT * FROM ${sql.table(name)}`.execute(database)).rows);
      if (name !== "changes" && (kept.includes(id) || kept.includes('"t3"'))) found.push(name);
    }
    return found;
  });
  expect(left).toEqual([]);
});

test("a list is filtered by name with comparators, by domain, by state and by the password's end", async () => {
  const domainId = await newDomain("filtered");
  for (const name of ["anna", "Anton", "bert"]) await newUser(name, { domain_id: domainId });
  expect((await create({ name: "off", domain_id: domainId, enabled: false })).status).toBe(201);
  const names = async (query: string): Promise<unknown[]> => {
    const answer = await call("GET", `/v3/users?domain_id=${domainId}&sort_key=name&${query}`, { token: admin });
    return listAt(answer, "users").map((user) => user["name"]);
  };
  expect(await names("")).toEqual(["Anton", "anna", "bert", "off"]);
  expect(await names("name__startswith=an")).toEqual(["anna"]);
  expect(await names("name__icontains=AN")).toEqual(["Anton", "anna"]);
  expect(await names("enabled=false")).toEqual(["off"]);
  expect(await names("enabled")).toEqual(["Anton", "anna", "bert"]);
  expect(await names("sort_dir=desc&limit=2")).toEqual(["off", "bert"]);
  expect(await names("password_expires_at=gt:2020-01-01T00:00:00Z")).toEqual([]);
  expect((await call("GET", "/v3/users?password_expires_at=nonsense", { token: admin })).status).toBe(400);
  const next = textAt(await call("GET", `/v3/users?domain_id=${domainId}&limit=3`, { token: admin }), "links.next");
  expect(listAt(await call("GET", next.slice(base.length), { token: admin }), "users")).toHaveLength(1);
});

test("a token for a domain sees, makes and changes users of that domain only", async () => {
  const domainId = await newDomain("managed");
  const manager = await newUser("manager-of-managed", { domain_id: domainId });
  const role = await roleId("manager");
  await installation.stop();
  await installation.query(sql`INSERT INTO assignments VALUES ('user', ${manager}, 'domain', ${domainId}, ${role}, 0)`);
  await start();
  const token = tokenOf(await loginAs(manager, PASSWORD, { domain: { id: domainId } }));
  const seen = await call("GET", "/v3/users", { token });
  expect(listAt(seen, "users").map((user) => user["id"])).toEqual([manager]);
  expect(listAt(await call("GET", "/v3/users?domain_id=default", { token }), "users")).toEqual([]);
  const made = await create({ name: "made" }, token);
  expect([made.status, at(made, "user.domain_id")]).toEqual([201, domainId]);
  expect((await create({ name: "made", domain_id: "default" }, token)).status).toBe(403);
  const stranger = await newUser("stranger");
  expect((await update(stranger, { enabled: false }, token)).status).toBe(403);
  expect((await update(textAt(made, "user.id"), { enabled: false }, token)).status).toBe(200);
  expect((await call("DELETE", `/v3/users/${stranger}`, { token })).status).toBe(403);
  expect((await call("GET", `/v3/users/nowhere`, { token })).status).toBe(403);
});

test("who is nobody's administrator sees himself and no other", async () => {
  const id = await newUser("plain");
  const token = tokenOf(await loginAs(id));
  expect((await call("GET", `/v3/users/${id}`, { token })).status).toBe(200);
  const adminId = textAt(await login(ADMIN_USER, ADMIN_SCOPE), "token.user.id");
  expect((await call("GET", `/v3/users/${adminId}`, { token })).status).toBe(403);
  expect((await call("GET", "/v3/users", { token })).status).toBe(403);
  expect((await create({ name: "x" }, token)).status).toBe(403);
  expect((await update(id, { enabled: false }, token)).status).toBe(403);
  expect((await call("GET", "/v3/users")).status).toBe(401);
});

test("among ten thousand users a page of a thousand takes less than a tenth of a second", async () => {
  const ids = Array.from({ length: 10_000 }, () => randomBytes(16).toString("hex"));
  const users = ids.map((id, index) => ({ id, domain_id: "default", name: `many-${index}` }));
  const rest = { default_project_id: null, enabled: 1, options: "{}", extra: "{}", created_at_ms: 0 };
  const password = { hash: "x", created_at_ms: 0, expires_at_ms: null, self_service: 0 };
  await withDatabase((database) =>
    withTransaction(database, async (transaction) => {
      for (let start = 0; start < users.length; start += 500) {
        const slice = users.slice(start, start + 500);
        await transaction
          .insertInto("users")
          .values(slice.map((user) => ({ ...user, ...rest, last_active_at_ms: null, failed_login_count: 0 })))
          .execute();
        const passwords = slice.flatMap(({ id }) => Array.from({ length: 3 }, () => ({ user_id: id, ...password })));
        await transaction.insertInto("passwords").values(passwords).execute();
      }
    }),
  );
  let next = "/v3/users?limit=1000&name__startswith=many-";
  let count = 0;
  const times: number[] = [];
  for (let page = 0; page < 10; page += 1) {
    const startedMs = performance.now();
    const answer = await call("GET", next, { token: admin });
    times.push(performance.now() - startedMs);
    count += listAt(answer, "users").length;
    const link = at(answer, "links.next");
    next = typeof link === "string" ? link.slice(base.length) : "";
  }
  expect([count, next]).toEqual([10_000, ""]);
  // The middle one: what else runs on the machine slows some.
  expect(times.toSorted((left, right) => left - right)[5]).toBeLessThan(100);
});
