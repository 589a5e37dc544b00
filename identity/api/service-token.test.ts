import { afterAll, beforeAll, expect, test } from "vitest";
import { createIdentityClient } from "../client.ts";
import { at, createTestClient } from "../test-client.ts";
import { createTestInstallation, type TestInstallation } from "../test-service.ts";

let installation: TestInstallation;
let base = "";
const { call, login, adminToken } = createTestClient(() => base);

const start = async (): Promise<void> => {
  const service = await installation.start();
  base = `http://127.0.0.1:${service.port}`;
};

beforeAll(async () => {
  installation = createTestInstallation();
  await start();
});
afterAll(() => installation[Symbol.asyncDispose]());

test("a service has a user and a project of its own, the same whoever asks at once and after a restart", async () => {
  const client = () => createIdentityClient(installation.paths.socket("control"));
  const asked = await Promise.all([1, 2, 3].map(() => client().serviceToken("block")));
  await start();
  asked.push(await client().serviceToken("block"));
  expect(new Set(asked.map(({ projectId }) => projectId)).size).toBe(1);
  for (const { expiresInSeconds } of asked) expect(expiresInSeconds).toBeGreaterThan(0);
  const token = await adminToken();
  const shown = await call("GET", "/v3/auth/tokens", { token, subject: asked.at(-1)?.token ?? "" });
  expect(at(shown, "token.project.id")).toBe(asked[0]?.projectId);
  expect((at(shown, "token.roles") as { name: string }[]).map(({ name }) => name).toSorted()).toEqual([
    "member",
    "reader",
  ]);
  const userId = String(at(shown, "token.user.id"));
  const members = await call("GET", `/v3/role_assignments?scope.project.id=${String(asked[0]?.projectId)}`, { token });
  expect((at(members, "role_assignments") as { user: { id: string } }[]).map(({ user }) => user.id)).toEqual([userId]);
});

test("nobody logs in as a service", async () => {
  const { token } = await createIdentityClient(installation.paths.socket("control")).serviceToken("block");
  const shown = await call("GET", "/v3/auth/tokens", { token: await adminToken(), subject: token });
  for (const password of ["", "password"])
    expect((await login({ id: String(at(shown, "token.user.id")), password })).status).toBe(401);
});

test("the public port has no such operation", async () => {
  const answer = await call("POST", "/internal/service-token", {
    token: await adminToken(),
    body: { service: "block" },
  });
  expect(answer.status).toBe(404);
});
