import { afterAll, beforeAll, expect, test } from "vitest";
import { at, listAt, textAt } from "../test-client.ts";
import { GrantsFixture } from "./grants-fixture.ts";

let service: GrantsFixture;

beforeAll(async () => {
  service = await GrantsFixture.start();
});

afterAll(() => service[Symbol.asyncDispose]());

const onProject = (id: string) => ({ project: { id } });
const onDomain = (id: string) => ({ domain: { id } });

test("a role is granted, seen, listed and taken back in every form, twice over", async () => {
  const user = await service.user("forms");
  const group = await service.group("forms", []);
  const project = await service.project("forms");
  const role = service.role("member");
  const scopes = [
    [`/v3/projects/${project}`, "", true],
    ["/v3/domains/default", "", true],
    ["/v3/system", "", true],
    ["/v3/OS-INHERIT/domains/default", "/inherited_to_projects", true],
    [`/v3/OS-INHERIT/projects/${project}`, "/inherited_to_projects", false],
  ] as const;
  for (const [scope, suffix, isListed] of scopes) {
    for (const actor of [`users/${user}`, `groups/${group}`]) {
      const path = `${scope}/${actor}/roles/${role}${suffix}`;
      expect([path, await service.status("GET", path)]).toEqual([path, 404]);
      expect(await service.status("PUT", path)).toBe(204);
      expect(await service.status("PUT", path)).toBe(204);
      expect(await service.status("GET", path)).toBe(204);
      expect(await service.status("HEAD", path)).toBe(204);
      if (isListed) {
        const list = await service.call("GET", `${scope}/${actor}/roles${suffix}`);
        expect(listAt(list, "roles").map(({ id }) => id)).toEqual([role]);
        expect(at(list, "links.next")).toBeNull();
      }
      expect(await service.status("DELETE", path)).toBe(204);
      const again = await service.call("DELETE", path);
      expect(again.status).toBe(404);
      expect(textAt(again, "error.message")).toMatch(/^Could not find role assignment with role: /);
    }
  }
});

test("role, user, group and target of a grant must be there", async () => {
  const user = await service.user("there");
  const project = await service.project("there");
  const role = service.role("member");
  const paths = [
    `/v3/projects/nowhere/users/${user}/roles/${role}`,
    `/v3/projects/${project}/users/nowhere/roles/${role}`,
    `/v3/projects/${project}/groups/nowhere/roles/${role}`,
    `/v3/projects/${project}/users/${user}/roles/nowhere`,
    `/v3/domains/${project}/users/${user}/roles/${role}`,
    `/v3/system/users/nowhere/roles/${role}`,
    `/v3/OS-INHERIT/domains/nowhere/users/${user}/roles/${role}/inherited_to_projects`,
    `/v3/OS-INHERIT/projects/${project}/groups/nowhere/roles/${role}/inherited_to_projects`,
  ];
  for (const path of paths) {
    for (const method of ["PUT", "GET", "DELETE"]) {
      expect([method, path, await service.status(method, path)]).toEqual([method, path, 404]);
    }
  }
  expect(await service.status("GET", `/v3/projects/${project}/users/nowhere/roles`)).toBe(404);
  expect(await service.status("GET", `/v3/projects/nowhere/users/${user}/roles`)).toBe(404);
});

test("a domain's role is granted on its domain and projects alone", async () => {
  const [home, elsewhere] = [await service.domain("home"), await service.domain("elsewhere")];
  const inside = await service.project("inside", home, home);
  const outside = await service.project("outside", elsewhere, elsewhere);
  const user = await service.user("local", home);
  const role = await service.newRole("local", home);
  const put = (scope: string) => service.status("PUT", `${scope}/users/${user}/roles/${role}`);
  expect(await put(`/v3/projects/${inside}`)).toBe(204);
  expect(await put(`/v3/domains/${home}`)).toBe(204);
  expect(await put(`/v3/projects/${outside}`)).toBe(403);
  expect(await put(`/v3/domains/${elsewhere}`)).toBe(403);
  expect(await put("/v3/system")).toBe(400);
});

test("a domain's manager hands out member and reader there, and nothing else, nowhere else", async () => {
  const [own, foreign] = [await service.domain("managed"), await service.domain("foreign")];
  const manager = await service.user("manager", own);
  const [colleague, stranger] = [await service.user("colleague", own), await service.user("stranger", foreign)];
  const project = await service.project("managed", own, own);
  const foreignProject = await service.project("foreign", foreign, foreign);
  await service.call("PUT", `/v3/domains/${own}/users/${manager}/roles/${service.role("manager")}`);
  const token = await service.token(manager, onDomain(own));
  const put = (place: string, user: string, role: string) =>
    service.status("PUT", `/v3/${place}/users/${user}/roles/${service.role(role)}`, { token });
  expect(await put(`projects/${project}`, colleague, "member")).toBe(204);
  expect(await put(`domains/${own}`, colleague, "reader")).toBe(204);
  expect(await put(`projects/${project}`, colleague, "admin")).toBe(403);
  expect(await put(`projects/${project}`, stranger, "member")).toBe(403);
  expect(await put(`projects/${foreignProject}`, colleague, "member")).toBe(403);
  expect(await put("system", colleague, "reader")).toBe(403);
  // Whether a thing is there is not told to who may not see it.
  expect(await put("projects/nowhere", colleague, "member")).toBe(403);
  expect(await put(`projects/${project}`, "nobody", "member")).toBe(403);
  const path = `/v3/projects/${project}/users/${colleague}/roles/${service.role("member")}`;
  expect(await service.status("GET", path, { token })).toBe(204);
  expect(await service.status("DELETE", path, { token })).toBe(204);
});

