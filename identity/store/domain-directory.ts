import type { Clock } from "../../common/clock.ts";
import { identityError } from "../core/identity-error.ts";
import { ldapSettingsOf } from "../core/ldap-settings.ts";
import type { Changes } from "./changes.ts";
import type { CredentialCipher } from "./credential-cipher.ts";
import type { Directory } from "./directory.ts";
import { domainConfiguration } from "./domain-configurations.ts";
import { createIdMappings, type Mapping, type MappedKind } from "./id-mappings.ts";
import type { LdapConnection } from "./ldap-connection.ts";
import type { LdapDirectory } from "./ldap-directory.ts";
import type { PasswordHasher } from "./password-hasher.ts";
import type { ReadCache } from "./read-cache.ts";
import type { IdentityDatabase, ListQuery } from "./records.ts";

export type DomainDirectoryOptions = {
  /** For the domains that do not say otherwise. */
  readonly sql: Directory;
  readonly database: IdentityDatabase;
  readonly changes: Changes;
  readonly cache: ReadCache;
  readonly cipher: CredentialCipher;
  readonly hasher: PasswordHasher;
  readonly clock: Clock;
};

/** What a domain's configuration says, with the secrets in it. */
type Driver = { readonly kind: "sql" } | { readonly kind: "ldap"; readonly options: ReadonlyMap<string, unknown> };
type Running = {
  readonly options: ReadonlyMap<string, unknown>;
  readonly connection: LdapConnection;
  readonly directory: LdapDirectory;
};

const SQL_DRIVER: Driver = { kind: "sql" };

const loadLdap = async () => ({ ...(await import("./ldap-connection.ts")), ...(await import("./ldap-directory.ts")) });

const sameOptions = (left: ReadonlyMap<string, unknown>, right: ReadonlyMap<string, unknown>): boolean =>
  left.size === right.size &&
  [...left].every(([name, value]) => JSON.stringify(value) === JSON.stringify(right.get(name)));

const valueOf = (query: ListQuery, column: string): string | undefined => {
  const found = query.conditions.find((condition) => condition.column === column && condition.comparison === "equals");
  return typeof found?.value === "string" ? found.value : undefined;
};

