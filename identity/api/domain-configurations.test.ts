import { afterAll, beforeAll, expect, test } from "vitest";
import { openCredentialCipher } from "../store/credential-cipher.ts";
import { domainConfiguration } from "../store/domain-configurations.ts";
import { identityPaths } from "../store/paths.ts";
import { startTestAdministrator, type TestAdministrator } from "../test-administrator.ts";
import { type Answer, at } from "../test-client.ts";

let service: TestAdministrator;

beforeAll(async () => {
  const identity = { password_regex: "^.{7,}$", password_regex_description: "seven characters" };
  service = await startTestAdministrator({ identity });
});
afterAll(() => service[Symbol.asyncDispose]());

const asAdmin = (method: string, path: string, config?: unknown): Promise<Answer> =>
  service.asAdmin(method, path, config === undefined ? undefined : { config });
const messageOf = (answer: Answer): unknown => at(answer, "error.message");
const newDomain = (name: string): Promise<string> => service.create("domain", { name });

const LDAP = { url: "ldap://u:%(password)s@x", page_size: "10", password: "hid den" };

test("a configuration is set, replaced, shown in whole and in parts, and removed", async () => {
  const path = `/domains/${await newDomain("whole")}/config`;
  const none = await asAdmin("GET", path);
  expect([none.status, messageOf(none)]).toEqual([404, expect.stringContaining("Could not find any options")]);
  const shown = { identity: { driver: "ldap" }, ldap: { url: LDAP.url, page_size: "10" } };
  const made = await asAdmin("PUT", path, { identity: { driver: "ldap" }, ldap: LDAP });
  expect([made.status, made.body]).toEqual([201, { config: shown }]);
  expect((await asAdmin("GET", path)).body).toEqual({ config: shown });
  expect((await asAdmin("GET", `${path}/ldap`)).body).toEqual({ config: { ldap: shown.ldap } });
  expect((await asAdmin("GET", `${path}/ldap/url`)).body).toEqual({ config: { url: LDAP.url } });
  expect((await asAdmin("HEAD", `${path}/ldap/url`)).status).toBe(200);
  expect((await asAdmin("GET", `${path}/ldap/user`)).status).toBe(404);
  const replaced = await asAdmin("PUT", path, { ldap: { user: "u" } });
  expect([replaced.status, replaced.body]).toEqual([200, { config: { ldap: { user: "u" } } }]);
  expect((await asAdmin("DELETE", `${path}/ldap/url`)).status).toBe(404);
  expect((await asAdmin("DELETE", `${path}/ldap/user`)).status).toBe(204);
  expect((await asAdmin("DELETE", `${path}/ldap`)).status).toBe(404);
  expect((await asAdmin("DELETE", path)).status).toBe(204);
  expect((await asAdmin("GET", path)).status).toBe(404);
  for (const method of ["GET", "PUT", "PATCH", "DELETE"]) {
    const body = method === "GET" || method === "DELETE" ? undefined : { ldap: { user: "u" } };
    expect((await asAdmin(method, "/domains/nowhere/config", body)).status, method).toBe(404);
  }
});

test("a change is merged into what is set; a part must be there and must be all that is changed", async () => {
  const path = `/domains/${await newDomain("merged")}/config`;
  expect((await asAdmin("PATCH", `${path}/ldap`, { ldap: { url: "ldap://a" } })).status).toBe(404);
  expect((await asAdmin("PATCH", path, { ldap: { url: "ldap://a", user: "u" } })).status).toBe(200);
  const group = await asAdmin("PATCH", `${path}/ldap`, { ldap: { url: "ldap://b", suffix: "dc=b" } });
  expect(group.body).toEqual({ config: { ldap: { suffix: "dc=b", url: "ldap://b", user: "u" } } });
  const option = await asAdmin("PATCH", `${path}/ldap/url`, { url: "ldap://c" });
  expect(at(option, "config.ldap.url")).toBe("ldap://c");
  for (const [part, config, status] of [
    ["ldap", { identity: { driver: "sql" } }, 403],
    ["ldap", { ldap: { url: "ldap://d" }, identity: { driver: "sql" } }, 403],
    ["ldap/url", { user: "v" }, 403],
    ["ldap/url", { url: "ldap://d", user: "v" }, 403],
    ["ldap/page_size", { page_size: 5 }, 404],
    ["odd", { odd: { x: 1 } }, 403],
    ["ldap/odd", { odd: 1 }, 403],
  ] as const) {
    expect((await asAdmin("PATCH", `${path}/${part}`, config)).status, part).toBe(status);
  }
  expect(at(await asAdmin("GET", path), "config.ldap")).toEqual({ suffix: "dc=b", url: "ldap://c", user: "u" });
});

