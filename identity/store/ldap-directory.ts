import { AndFilter, EqualityFilter, type Filter, FilterParser, SubstringFilter } from "ldapts";
import { messageOf } from "../../common/errors.ts";
import { identityError } from "../core/identity-error.ts";
import { comparableDn, type LdapGroup, type LdapUser, ldapGroup, ldapUser } from "../core/ldap-entries.ts";
import type { LdapSettings } from "../core/ldap-settings.ts";
import { listPart } from "../core/record-list.ts";
import type { DirectoryGroup, DirectoryUser } from "./directory.ts";
import type { IdMappings } from "./id-mappings.ts";
import type { LdapConnection } from "./ldap-connection.ts";
import type { PasswordHasher } from "./password-hasher.ts";
import type { Condition, ListQuery } from "./records.ts";

/** Members up to whom each is looked up by its distinguished name; beyond it, all users are read and compared. */
const MEMBERS_LOOKED_UP_MAX = 16;

export type LdapDirectoryOptions = {
  readonly domainId: string;
  readonly settings: LdapSettings;
  readonly connection: LdapConnection;
  readonly mappings: IdMappings;
  readonly hasher: PasswordHasher;
};

/** Users and groups of one domain, by their local ids where the port has public ones: who asks has looked them up. Nothing is written. */
export type LdapDirectory = {
  findUser(localId: string): Promise<DirectoryUser | undefined>;
  findUserByName(name: string): Promise<DirectoryUser | undefined>;
  /** `groupLocalId`: its members only. */
  listUsers(query: ListQuery, groupLocalId?: string): Promise<DirectoryUser[]>;
  findGroup(localId: string): Promise<DirectoryGroup | undefined>;
  findGroupByName(name: string): Promise<DirectoryGroup | undefined>;
  /** `userLocalId`: those that the user is in. */
  listGroups(query: ListQuery, userLocalId?: string): Promise<DirectoryGroup[]>;
  /** Public ids. */
  groupIdsOf(userLocalId: string): Promise<string[]>;
  userIdsIn(groupLocalId: string): Promise<string[]>;
  verifyPassword(userLocalId: string, password: string): Promise<"right" | "wrong">;
};

const equality = (attribute: string, value: string): Filter => new EqualityFilter({ attribute, value });

/** An operator's filter. Values that come from elsewhere never pass through this: they are members of filter objects. */
const parsedFilter = (text: string): Filter => {
  try {
    return FilterParser.parseString(text);
  } catch (thrown) {
    throw identityError("directory-unavailable", "The directory of this domain is not configured well.", {
      reason: `filter ${text}: ${messageOf(thrown)}`,
    });
  }
};

/** What a directory can already leave out. It compares without case, so that what it gives is looked at again. */
const narrowing = (attribute: string, conditions: readonly Condition[]): Filter[] =>
  conditions.flatMap(({ column, comparison, value }) => {
    if (column !== "name" || typeof value !== "string" || value === "") return [];
    switch (comparison) {
      case "equals":
        return [equality(attribute, value)];
      case "startswith":
        return [new SubstringFilter({ attribute, initial: value })];
      case "endswith":
        return [new SubstringFilter({ attribute, final: value })];
      case "contains":
        return [new SubstringFilter({ attribute, any: [value] })];
      case "lt":
      case "lte":
      case "gt":
      case "gte":
      case "neq":
        return [];
    }
  });

/** Of several entries whose names differ in case only the one that is meant to the letter; of others, the only one. */
const theOneNamed = <Item extends { readonly name: string }>(
  found: readonly Item[],
  name: string,
): Item | undefined => {
  const exact = found.filter((item) => item.name === name);
  const candidates = exact.length > 0 ? exact : found;
  return candidates.length === 1 ? candidates[0] : undefined;
};

