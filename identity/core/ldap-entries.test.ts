import { expect, test } from "vitest";
import { comparableDn, type LdapEntry, ldapGroup, ldapUser } from "./ldap-entries.ts";
import { ldapSettingsOf } from "./ldap-settings.ts";

const entryOf = (dn: string, values: Readonly<Record<string, readonly string[]>>): LdapEntry => ({
  dn,
  values: new Map(Object.entries(values)),
});
const settingsOf = (options: Readonly<Record<string, unknown>>) => ldapSettingsOf(new Map(Object.entries(options)));

test("a domain that sets nothing has Keystone's defaults", () => {
  expect(settingsOf({ suffix: "dc=x" })).toMatchObject({
    urls: ["ldap://localhost"],
    scope: "one",
    startTls: false,
    certificateDemanded: true,
    users: { tree: "ou=Users,dc=x", objectClass: "inetOrgPerson", id: "cn", name: "sn", mail: "mail" },
    groups: { tree: "ou=UserGroups,dc=x", objectClass: "groupOfNames", id: "cn", name: "ou", member: "member" },
  });
});

test("an entry without an id or a name is no user and no group", () => {
  const settings = settingsOf({});
  expect(ldapUser(entryOf("cn=a", { cn: ["a"] }), settings)).toBeUndefined();
  expect(ldapUser(entryOf("cn=a", { sn: ["a"] }), settings)).toBeUndefined();
  expect(ldapGroup(entryOf("cn=a", { cn: ["a"] }), settings)).toBeUndefined();
  expect(ldapUser(entryOf("cn=a", { cn: ["a"], sn: ["A"] }), settings)).toEqual({
    dn: "cn=a",
    localId: "a",
    name: "A",
    enabled: true,
    defaultProjectId: null,
    extra: {},
  });
});

test("of several ids the one that names the entry counts", () => {
  const settings = settingsOf({});
  const localIdOf = (dn: string): string | undefined =>
    ldapUser(entryOf(dn, { cn: ["one", "Two"], sn: ["x"] }), settings)?.localId;
  expect(localIdOf("CN=two,ou=Users")).toBe("Two");
  expect(localIdOf("uid=two,ou=Users")).toBe("one");
});

test("whether a user is enabled is said by a word, by its opposite, or by bits", () => {
  const enabled = (options: Readonly<Record<string, unknown>>, ...given: readonly string[]): boolean | undefined => {
    const values = { cn: ["a"], sn: ["a"], ...(given.length === 0 ? {} : { state: given }) };
    return ldapUser(entryOf("cn=a", values), settingsOf({ user_enabled_attribute: "state", ...options }))?.enabled;
  };
  expect([enabled({}), enabled({}, "TRUE"), enabled({}, "false"), enabled({}, "1")]).toEqual([
    true,
    true,
    false,
    false,
  ]);
  expect(enabled({ user_enabled_default: "False" })).toBe(false);
  const inverted = { user_enabled_invert: true, user_enabled_default: "False" };
  expect([enabled(inverted), enabled(inverted, "TRUE"), enabled(inverted, "FALSE")]).toEqual([true, false, true]);
  // userAccountControl of Active Directory.
  const bits = { user_enabled_mask: 2, user_enabled_default: "512" };
  expect([enabled(bits), enabled(bits, "512"), enabled(bits, "514")]).toEqual([true, true, false]);
  expect(enabled({ user_attribute_ignore: ["enabled"] }, "FALSE")).toBe(true);
});

test("attributes are shown under their names, those that are to be ignored are not", () => {
  const values = { cn: ["a"], sn: ["a"], mail: ["m"], description: ["d"], telephonenumber: ["1", "2"] };
  const extra = (options: Readonly<Record<string, unknown>>) =>
    ldapUser(entryOf("cn=a", values), settingsOf(options))?.extra;
  expect(extra({})).toEqual({ email: "m", description: "d" });
  expect(extra({ user_attribute_ignore: ["email"] })).toEqual({ description: "d" });
  const additional = { user_additional_attribute_mapping: ["telephoneNumber:phone", "broken"] };
  expect(extra(additional)).toEqual({ email: "m", description: "d", phone: "1" });
});

test("distinguished names that differ in case and blanks only are the same", () => {
  expect(comparableDn("UID = Alice , OU=People,dc=Example")).toBe(comparableDn("uid=alice,ou=people,dc=example"));
  expect(comparableDn(String.raw`cn=a\, b,dc=x`)).not.toBe(comparableDn("cn=a,b,dc=x"));
});
