import { createHmac } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Answer, at, createTestClient, DEFAULT_DOMAIN, listAt, textAt, tokenOf } from "../test-client.ts";
import { createTestInstallation, type TestInstallation } from "../test-service.ts";

let installation: TestInstallation;
let base = "";
let offsetMs = 0;
const { call, authenticate, login, rescope, adminToken } = createTestClient(() => base);

let admin = "";
let counter = 0;
const roles = new Map<string, string>();

type Person = { id: string; projectId: string; token: string; password: string; name: string };

/** A user with roles on a project of its own. */
const person = async (...roleNames: string[]): Promise<Person> => {
  counter += 1;
  const name = `person-${counter}`;
  const project = await call("POST", "/v3/projects", { token: admin, body: { project: { name } } });
  const projectId = textAt(project, "project.id");
  const made = await call("POST", "/v3/users", { token: admin, body: { user: { name, password: "pw" } } });
  const id = textAt(made, "user.id");
  for (const role of roleNames) {
    const grant = `/v3/projects/${projectId}/users/${id}/roles/${roles.get(role)}`;
    expect((await call("PUT", grant, { token: admin })).status).toBe(204);
  }
  const token = tokenOf(await login({ id, password: "pw" }, { project: { id: projectId } }));
  return { id, projectId, token, password: "pw", name };
};

const byCredential = (credential: object): Promise<Answer> =>
  authenticate({ methods: ["application_credential"], application_credential: credential });

const roleNames = (answer: Answer): string[] => listAt(answer, "token.roles").map(({ name }) => String(name));

beforeAll(async () => {
  installation = createTestInstallation();
  const service = await installation.start({ nowMs: () => Date.now() + offsetMs });
  base = `http://127.0.0.1:${service.port}`;
  admin = await adminToken();
  const list = await call("GET", "/v3/roles", { token: admin });
  for (const { id, name } of listAt(list, "roles")) roles.set(String(name), String(id));
});

afterAll(() => installation[Symbol.asyncDispose]());

test("an application credential logs in with the roles it was given, by id or by name, and no others", async () => {
  const alice = await person("member");
  const path = `/v3/users/${alice.id}/application_credentials`;
  const made = await call("POST", path, {
    token: alice.token,
    body: { application_credential: { name: "bot", roles: [{ name: "reader" }], description: "d" } },
  });
  expect(made.status).toBe(201);
  const id = textAt(made, "application_credential.id");
  const secret = textAt(made, "application_credential.secret");
  for (const credential of [
    { id, secret },
    { name: "bot", user: { id: alice.id }, secret },
    { name: "bot", user: { name: alice.name, domain: DEFAULT_DOMAIN }, secret },
  ]) {
    const answer = await byCredential(credential);
    expect([answer.status, roleNames(answer)]).toEqual([201, ["reader"]]);
    expect(answer.body["token"]).toMatchObject({
      methods: ["application_credential"],
      project: { id: alice.projectId },
      application_credential: { id, name: "bot", restricted: true },
    });
  }
  expect((await byCredential({ id, secret: "wrong" })).status).toBe(401);
  expect((await byCredential({ id: "0".repeat(32), secret })).status).toBe(401);
  const shown = await call("GET", `${path}/${id}`, { token: alice.token });
  expect(shown.body["application_credential"]).not.toHaveProperty("secret");
  expect(JSON.stringify(shown.body)).not.toContain("argon2");
});

test("roles that the token lacks, a name twice and a time gone by are refused", async () => {
  const alice = await person("member");
  const path = `/v3/users/${alice.id}/application_credentials`;
  const make = (fields: object, token = alice.token) =>
    call("POST", path, { token, body: { application_credential: fields } });
  expect((await make({ name: "a", roles: [{ name: "admin" }] })).status).toBe(400);
  expect((await make({ name: "a", roles: [{}] })).status).toBe(400);
  expect((await make({ name: "a", expires_at: "2001-01-01T00:00:00" })).status).toBe(400);
  expect((await make({ name: "a", expires_at: "soon" })).status).toBe(400);
  expect((await make({ roles: [] })).status).toBe(400);
  expect((await make({ name: "a", access_rules: [{ service: "compute", method: "BREW", path: "/" }] })).status).toBe(
    400,
  );
  expect((await make({ name: "a" })).status).toBe(201);
  expect((await make({ name: "a" })).status).toBe(409);
  expect((await make({ name: "b" }, admin)).status).toBe(403);
});

