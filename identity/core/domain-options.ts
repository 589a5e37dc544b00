/** What an option holds. A text that stands for a number, a truth value or a list is taken as well, as from a configuration file. */
type OptionKind =
  | { readonly kind: "text"; readonly choices?: readonly string[] }
  | { readonly kind: "integer"; readonly minimum: number }
  | { readonly kind: "number"; readonly minimum: number }
  | { readonly kind: "flag" }
  | { readonly kind: "list" };

type DomainOption = OptionKind & {
  readonly default: unknown;
  /** Never shown again once it is set. */
  readonly sensitive?: true;
};

const text = (standard: string | null = null): DomainOption => ({ kind: "text", default: standard });
const choice = (standard: string, ...choices: readonly string[]): DomainOption => ({
  kind: "text",
  choices: [standard, ...choices],
  default: standard,
});
const integer = (standard: number | null, minimum = 0): DomainOption => ({
  kind: "integer",
  minimum,
  default: standard,
});
const flag = (standard: boolean | null = false): DomainOption => ({ kind: "flag", default: standard });
const list = (...standard: readonly string[]): DomainOption => ({ kind: "list", default: standard });

/** The options that a domain can set for itself, with Keystone's names and defaults, in Keystone's order. */
const DOMAIN_OPTIONS: Readonly<Record<string, Readonly<Record<string, DomainOption>>>> = {
  // Any name is taken; what is not `ldap` is the SQL driver, as Keystone falls back to it.
  identity: { driver: text("sql"), list_limit: integer(null) },
  ldap: {
    url: text("ldap://localhost"),
    user: text(),
    password: { ...text(), sensitive: true },
    suffix: text("cn=example,cn=com"),
    query_scope: choice("one", "sub"),
    page_size: integer(0),
    alias_dereferencing: choice("default", "never", "searching", "always", "finding"),
    debug_level: integer(null, -1),
    chase_referrals: flag(null),
    user_tree_dn: text(),
    user_filter: text(),
    user_objectclass: text("inetOrgPerson"),
    user_id_attribute: text("cn"),
    user_name_attribute: text("sn"),
    user_mail_attribute: text("mail"),
    user_description_attribute: text("description"),
    user_pass_attribute: text("userPassword"),
    user_enabled_attribute: text("enabled"),
    user_enabled_invert: flag(),
    user_enabled_mask: integer(0),
    user_enabled_default: text("True"),
    user_attribute_ignore: list("default_project_id"),
    user_default_project_id_attribute: text(),
    user_enabled_emulation: flag(),
    user_enabled_emulation_dn: text(),
    user_enabled_emulation_use_group_config: flag(),
    user_additional_attribute_mapping: list(),
    group_tree_dn: text(),
    group_filter: text(),
    group_objectclass: text("groupOfNames"),
    group_id_attribute: text("cn"),
    group_name_attribute: text("ou"),
    group_members_are_ids: flag(),
    group_member_attribute: text("member"),
    group_desc_attribute: text("description"),
    group_attribute_ignore: list(),
    group_additional_attribute_mapping: list(),
    tls_cacertfile: text(),
    tls_cacertdir: text(),
    use_tls: flag(),
    tls_req_cert: choice("demand", "never", "allow"),
    use_pool: flag(true),
    pool_size: integer(10, 1),
    pool_retry_max: integer(3, 1),
    pool_retry_delay: { kind: "number", minimum: 0, default: 0.1 },
    pool_connection_timeout: integer(-1, -1),
    pool_connection_lifetime: integer(600, 1),
    use_auth_pool: flag(true),
    auth_pool_size: integer(100, 1),
    auth_pool_connection_lifetime: integer(60, 1),
  },
};

const TEXT_MAX = 4_096;
const LIST_MAX = 256;
const TRUE = ["true", "1", "yes", "on"];
const FALSE = ["false", "0", "no", "off"];

/** The option, or undefined where a domain has no such group or option. */
export const domainOption = (group: string, option: string): DomainOption | undefined => {
  const options = Object.hasOwn(DOMAIN_OPTIONS, group) ? DOMAIN_OPTIONS[group] : undefined;
  return options !== undefined && Object.hasOwn(options, option) ? options[option] : undefined;
};

export const isOptionGroup = (group: string): boolean => Object.hasOwn(DOMAIN_OPTIONS, group);

type Defaults = { readonly [group: string]: { readonly [option: string]: unknown } };

/** What holds where a domain says nothing; sensitive options are left out. */
export const domainOptionDefaults = (): Defaults =>
  Object.fromEntries(
    Object.entries(DOMAIN_OPTIONS).map(([group, options]) => [
      group,
      Object.fromEntries(
        Object.entries(options).flatMap(([name, option]) =>
          option.sensitive === true ? [] : [[name, option.default] as const],
        ),
      ),
    ]),
  );

const numberOf = (given: unknown, minimum: number, isWhole: boolean): number | undefined => {
  const value = typeof given === "string" && given.trim() !== "" ? Number(given) : given;
  if (typeof value !== "number" || !Number.isFinite(value) || value < minimum) return undefined;
  return isWhole && !Number.isSafeInteger(value) ? undefined : value;
};

const flagOf = (given: unknown): boolean | undefined => {
  if (typeof given === "boolean") return given;
  const word = typeof given === "string" ? given.toLowerCase() : "";
  if (TRUE.includes(word)) return true;
  return FALSE.includes(word) ? false : undefined;
};

/** Texts are also given as the numbers and truth values that they stand for: `user_enabled_default: 512`. */
const textOf = (given: unknown): string | undefined => {
  if (typeof given === "number") return String(given);
  if (typeof given === "boolean") return given ? "True" : "False";
  return isText(given) ? given : undefined;
};

const isText = (value: unknown): value is string => typeof value === "string" && value.length <= TEXT_MAX;

const listOf = (given: unknown): readonly string[] | undefined => {
  const items: unknown = isText(given) ? given.split(",").map((item) => item.trim()) : given;
  if (!Array.isArray(items) || items.length > LIST_MAX || !items.every(isText)) return undefined;
  return items.filter((item) => item !== "");
};

/** What a given value means to the option; undefined where it means nothing. Null stands for the default. */
export const meaningOf = (option: DomainOption, given: unknown): unknown => {
  if (given === null) return option.default;
  switch (option.kind) {
    case "text": {
      const meant = textOf(given);
      const isChoice = option.choices === undefined || (meant !== undefined && option.choices.includes(meant));
      return isChoice ? meant : undefined;
    }
    case "integer":
      return numberOf(given, option.minimum, true);
    case "number":
      return numberOf(given, option.minimum, false);
    case "flag":
      return flagOf(given);
    case "list":
      return listOf(given);
  }
};

const REFERENCE = /%\((\w+)\)s/g;

/** A text in which `%(password)s` and the like are replaced by the sensitive options of the domain; what is not set stays. */
export const withSecrets = (value: string, secrets: ReadonlyMap<string, string>): string =>
  value.replaceAll(REFERENCE, (reference, name: string) => secrets.get(name) ?? reference);
