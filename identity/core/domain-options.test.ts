import { expect, test } from "vitest";
import { domainOption, domainOptionDefaults, isOptionGroup, meaningOf, withSecrets } from "./domain-options.ts";

const meaning = (option: string, given: unknown): unknown => meaningOf(domainOption("ldap", option)!, given);

test("a value counts in the type of its option, also when it comes as the text that a configuration file would have", () => {
  expect(meaning("page_size", 10)).toBe(10);
  expect(meaning("page_size", "10")).toBe(10);
  expect(meaning("use_tls", "True")).toBe(true);
  expect(meaning("use_tls", false)).toBe(false);
  expect(meaning("pool_retry_delay", "0.5")).toBe(0.5);
  expect(meaning("user_attribute_ignore", "mail, description")).toEqual(["mail", "description"]);
  expect(meaning("user_enabled_default", 512)).toBe("512");
  expect(meaning("user_enabled_default", true)).toBe("True");
});

test("a value of another type, beyond its bounds, or not among the choices means nothing", () => {
  for (const [option, given] of [
    ["page_size", -1],
    ["page_size", 1.5],
    ["page_size", "many"],
    ["page_size", ""],
    ["pool_size", 0],
    ["use_tls", "perhaps"],
    ["use_tls", 1],
    ["query_scope", "all"],
    ["url", {}],
    ["url", "x".repeat(5_000)],
    ["user_attribute_ignore", [1]],
  ] as const) {
    expect(meaning(option, given), `${option} = ${JSON.stringify(given)}`).toBeUndefined();
  }
});

test("null stands for the default", () => {
  expect(meaning("page_size", null)).toBe(0);
  expect(meaning("user_filter", null)).toBeNull();
});

test("names of object prototypes are no groups and no options", () => {
  expect(isOptionGroup("constructor")).toBe(false);
  expect(domainOption("__proto__", "toString")).toBeUndefined();
  expect(domainOption("ldap", "constructor")).toBeUndefined();
});

test("the defaults have every option but the sensitive ones", () => {
  const { ldap = {}, identity } = domainOptionDefaults();
  expect(identity).toEqual({ driver: "sql", list_limit: null });
  expect(ldap).not.toHaveProperty("password");
  expect(Object.keys(ldap)).toHaveLength(49);
});

test("a text takes in the secrets that it names, and what nobody set stays as it is", () => {
  const secrets = new Map([["password", "100% $&"]]);
  expect(withSecrets("ldap://u:%(password)s@h/%(user)s", secrets)).toBe("ldap://u:100% $&@h/%(user)s");
});