test("a restricted credential makes no further ones, an unrestricted one does", async () => {
  const alice = await person("member");
  const path = `/v3/users/${alice.id}/application_credentials`;
  const tokenFor = async (name: string, unrestricted: boolean): Promise<string> => {
    const made = await call("POST", path, {
      token: alice.token,
      body: { application_credential: { name, unrestricted } },
    });
    const id = textAt(made, "application_credential.id");
    const secret = textAt(made, "application_credential.secret");
    return tokenOf(await byCredential({ id, secret }));
  };
  const make = (token: string, name: string) =>
    call("POST", path, { token, body: { application_credential: { name } } });
  expect((await make(await tokenFor("tight", false), "x")).status).toBe(403);
  expect((await make(await tokenFor("free", true), "y")).status).toBe(201);
});

test("a credential ends with its time, with its deletion at once, and a lost role is lost to it", async () => {
  const alice = await person("member", "reader");
  const path = `/v3/users/${alice.id}/application_credentials`;
  const make = async (fields: object) => {
    const made = await call("POST", path, { token: alice.token, body: { application_credential: fields } });
    const id = textAt(made, "application_credential.id");
    const secret = textAt(made, "application_credential.secret");
    return { id, secret };
  };
  const short = await make({ name: "short", expires_at: new Date(Date.now() + 600_000).toISOString() });
  const limited = await byCredential(short);
  expect(Date.parse(textAt(limited, "token.expires_at"))).toBeLessThan(Date.now() + 601_000);
  const other = await make({ name: "other" });
  const token = tokenOf(await byCredential(other));
  expect((await call("GET", "/v3/auth/tokens", { token: admin, subject: token })).status).toBe(200);
  expect((await call("DELETE", `${path}/${other.id}`, { token: alice.token })).status).toBe(204);
  expect((await call("GET", "/v3/auth/tokens", { token: admin, subject: token })).status).toBe(404);
  expect((await byCredential(other)).status).toBe(401);
  offsetMs = 601_000;
  expect((await byCredential(short)).status).toBe(401);
  offsetMs = 0;
});

test("access rules stand in the token, outlive their credential, and cannot go while it uses them", async () => {
  const alice = await person("member");
  const rule = { service: "object-store", method: "GET", path: "/v1/**" };
  const path = `/v3/users/${alice.id}`;
  const made = await call("POST", `${path}/application_credentials`, {
    token: alice.token,
    body: { application_credential: { name: "bot", access_rules: [rule, rule] } },
  });
  const id = textAt(made, "application_credential.id");
  const secret = textAt(made, "application_credential.secret");
  const answer = await byCredential({ id, secret });
  expect(at(answer, "token.application_credential.access_rules")).toEqual([rule]);
  const list = await call("GET", `${path}/access_rules?service=object-store`, { token: alice.token });
  expect(list.body["access_rules"]).toHaveLength(1);
  const ruleId = String(listAt(list, "access_rules")[0]?.["id"]);
  expect((await call("DELETE", `${path}/access_rules/${ruleId}`, { token: alice.token })).status).toBe(403);
  await call("DELETE", `${path}/application_credentials/${id}`, { token: alice.token });
  expect((await call("GET", `${path}/access_rules/${ruleId}`, { token: alice.token })).status).toBe(200);
  expect((await call("DELETE", `${path}/access_rules/${ruleId}`, { token: alice.token })).status).toBe(204);
  expect((await call("GET", `${path}/access_rules/${ruleId}`, { token: alice.token })).status).toBe(404);
});

const trustOf = (trustor: Person, trustee: Person, fields: object = {}): Promise<Answer> =>
  call("POST", "/v3/OS-TRUST/trusts", {
    token: trustor.token,
    body: {
      trust: {
        trustor_user_id: trustor.id,
        trustee_user_id: trustee.id,
        project_id: trustor.projectId,
        impersonation: false,
        roles: [{ name: "member" }],
        ...fields,
      },
    },
  });

