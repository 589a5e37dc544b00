import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestClient, textAt } from "../test-client.ts";
import { createTestInstallation } from "../test-service.ts";
import { decodeBase32, totpCode } from "./totp.ts";

const SEED = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const STEP_MS = 30_000;
const FAILURES_PER_MINUTE = 12;

const installation = createTestInstallation();
let base = "";
let admin = "";
let nowMs = Date.now();
let counter = 0;
const { call, authenticate, login, adminToken } = createTestClient(() => base);

beforeAll(async () => {
  const service = await installation.start({
    file: { identity: { login_failures_per_minute: FAILURES_PER_MINUTE } },
    nowMs: () => nowMs,
  });
  base = `http://127.0.0.1:${service.port}`;
  admin = await adminToken();
});

afterAll(() => installation[Symbol.asyncDispose]());

/** A user, and a minute without failures before. */
const newUser = async (): Promise<string> => {
  nowMs += 61_000;
  counter += 1;
  const user = { name: `user-${counter}`, password: "the password" };
  return textAt(await call("POST", "/v3/users", { token: admin, body: { user } }), "user.id");
};

/** How often each status was answered to so many calls at the same moment. */
const statusesOf = async (count: number, attempt: (index: number) => Promise<{ status: number }>) => {
  const counts: Record<number, number> = {};
  for (const { status } of await Promise.all(Array.from({ length: count }, (_, index) => attempt(index)))) {
    counts[status] = (counts[status] ?? 0) + 1;
  }
  return counts;
};

test("eighty wrong passwords at the same moment are judged as often as the limit says, and the right one is no exception", async () => {
  const id = await newUser();
  const counts = await statusesOf(80, (index) =>
    login({ id, password: index === 79 ? "the password" : `wrong ${index}` }),
  );
  // Some wait for the verdict on the first, and those for whom there is no room are told to come again.
  const { 401: judged = 0, 429: refused = 0, 503: sentAway = 0 } = counts;
  expect([judged, judged + refused + sentAway]).toEqual([FAILURES_PER_MINUTE, 80]);
  nowMs += 61_000;
  expect((await login({ id, password: "the password" })).status).toBe(201);
});

test("codes guessed at the same moment are judged as seldom as in a row", async () => {
  const id = await newUser();
  const credential = { type: "totp", blob: SEED, user_id: id };
  expect((await call("POST", "/v3/credentials", { token: admin, body: { credential } })).status).toBe(201);
  const secret = decodeBase32(SEED) ?? Buffer.alloc(0);
  const wrong = totpCode(secret, Math.floor(nowMs / STEP_MS) + 50);
  const byCode = () => authenticate({ methods: ["totp"], totp: { user: { id, passcode: wrong } } });
  const { 401: judged } = await statusesOf(40, byCode);
  expect(judged).toBe(2);
});

test("a password that is guessed where one changes the own one counts alike", async () => {
  const id = await newUser();
  const { 401: judged } = await statusesOf(40, (index) =>
    call("POST", `/v3/users/${id}/password`, { body: { user: { original_password: `x${index}`, password: "new" } } }),
  );
  expect(judged).toBe(FAILURES_PER_MINUTE);
});

test("a burst of right passwords is let in, beyond the limit of failures too", async () => {
  const id = await newUser();
  expect(await statusesOf(3 * FAILURES_PER_MINUTE, () => login({ id, password: "the password" }))).toEqual({
    201: 3 * FAILURES_PER_MINUTE,
  });
});
