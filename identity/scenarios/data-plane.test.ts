import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { TestInstallation } from "../../scripts/scenarios/installation.ts";
import { listAt, textAt, tokenOf } from "../test-client.ts";
import { adminSession } from "./cloud-session.ts";

/** What an event takes to reach the proxy: far below the second that is promised, but machines are busy. */
const REACHED = { timeout: 10_000, interval: 20 };
const SILENCE = { timeout: 60_000, interval: 250 };

const installation = new TestInstallation();
let session: Awaited<ReturnType<typeof adminSession>>;
const roleIds = new Map<string, string>();
let counter = 0;

type Person = { readonly id: string; readonly projectId: string; readonly token: string; readonly grant: string };

const person = async (role: string): Promise<Person> => {
  counter += 1;
  const { call, login, token } = session;
  const project = await call("POST", "/v3/projects", { token, body: { project: { name: `p${counter}` } } });
  const user = await call("POST", "/v3/users", { token, body: { user: { name: `u${counter}`, password: "pw" } } });
  const [projectId, id] = [textAt(project, "project.id"), textAt(user, "user.id")];
  const grant = `/v3/projects/${projectId}/users/${id}/roles`;
  await call("PUT", `${grant}/${roleIds.get(role)}`, { token });
  const scoped = await login({ id, password: "pw" }, { project: { id: projectId } });
  return { id, projectId, token: tokenOf(scoped), grant };
};

const store = async (method: string, { token, projectId }: Person, path = ""): Promise<number> => {
  const response = await fetch(`${session.objectUrl}/AUTH_${projectId}${path}`, {
    method,
    headers: { "x-auth-token": token },
  });
  await response.arrayBuffer();
  return response.status;
};

const controlPid = (): number => {
  const control = installation.ready().processes.find(({ role }) => role.split(",").includes("identity"));
  if (control === undefined) throw new Error("no control process");
  return control.pid;
};

beforeAll(async () => {
  writeFileSync(join(installation.folder, "cluster.toml"), "revocation_grace_seconds = 2\n");
  await installation.up();
  session = await adminSession(installation.folder);
  const roles = await session.call("GET", "/v3/roles", { token: session.token });
  for (const { id, name } of listAt(roles, "roles")) roleIds.set(String(name), String(id));
});

afterAll(() => installation[Symbol.asyncDispose]());

it("a role that is taken away is taken away from tokens that are under way, and what is left goes on", async () => {
  const alice = await person("member");
  const { call, token } = session;
  expect(await store("PUT", alice, "/box")).toBe(201);
  await call("PUT", `${alice.grant}/${roleIds.get("reader")}`, { token });
  await call("DELETE", `${alice.grant}/${roleIds.get("member")}`, { token });
  await expect.poll(() => store("PUT", alice, "/other"), REACHED).toBe(403);
  expect(await store("GET", alice, "/box")).toBe(204);
  await call("DELETE", `${alice.grant}/${roleIds.get("reader")}`, { token });
  await expect.poll(() => store("GET", alice, "/box"), REACHED).toBe(401);
});

it("a disabled user, a changed password, a disabled project, a disabled domain and a revoked token end tokens", async () => {
  const { call, token } = session;
  const deeds: readonly ((who: Person) => Promise<{ readonly status: number }>)[] = [
    ({ id }) => call("PATCH", `/v3/users/${id}`, { token, body: { user: { enabled: false } } }),
    ({ id }) =>
      call("POST", `/v3/users/${id}/password`, { body: { user: { password: "new", original_password: "pw" } } }),
    ({ projectId }) => call("PATCH", `/v3/projects/${projectId}`, { token, body: { project: { enabled: false } } }),
    (who) => call("DELETE", "/v3/auth/tokens", { token: who.token, subject: who.token }),
    ({ id }) => call("DELETE", `/v3/users/${id}`, { token }),
  ];
  for (const [index, deed] of deeds.entries()) {
    const who = await person("member");
    const bystander = await person("member");
    expect([index, await store("HEAD", who)]).toEqual([index, 204]);
    expect([index, [200, 204].includes((await deed(who)).status)]).toEqual([index, true]);
    await expect.poll(() => store("HEAD", who), REACHED).toBe(401);
    expect([index, await store("HEAD", bystander)]).toEqual([index, 204]);
  }
});

it("an application credential's access rules hold in the object store", async () => {
  const alice = await person("member");
  const { call, authenticate } = session;
  await store("PUT", alice, "/box");
  const made = await call("POST", `/v3/users/${alice.id}/application_credentials`, {
    token: alice.token,
    body: {
      application_credential: {
        name: "look",
        access_rules: [{ service: "object-store", method: "GET", path: `/v1/AUTH_${alice.projectId}/box` }],
      },
    },
  });
  const id = textAt(made, "application_credential.id");
  const secret = textAt(made, "application_credential.secret");
  const limited = await authenticate({
    methods: ["application_credential"],
    application_credential: { id, secret },
  });
  const who = { ...alice, token: tokenOf(limited) };
  expect(await store("GET", who, "/box")).toBe(204);
  expect(await store("GET", who)).toBe(401);
  expect(await store("GET", who, "/b%6fx")).toBe(204);
  expect(await store("GET", who, "/box/secret")).toBe(401);
  expect(await store("GET", who, "/box%2fsecret")).not.toBe(200);
  expect(await store("PUT", who, "/box")).toBe(401);
  await call("DELETE", `/v3/users/${alice.id}/application_credentials/${id}`, { token: alice.token });
  await expect.poll(() => store("GET", who, "/box"), REACHED).toBe(401);
});

it("without the identity process tokens serve on until revocation_grace_seconds have passed, and again when it is back", async () => {
  const alice = await person("member");
  expect(await store("HEAD", alice)).toBe(204);
  const pid = controlPid();
  process.kill(pid, "SIGSTOP");
  try {
    expect(await store("HEAD", alice)).toBe(204);
    await expect.poll(() => store("HEAD", alice), SILENCE).toBe(503);
  } finally {
    process.kill(pid, "SIGCONT");
  }
  await expect.poll(() => store("HEAD", alice), SILENCE).toBe(204);
});

it("a killed identity process is replaced, and what was revoked before stays revoked", async () => {
  const [alice, bob] = [await person("member"), await person("member")];
  expect([await store("HEAD", alice), await store("HEAD", bob)]).toEqual([204, 204]);
  await session.call("DELETE", "/v3/auth/tokens", { token: alice.token, subject: alice.token });
  const pid = controlPid();
  process.kill(pid, "SIGKILL");
  await expect.poll(async () => (await session.call("GET", "/v3").catch(() => undefined))?.status, SILENCE).toBe(200);
  expect(controlPid()).not.toBe(pid);
  await expect.poll(() => store("HEAD", bob), SILENCE).toBe(204);
  await expect.poll(() => store("HEAD", alice), REACHED).toBe(401);
  expect(await store("HEAD", bob)).toBe(204);
});

it("keys are rotated under live tokens, and secrets stay readable", async () => {
  const alice = await person("member");
  const { code, output } = await installation.command("identity", "rotate-keys");
  expect([code, output]).toEqual([0, expect.stringContaining("signs tokens in 15 seconds")]);
  expect(await store("HEAD", alice)).toBe(204);
  const later = await person("member");
  expect(await store("HEAD", later)).toBe(204);
  expect((await installation.command("identity", "doctor")).code).toBe(0);
});
