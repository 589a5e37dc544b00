import { afterAll, beforeAll, expect, test } from "vitest";
import { type Log, silentLog } from "../common/log.ts";
import { IDENTITY_OPERATIONS } from "./api/operations.ts";
import { ADMIN_SCOPE, ADMIN_USER, type Answer, createTestClient, textAt, tokenOf } from "./test-client.ts";
import { createTestInstallation, type TestInstallation } from "./test-service.ts";

/** Operations that change nothing, or nothing but what they answer: logins, tokens, steps of OAuth towards one. */
const NO_CHANGE: ReadonlySet<string> = new Set([
  "POST /v3/OS-FEDERATION/identity_providers/:idp_id/protocols/:protocol_id/auth",
  "POST /v3/OS-OAUTH1/access_token",
  "PUT /v3/OS-OAUTH1/authorize/:request_token_id",
  "POST /v3/OS-OAUTH1/request_token",
  "POST /v3/OS-OAUTH2/token",
  "PUT /v3/OS-OAUTH2/token",
  "PATCH /v3/OS-OAUTH2/token",
  "DELETE /v3/OS-OAUTH2/token",
  "POST /v3/auth/OS-FEDERATION/identity_providers/:idp_id/protocols/:protocol_id/websso",
  "POST /v3/auth/OS-FEDERATION/saml2",
  "POST /v3/auth/OS-FEDERATION/saml2/ecp",
  "POST /v3/auth/OS-FEDERATION/websso/:protocol_id",
  "POST /v3/auth/tokens",
  "POST /v3/ec2tokens",
  "POST /v3/s3tokens",
  // What it deletes comes from three signed steps: api/oauth1.test.ts.
  "DELETE /v3/users/:user_id/OS-OAUTH1/access_tokens/:access_token_id",
]);

const PATTERNS = IDENTITY_OPERATIONS.map(({ method, path }) => ({
  method,
  path,
  pattern: new RegExp(`^${path.replaceAll(/:\w+/g, "[^/]+")}$`),
  parameters: path.split(":").length,
}));

let installation: TestInstallation;
let base = "";
let events: string[];
const seen = new Set<string>();
const { call, login } = createTestClient(() => base);
let admin = "";

beforeAll(async () => {
  events = [];
  const auditLog: Log = { ...silentLog, info: (type) => void events.push(type) };
  installation = createTestInstallation();
  base = `http://127.0.0.1:${(await installation.start({ auditLog })).port}`;
  admin = tokenOf(await login(ADMIN_USER, ADMIN_SCOPE));
});

afterAll(() => installation[Symbol.asyncDispose]());

/** Changes something as the administrator, unless another token is given. It must succeed, and an event must tell of it. */
const change = async (method: string, path: string, body?: object, token = admin): Promise<Answer> => {
  const before = events.length;
  const answer = await call(method, `/v3${path}`, { token, ...(body === undefined ? {} : { body }) });
  expect([method, path, answer.status, answer.body]).toEqual([
    method,
    path,
    expect.toBeOneOf([200, 201, 204]),
    answer.body,
  ]);
  const operation = PATTERNS.filter((one) => one.method === method && one.pattern.test(`/v3${path}`)).toSorted(
    (left, right) => left.parameters - right.parameters,
  )[0];
  const name = `${method} ${operation?.path}`;
  expect([name, events.length > before]).toEqual([name, true]);
  seen.add(name);
  return answer;
};
const make = async (path: string, singular: string, fields: object): Promise<string> =>
  textAt(await change("POST", path, { [singular]: fields }), `${singular}.id`);
const adjust = async (path: string, singular: string, fields: object): Promise<void> => {
  await change("PATCH", path, { [singular]: fields });
  await change("DELETE", path);
};
const giveAndTake = async (path: string): Promise<void> => {
  await change("PUT", path);
  await change("DELETE", path);
};