test("tokens are looked at again as narrowly as the grant allows", async () => {
  const user = await service.user("narrow");
  const group = await service.group("narrow", [user]);
  const project = await service.project("narrow");
  const below = await service.project("narrow below", project);
  const role = service.role("member");
  const told = async (scope: string, actor: string, suffix = "") => {
    await service.call("PUT", `/v3/${scope}/${actor}/roles/${role}${suffix}`);
    const added = await service.revocations();
    await service.call("DELETE", `/v3/${scope}/${actor}/roles/${role}${suffix}`);
    expect(await service.revocations()).toEqual(added);
    return added;
  };
  const [who, them] = [`users/${user}`, `groups/${group}`];
  const kind = "recheck";
  const inherited = "/inherited_to_projects";
  expect(await told(`projects/${project}`, who)).toEqual([{ kind, userId: user, projectId: project }]);
  expect(await told(`projects/${project}`, them)).toEqual([{ kind, projectId: project }]);
  expect(await told("domains/default", who)).toEqual([{ kind, userId: user, domainId: "default" }]);
  expect(await told("domains/default", them)).toEqual([{ kind, domainId: "default" }]);
  expect(await told("system", who)).toEqual([{ kind, userId: user }]);
  expect(await told("system", them)).toEqual([{ kind }]);
  const beneath = `OS-INHERIT/projects/${project}`;
  expect(await told(beneath, who, inherited)).toEqual([{ kind, userId: user, projectId: below }]);
  expect(await told(beneath, them, inherited)).toEqual([{ kind, projectId: below }]);
  expect(await told("OS-INHERIT/domains/default", them, inherited)).toEqual([{ kind, domainId: "default" }]);
});

test("a right that comes from above ends with its grant, for tokens that are under way too", async () => {
  const user = await service.user("heir");
  const top = await service.project("top");
  const middle = await service.project("middle", top);
  const leaf = await service.project("leaf", middle);
  const path = `/v3/OS-INHERIT/projects/${top}/users/${user}/roles/${service.role("member")}/inherited_to_projects`;
  await service.call("PUT", path);
  expect((await service.login(user, onProject(top))).status).toBe(401);
  const token = await service.token(user, onProject(leaf));
  expect(await service.status("GET", "/v3/auth/catalog", { token })).toBe(200);
  const projects = await service.call("GET", `/v3/users/${user}/projects`);
  expect(
    listAt(projects, "projects")
      .map(({ name }) => String(name))
      .toSorted(),
  ).toEqual(["leaf", "middle"]);
  await service.call("DELETE", path);
  expect(await service.status("GET", "/v3/auth/catalog", { token })).toBe(401);
});

test("an application credential goes with the last of its roles, and does not come back with the next grant", async () => {
  const user = await service.user("automation");
  const project = await service.project("automation");
  const roles = ["member", "reader"].map((name) => service.role(name));
  const pathOf = (role = "") => `/v3/projects/${project}/users/${user}/roles/${role}`;
  for (const role of roles) await service.call("PUT", pathOf(role));
  const token = await service.token(user, onProject(project));
  const make = async (name: string, role: string) => {
    const body = { application_credential: { name, roles: [{ name: role }] } };
    const made = await service.call("POST", `/v3/users/${user}/application_credentials`, { token, body });
    return textAt(made, "application_credential.id");
  };
  const [strong, weak] = [await make("strong", "member"), await make("weak", "reader")];
  await service.call("DELETE", pathOf(roles[0]));
  expect(await service.revocations()).toEqual([
    { kind: "recheck", userId: user, projectId: project },
    { kind: "revoke", applicationCredentialId: strong },
  ]);
  await service.call("PUT", pathOf(roles[0]));
  const show = (id: string) => service.status("GET", `/v3/users/${user}/application_credentials/${id}`);
  expect([await show(strong), await show(weak)]).toEqual([404, 200]);
});

test("taking a role from a trustor is told of the trusts that hand it on", async () => {
  const [trustor, trustee] = [await service.user("trustor"), await service.user("trustee")];
  const project = await service.project("trusting");
  const path = `/v3/projects/${project}/users/${trustor}/roles/${service.role("member")}`;
  await service.call("PUT", path);
  const trust = {
    trustor_user_id: trustor,
    trustee_user_id: trustee,
    project_id: project,
    impersonation: false,
    roles: [{ name: "member" }],
  };
  const token = await service.token(trustor, onProject(project));
  const made = await service.call("POST", "/v3/OS-TRUST/trusts", { token, body: { trust } });
  const trustId = textAt(made, "trust.id");
  await service.call("DELETE", path);
  expect(await service.revocations()).toEqual([
    { kind: "recheck", userId: trustor, projectId: project },
    { kind: "recheck", trustId },
  ]);
  expect((await service.login(trustee, { "OS-TRUST:trust": { id: trustId } })).status).toBe(403);
});

test("what is granted to a user who is gone can still be taken back", async () => {
  const project = await service.project("left behind");
  const role = service.role("member");
  await service.sql(
    `INSERT INTO assignments VALUES ('user', 'gone', 'project', '${project}', '${role}', 0) RETURNING role_id`,
  );
  const path = `/v3/projects/${project}/users/gone/roles/${role}`;
  expect(await service.status("GET", path)).toBe(404);
  expect(await service.status("DELETE", path)).toBe(204);
  expect(await service.status("DELETE", path)).toBe(404);
});
