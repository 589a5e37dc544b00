import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { decodeBase32, totpCode } from "../authentication/totp.ts";
import { type Answer, at, createTestClient, textAt, tokenOf } from "../test-client.ts";
import { createTestInstallation, type TestInstallation } from "../test-service.ts";

const SEED = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const STEP_MS = 30_000;

let installation: TestInstallation;
let base = "";
let nowMs = Date.now();
let admin = "";
let counter = 0;
const { call, authenticate, login, rescope, adminToken } = createTestClient(() => base);

/** A user with an authenticator. */
const person = async (options: object = {}): Promise<string> => {
  counter += 1;
  const user = { name: `person-${counter}`, password: "pw", options };
  const id = textAt(await call("POST", "/v3/users", { token: admin, body: { user } }), "user.id");
  const credential = { type: "totp", blob: SEED, user_id: id };
  expect((await call("POST", "/v3/credentials", { token: admin, body: { credential } })).status).toBe(201);
  return id;
};

const codeAt = (atMs: number): string => totpCode(decodeBase32(SEED) ?? Buffer.alloc(0), Math.floor(atMs / STEP_MS));
const codeOf = (user: object, passcode: string) => ({ methods: ["totp"], totp: { user: { ...user, passcode } } });
const byCode = (id: string, passcode = codeAt(nowMs)): Promise<Answer> => authenticate(codeOf({ id }, passcode));
const withReceipt = (identity: object, receipt: string): Promise<Answer> =>
  call("POST", "/v3/auth/tokens", { body: { auth: { identity } }, headers: { "openstack-auth-receipt": receipt } });
const receiptOf = (answer: Answer): string => answer.headers.get("openstack-auth-receipt") ?? "";

const BOTH = { multi_factor_auth_rules: [["password", "totp"]], multi_factor_auth_enabled: true };

beforeAll(async () => {
  installation = createTestInstallation();
  const service = await installation.start({
    file: { identity: { login_failures_per_minute: 30 } },
    nowMs: () => nowMs,
  });
  base = `http://127.0.0.1:${service.port}`;
});

// Another step for each test, and a minute without failures; the administrator's token would not live through it.
beforeEach(async () => {
  nowMs += 10 * STEP_MS;
  admin = await adminToken();
});

afterAll(() => installation[Symbol.asyncDispose]());

test("a code of now or of the step before logs in, each of them once", async () => {
  const id = await person();
  const answer = await byCode(id);
  expect([answer.status, at(answer, "token.methods"), at(answer, "token.user.id")]).toEqual([201, ["totp"], id]);
  expect((await byCode(id)).status).toBe(401);
  expect((await byCode(id, codeAt(nowMs - STEP_MS))).status).toBe(201);
  expect((await byCode(id, codeAt(nowMs - STEP_MS))).status).toBe(401);
  expect((await byCode(id, codeAt(nowMs - 2 * STEP_MS))).status).toBe(401);
  expect((await byCode(id, codeAt(nowMs + STEP_MS))).status).toBe(401);
});

test("of many who bring one code at the same moment one is let in", async () => {
  const id = await person();
  const answers = await Promise.all(Array.from({ length: 8 }, () => byCode(id)));
  expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
});

test("a code that was used stays used when the service starts anew", async () => {
  const id = await person();
  expect((await byCode(id)).status).toBe(201);
  const service = await installation.start({ nowMs: () => nowMs });
  base = `http://127.0.0.1:${service.port}`;
  expect((await byCode(id)).status).toBe(401);
});

test("a user who is not there, has no authenticator or has nonsense for a seed is refused alike", async () => {
  const bare = textAt(
    await call("POST", "/v3/users", { token: admin, body: { user: { name: "bare", password: "pw" } } }),
    "user.id",
  );
  const broken = { type: "totp", blob: "not base32!", user_id: bare };
  for (const id of ["nobody", bare]) expect((await byCode(id)).status).toBe(401);
  expect((await call("POST", "/v3/credentials", { token: admin, body: { credential: broken } })).status).toBe(201);
  expect((await byCode(bare)).status).toBe(401);
});

test("a login by code without a code, or with what is none, is a bad request", async () => {
  const id = await person();
  for (const totp of [
    {},
    { user: { id } },
    { user: { id, passcode: 123_456 } },
    { user: { passcode: "123456" } },
    "x",
  ]) {
    expect((await authenticate({ methods: ["totp"], totp })).status).toBe(400);
  }
  expect((await byCode(id, "１２３４５６")).status).toBe(401);
});