test("options that a domain does not have answer 403, values that an option cannot have 400", async () => {
  const path = `/domains/${await newDomain("strict")}/config`;
  for (const config of [{}, { odd: { x: 1 } }, { ldap: { odd: 1 } }, { ldap: {} }, { ldap: "x" }, { ldap: null }]) {
    const answer = await asAdmin("PUT", path, config);
    expect([answer.status, messageOf(answer)], JSON.stringify(config)).toEqual([
      403,
      expect.stringContaining("Invalid domain specific configuration: "),
    ]);
  }
  for (const config of ["x", [], 5, { ldap: { page_size: "many" } }, { identity: { list_limit: -1 } }]) {
    expect((await asAdmin("PUT", path, config)).status, JSON.stringify(config)).toBe(400);
  }
  for (const part of ["odd", "ldap/odd", "constructor", "ldap/constructor"]) {
    expect((await asAdmin("GET", `${path}/${part}`)).status, part).toBe(403);
  }
});

test("a password is never shown, lies encrypted, and reaches the driver with the texts that name it", async () => {
  const id = await newDomain("secret");
  const path = `/domains/${id}/config`;
  await asAdmin("PUT", path, { ldap: { ...LDAP, use_tls: "true" } });
  expect((await asAdmin("GET", `${path}/ldap/password`)).status).toBe(404);
  expect((await asAdmin("PATCH", `${path}/ldap/password`, { password: "other pass" })).body).toEqual({
    config: { ldap: { url: LDAP.url, page_size: "10", use_tls: "true" } },
  });
  const paths = identityPaths(service.installation.paths.identityDir);
  const rows = await service.installation.query("SELECT value FROM domain_configurations WHERE sensitive = 1");
  expect(rows).toHaveLength(1);
  expect(JSON.stringify(rows)).not.toContain("other pass");
  const database = await service.installation.openDatabase();
  try {
    const cipher = await openCredentialCipher(paths.credentialKey);
    const configuration = await domainConfiguration(database, cipher, id);
    expect(Object.fromEntries(configuration.get("ldap") ?? [])).toEqual({
      url: "ldap://u:other pass@x",
      page_size: 10,
      use_tls: true,
      password: "other pass",
    });
    expect((await domainConfiguration(database, cipher, "default")).size).toBe(0);
  } finally {
    await database.destroy();
  }
});

test("the defaults are shown in whole and in parts, without the password", async () => {
  expect(at(await asAdmin("GET", "/domains/config/default"), "config.identity")).toEqual({
    driver: "sql",
    list_limit: null,
  });
  const group = await asAdmin("GET", "/domains/config/ldap/default");
  expect(group.body).toMatchObject({ config: { ldap: { url: "ldap://localhost", pool_retry_delay: 0.1 } } });
  expect(at(group, "config.ldap")).not.toHaveProperty("password");
  expect((await asAdmin("GET", "/domains/config/ldap/url/default")).body).toEqual({
    config: { url: "ldap://localhost" },
  });
  for (const part of ["odd", "ldap/odd", "ldap/password"]) {
    expect((await asAdmin("GET", `/domains/config/${part}/default`)).status, part).toBe(403);
  }
});

test("every user reads the rules for passwords, at the default domain; the rest is the administrator's", async () => {
  const domain = await newDomain("rules");
  const { token } = await service.bearer(`/domains/${domain}`, "reader");
  const get = (path: string): Promise<Answer> => service.call("GET", `/v3/domains/${path}`, { token });
  const rules = { password_regex: "^.{7,}$", password_regex_description: "seven characters" };
  expect((await get("default/config/security_compliance")).body).toEqual({ config: { security_compliance: rules } });
  expect((await get("default/config/security_compliance/password_regex")).body).toEqual({
    config: { password_regex: rules.password_regex },
  });
  expect((await get("default/config/security_compliance/lockout_duration")).status).toBe(403);
  expect((await get(`${domain}/config/security_compliance`)).status).toBe(403);
  expect((await get(`${domain}/config`)).status).toBe(403);
  expect((await get("config/default")).status).toBe(403);
});
