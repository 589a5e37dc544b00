import { afterAll, beforeAll, expect, test } from "vitest";
import { at, createTestClient, textAt, tokenOf } from "./test-client.ts";
import { createTestInstallation } from "./test-service.ts";

const ROLES = 26;
const ROLE_NAME_CHARACTERS = 255;

const installation = createTestInstallation();
let base = "";
let admin = "";
const { call, login, adminToken } = createTestClient(() => base);
const send = (method: string, path: string, body?: unknown) => call(method, path, { token: admin, body });

beforeAll(async () => {
  base = `http://127.0.0.1:${(await installation.start()).port}`;
  admin = await adminToken();
});

afterAll(() => installation[Symbol.asyncDispose]());

test("a token is given as long as services read it, and beyond that an error says that it names too many roles", async () => {
  const user = { name: "busy", password: "pw" };
  const id = textAt(await send("POST", "/v3/users", { user }), "user.id");
  const projectId = textAt(await send("POST", "/v3/projects", { project: { name: "busy" } }), "project.id");
  const scope = { project: { id: projectId } };
  let given = 0;
  let refusal: unknown;
  for (let count = 1; count <= ROLES; count += 1) {
    const role = { name: `role-${count}-`.padEnd(ROLE_NAME_CHARACTERS, "x") };
    const roleId = textAt(await send("POST", "/v3/roles", { role }), "role.id");
    await send("PUT", `/v3/projects/${projectId}/users/${id}/roles/${roleId}`);
    const answer = await login({ id, password: "pw" }, scope);
    if (refusal !== undefined || answer.status !== 201) {
      expect(answer.status).toBe(403);
      refusal = at(answer, "error.message");
      expect(refusal).toContain(`it names ${count} roles`);
      continue;
    }
    given = count;
    const token = tokenOf(answer);
    // Both headers are as long as they can be.
    expect((await call("GET", "/v3/auth/tokens", { token, subject: token })).status).toBe(200);
  }
  expect(given).toBeGreaterThan(20);
  expect(refusal).toMatch(/would have \d{4,5} characters, more than the 8192 that services read/);
  expect((await login({ id, password: "pw" }, "unscoped")).status).toBe(201);
});
