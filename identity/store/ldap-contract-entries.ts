import { CONTRACT_GROUPS, CONTRACT_USERS } from "./directory.contract.ts";
import { LDAP_ADMIN, LDAP_SUFFIX } from "./slapd-fixture.ts";

type Attributes = Readonly<Record<string, string | readonly string[]>>;

/** RFC 2849: values in base64, which need no thought about what is in them. */
const entry = (dn: string, attributes: Attributes): string => {
  const encoded = (value: string): string => Buffer.from(value).toString("base64");
  const lines = Object.entries(attributes).flatMap(([name, values]) =>
    [values].flat().map((value) => `${name}:: ${encoded(value)}`),
  );
  return [`dn:: ${encoded(dn)}`, ...lines].join("\n");
};

const ldapUserDn = (key: string): string => `uid=${key},ou=people,${LDAP_SUFFIX}`;

/** Users beyond the contract's, without passwords, all in the group `crowd`. */
type FurtherUser = { readonly key: string; readonly name: string };

/** The contract's users and groups as a directory of inetOrgPerson and groupOfNames; `employeeType` says whether a user is enabled. */
export const ldapContractEntries = (further: readonly FurtherUser[] = []): string => {
  const crowd = { key: "crowd", name: "crowd", description: "", members: further.map(({ key }) => key) };
  const groups = [...CONTRACT_GROUPS, ...(further.length === 0 ? [] : [crowd])];
  return [
    entry(LDAP_SUFFIX, { objectClass: ["dcObject", "organization"], dc: "example", o: "example" }),
    ...["people", "teams"].map((ou) => entry(`ou=${ou},${LDAP_SUFFIX}`, { objectClass: "organizationalUnit", ou })),
    ...CONTRACT_USERS.map(({ key, name, enabled, email, password }) =>
      entry(ldapUserDn(key), {
        objectClass: "inetOrgPerson",
        uid: key,
        cn: name,
        sn: key,
        mail: email,
        employeeType: enabled ? "TRUE" : "FALSE",
        userPassword: password,
      }),
    ),
    ...further.map(({ key, name }) =>
      entry(ldapUserDn(key), { objectClass: "inetOrgPerson", uid: key, cn: name, sn: key, employeeType: "TRUE" }),
    ),
    ...groups.map(({ key, name, description, members }) =>
      entry(`cn=${key},ou=teams,${LDAP_SUFFIX}`, {
        objectClass: "groupOfNames",
        cn: key,
        ou: name,
        ...(description === "" ? {} : { description }),
        member: members.map((member: string) => ldapUserDn(member)),
      }),
    ),
  ].join("\n\n");
};

/** The group `ldap` of a domain's configuration that fits these entries. */
export const ldapContractOptions = (url: string): Readonly<Record<string, unknown>> => ({
  url,
  user: LDAP_ADMIN.dn,
  password: LDAP_ADMIN.password,
  suffix: LDAP_SUFFIX,
  query_scope: "one",
  user_tree_dn: `ou=people,${LDAP_SUFFIX}`,
  user_objectclass: "inetOrgPerson",
  user_id_attribute: "uid",
  user_name_attribute: "cn",
  user_mail_attribute: "mail",
  user_enabled_attribute: "employeeType",
  group_tree_dn: `ou=teams,${LDAP_SUFFIX}`,
});
