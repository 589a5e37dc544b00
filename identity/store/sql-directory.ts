import { type RawBuilder, sql } from "kysely";
import type { Clock } from "../../common/clock.ts";
import type { IdentityConfig } from "../config.ts";
import { inactiveSinceMs } from "../core/password-rules.ts";
import type { Changes } from "./changes.ts";
import type { Directory, DirectoryGroup, DirectoryUser } from "./directory.ts";
import type { PasswordHasher } from "./password-hasher.ts";
import {
  type Condition,
  conditionSql,
  findRecord,
  type IdentityDatabase,
  type ListQuery,
  listRows,
  parsed,
} from "./records.ts";
import type { Group } from "./schema.ts";
import { createPasswordCheck } from "./sql-password-check.ts";

export type SqlDirectoryOptions = {
  readonly database: IdentityDatabase;
  readonly changes: Changes;
  readonly hasher: PasswordHasher;
  readonly clock: Clock;
  readonly config: Pick<IdentityConfig, "passwords" | "lockout">;
};

/** A user with what belongs to one from other tables. */
type UserRow = {
  readonly id: string;
  readonly domain_id: string;
  readonly name: string;
  readonly default_project_id: string | null;
  readonly enabled: number;
  readonly options: string;
  readonly extra: string;
  readonly password_expires_at_ms: number | null;
};

const userOf = (row: UserRow): DirectoryUser => ({
  id: row.id,
  name: row.name,
  domainId: row.domain_id,
  enabled: row.enabled === 1,
  defaultProjectId: row.default_project_id,
  passwordExpiresAtMs: row.password_expires_at_ms,
  options: parsed(row.options),
  extra: parsed(row.extra),
});

const groupOf = (row: Group): DirectoryGroup => ({
  id: row.id,
  name: row.name,
  domainId: row.domain_id,
  description: row.description,
  extra: parsed(row.extra),
});

/** Columns of conditions that are about another table, and the ids which that one gives. */
type Elsewhere = Readonly<Record<string, (conditions: readonly RawBuilder<boolean>[]) => RawBuilder<unknown>>>;

/** What rows must fulfil for `query`. */
const conditionsOf = (query: ListQuery, elsewhere: Elsewhere): RawBuilder<unknown>[] => {
  const own: RawBuilder<unknown>[] = [];
  const others = new Map<Elsewhere[string], RawBuilder<boolean>[]>();
  for (const condition of query.conditions) {
    const other = Object.hasOwn(elsewhere, condition.column) ? elsewhere[condition.column] : undefined;
    if (other === undefined) own.push(conditionSql(condition));
    else others.set(other, [...(others.get(other) ?? []), conditionSql(condition)]);
  }
  for (const [idsWhere, conditions] of others) own.push(sql`id IN (${idsWhere(conditions)})`);
  return own;
};

/** The driver that keeps users and groups in the database. */
export const createSqlDirectory = (options: SqlDirectoryOptions): Directory => {
  const { database, clock, config } = options;

  /** JSON that this service wrote itself: quotes in texts are escaped, so nothing but the option looks like this. */
  const enabledSql = (): RawBuilder<unknown> => {
    const sinceMs = inactiveSinceMs(config.passwords, clock.nowMs());
    if (sinceMs === undefined) return sql`enabled`;
    return sql`CASE WHEN enabled = 1 AND (COALESCE(last_active_at_ms, created_at_ms) > ${sinceMs}
      OR options LIKE '%"ignore_user_inactivity":true%') THEN 1 ELSE 0 END`;
  };
  const usersSql = (): RawBuilder<unknown> => sql`(
    SELECT id, domain_id, name, default_project_id, ${enabledSql()} AS enabled, options, extra,
      (SELECT expires_at_ms FROM passwords WHERE user_id = users.id ORDER BY passwords.id DESC LIMIT 1) AS password_expires_at_ms
    FROM users)`;
  const livingSql = (): RawBuilder<unknown> => sql`(expires_at_ms IS NULL OR expires_at_ms > ${clock.nowMs()})`;

  const usersWhere = async (query: ListQuery): Promise<DirectoryUser[]> => {
    const federated: Elsewhere[string] = (conditions) =>
      sql`SELECT user_id FROM federated_users WHERE ${sql.join(conditions, sql` AND `)}`;
    const members: Elsewhere[string] = (conditions) =>
      sql`SELECT user_id FROM group_members WHERE ${livingSql()} AND ${sql.join(conditions, sql` AND `)}`;
    const elsewhere: Elsewhere = { idp_id: federated, protocol_id: federated, unique_id: federated, group_id: members };
    const rows = await listRows<UserRow>(database, usersSql(), query, conditionsOf(query, elsewhere));
    return rows.map(userOf);
  };
  const firstUser = async (...conditions: Condition[]): Promise<DirectoryUser | undefined> =>
    (await usersWhere({ conditions, sortColumn: "id", descending: false, limit: 1, marker: undefined }))[0];

  return {
    findUser: (id) => firstUser({ column: "id", comparison: "equals", value: id }),
    findUserByName: (domainId, name) =>
      firstUser(
        { column: "domain_id", comparison: "equals", value: domainId },
        { column: "name", comparison: "equals", value: name },
      ),
    listUsers: usersWhere,
    findGroup: async (id) => {
      const row = await findRecord(database, "groups", id);
      return row && groupOf(row);
    },
    findGroupByName: async (domainId, name) => {
      const row = await database
        .selectFrom("groups")
        .selectAll()
        .where("domain_id", "=", domainId)
        .where("name", "=", name)
        .executeTakeFirst();
      return row && groupOf(row);
    },
    listGroups: async (query) => {
      const ofUser: Elsewhere[string] = (conditions) =>
        sql`SELECT group_id FROM group_members WHERE ${livingSql()} AND ${sql.join(conditions, sql` AND `)}`;
      const conditions = conditionsOf(query, { user_id: ofUser });
      return (await listRows<Group>(database, sql.table("groups"), query, conditions)).map(groupOf);
    },
    groupIdsOf: async (userId) => {
      const rows = sql<{ id: string }>`
        SELECT group_id AS id FROM group_members WHERE user_id = ${userId} AND ${livingSql()}`;
      return (await rows.execute(database)).rows.map(({ id }) => id);
    },
    userIdsIn: async (groupId) => {
      const rows = sql<{ id: string }>`
        SELECT user_id AS id FROM group_members WHERE group_id = ${groupId} AND ${livingSql()}`;
      return (await rows.execute(database)).rows.map(({ id }) => id);
    },
    verifyPassword: createPasswordCheck(options),
    isWritable: () => Promise.resolve(true),
  };
};