test("guessing codes ends long before it could succeed, and does not lock the password", async () => {
  const id = await person();
  const wrong = codeAt(nowMs + 50 * STEP_MS);
  const statuses: number[] = [];
  for (let count = 0; count < 12; count += 1) statuses.push((await byCode(id, wrong)).status);
  expect(statuses.filter((status) => status === 401).length).toBeLessThanOrEqual(10);
  expect(statuses.at(-1)).toBe(429);
  expect((await login({ id, password: "pw" })).status).toBe(201);
});

test("who lacks a factor gets a receipt that says what is missing, and completes the login with it", async () => {
  const id = await person(BOTH);
  const first = await login({ id, password: "pw" });
  expect(first.status).toBe(401);
  expect(first.headers.get("www-authenticate")).toBeNull();
  expect(first.body).toMatchObject({
    receipt: { methods: ["password"], user: { id, domain: { id: "default", name: "Default" } } },
    required_auth_methods: [["password", "totp"]],
  });
  const second = await withReceipt(codeOf({ id }, codeAt(nowMs)), receiptOf(first));
  expect([second.status, at(second, "token.methods")]).toEqual([201, ["password", "totp"]]);
  // What was proved goes on with the token.
  expect((await rescope(tokenOf(second))).status).toBe(201);
});

test("both factors in one request need no receipt", async () => {
  const id = await person(BOTH);
  const answer = await authenticate({
    methods: ["password", "totp"],
    password: { user: { id, password: "pw" } },
    totp: codeOf({ id }, codeAt(nowMs)).totp,
  });
  expect(answer.status).toBe(201);
});

test("a receipt is no token, a token is no receipt, and neither is an altered receipt", async () => {
  const id = await person(BOTH);
  const receipt = receiptOf(await login({ id, password: "pw" }));
  expect((await call("GET", "/v3/auth/tokens", { token: admin, subject: receipt })).status).toBe(404);
  expect((await call("GET", "/v3/auth/projects", { token: receipt })).status).toBe(401);
  for (const other of [admin, "nonsense", `${receipt.slice(0, -4)}AAAA`, "x".repeat(5_000)]) {
    const answer = await withReceipt(codeOf({ id }, codeAt(nowMs)), other);
    expect([answer.status, at(answer, "error.message")]).toEqual([401, "Could not find auth receipt."]);
    nowMs += STEP_MS;
  }
});

test("a receipt is for its user alone and for five minutes", async () => {
  const id = await person(BOTH);
  const other = await person(BOTH);
  const receipt = receiptOf(await login({ id, password: "pw" }));
  expect((await withReceipt(codeOf({ id: other }, codeAt(nowMs)), receipt)).status).toBe(401);
  nowMs += 302_000;
  expect((await withReceipt(codeOf({ id }, codeAt(nowMs)), receipt)).status).toBe(401);
});

test("a receipt ends with the password that it was given for", async () => {
  const id = await person(BOTH);
  const receipt = receiptOf(await login({ id, password: "pw" }));
  expect((await call("PATCH", `/v3/users/${id}`, { token: admin, body: { user: { password: "new" } } })).status).toBe(
    200,
  );
  expect((await withReceipt(codeOf({ id }, codeAt(nowMs)), receipt)).status).toBe(401);
});

test("a wrong password gets no receipt, and a disabled user neither", async () => {
  const id = await person(BOTH);
  const wrong = await login({ id, password: "x" });
  expect([wrong.status, receiptOf(wrong)]).toEqual([401, ""]);
  await call("PATCH", `/v3/users/${id}`, { token: admin, body: { user: { enabled: false } } });
  const disabled = await login({ id, password: "pw" });
  expect([disabled.status, receiptOf(disabled)]).toEqual([401, ""]);
});

test("a limited login is not remembered by a receipt, or its limits would be forgotten", async () => {
  const id = await person();
  const before = tokenOf(await login({ id, password: "pw" }));
  const rules = { options: { multi_factor_auth_rules: [["token", "totp"]] } };
  expect((await call("PATCH", `/v3/users/${id}`, { token: admin, body: { user: rules } })).status).toBe(200);
  const renewed = await rescope(before);
  expect([renewed.status, receiptOf(renewed) === "" ? [] : at(renewed, "receipt.methods")]).toEqual([
    401,
    ["password"],
  ]);
  const completed = await withReceipt(codeOf({ id }, codeAt(nowMs)), receiptOf(renewed));
  expect(completed.status).toBe(401);
});
