import { request as httpRequest } from "node:http";
import { type RawBuilder, sql } from "kysely";
import { afterAll, beforeEach, expect, test } from "vitest";
import { type Answer, at, createTestClient, textAt, tokenOf } from "../test-client.ts";
import { createTestInstallation } from "../test-service.ts";

const DAY_MS = 86_400_000;
const installation = createTestInstallation();
let base = "";
let admin = "";
let offsetMs = 0;
let count = 0;
const { call, login, adminToken } = createTestClient(() => base);

afterAll(() => installation[Symbol.asyncDispose]());

beforeEach(() => {
  offsetMs = 0;
});

/** The service with this table `[identity]`. */
const startWith = async (identity: Record<string, unknown>): Promise<void> => {
  const service = await installation.start({ file: { identity }, nowMs: () => Date.now() + offsetMs });
  base = `http://127.0.0.1:${service.port}`;
  admin = await adminToken();
};

/** Also where time has passed and the token of before is over. */
const update = async (id: string, user: object): Promise<Answer> =>
  call("PATCH", `/v3/users/${id}`, { token: await adminToken(), body: { user } });
const create = (fields: object = {}): Promise<Answer> => {
  count += 1;
  return call("POST", "/v3/users", {
    token: admin,
    body: { user: { name: `user-${count}`, password: "first-pw-1", ...fields } },
  });
};
const newUser = async (fields: object = {}): Promise<string> => textAt(await create(fields), "user.id");
const change = (id: string, original_password: string, password: string): Promise<Answer> =>
  call("POST", `/v3/users/${id}/password`, { body: { user: { original_password, password } } });
const loginStatus = async (id: string, password: string): Promise<number> => (await login({ id, password })).status;
const show = async (id: string): Promise<Answer> => call("GET", `/v3/users/${id}`, { token: await adminToken() });
const expiresAtMs = async (id: string): Promise<number> =>
  Date.parse(`${textAt(await show(id), "user.password_expires_at")}Z`);

const rowOf = async (statement: RawBuilder<Record<string, unknown>>): Promise<Record<string, unknown> | undefined> =>
  (await installation.query(statement))[0];

test("who knows a password changes it without a token, and tokens got with the old one are void", async () => {
  await startWith({});
  const id = await newUser();
  const token = tokenOf(await login({ id, password: "first-pw-1" }));
  expect((await change(id, "first-pw-1", "second-pw-2")).status).toBe(204);
  expect((await call("GET", `/v3/users/${id}`, { token })).status).toBe(401);
  expect([await loginStatus(id, "first-pw-1"), await loginStatus(id, "second-pw-2")]).toEqual([401, 201]);
  // The user's own choice again: nothing was said of a history.
  expect((await change(id, "second-pw-2", "second-pw-2")).status).toBe(204);
});

test("a change is refused with a wrong password, of nobody, of the disabled, and with a body that is not right", async () => {
  await startWith({});
  const id = await newUser();
  const off = await newUser({ enabled: false });
  const wrong = await change(id, "wrong", "x");
  const nobody = await change("nowhere", "wrong", "x");
  expect([wrong.status, nobody.status, (await change(off, "first-pw-1", "x")).status]).toEqual([401, 401, 401]);
  expect(wrong.body).toEqual(nobody.body);
  const bodies = [
    {},
    { password: "x" },
    { original_password: "first-pw-1" },
    { original_password: "first-pw-1", password: null },
    { original_password: 1, password: "x" },
    { original_password: "first-pw-1", password: "x", more: 1 },
    { original_password: "first-pw-1", password: "x".repeat(4_097) },
  ];
  for (const user of bodies) {
    expect((await call("POST", `/v3/users/${id}/password`, { body: { user } })).status).toBe(400);
  }
  expect(await loginStatus(id, "first-pw-1")).toBe(201);
});