const byTrust = (who: Person, trustId: string): Promise<Answer> =>
  rescope(who.token, { "OS-TRUST:trust": { id: trustId } });

test("a trustee acts with the trustor's roles, as himself or as the trustor", async () => {
  const [alice, bob, carol] = [await person("member"), await person("reader"), await person("member")];
  for (const impersonation of [false, true]) {
    const made = await trustOf(alice, bob, { impersonation });
    expect(made.status).toBe(201);
    const trustId = textAt(made, "trust.id");
    const answer = await byTrust(bob, trustId);
    expect([answer.status, roleNames(answer)]).toEqual([201, ["member", "reader"]]);
    expect(answer.body["token"]).toMatchObject({
      user: { id: impersonation ? alice.id : bob.id },
      project: { id: alice.projectId },
      "OS-TRUST:trust": { id: trustId, trustor_user: { id: alice.id }, trustee_user: { id: bob.id }, impersonation },
    });
    expect((await byTrust(carol, trustId)).status).toBe(403);
    expect((await rescope(tokenOf(answer), { project: { id: alice.projectId } })).status).toBe(403);
    expect((await call("GET", `/v3/OS-TRUST/trusts/${trustId}`, { token: carol.token })).status).toBe(403);
    expect((await call("DELETE", `/v3/OS-TRUST/trusts/${trustId}`, { token: bob.token })).status).toBe(403);
    expect((await call("DELETE", `/v3/OS-TRUST/trusts/${trustId}`, { token: alice.token })).status).toBe(204);
    expect((await call("GET", `/v3/OS-TRUST/trusts/${trustId}`, { token: alice.token })).status).toBe(404);
    const subject = tokenOf(answer);
    expect((await call("GET", "/v3/auth/tokens", { token: admin, subject })).status).toBe(404);
    expect((await byTrust(bob, trustId)).status).toBe(403);
  }
});

test("a trust gives no role that the trustor lacks or has lost, and no more uses than it says", async () => {
  const [alice, bob] = [await person("member"), await person("reader")];
  expect((await trustOf(alice, bob, { roles: [{ name: "admin" }] })).status).toBe(404);
  expect((await trustOf(alice, bob, { roles: [] })).status).toBe(403);
  expect((await trustOf(alice, bob, { trustor_user_id: bob.id })).status).toBe(403);
  expect((await trustOf(alice, bob, { remaining_uses: 0 })).status).toBe(400);
  const twice = textAt(await trustOf(alice, bob, { remaining_uses: 2 }), "trust.id");
  expect((await byTrust(bob, twice)).status).toBe(201);
  expect((await byTrust(bob, twice)).status).toBe(201);
  expect((await byTrust(bob, twice)).status).toBe(403);
  const trustId = textAt(await trustOf(alice, bob), "trust.id");
  const token = tokenOf(await byTrust(bob, trustId));
  const grant = `/v3/projects/${alice.projectId}/users/${alice.id}/roles/${roles.get("member")}`;
  expect((await call("DELETE", grant, { token: admin })).status).toBe(204);
  expect((await byTrust(bob, trustId)).status).toBe(403);
  expect((await call("GET", "/v3/auth/tokens", { token: admin, subject: token })).status).toBe(404);
});

test("a trust is handed on as often as it allows, and all fall with the first", async () => {
  const [alice, bob, carol, dave] = [
    await person("member"),
    await person("reader"),
    await person("reader"),
    await person("reader"),
  ];
  const redelegable = { impersonation: true, allow_redelegation: true, redelegation_count: 1 };
  const first = textAt(await trustOf(alice, bob, redelegable), "trust.id");
  const handOn = async (from: Person, trustId: string, to: Person, fields: object = {}): Promise<Answer> =>
    call("POST", "/v3/OS-TRUST/trusts", {
      token: tokenOf(await byTrust(from, trustId)),
      body: {
        trust: {
          trustor_user_id: alice.id,
          trustee_user_id: to.id,
          project_id: alice.projectId,
          impersonation: true,
          roles: [{ name: "member" }],
          allow_redelegation: true,
          ...fields,
        },
      },
    });
  const second = await handOn(bob, first, carol);
  expect(second.status).toBe(201);
  expect(second.body["trust"]).toMatchObject({ redelegated_trust_id: first, redelegation_count: 0 });
  const secondId = textAt(second, "trust.id");
  expect((await handOn(carol, secondId, dave)).status).toBe(403);
  expect((await byTrust(carol, secondId)).status).toBe(201);
  expect((await call("DELETE", `/v3/OS-TRUST/trusts/${first}`, { token: alice.token })).status).toBe(204);
  expect((await byTrust(carol, secondId)).status).toBe(403);
});

