import { afterEach, beforeEach, expect, test } from "vitest";
import { type Log, silentLog } from "../common/log.ts";
import { createTestClient, textAt } from "./test-client.ts";
import { createTestInstallation, type TestInstallation } from "./test-service.ts";

let installation: TestInstallation;
let base = "";
let lines: { readonly type: string; readonly event: unknown }[];
const { call, login, adminToken } = createTestClient(() => base);

beforeEach(async () => {
  lines = [];
  const auditLog: Log = {
    ...silentLog,
    info: (type, fields) => {
      lines.push({ type, event: (fields as { event: unknown }).event });
    },
  };
  installation = createTestInstallation();
  base = `http://127.0.0.1:${(await installation.start({ auditLog })).port}`;
});

afterEach(() => installation[Symbol.asyncDispose]());

const newUser = async (): Promise<string> => {
  const user = { name: "user", password: "the password" };
  const id = textAt(await call("POST", "/v3/users", { token: await adminToken(), body: { user } }), "user.id");
  lines = [];
  return id;
};
const changePassword = (id: string, original: string, chosen: string) =>
  call("POST", `/v3/users/${id}/password`, { body: { user: { original_password: original, password: chosen } } });

const refusalOf = (id: string) => ({
  type: "identity.authenticate",
  event: expect.objectContaining({
    action: "authenticate",
    outcome: "failure",
    reason: { reasonType: "identity", reasonCode: "wrong user or password" },
    initiator: expect.objectContaining({ id, host: { address: "127.0.0.1" } }),
    target: { typeURI: "data/security/account/user", id },
  }),
});

test("a wrong password is told of, at a login and where a user changes the own one, and never the password itself", async () => {
  const id = await newUser();
  expect((await login({ id, password: "guess one" })).status).toBe(401);
  expect((await changePassword(id, "guess two", "another")).status).toBe(401);
  expect((await changePassword("nobody", "guess three", "another")).status).toBe(401);
  expect(lines).toEqual([refusalOf(id), refusalOf(id), refusalOf("nobody")]);
  expect(JSON.stringify(lines)).not.toMatch(/guess|another/);
});

test("an own password that was changed is its owner's deed", async () => {
  const id = await newUser();
  expect((await changePassword(id, "the password", "another password")).status).toBe(204);
  expect(lines).toEqual([
    {
      type: "identity.user.updated",
      event: expect.objectContaining({
        outcome: "success",
        initiator: expect.objectContaining({ id, host: { address: "127.0.0.1" } }),
        target: { typeURI: "data/security/user", id },
      }),
    },
  ]);
});