test("a locked password is changed by administrators only", async () => {
  await startWith({});
  const id = await newUser({ options: { lock_password: true } });
  const refused = await change(id, "first-pw-1", "second-pw-2");
  expect([refused.status, textAt(refused, "error.message")]).toEqual([
    400,
    expect.stringContaining("password policy disallowing password changes"),
  ]);
  expect((await update(id, { password: "second-pw-2" })).status).toBe(200);
  expect(await loginStatus(id, "second-pw-2")).toBe(201);
});

test("a new password must match the operator's expression from its beginning, whoever sets it", async () => {
  await startWith({ password_regex: "[a-z]+-pw-\\d$", password_regex_description: "letters, -pw-, a digit" });
  const message = "The password does not match the requirements: letters, -pw-, a digit.";
  for (const password of ["short", "1first-pw-1", "first-pw-12"]) {
    const refused = await create({ password });
    expect([refused.status, at(refused, "error.message")]).toEqual([400, message]);
  }
  const id = await newUser();
  expect(at(await change(id, "first-pw-1", "short"), "error.message")).toBe(message);
  expect(at(await update(id, { password: "short" }), "error.message")).toBe(message);
  expect((await change(id, "first-pw-1", "second-pw-2")).status).toBe(204);
});

test("a password that was used before is refused as long as the history reaches", async () => {
  await startWith({ unique_last_password_count: 2 });
  const id = await newUser();
  const refused = await change(id, "first-pw-1", "first-pw-1");
  expect([refused.status, textAt(refused, "error.message")]).toEqual([
    400,
    "The new password cannot be identical to a previous password. The total number which includes the new password must be unique is 2.",
  ]);
  expect((await change(id, "first-pw-1", "second-pw-2")).status).toBe(204);
  expect((await change(id, "second-pw-2", "first-pw-1")).status).toBe(400);
  expect((await change(id, "second-pw-2", "third-pw-3")).status).toBe(204);
  expect((await change(id, "third-pw-3", "second-pw-2")).status).toBe(400);
  expect((await change(id, "third-pw-3", "first-pw-1")).status).toBe(204);
  expect(await rowOf(sql`SELECT COUNT(*) AS count FROM passwords WHERE user_id = ${id}`)).toEqual({ count: 2 });
  // An administrator is not held to it.
  expect((await update(id, { password: "first-pw-1" })).status).toBe(200);
});

test("a password that its owner chose is kept for its least age", async () => {
  await startWith({ minimum_password_age_days: 2 });
  const id = await newUser();
  expect((await change(id, "first-pw-1", "second-pw-2")).status).toBe(204);
  offsetMs = DAY_MS / 2;
  const refused = await change(id, "second-pw-2", "third-pw-3");
  expect([refused.status, textAt(refused, "error.message")]).toEqual([400, expect.stringContaining("in 1 day(s)")]);
  offsetMs = 2 * DAY_MS + 1_000;
  expect((await change(id, "second-pw-2", "third-pw-3")).status).toBe(204);
});

test("a password ends after its days, says when, and can then only be changed", async () => {
  await startWith({ password_expires_days: 3 });
  const id = await newUser();
  const exempt = await newUser({ options: { ignore_password_expiry: true } });
  const late = await newUser();
  expect(Math.abs((await expiresAtMs(id)) - Date.now() - 3 * DAY_MS)).toBeLessThan(60_000);
  expect(at(await show(exempt), "user.password_expires_at")).toBeNull();
  const limit = new Date(Date.now() + 4 * DAY_MS).toISOString();
  const found = await call("GET", `/v3/users?password_expires_at=lt:${limit}&limit=100`, { token: admin });
  expect(JSON.stringify(found.body)).toContain(id);
  expect(JSON.stringify(found.body)).not.toContain(exempt);
  const session = await login({ id, password: "first-pw-1" });
  expect(Date.parse(textAt(session, "token.user.password_expires_at"))).toBe(await expiresAtMs(id));
  expect((await update(late, { options: { ignore_password_expiry: true } })).status).toBe(200);
  offsetMs = 3 * DAY_MS + 1_000;
  const refused = await login({ id, password: "first-pw-1" });
  expect([refused.status, textAt(refused, "error.message")]).toEqual([
    401,
    `The password is expired and needs to be changed for user: ${id}.`,
  ]);
  expect(textAt(await login({ id, password: "wrong" }), "error.message")).not.toContain("expired");
  expect([await loginStatus(exempt, "first-pw-1"), await loginStatus(late, "first-pw-1")]).toEqual([201, 201]);
  expect((await change(id, "first-pw-1", "second-pw-2")).status).toBe(204);
  expect(await loginStatus(id, "second-pw-2")).toBe(201);
});