test("an EC2 key signs in every version, and only as long as its signature is young", async () => {
  const alice = await person("member");
  const made = await call("POST", `/v3/users/${alice.id}/credentials/OS-EC2`, {
    token: alice.token,
    body: { tenant_id: alice.projectId },
  });
  expect(made.status).toBe(201);
  const access = textAt(made, "credential.access");
  const secret = textAt(made, "credential.secret");
  const timestamp = new Date().toISOString().replace(/\.\d+/, "");
  const params = { AWSAccessKeyId: access, Action: "Do Something*", SignatureVersion: "2", Timestamp: timestamp };
  const query = `AWSAccessKeyId=${access}&Action=Do%20Something%2A&SignatureMethod=HmacSHA256&SignatureVersion=2&Timestamp=${encodeURIComponent(timestamp)}`;
  const sign = (host: string) => createHmac("sha256", secret).update(`GET\n${host}\n/\n${query}`).digest("base64");
  const ask = (signature: string, more: object = {}) =>
    call("POST", "/v3/ec2tokens", {
      token: admin,
      body: { credentials: { access, signature, host: "cloud:8773", verb: "GET", path: "/", params, ...more } },
    });
  for (const host of ["cloud:8773", "cloud"]) {
    const answer = await ask(sign(host));
    expect([answer.status, at(answer, "token.project.id")]).toEqual([200, alice.projectId]);
    expect((await call("GET", "/v3/auth/tokens", { token: admin, subject: tokenOf(answer) })).status).toBe(200);
  }
  expect((await ask(sign("elsewhere"))).status).toBe(401);
  expect((await ask("")).status).toBe(401);
  offsetMs = 16 * 60_000;
  expect((await ask(sign("cloud"))).status).toBe(401);
  offsetMs = 0;
  const text = Buffer.from("PUT\n\n\n\n/bucket/key");
  const s3 = createHmac("sha1", secret).update(text).digest("base64");
  const body = { credentials: { access, signature: s3, token: text.toString("base64url") } };
  expect((await call("POST", "/v3/s3tokens", { token: admin, body })).status).toBe(200);
  expect((await call("POST", "/v3/s3tokens", { token: alice.token, body })).status).toBe(403);
  expect(
    (await call("DELETE", `/v3/users/${alice.id}/credentials/OS-EC2/${access}`, { token: alice.token })).status,
  ).toBe(204);
  expect((await ask(sign("cloud"))).status).toBe(401);
});

test("credentials are kept for their owners, and shown to nobody else", async () => {
  const [alice, bob] = [await person("member"), await person("member")];
  const make = (who: Person, fields: object) =>
    call("POST", "/v3/credentials", { token: who.token, body: { credential: fields } });
  const made = await make(alice, { type: "cert", blob: "säcret", user_id: alice.id, further: "kept" });
  expect(made.body["credential"]).toMatchObject({ type: "cert", blob: "säcret", further: "kept", project_id: null });
  const id = textAt(made, "credential.id");
  expect((await make(bob, { type: "cert", blob: "x", user_id: alice.id })).status).toBe(403);
  expect((await make(alice, { type: "ec2", blob: "x", user_id: alice.id, project_id: alice.projectId })).status).toBe(
    400,
  );
  expect((await call("GET", `/v3/credentials/${id}`, { token: bob.token })).status).toBe(403);
  expect((await call("GET", "/v3/credentials", { token: bob.token })).body["credentials"]).toEqual([]);
  expect((await call("GET", "/v3/credentials", { token: alice.token })).body["credentials"]).toHaveLength(1);
  const patched = await call("PATCH", `/v3/credentials/${id}`, {
    token: alice.token,
    body: { credential: { blob: "new" } },
  });
  expect(patched.body["credential"]).toMatchObject({ blob: "new" });
  expect((await call("DELETE", `/v3/credentials/${id}`, { token: alice.token })).status).toBe(204);
});

