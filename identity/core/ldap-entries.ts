import type { LdapSettings } from "./ldap-settings.ts";

/** An entry of a directory. */
export type LdapEntry = {
  readonly dn: string;
  /** Values by the attribute's name in lower case; attributes have no case. */
  readonly values: ReadonlyMap<string, readonly string[]>;
};

/** A user by the directory's own id. */
export type LdapUser = {
  readonly dn: string;
  readonly localId: string;
  readonly name: string;
  readonly enabled: boolean;
  readonly defaultProjectId: string | null;
  readonly extra: Readonly<Record<string, string>>;
};

export type LdapGroup = {
  readonly dn: string;
  readonly localId: string;
  readonly name: string;
  readonly description: string;
  /** As the directory names them. */
  readonly members: readonly string[];
};

const valuesOf = ({ values }: LdapEntry, attribute: string): readonly string[] =>
  attribute === "" ? [] : (values.get(attribute.toLowerCase()) ?? []);

const firstOf = (entry: LdapEntry, attribute: string): string | undefined => valuesOf(entry, attribute)[0];

/** The value by which an entry is named in its distinguished name, where that is the attribute's. */
const namingValue = ({ dn }: LdapEntry, attribute: string): string | undefined => {
  const [, type = "", value] = /^\s*([^=\s]+)\s*=\s*((?:\\.|[^,+\\])*)/.exec(dn) ?? [];
  return type.toLowerCase() === attribute.toLowerCase() ? value : undefined;
};

/** An id must be one value: of several, the one that names the entry. */
const idOf = (entry: LdapEntry, attribute: string): string | undefined => {
  const values = valuesOf(entry, attribute);
  const naming = values.length > 1 ? namingValue(entry, attribute) : undefined;
  return values.find((value) => value.toLowerCase() === naming?.trim().toLowerCase()) ?? values[0];
};

const isEnabled = (given: string | undefined, { users }: LdapSettings): boolean => {
  const value = given ?? users.enabledDefault;
  if (users.enabledMask !== 0) return (Number.parseInt(value, 10) & users.enabledMask) !== users.enabledMask;
  const isTrue = value.toLowerCase() === "true";
  return users.enabledInvert ? !isTrue : isTrue;
};

/** The user that an entry is; undefined where it lacks an id or a name. */
export const ldapUser = (entry: LdapEntry, settings: LdapSettings): LdapUser | undefined => {
  const { users } = settings;
  const localId = idOf(entry, users.id);
  const name = firstOf(entry, users.name);
  if (localId === undefined || name === undefined) return undefined;
  const extra: Record<string, string> = {};
  const shown = new Map([["email", users.mail], ["description", users.description], ...users.additional]);
  for (const [key, attribute] of shown) {
    const value = firstOf(entry, attribute);
    if (value !== undefined) extra[key] = value;
  }
  return {
    dn: entry.dn,
    localId,
    name,
    enabled: users.enabled === "" || isEnabled(firstOf(entry, users.enabled), settings),
    defaultProjectId: firstOf(entry, users.defaultProjectId) ?? null,
    extra,
  };
};

/** The group that an entry is; undefined where it lacks an id or a name. */
export const ldapGroup = (entry: LdapEntry, { groups }: LdapSettings): LdapGroup | undefined => {
  const localId = idOf(entry, groups.id);
  const name = firstOf(entry, groups.name);
  if (localId === undefined || name === undefined) return undefined;
  const description = firstOf(entry, groups.description) ?? "";
  return { dn: entry.dn, localId, name, description, members: valuesOf(entry, groups.member) };
};

/** A distinguished name in a form in which two that differ in case and blanks only are the same text. */
export const comparableDn = (dn: string): string =>
  dn
    .replaceAll(/\s*(?<!\\)([,+=])\s*/g, "$1")
    .trim()
    .toLowerCase();