test("a password that an administrator set is good for nothing but setting another, where the operator says so", async () => {
  await startWith({ change_password_upon_first_use: true });
  const id = await newUser();
  const exempt = await newUser({ options: { ignore_change_password_upon_first_use: true } });
  expect([await loginStatus(id, "first-pw-1"), await loginStatus(exempt, "first-pw-1")]).toEqual([401, 201]);
  expect(await expiresAtMs(id)).toBeLessThanOrEqual(Date.now());
  expect((await change(id, "first-pw-1", "second-pw-2")).status).toBe(204);
  expect(await loginStatus(id, "second-pw-2")).toBe(201);
  expect((await update(id, { password: "third-pw-3" })).status).toBe(200);
  expect(await loginStatus(id, "third-pw-3")).toBe(401);
  expect((await update(id, { options: { ignore_change_password_upon_first_use: true } })).status).toBe(200);
  expect(await loginStatus(id, "third-pw-3")).toBe(201);
});

test("too many failed logins lock a user for a while, the right password too, and a login forgives them", async () => {
  await startWith({ lockout_failure_attempts: 3, lockout_duration_seconds: 600 });
  const id = await newUser();
  const exempt = await newUser({ options: { ignore_lockout_failure_attempts: true } });
  const count = () => rowOf(sql`SELECT failed_login_count AS count FROM users WHERE id = ${id}`);
  for (let index = 0; index < 2; index += 1) expect(await loginStatus(id, "wrong")).toBe(401);
  expect(await count()).toEqual({ count: 2 });
  expect(await loginStatus(id, "first-pw-1")).toBe(201);
  expect(await count()).toEqual({ count: 0 });
  for (let index = 0; index < 3; index += 1) {
    expect([await loginStatus(id, "wrong"), await loginStatus(exempt, "wrong")]).toEqual([401, 401]);
  }
  const locked = await login({ id, password: "first-pw-1" });
  const wrong = await login({ id: "nowhere", password: "first-pw-1" });
  expect([locked.status, locked.body]).toEqual([401, wrong.body]);
  expect((await change(id, "first-pw-1", "second-pw-2")).status).toBe(401);
  expect(await loginStatus(exempt, "first-pw-1")).toBe(201);
  offsetMs = 601_000;
  expect(await loginStatus(id, "wrong")).toBe(401);
  expect(await count()).toEqual({ count: 1 });
  expect(await loginStatus(id, "first-pw-1")).toBe(201);
});

test("guesses that are made at the same time are counted like any", async () => {
  await startWith({ lockout_failure_attempts: 3, login_failures_per_minute: 1_000 });
  const id = await newUser();
  const guesses = Array.from({ length: 12 }, (_, index) => loginStatus(id, index === 11 ? "first-pw-1" : "wrong"));
  expect(new Set(await Promise.all(guesses))).toEqual(new Set([401]));
});

test("an administrator who enables a locked user forgives", async () => {
  await startWith({ lockout_failure_attempts: 1 });
  const id = await newUser();
  expect([await loginStatus(id, "wrong"), await loginStatus(id, "first-pw-1")]).toEqual([401, 401]);
  expect((await update(id, { enabled: true })).status).toBe(200);
  expect(await loginStatus(id, "first-pw-1")).toBe(201);
});

