import type { Clock } from "../../common/clock.ts";
import type { Directory, DirectoryGroup, DirectoryUser } from "./directory.ts";
import type { PasswordHasher } from "./password-hasher.ts";
import { findRecord, type IdentityDatabase, listRecords, parsed } from "./records.ts";
import type { Group, User } from "./schema.ts";

export type SqlDirectoryOptions = {
  readonly database: IdentityDatabase;
  readonly hasher: PasswordHasher;
  readonly clock: Clock;
};

type Password = { readonly hash: string; readonly expires_at_ms: number | null };

const newestPassword = (database: IdentityDatabase, userId: string): Promise<Password | undefined> =>
  database
    .selectFrom("passwords")
    .select(["hash", "expires_at_ms"])
    .where("user_id", "=", userId)
    .orderBy("id", "desc")
    .limit(1)
    .executeTakeFirst();

const userOf = async (database: IdentityDatabase, row: User | undefined): Promise<DirectoryUser | undefined> => {
  if (row === undefined) return undefined;
  const password = await newestPassword(database, row.id);
  return {
    id: row.id,
    name: row.name,
    domainId: row.domain_id,
    enabled: row.enabled === 1,
    defaultProjectId: row.default_project_id,
    passwordExpiresAtMs: password?.expires_at_ms ?? null,
    options: parsed(row.options),
    extra: parsed(row.extra),
  };
};

const groupOf = (row: Group): DirectoryGroup => ({
  id: row.id,
  name: row.name,
  domainId: row.domain_id,
  description: row.description,
  extra: parsed(row.extra),
});

/** Users and groups in the service's own database. */
export const createSqlDirectory = ({ database, hasher, clock }: SqlDirectoryOptions): Directory => ({
  findUser: async (id) => userOf(database, await findRecord(database, "users", id)),
  findUserByName: async (domainId, name) => {
    const users = database.selectFrom("users").selectAll().where("domain_id", "=", domainId).where("name", "=", name);
    return userOf(database, await users.executeTakeFirst());
  },
  listUsers: async (query) => {
    const rows = await listRecords(database, "users", query);
    const users = await Promise.all(rows.map((row) => userOf(database, row)));
    return users.flatMap((user) => user ?? []);
  },
  findGroup: async (id) => {
    const row = await findRecord(database, "groups", id);
    return row && groupOf(row);
  },
  findGroupByName: async (domainId, name) => {
    const groups = database.selectFrom("groups").selectAll().where("domain_id", "=", domainId).where("name", "=", name);
    const row = await groups.executeTakeFirst();
    return row && groupOf(row);
  },
  listGroups: async (query) => (await listRecords(database, "groups", query)).map(groupOf),
  groupIdsOf: async (userId) => {
    const rows = await database
      .selectFrom("group_members")
      .select("group_id")
      .where("user_id", "=", userId)
      .where((where) => where.or([where("expires_at_ms", "is", null), where("expires_at_ms", ">", clock.nowMs())]))
      .execute();
    return rows.map(({ group_id }) => group_id);
  },
  userIdsIn: async (groupId) => {
    const rows = await database
      .selectFrom("group_members")
      .select("user_id")
      .where("group_id", "=", groupId)
      .where((where) => where.or([where("expires_at_ms", "is", null), where("expires_at_ms", ">", clock.nowMs())]))
      .execute();
    return rows.map(({ user_id }) => user_id);
  },
  verifyPassword: async (userId, password) => {
    const stored = userId === undefined ? undefined : await newestPassword(database, userId);
    // The work is done whoever was named; only afterwards does it matter whether there is such a user.
    if (!(await hasher.verify(password, stored?.hash)) || stored === undefined) return "wrong";
    return stored.expires_at_ms !== null && stored.expires_at_ms <= clock.nowMs() ? "expired" : "right";
  },
});