test("every operation that changes something leaves an event, and every change is here", async () => {
  const domain = await make("/domains", "domain", { name: "works" });
  const project = await make("/projects", "project", { name: "hall", domain_id: domain });
  const group = await make("/groups", "group", { name: "crew", domain_id: domain });
  const user = await make("/users", "user", { name: "ada", domain_id: domain, password: "first password" });
  const role = await make("/roles", "role", { name: "keeper" });
  const implied = await make("/roles", "role", { name: "helper" });

  await giveAndTake(`/groups/${group}/users/${user}`);
  await giveAndTake(`/roles/${role}/implies/${implied}`);
  for (const target of [`/domains/${domain}`, `/projects/${project}`, "/system"]) {
    for (const actor of [`users/${user}`, `groups/${group}`]) await giveAndTake(`${target}/${actor}/roles/${role}`);
  }
  for (const actor of [`domains/${domain}/users/${user}`, `domains/${domain}/groups/${group}`]) {
    await giveAndTake(`/OS-INHERIT/${actor}/roles/${role}/inherited_to_projects`);
  }
  for (const actor of [`projects/${project}/users/${user}`, `projects/${project}/groups/${group}`]) {
    await giveAndTake(`/OS-INHERIT/${actor}/roles/${role}/inherited_to_projects`);
  }
  await giveAndTake(`/projects/${project}/tags/blue`);

  await change("PUT", `/domains/${domain}/config`, {
    config: { identity: { driver: "sql" }, ldap: { url: "ldap://x" } },
  });
  await change("PATCH", `/domains/${domain}/config/ldap`, { config: { ldap: { url: "ldap://y" } } });
  await change("PATCH", `/domains/${domain}/config/ldap/url`, { config: { url: "ldap://z" } });
  await change("DELETE", `/domains/${domain}/config/ldap/url`);
  await change("DELETE", `/domains/${domain}/config/identity`);

  await make("/regions", "region", { id: "north" });
  await change("PUT", "/regions/south", { region: {} });
  const service = await make("/services", "service", { type: "archive", name: "vault" });
  const endpoint = await make("/endpoints", "endpoint", {
    service_id: service,
    interface: "public",
    url: "http://127.0.0.1:1/",
    region_id: "north",
  });
  await giveAndTake(`/OS-EP-FILTER/projects/${project}/endpoints/${endpoint}`);
  const filter = await make("/OS-EP-FILTER/endpoint_groups", "endpoint_group", {
    name: "vaults",
    filters: { service_id: service },
  });
  await giveAndTake(`/OS-EP-FILTER/endpoint_groups/${filter}/projects/${project}`);
  await adjust(`/OS-EP-FILTER/endpoint_groups/${filter}`, "endpoint_group", { name: "all vaults" });
  const policy = await make("/policies", "policy", { type: "text/plain", blob: "b" });
  for (const what of [`endpoints/${endpoint}`, `services/${service}`, `services/${service}/regions/north`]) {
    await giveAndTake(`/policies/${policy}/OS-ENDPOINT-POLICY/${what}`);
  }
  await adjust(`/policies/${policy}`, "policy", { blob: "c" });

  const registered = await change("POST", "/registered_limits", {
    registered_limits: [{ service_id: service, resource_name: "boxes", default_limit: 5 }],
  });
  const limits = await change("POST", "/limits", {
    limits: [{ service_id: service, resource_name: "boxes", resource_limit: 7, project_id: project }],
  });
  await adjust(`/limits/${textAt(limits, "limits.0.id")}`, "limit", { resource_limit: 8 });
  await adjust(`/registered_limits/${textAt(registered, "registered_limits.0.id")}`, "registered_limit", {
    default_limit: 6,
  });
  await adjust(`/endpoints/${endpoint}`, "endpoint", { url: "http://127.0.0.1:2/" });
  await adjust(`/services/${service}`, "service", { name: "vaults" });
  for (const region of ["north", "south"]) await adjust(`/regions/${region}`, "region", { description: "d" });

  const providers = "/OS-FEDERATION/identity_providers/sso";
  const rules = [{ local: [{ user: { name: "{0}" } }], remote: [{ type: "REMOTE_USER" }] }];
  await change("PUT", "/OS-FEDERATION/mappings/people", { mapping: { rules } });
  await change("PUT", providers, { identity_provider: { domain_id: domain } });
  await change("PUT", `${providers}/protocols/openid`, { protocol: { mapping_id: "people" } });
  await adjust(`${providers}/protocols/openid`, "protocol", { remote_id_attribute: "iss" });
  await adjust(providers, "identity_provider", { description: "d" });
  await adjust("/OS-FEDERATION/mappings/people", "mapping", { rules });
  const service_provider = { auth_url: "http://sp/auth", sp_url: "http://sp/sp" };
  await change("PUT", "/OS-FEDERATION/service_providers/sp", { service_provider });
  await adjust("/OS-FEDERATION/service_providers/sp", "service_provider", { enabled: true });
  const consumer = await make("/OS-OAUTH1/consumers", "consumer", {});
  await adjust(`/OS-OAUTH1/consumers/${consumer}`, "consumer", { description: "d" });

  await change("PUT", `/projects/${project}/users/${user}/roles/${role}`);
  await change("POST", `/users/${user}/password`, {
    user: { original_password: "first password", password: "second password" },
  });
  const own = tokenOf(await login({ id: user, password: "second password" }, { project: { id: project } }));
  const trustee = await make("/users", "user", { name: "bob", domain_id: domain });
  const trust = { trustor_user_id: user, trustee_user_id: trustee, project_id: project, impersonation: false };
  const roles = [{ id: role }];
  const trusted = await change("POST", "/OS-TRUST/trusts", { trust: { ...trust, roles } }, own);
  await change("DELETE", `/OS-TRUST/trusts/${textAt(trusted, "trust.id")}`, undefined, own);
  const access_rules = [{ service: "identity", method: "GET", path: "/v3/users" }];
  const application_credential = { name: "robot", access_rules };
  const robot = await change("POST", `/users/${user}/application_credentials`, { application_credential }, own);
  const robotId = textAt(robot, "application_credential.id");
  await change("DELETE", `/users/${user}/application_credentials/${robotId}`, undefined, own);
  const ruleId = textAt(robot, "application_credential.access_rules.0.id");
  await change("DELETE", `/users/${user}/access_rules/${ruleId}`, undefined, own);
  const ec2 = await change("POST", `/users/${user}/credentials/OS-EC2`, { tenant_id: project });
  await change("DELETE", `/users/${user}/credentials/OS-EC2/${textAt(ec2, "credential.access")}`);
  const credential = await make("/credentials", "credential", { type: "cert", blob: "b", user_id: user });
  await adjust(`/credentials/${credential}`, "credential", { blob: "c" });
  const before = events.length;
  expect((await call("DELETE", "/v3/auth/tokens", { token: admin, subject: own })).status).toBe(204);
  expect(events.slice(before)).toEqual(["identity.token.revoked"]);
  seen.add("DELETE /v3/auth/tokens");

  await adjust(`/users/${trustee}`, "user", { email: "b@example.org" });
  await adjust(`/groups/${group}`, "group", { description: "d" });
  for (const one of [role, implied]) await adjust(`/roles/${one}`, "role", { description: "d" });
  await adjust(`/projects/${project}`, "project", { description: "d" });
  await adjust(`/domains/${domain}`, "domain", { enabled: false });

  const all = IDENTITY_OPERATIONS.filter(({ method }) => method !== "GET").map(
    ({ method, path }) => `${method} ${path}`,
  );
  expect(all.filter((name) => !seen.has(name) && !NO_CHANGE.has(name))).toEqual([]);
});