/** Users and groups of all domains: of those whose configuration says `ldap` from there, of all others from `sql`. */
export const createDomainDirectory = (options: DomainDirectoryOptions): Directory & AsyncDisposable => {
  const { sql, database, changes, cache, cipher, hasher, clock } = options;
  const mappings = createIdMappings(database, changes);
  const running = new Map<string, Running>();

  const driverOf = (domainId: string): Promise<Driver> =>
    cache.get(`directory of ${domainId}`, async () => {
      const named = await database
        .selectFrom("domain_configurations")
        .select("value")
        .where("domain_id", "=", domainId)
        .where("group_name", "=", "identity")
        .where("option_name", "=", "driver")
        .executeTakeFirst();
      if (named === undefined) return SQL_DRIVER;
      const configuration = await domainConfiguration(database, cipher, domainId);
      if (configuration.get("identity")?.get("driver") !== "ldap") return SQL_DRIVER;
      return { kind: "ldap", options: configuration.get("ldap") ?? new Map<string, unknown>() };
    });

  const stop = (domainId: string): void => {
    const known = running.get(domainId);
    running.delete(domainId);
    // Requests under way end with an error of their own.
    known?.connection[Symbol.asyncDispose]().then(undefined, () => undefined);
  };

  /** The domain's directory; undefined where SQL has its users. */
  const ldapOf = async (domainId: string): Promise<LdapDirectory | undefined> => {
    const driver = await driverOf(domainId);
    // Loaded with the first directory: it costs a process 4 MB. Nothing is waited for below, so that a domain has one connection.
    const library = driver.kind === "sql" ? undefined : await loadLdap();
    const known = running.get(domainId);
    if (library === undefined || driver.kind === "sql") {
      if (known !== undefined) stop(domainId);
      return undefined;
    }
    if (known !== undefined && sameOptions(known.options, driver.options)) return known.directory;
    stop(domainId);
    const settings = ldapSettingsOf(driver.options);
    for (const url of settings.urls) {
      if (/^ldaps?:\/\//.test(url) && URL.canParse(url)) continue;
      throw identityError("directory-unavailable", "The directory of this domain is not configured well.", { url });
    }
    const connection = library.createLdapConnection(settings, clock);
    const directory = library.createLdapDirectory({ domainId, settings, connection, mappings, hasher });
    running.set(domainId, { options: driver.options, connection, directory });
    return directory;
  };

  type Found = { readonly mapping: Mapping; readonly ldap: LdapDirectory };
  /** Where an id is a directory's: which, and what it is called there. */
  const findMapped = async (id: string, kind: MappedKind): Promise<Found | undefined> => {
    const mapping = await mappings.find(id);
    if (mapping?.kind !== kind) return undefined;
    const ldap = await ldapOf(mapping.domainId);
    return ldap && { mapping, ldap };
  };

  const without = (query: ListQuery, column: string): ListQuery => ({
    ...query,
    conditions: query.conditions.filter((condition) => condition.column !== column),
  });

  return {
    findUser: async (id) => {
      const found = await findMapped(id, "user");
      return found === undefined ? sql.findUser(id) : found.ldap.findUser(found.mapping.localId);
    },
    findUserByName: async (domainId, name) => {
      const ldap = await ldapOf(domainId);
      return ldap === undefined ? sql.findUserByName(domainId, name) : ldap.findUserByName(name);
    },
    listUsers: async (query) => {
      const groupId = valueOf(query, "group_id");
      if (groupId !== undefined) {
        const group = await findMapped(groupId, "group");
        if (group === undefined) return sql.listUsers(query);
        return group.ldap.listUsers(without(query, "group_id"), group.mapping.localId);
      }
      const domainId = valueOf(query, "domain_id");
      const ldap = domainId === undefined ? undefined : await ldapOf(domainId);
      return ldap === undefined ? sql.listUsers(query) : ldap.listUsers(query);
    },
    findGroup: async (id) => {
      const found = await findMapped(id, "group");
      return found === undefined ? sql.findGroup(id) : found.ldap.findGroup(found.mapping.localId);
    },
    findGroupByName: async (domainId, name) => {
      const ldap = await ldapOf(domainId);
      return ldap === undefined ? sql.findGroupByName(domainId, name) : ldap.findGroupByName(name);
    },
    listGroups: async (query) => {
      const userId = valueOf(query, "user_id");
      if (userId !== undefined) {
        const user = await findMapped(userId, "user");
        if (user === undefined) return sql.listGroups(query);
        return user.ldap.listGroups(without(query, "user_id"), user.mapping.localId);
      }
      const domainId = valueOf(query, "domain_id");
      const ldap = domainId === undefined ? undefined : await ldapOf(domainId);
      return ldap === undefined ? sql.listGroups(query) : ldap.listGroups(query);
    },
    groupIdsOf: async (userId) => {
      const found = await findMapped(userId, "user");
      return found === undefined ? sql.groupIdsOf(userId) : found.ldap.groupIdsOf(found.mapping.localId);
    },
    userIdsIn: async (groupId) => {
      const found = await findMapped(groupId, "group");
      return found === undefined ? sql.userIdsIn(groupId) : found.ldap.userIdsIn(found.mapping.localId);
    },
    verifyPassword: async (userId, password) => {
      const found = userId === undefined ? undefined : await findMapped(userId, "user");
      if (found === undefined) return sql.verifyPassword(userId, password);
      return found.ldap.verifyPassword(found.mapping.localId, password);
    },
    isWritable: async (domainId) => (await driverOf(domainId)).kind === "sql",
    [Symbol.asyncDispose]: async () => {
      for (const { connection } of running.values()) await connection[Symbol.asyncDispose]();
      running.clear();
    },
  };
};
