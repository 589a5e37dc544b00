import { domainOptionDefaults } from "./domain-options.ts";

/** Where entries of one kind are, and which attributes say what. An attribute that is not asked for is an empty text. */
type LdapKind = {
  readonly tree: string;
  /** RFC 4515; empty for none. */
  readonly filter: string;
  readonly objectClass: string;
  readonly id: string;
  readonly name: string;
  readonly description: string;
};

/** A domain's directory. */
export type LdapSettings = {
  /** Tried in this order. */
  readonly urls: readonly string[];
  /** Empty: anonymous. */
  readonly bindDn: string;
  readonly bindPassword: string;
  readonly scope: "one" | "sub";
  /** Entries that a server is asked for at once. */
  readonly pageSize: number;
  /** Goes over to TLS on the plain port. */
  readonly startTls: boolean;
  readonly caFile: string | undefined;
  /** False: certificates are not looked at. */
  readonly certificateDemanded: boolean;
  readonly users: LdapKind & {
    readonly mail: string;
    readonly defaultProjectId: string;
    readonly enabled: string;
    readonly enabledDefault: string;
    readonly enabledInvert: boolean;
    /** Not 0: the bits that say "disabled" where they are all set. */
    readonly enabledMask: number;
    /** Attributes beside these, by the name under which they are shown. */
    readonly additional: ReadonlyMap<string, string>;
  };
  readonly groups: LdapKind & {
    readonly member: string;
    /** Members are named by the ids of users, else by their distinguished names. */
    readonly membersAreIds: boolean;
  };
};

const PAGE_SIZE = 500;

/** `ldap_attribute:shown_name`. */
const additionalOf = (items: readonly string[]): ReadonlyMap<string, string> =>
  new Map(
    items.flatMap((item) => {
      const [attribute = "", shown = ""] = item.split(":", 2);
      return attribute === "" || shown === "" ? [] : [[shown, attribute] as const];
    }),
  );

/** The settings of the group `ldap` of a domain's configuration, completed with Keystone's defaults. */
export const ldapSettingsOf = (set: ReadonlyMap<string, unknown>): LdapSettings => {
  const defaults = domainOptionDefaults()["ldap"] ?? {};
  const value = (name: string): unknown => set.get(name) ?? defaults[name] ?? undefined;
  const text = (name: string): string => {
    const given = value(name);
    return typeof given === "string" ? given : "";
  };
  const number = (name: string): number => {
    const given = value(name);
    return typeof given === "number" ? given : 0;
  };
  const flag = (name: string): boolean => value(name) === true;
  const list = (name: string): readonly string[] => {
    const given = value(name);
    return Array.isArray(given) ? given.filter((item) => typeof item === "string") : [];
  };
  const attribute = (kind: "user" | "group", shown: string, option: string): string =>
    list(`${kind}_attribute_ignore`).includes(shown) ? "" : text(`${kind}_${option}_attribute`);
  const suffix = text("suffix");
  return {
    urls: text("url")
      .split(",")
      .map((url) => url.trim()),
    bindDn: text("user"),
    bindPassword: text("password"),
    scope: text("query_scope") === "sub" ? "sub" : "one",
    pageSize: number("page_size") || PAGE_SIZE,
    startTls: flag("use_tls"),
    caFile: text("tls_cacertfile") || undefined,
    certificateDemanded: text("tls_req_cert") === "demand",
    users: {
      tree: text("user_tree_dn") || `ou=Users,${suffix}`,
      filter: text("user_filter"),
      objectClass: text("user_objectclass"),
      id: text("user_id_attribute"),
      name: text("user_name_attribute"),
      description: attribute("user", "description", "description"),
      mail: attribute("user", "email", "mail"),
      defaultProjectId: attribute("user", "default_project_id", "default_project_id"),
      enabled: attribute("user", "enabled", "enabled"),
      enabledDefault: text("user_enabled_default"),
      enabledInvert: flag("user_enabled_invert"),
      enabledMask: number("user_enabled_mask"),
      additional: additionalOf(list("user_additional_attribute_mapping")),
    },
    groups: {
      tree: text("group_tree_dn") || `ou=UserGroups,${suffix}`,
      filter: text("group_filter"),
      objectClass: text("group_objectclass"),
      id: text("group_id_attribute"),
      name: text("group_name_attribute"),
      description: attribute("group", "description", "desc"),
      member: text("group_member_attribute"),
      membersAreIds: flag("group_members_are_ids"),
    },
  };
};