test("a trust is handed on for its own project only, and its token gives no right over other trusts", async () => {
  const [alice, bob, carol] = [await person("member"), await person("reader"), await person("reader")];
  const grant = `/v3/projects/${carol.projectId}/users/${alice.id}/roles/${roles.get("member")}`;
  await call("PUT", grant, { token: admin });
  const redelegable = { impersonation: true, allow_redelegation: true, redelegation_count: 1 };
  const first = textAt(await trustOf(alice, bob, redelegable), "trust.id");
  const other = textAt(await trustOf(alice, carol), "trust.id");
  const token = tokenOf(await byTrust(bob, first));
  const elsewhere = await call("POST", "/v3/OS-TRUST/trusts", {
    token,
    body: {
      trust: {
        trustor_user_id: alice.id,
        trustee_user_id: bob.id,
        project_id: carol.projectId,
        impersonation: true,
        roles: [{ name: "member" }],
      },
    },
  });
  expect(elsewhere.status).toBe(403);
  expect((await call("GET", `/v3/OS-TRUST/trusts/${other}`, { token })).status).toBe(403);
  expect((await call("DELETE", `/v3/OS-TRUST/trusts/${other}`, { token })).status).toBe(403);
  expect((await byTrust(carol, other)).status).toBe(201);
});

test("a trust's token ends with any party to it", async () => {
  for (const impersonation of [true, false]) {
    for (const isTrustee of [true, false]) {
      const [alice, bob] = [await person("member"), await person("reader")];
      const trustId = textAt(await trustOf(alice, bob, { impersonation }), "trust.id");
      const subject = tokenOf(await byTrust(bob, trustId));
      expect((await call("GET", "/v3/auth/tokens", { token: admin, subject })).status).toBe(200);
      const path = `/v3/users/${isTrustee ? bob.id : alice.id}`;
      await call("PATCH", path, { token: admin, body: { user: { enabled: false } } });
      const answer = await call("GET", "/v3/auth/tokens", { token: admin, subject });
      expect([impersonation, isTrustee, answer.status]).toEqual([impersonation, isTrustee, 404]);
    }
  }
});

test("a login that overlaps its user's end gives nothing that lasts", async () => {
  const alice = await person("member");
  const scope = { project: { id: alice.projectId } };
  const logins = Array.from({ length: 8 }, () => login({ id: alice.id, password: "pw" }, scope));
  await call("PATCH", `/v3/users/${alice.id}`, { token: admin, body: { user: { enabled: false } } });
  for (const answer of await Promise.all(logins)) {
    if (answer.status !== 201) continue;
    const subject = tokenOf(answer);
    expect((await call("GET", "/v3/auth/tokens", { token: admin, subject })).status).toBe(404);
  }
  // Enabled again, what was got before stays void.
  await call("PATCH", `/v3/users/${alice.id}`, { token: admin, body: { user: { enabled: true } } });
  for (const answer of await Promise.all(logins)) {
    if (answer.status !== 201) continue;
    const subject = tokenOf(answer);
    expect((await call("GET", "/v3/auth/tokens", { token: admin, subject })).status).toBe(404);
  }
});

test("a token of an EC2 key cannot be scoped anew", async () => {
  const alice = await person("member");
  const made = await call("POST", `/v3/users/${alice.id}/credentials/OS-EC2`, {
    token: alice.token,
    body: { tenant_id: alice.projectId },
  });
  const access = textAt(made, "credential.access");
  const text = createHmac("sha256", textAt(made, "credential.secret"));
  const params = { SignatureVersion: "2", x: "\ud800" };
  const signature = text
    .update("GET\nh\n/\nSignatureMethod=HmacSHA256&SignatureVersion=2&x=%EF%BF%BD")
    .digest("base64");
  const answer = await call("POST", "/v3/ec2tokens", {
    token: admin,
    body: { credentials: { access, signature, host: "h", verb: "GET", path: "/", params } },
  });
  expect(answer.status).toBe(200);
  expect((await rescope(tokenOf(answer), { project: { id: alice.projectId } })).status).toBe(403);
});