/** The driver that reads a domain's users and groups from an LDAP directory. */
export const createLdapDirectory = (options: LdapDirectoryOptions): LdapDirectory => {
  const { domainId, settings, connection, mappings, hasher } = options;

  const entriesOf = async <Item>(
    kind: "users" | "groups",
    filters: readonly Filter[],
    convert: (entry: Parameters<typeof ldapUser>[0], settings: LdapSettings) => Item | undefined,
    base?: string,
  ): Promise<Item[]> => {
    const { tree, objectClass, filter } = settings[kind];
    const { users, groups } = settings;
    const attributes =
      kind === "users"
        ? [users.id, users.name, users.mail, users.description, users.enabled, users.defaultProjectId]
        : [groups.id, groups.name, groups.description, groups.member];
    const all = [equality("objectClass", objectClass), ...(filter === "" ? [] : [parsedFilter(filter)]), ...filters];
    const entries = await connection.search({
      base: base ?? tree,
      scope: base === undefined ? settings.scope : "base",
      filter: new AndFilter({ filters: all }),
      attributes: [...attributes, ...(kind === "users" ? users.additional.values() : [])].filter((name) => name !== ""),
    });
    return entries.flatMap((entry) => convert(entry, settings) ?? []);
  };
  const usersWhere = (...filters: Filter[]): Promise<LdapUser[]> => entriesOf("users", filters, ldapUser);
  const groupsWhere = (...filters: Filter[]): Promise<LdapGroup[]> => entriesOf("groups", filters, ldapGroup);

  const userBy = async (localId: string): Promise<LdapUser | undefined> =>
    (await usersWhere(equality(settings.users.id, localId))).find((user) => user.localId === localId);
  const groupBy = async (localId: string): Promise<LdapGroup | undefined> =>
    (await groupsWhere(equality(settings.groups.id, localId))).find((group) => group.localId === localId);

  const publicUsers = async (users: readonly LdapUser[]): Promise<DirectoryUser[]> => {
    const ids = await mappings.publicIds(
      domainId,
      "user",
      users.map(({ localId }) => localId),
    );
    return users.flatMap(({ name, enabled, defaultProjectId, extra }, index) => {
      const id = ids[index];
      if (id === undefined) return [];
      return { id, name, domainId, enabled, defaultProjectId, passwordExpiresAtMs: null, options: {}, extra };
    });
  };
  const publicGroups = async (groups: readonly LdapGroup[]): Promise<DirectoryGroup[]> => {
    const ids = await mappings.publicIds(
      domainId,
      "group",
      groups.map(({ localId }) => localId),
    );
    return groups.flatMap(({ name, description }, index) => {
      const id = ids[index];
      return id === undefined ? [] : { id, name, domainId, description, extra: {} };
    });
  };

  const membersOf = async (groupLocalId: string): Promise<LdapUser[]> => {
    const members = (await groupBy(groupLocalId))?.members ?? [];
    if (members.length > MEMBERS_LOOKED_UP_MAX) {
      const wanted = new Set(settings.groups.membersAreIds ? members : members.map(comparableDn));
      const keyOf = (user: LdapUser): string => (settings.groups.membersAreIds ? user.localId : comparableDn(user.dn));
      return (await usersWhere()).filter((user) => wanted.has(keyOf(user)));
    }
    const found = members.map(async (member) => {
      if (settings.groups.membersAreIds) return (await userBy(member)) ?? [];
      const [user] = await entriesOf("users", [], ldapUser, member);
      // An entry elsewhere in the directory is no user of this domain.
      return user !== undefined && comparableDn(user.dn).endsWith(comparableDn(settings.users.tree)) ? user : [];
    });
    return (await Promise.all(found)).flat();
  };

  const groupsOf = async (userLocalId: string, ...filters: Filter[]): Promise<LdapGroup[]> => {
    const user = await userBy(userLocalId);
    if (user === undefined) return [];
    const { member, membersAreIds } = settings.groups;
    return groupsWhere(equality(member, membersAreIds ? user.localId : user.dn), ...filters);
  };

  const firstPublic = async <Item, Public>(item: Item | undefined, convert: (items: Item[]) => Promise<Public[]>) =>
    item === undefined ? undefined : (await convert([item]))[0];

  return {
    findUser: async (localId) => firstPublic(await userBy(localId), publicUsers),
    findUserByName: async (name) =>
      firstPublic(theOneNamed(await usersWhere(equality(settings.users.name, name)), name), publicUsers),
    listUsers: async (query, groupLocalId) => {
      const found =
        groupLocalId === undefined
          ? await usersWhere(...narrowing(settings.users.name, query.conditions))
          : await membersOf(groupLocalId);
      const column = (user: DirectoryUser, name: string): string | number | null => {
        if (name === "enabled") return Number(user.enabled);
        if (name === "domain_id") return user.domainId;
        return name === "id" || name === "name" ? user[name] : null;
      };
      return listPart(await publicUsers(found), query, column);
    },
    findGroup: async (localId) => firstPublic(await groupBy(localId), publicGroups),
    findGroupByName: async (name) =>
      firstPublic(theOneNamed(await groupsWhere(equality(settings.groups.name, name)), name), publicGroups),
    listGroups: async (query, userLocalId) => {
      const filters = narrowing(settings.groups.name, query.conditions);
      const found = userLocalId === undefined ? await groupsWhere(...filters) : await groupsOf(userLocalId, ...filters);
      const column = (group: DirectoryGroup, name: string): string | null => {
        if (name === "domain_id") return group.domainId;
        return name === "id" || name === "name" ? group[name] : null;
      };
      return listPart(await publicGroups(found), query, column);
    },
    groupIdsOf: async (userLocalId) => (await publicGroups(await groupsOf(userLocalId))).map(({ id }) => id),
    userIdsIn: async (groupLocalId) => (await publicUsers(await membersOf(groupLocalId))).map(({ id }) => id),
    verifyPassword: async (userLocalId, password) => {
      const check = async (): Promise<boolean> => {
        const user = await userBy(userLocalId);
        // An empty password is an anonymous login, which succeeds for everyone (RFC 4513, 5.1.2).
        return user !== undefined && password !== "" && connection.authenticate(user.dn, password);
      };
      // The directory does the work; the hash takes the time that it takes for users who are not there.
      const [isRight] = await Promise.all([check(), hasher.verify(password, undefined)]);
      return isRight ? "right" : "wrong";
    },
  };
};