test("who has not logged in for the operator's days counts as disabled, until an administrator enables the user", async () => {
  await startWith({ disable_user_account_days_inactive: 10 });
  const id = await newUser();
  const busy = await newUser();
  const exempt = await newUser({ options: { ignore_user_inactivity: true } });
  const administrator = textAt(await call("GET", "/v3/auth/tokens", { token: admin, subject: admin }), "token.user.id");
  await update(administrator, { options: { ignore_user_inactivity: true } });
  offsetMs = 6 * DAY_MS;
  expect(await loginStatus(busy, "first-pw-1")).toBe(201);
  offsetMs = 11 * DAY_MS;
  expect([at(await show(id), "user.enabled"), at(await show(busy), "user.enabled")]).toEqual([false, true]);
  const off = await call("GET", "/v3/users?enabled=false", { token: await adminToken() });
  expect(JSON.stringify(off.body)).toContain(id);
  expect(JSON.stringify(off.body)).not.toContain(busy);
  // Twice: that the password was right is no activity.
  for (let index = 0; index < 2; index += 1) expect(await loginStatus(id, "first-pw-1")).toBe(401);
  expect([await loginStatus(busy, "first-pw-1"), await loginStatus(exempt, "first-pw-1")]).toEqual([201, 201]);
  expect((await update(id, { enabled: true })).status).toBe(200);
  expect(await loginStatus(id, "first-pw-1")).toBe(201);
});

/** The status of a login from an address of the loopback network. */
const loginFrom = (localAddress: string, user: object): Promise<number> =>
  new Promise((resolve, reject) => {
    const { hostname, port } = new URL(base);
    const body = JSON.stringify({ auth: { identity: { methods: ["password"], password: { user } } } });
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
    const options = { hostname, port, localAddress, headers, method: "POST", path: "/v3/auth/tokens" };
    const request = httpRequest(options, (response) => {
      response.resume();
      response.on("end", () => resolve(response.statusCode ?? 0));
    });
    request.on("error", reject);
    request.end(body);
  });

test("failed logins of one user are limited, from wherever, and whether named by id or by name", async () => {
  await startWith({ login_failures_per_minute: 3 });
  const created = await create();
  const id = textAt(created, "user.id");
  const other = await newUser();
  const byName = { name: textAt(created, "user.name"), domain: { id: "default" }, password: "wrong" };
  expect(await loginFrom("127.0.0.2", { id, password: "wrong" })).toBe(401);
  expect(await loginFrom("127.0.0.3", byName)).toBe(401);
  expect((await change(id, "wrong", "x")).status).toBe(401);
  for (const user of [{ id, password: "first-pw-1" }, byName]) expect(await loginFrom("127.0.0.4", user)).toBe(429);
  const refused = await change(id, "first-pw-1", "x");
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "60"]);
  expect(await loginFrom("127.0.0.4", { id: other, password: "first-pw-1" })).toBe(201);
  offsetMs = 61_000;
  expect(await loginStatus(id, "first-pw-1")).toBe(201);
});

test("failed logins from one address are limited, whoever is named", async () => {
  await startWith({ login_failures_per_minute: 3 });
  const id = await newUser();
  for (const name of ["nobody", "admin", "anybody"]) {
    expect(await loginFrom("127.0.0.2", { name, domain: { id: "default" }, password: "wrong" })).toBe(401);
  }
  expect(await loginFrom("127.0.0.2", { id, password: "first-pw-1" })).toBe(429);
  expect(await loginFrom("127.0.0.3", { id, password: "first-pw-1" })).toBe(201);
});

test("a password that was hashed with less than is asked for now is hashed anew at the next login", async () => {
  await startWith({ password_hash_passes: 2 });
  const id = await newUser();
  const hashOf = async () => String((await rowOf(sql`SELECT hash FROM passwords WHERE user_id = ${id}`))?.["hash"]);
  expect(await hashOf()).toContain("m=19456,t=2,p=1");
  await startWith({ password_hash_passes: 3 });
  expect(await loginStatus(id, "wrong")).toBe(401);
  expect(await hashOf()).toContain("m=19456,t=2,p=1");
  expect(await loginStatus(id, "first-pw-1")).toBe(201);
  const stronger = await hashOf();
  expect(stronger).toContain("m=19456,t=3,p=1");
  expect(await loginStatus(id, "first-pw-1")).toBe(201);
  expect(await hashOf()).toBe(stronger);
});
