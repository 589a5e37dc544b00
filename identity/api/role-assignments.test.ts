import { afterAll, beforeAll, expect, test } from "vitest";
import { at, listAt, textAt } from "../test-client.ts";
import { GrantsFixture } from "./grants-fixture.ts";

let service: GrantsFixture;
let base: string;
let domain: string;
let user: string;
let group: string;
let top: string;
let leaf: string;
let member: string;
let reader: string;

const INHERITED = "inherited_to_projects";

/** One domain with a user in a group, a project beneath another, and a grant of each sort. */
beforeAll(async () => {
  service = await GrantsFixture.start();
  member = service.role("member");
  reader = service.role("reader");
  domain = await service.domain("listed");
  user = await service.user("alice", domain);
  group = await service.group("crew", [user], domain);
  top = await service.project("top", domain, domain);
  leaf = await service.project("leaf", top, domain);
  await service.call("PUT", `/v3/projects/${leaf}/users/${user}/roles/${member}`);
  await service.call("PUT", `/v3/projects/${leaf}/groups/${group}/roles/${reader}`);
  await service.call("PUT", `/v3/domains/${domain}/users/${user}/roles/${reader}`);
  await service.call("PUT", `/v3/OS-INHERIT/projects/${top}/users/${user}/roles/${reader}/${INHERITED}`);
  await service.call("PUT", `/v3/system/users/${user}/roles/${reader}`);
  base = textAt(await service.call("GET", "/v3/role_assignments"), "links.self").replace("/role_assignments", "");
});

afterAll(() => service[Symbol.asyncDispose]());

const get = (query: string, token = service.admin) => service.call("GET", `/v3/role_assignments?${query}`, { token });
const list = async (query: string, token?: string) => listAt(await get(query, token), "role_assignments");
const asSet = (items: readonly object[]) => items.map((item) => JSON.stringify(item)).toSorted();

test("assignments as they were granted, each with the link that takes it back", async () => {
  const role = { id: reader };
  const all = await list(`user.id=${user}`);
  const expected = [
    {
      links: { assignment: `${base}/projects/${leaf}/users/${user}/roles/${member}` },
      scope: { project: { id: leaf } },
      user: { id: user },
      role: { id: member },
    },
    {
      links: { assignment: `${base}/domains/${domain}/users/${user}/roles/${reader}` },
      scope: { domain: { id: domain } },
      user: { id: user },
      role,
    },
    {
      links: { assignment: `${base}/OS-INHERIT/projects/${top}/users/${user}/roles/${reader}/${INHERITED}` },
      scope: { project: { id: top }, "OS-INHERIT:inherited_to": "projects" },
      user: { id: user },
      role,
    },
    {
      links: { assignment: `${base}/system/users/${user}/roles/${reader}` },
      scope: { system: { all: true } },
      user: { id: user },
      role,
    },
  ];
  expect(asSet(all)).toEqual(asSet(expected));
  expect(await list(`group.id=${group}`)).toEqual([
    {
      links: { assignment: `${base}/projects/${leaf}/groups/${group}/roles/${reader}` },
      scope: { project: { id: leaf } },
      group: { id: group },
      role,
    },
  ]);
});

test("effective assignments say through which group, from where and by which role they come", async () => {
  const found = await list(`user.id=${user}&scope.project.id=${leaf}&effective`);
  const scope = { project: { id: leaf } };
  const who = { id: user };
  const expected = [
    {
      links: { assignment: `${base}/projects/${leaf}/users/${user}/roles/${member}` },
      scope,
      user: who,
      role: { id: member },
    },
    {
      links: {
        assignment: `${base}/projects/${leaf}/users/${user}/roles/${member}`,
        prior_role: `${base}/prior_role/${reader}/implies/${member}`,
      },
      scope,
      user: who,
      role: { id: reader },
    },
    {
      links: {
        membership: `${base}/groups/${group}/users/${user}`,
        assignment: `${base}/projects/${leaf}/groups/${group}/roles/${reader}`,
      },
      scope,
      user: who,
      role: { id: reader },
    },
    {
      links: { assignment: `${base}/OS-INHERIT/projects/${top}/users/${user}/roles/${reader}/${INHERITED}` },
      scope: { ...scope, "OS-INHERIT:inherited_to": "projects" },
      user: who,
      role: { id: reader },
    },
  ];
  expect(asSet(found)).toEqual(asSet(expected));
});

test("names come with the domains that they are in", async () => {
  const local = await service.newRole("local", domain);
  await service.call("PUT", `/v3/projects/${top}/groups/${group}/roles/${local}`);
  const inDomain = { domain: { id: domain, name: "listed" } };
  expect(await list(`group.id=${group}&scope.project.id=${top}&include_names`)).toEqual([
    {
      links: { assignment: `${base}/projects/${top}/groups/${group}/roles/${local}` },
      scope: { project: { id: top, name: "top", ...inDomain } },
      group: { id: group, name: "crew", ...inDomain },
      role: { id: local, name: "local", ...inDomain },
    },
  ]);
  const [ofDomain] = await list(`user.id=${user}&scope.domain.id=${domain}&effective&include_names=True`);
  expect(ofDomain).toMatchObject({
    scope: { domain: { id: domain, name: "listed" } },
    user: { id: user, name: "alice", ...inDomain },
    role: { id: reader, name: "reader" },
  });
  // A role that gives nothing is no right.
  expect(await list(`scope.project.id=${top}&effective`)).toEqual([]);
  await service.call("DELETE", `/v3/projects/${top}/groups/${group}/roles/${local}`);
  expect(asSet(await list(`user.id=${user}&include_names=0`))).toEqual(asSet(await list(`user.id=${user}`)));
});

