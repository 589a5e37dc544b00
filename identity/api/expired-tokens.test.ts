import { afterAll, beforeAll, expect, test } from "vitest";
import { ADMIN_SCOPE, ADMIN_USER, at, createTestClient, textAt, tokenOf } from "../test-client.ts";
import { createTestInstallation, type TestInstallation } from "../test-service.ts";

const LIFETIME_SECONDS = 60;
const WINDOW_SECONDS = 600;

let installation: TestInstallation;
let base = "";
let offsetMs = 0;
const { call, login, adminToken } = createTestClient(() => base);

beforeAll(async () => {
  installation = createTestInstallation();
  const identity = { token_lifetime_seconds: LIFETIME_SECONDS, allow_expired_window_seconds: WINDOW_SECONDS };
  const service = await installation.start({ file: { identity }, nowMs: () => Date.now() + offsetMs });
  base = `http://127.0.0.1:${service.port}`;
});

afterAll(() => installation[Symbol.asyncDispose]());

/** As a service asks that goes on with what it began for a user. */
const look = async (subject: string, query = "?allow_expired=1") =>
  call("GET", `/v3/auth/tokens${query}`, { token: await adminToken(), subject });

const wait = (seconds: number): void => {
  offsetMs += seconds * 1000;
};

const loginAsNew = async (name: string) => {
  const body = { user: { name, password: "a password" } };
  const id = textAt(await call("POST", "/v3/users", { token: await adminToken(), body }), "user.id");
  return { id, token: tokenOf(await login({ id, password: "a password" })) };
};

test("a service learns for a while what a token was that ended under an operation, and nobody gets in with it", async () => {
  const issued = await login(ADMIN_USER, ADMIN_SCOPE);
  const token = tokenOf(issued);
  wait(LIFETIME_SECONDS + 1);
  expect((await look(token, "")).status).toBe(404);
  expect((await look(token, "?allow_expired=0")).status).toBe(404);
  const shown = await look(token);
  expect([shown.status, shown.body]).toEqual([200, issued.body]);
  expect((await call("GET", "/v3/auth/tokens?allow_expired=1", { token, subject: token })).status).toBe(401);
  const again = { methods: ["token"], token: { id: token } };
  expect((await call("POST", "/v3/auth/tokens", { body: { auth: { identity: again } } })).status).toBe(404);
  wait(WINDOW_SECONDS - 10);
  expect((await look(token)).status).toBe(200);
  wait(10);
  expect((await look(token)).status).toBe(404);
});

test("what ends a token ends it for operations under way too", async () => {
  const ended = await loginAsNew("disabled later");
  const revoked = await loginAsNew("revoked later");
  expect((await call("DELETE", "/v3/auth/tokens", { token: revoked.token, subject: revoked.token })).status).toBe(204);
  wait(LIFETIME_SECONDS + 1);
  expect([(await look(ended.token)).status, (await look(revoked.token)).status]).toEqual([200, 404]);
  const change = { user: { enabled: false } };
  expect((await call("PATCH", `/v3/users/${ended.id}`, { token: await adminToken(), body: change })).status).toBe(200);
  expect((await look(ended.token)).status).toBe(404);
});

test("a key that a body has twice counts as it came last, for who one is and for what is asked alike", async () => {
  const send = async (text: string) => {
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${base}/v3/auth/tokens`, { method: "POST", headers, body: text });
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
  };
  const user = (name: string) =>
    `{"user":{"name":"${name}","domain":{"id":"default"},"password":${JSON.stringify(ADMIN_USER.password)}}}`;
  const identity = (name: string) => `{"methods":["password"],"password":${user(name)}}`;
  const twice = (first: string, second: string): string =>
    `{"auth":{"identity":${identity(first)},"identity":${identity(second)}}}`;
  const known = await send(twice("nobody", "admin"));
  expect([known.status, at(known, "token.user.name")]).toEqual([201, "admin"]);
  expect((await send(twice("admin", "nobody"))).status).toBe(401);
});

test("bodies that are deep, wide or reach for prototypes cost no more than a refusal", async () => {
  const token = await adminToken();
  const deep = `${"[".repeat(50_000)}${"]".repeat(50_000)}`;
  const wide = `{${Array.from({ length: 8_000 }, (_, index) => `"k${index}":0`).join()}}`;
  const bodies: readonly [text: string, status: number][] = [
    [`{"user":{"name":"bomb","extra":${deep}}}`, 400],
    [deep, 400],
    [`{"auth":${wide}}`, 400],
    [`{"user":{"__proto__":{"name":"bomb"}}}`, 400],
    [`{"user":{"constructor":{"prototype":{"name":"bomb"}}}}`, 400],
    [`"${"x".repeat(120_000)}"`, 413],
  ];
  for (const [body, status] of bodies) {
    const headers = { "content-type": "application/json", "x-auth-token": token };
    const response = await fetch(`${base}/v3/users`, { method: "POST", headers, body });
    expect([body.slice(0, 40), response.status]).toEqual([body.slice(0, 40), status]);
  }
  expect(({} as Record<string, unknown>)["name"]).toBeUndefined();
  expect((await call("GET", "/v3/users?name=bomb", { token })).body["users"]).toEqual([]);
});
