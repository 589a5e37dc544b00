import { type RawBuilder, sql } from "kysely";
import type { ChangeSet } from "./changes.ts";
import type { IdentityTransaction } from "./records.ts";

/** Members of a group up to whom each is looked at again by name; beyond it, all tokens are, once. */
const RECHECKED_BY_NAME_MAX = 1_000;

const TABLES_OF_A_USER = [
  ["group_members", "user_id"],
  ["credentials", "user_id"],
  // Before the rules that they use.
  ["application_credentials", "user_id"],
  ["access_rules", "user_id"],
  ["request_tokens", "authorizing_user_id"],
  ["access_tokens", "authorizing_user_id"],
  ["federated_users", "user_id"],
  ["passwords", "user_id"],
] as const;

const idsOf = async (transaction: IdentityTransaction, query: RawBuilder<{ id: string }>): Promise<string[]> =>
  (await query.execute(transaction)).rows.map(({ id }) => id);

/** The trusts that a user made or was given, and those that were handed on from them. */
const trustsOf = (transaction: IdentityTransaction, userId: string): Promise<string[]> =>
  idsOf(
    transaction,
    sql`
      WITH RECURSIVE gone (id) AS (
        SELECT id FROM trusts WHERE trustor_user_id = ${userId} OR trustee_user_id = ${userId}
        UNION SELECT t.id FROM trusts t JOIN gone ON t.redelegated_trust_id = gone.id)
      SELECT id FROM gone`,
  );

/** Removes a user of the SQL driver with everything that is the user's, and voids every token that is owed to the user. */
export const removeUser = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  userId: string,
): Promise<void> => {
  for (const trustId of await trustsOf(transaction, userId)) {
    await transaction.deleteFrom("trusts").where("id", "=", trustId).execute();
    // One that its bearer holds in another's name is not caught by the user's id.
    change.revoke({ kind: "revoke", trustId });
  }
  await sql`DELETE FROM assignments WHERE actor_kind = 'user' AND actor_id = ${userId}`.execute(transaction);
  for (const [table, column] of TABLES_OF_A_USER) {
    await sql`DELETE FROM ${sql.table(table)} WHERE ${sql.ref(column)} = ${userId}`.execute(transaction);
  }
  await transaction.deleteFrom("users").where("id", "=", userId).execute();
  change.revoke({ kind: "revoke", userId });
  change.notify({ action: "delete", resource: "user", id: userId });
};

/** Removes a group of the SQL driver with its memberships and roles. */
export const removeGroup = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  groupId: string,
): Promise<void> => {
  const members = await idsOf(
    transaction,
    sql`SELECT user_id AS id FROM group_members WHERE group_id = ${groupId} LIMIT ${RECHECKED_BY_NAME_MAX + 1}`,
  );
  const held = await transaction
    .deleteFrom("assignments")
    .where("actor_kind", "=", "group")
    .where("actor_id", "=", groupId)
    .executeTakeFirst();
  await transaction.deleteFrom("group_members").where("group_id", "=", groupId).execute();
  await transaction.deleteFrom("groups").where("id", "=", groupId).execute();
  // A group without roles gave nobody a right.
  if (held.numDeletedRows > 0n) {
    if (members.length > RECHECKED_BY_NAME_MAX) change.revoke({ kind: "recheck" });
    else for (const userId of members) change.revoke({ kind: "recheck", userId });
  }
  change.notify({ action: "delete", resource: "group", id: groupId });
};