test("filters by role, system, inheritance and subtree", async () => {
  const scopesOf = async (query: string) => asSet((await list(query)).map(({ scope }) => scope as object));
  const inherited = { "OS-INHERIT:inherited_to": "projects" };
  expect(await scopesOf(`user.id=${user}&role.id=${member}`)).toEqual(asSet([{ project: { id: leaf } }]));
  expect(await scopesOf(`user.id=${user}&scope.system=all`)).toEqual(asSet([{ system: { all: true } }]));
  expect(await scopesOf(`user.id=${user}&scope.system=all&effective`)).toEqual(asSet([{ system: { all: true } }]));
  expect(await scopesOf(`user.id=${user}&scope.OS-INHERIT:inherited_to=projects`)).toEqual(
    asSet([{ project: { id: top }, ...inherited }]),
  );
  expect(await scopesOf(`user.id=${user}&scope.project.id=${top}&include_subtree`)).toEqual(
    asSet([{ project: { id: top }, ...inherited }, { project: { id: leaf } }]),
  );
  expect(await scopesOf(`user.id=${user}&scope.project.id=${top}&include_subtree&effective&role.id=${member}`)).toEqual(
    asSet([{ project: { id: leaf } }]),
  );
  expect(await list("user.id=nowhere")).toEqual([]);
  expect(await list("scope.project.id=nowhere")).toEqual([]);
  expect(asSet(await list(`user.id=${user}&group.id=&effective=0`))).toEqual(asSet(await list(`user.id=${user}`)));
});

test("filters that contradict each other are refused", async () => {
  const refused = [
    ["user.id=a&group.id=b", "Specify a user or group, not both"],
    ["scope.domain.id=a&scope.project.id=b", "Specify a domain or project, not both"],
    ["scope.domain.id=a&scope.system=all", "Specify system or domain, not both"],
    ["scope.project.id=a&scope.system=all", "Specify system or project, not both"],
    ["include_subtree", "scope.project.id must be specified if include_subtree is also specified"],
    ["group.id=a&effective", "Combining effective and group filter will always result in an empty list."],
    [
      "scope.domain.id=a&effective&scope.OS-INHERIT:inherited_to=projects",
      "Combining effective, domain and inherited filters will always result in an empty list.",
    ],
    ["marker=abc", "marker is not one that a list gave."],
    ["marker=W10&effective", "marker is not one that a list gave."],
  ] as const;
  for (const [query, message] of refused) {
    const answer = await get(query);
    expect([query, answer.status, at(answer, "error.message")]).toEqual([query, 400, message]);
  }
  expect((await get("scope.project.id=nowhere&include_subtree")).status).toBe(404);
});

test("pages follow one another to the end, and every assignment is on one of them", async () => {
  for (const query of ["", "effective&include_names"]) {
    const whole = await list(query);
    expect(whole.length).toBeGreaterThan(4);
    const found: object[] = [];
    let next: unknown = `${base}/role_assignments?${query}&limit=2`;
    while (typeof next === "string") {
      const answer = await service.call("GET", next.slice(next.indexOf("/v3/")));
      const page = listAt(answer, "role_assignments");
      expect(page.length).toBeLessThanOrEqual(2);
      found.push(...page);
      next = at(answer, "links.next");
    }
    expect(next).toBeNull();
    expect(found).toEqual(whole);
  }
});

test("who has a token for a domain sees what is on the domain and its projects, and nothing else", async () => {
  const chief = await service.user("chief", domain);
  await service.call("PUT", `/v3/domains/${domain}/users/${chief}/roles/${service.role("manager")}`);
  const token = await service.token(chief, { domain: { id: domain } });
  for (const query of ["", "effective"]) {
    const seen = (await list(query, token)).map(({ scope }) => scope as object);
    expect(seen.length).toBeGreaterThan(4);
    for (const scope of seen) {
      const id = at({ body: { scope } }, "scope.project.id") ?? at({ body: { scope } }, "scope.domain.id");
      expect([domain, top, leaf]).toContain(id);
    }
  }
  const status = async (query: string) => (await get(query, token)).status;
  expect(await status(`scope.domain.id=${domain}`)).toBe(200);
  expect(await status("scope.domain.id=default")).toBe(403);
  expect(await status(`scope.project.id=${top}&include_subtree`)).toBe(200);
  const foreign = await service.project("foreign");
  expect(await status(`scope.project.id=${foreign}&include_subtree`)).toBe(403);
  const plain = await service.token(user, { project: { id: leaf } });
  expect((await get("", plain)).status).toBe(403);
});
