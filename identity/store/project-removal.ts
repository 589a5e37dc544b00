import { type RawBuilder, sql } from "kysely";
import type { ChangeSet } from "./changes.ts";
import type { IdentityTransaction } from "./records.ts";
import type { Project } from "./schema.ts";

const IDS_PER_QUERY = 500;

/** What stands behind IN: a list of ids, or a query for them. */
type IdSet = RawBuilder<unknown>;

const run = async (transaction: IdentityTransaction, statement: RawBuilder<unknown>): Promise<void> => {
  await statement.execute(transaction);
};

/** Removes the trusts for which `condition` holds, and those that were handed on from them. Answers their ids. */
const removeTrusts = async (transaction: IdentityTransaction, condition: RawBuilder<unknown>): Promise<string[]> => {
  const gone = sql<{ id: string }>`
    WITH RECURSIVE gone (id) AS (
      SELECT id FROM trusts WHERE ${condition}
      UNION SELECT t.id FROM trusts t JOIN gone ON t.redelegated_trust_id = gone.id)
    SELECT id FROM gone`;
  const ids = (await gone.execute(transaction)).rows.map(({ id }) => id);
  for (let start = 0; start < ids.length; start += IDS_PER_QUERY) {
    const slice = ids.slice(start, start + IDS_PER_QUERY);
    await transaction.deleteFrom("trusts").where("id", "in", slice).execute();
  }
  return ids;
};

/** What belongs to projects and hangs on no reference. Tags, endpoint filters, application credentials and limits go by theirs. */
const removeBelongings = async (transaction: IdentityTransaction, projects: IdSet): Promise<void> => {
  await run(transaction, sql`DELETE FROM assignments WHERE target_kind = 'project' AND target_id IN ${projects}`);
  await run(transaction, sql`DELETE FROM credentials WHERE project_id IN ${projects}`);
  await run(transaction, sql`DELETE FROM access_tokens WHERE project_id IN ${projects}`);
  await run(transaction, sql`DELETE FROM request_tokens WHERE requested_project_id IN ${projects}`);
  await run(transaction, sql`UPDATE users SET default_project_id = NULL WHERE default_project_id IN ${projects}`);
};

/** Removes projects with all that belongs to them. Requires: whoever is below one of them stands before it. */
export const removeProjects = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  projects: readonly Project[],
): Promise<void> => {
  for (let start = 0; start < projects.length; start += IDS_PER_QUERY) {
    const ids = sql`(${sql.join(projects.slice(start, start + IDS_PER_QUERY).map(({ id }) => id))})`;
    await removeBelongings(transaction, ids);
    // Their tokens are for these projects and need no word of their own.
    await removeTrusts(transaction, sql`project_id IN ${ids}`);
    await run(transaction, sql`DELETE FROM projects WHERE id IN ${ids}`);
  }
  for (const { id } of projects) {
    change.revoke({ kind: "revoke", projectId: id });
    change.notify({ action: "delete", resource: "project", id });
  }
};

/** Users or groups of a domain, those of a directory too. */
const actorsOf = (domainId: string, kind: "user" | "group"): IdSet => sql`(
  SELECT id FROM ${sql.table(kind === "user" ? "users" : "groups")} WHERE domain_id = ${domainId}
  UNION SELECT public_id FROM id_mappings WHERE domain_id = ${domainId} AND kind = ${kind})`;

/** Users of other domains may have rights elsewhere through a group of this one. */
const recheckRightsThrough = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  domainId: string,
  groups: IdSet,
): Promise<void> => {
  const rows = sql<{ target_kind: string; target_id: string; inherited: number; domain_id: string | null }>`
    SELECT DISTINCT a.target_kind, a.target_id, a.inherited, p.domain_id
    FROM assignments a LEFT JOIN projects p ON p.id = a.target_id
    WHERE a.actor_kind = 'group' AND a.actor_id IN ${groups}`;
  for (const { target_kind, target_id, inherited, domain_id } of (await rows.execute(transaction)).rows) {
    const targetDomain = domain_id ?? target_id;
    if (target_kind === "system") change.revoke({ kind: "recheck" });
    else if (targetDomain === domainId) continue;
    else if (target_kind === "project" && inherited === 0) change.revoke({ kind: "recheck", projectId: target_id });
    else change.revoke({ kind: "recheck", domainId: targetDomain });
  }
};

/** Removes a domain with everything in it. Its roles, configuration, limits and ids of a directory go by their references. */
export const removeDomain = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  domainId: string,
): Promise<void> => {
  const projects = sql`(SELECT id FROM projects WHERE domain_id = ${domainId})`;
  const users = actorsOf(domainId, "user");
  const groups = actorsOf(domainId, "group");
  await recheckRightsThrough(transaction, change, domainId, groups);
  const trusts = sql`trustor_user_id IN ${users} OR trustee_user_id IN ${users} OR project_id IN ${projects}`;
  for (const trustId of await removeTrusts(transaction, trusts)) change.revoke({ kind: "revoke", trustId });
  await removeBelongings(transaction, projects);
  await removeBelongings(transaction, sql`(${domainId})`);
  await run(transaction, sql`DELETE FROM assignments WHERE target_kind = 'domain' AND target_id = ${domainId}`);
  await run(transaction, sql`DELETE FROM assignments WHERE actor_kind = 'user' AND actor_id IN ${users}`);
  await run(transaction, sql`DELETE FROM assignments WHERE actor_kind = 'group' AND actor_id IN ${groups}`);
  await run(transaction, sql`DELETE FROM group_members WHERE user_id IN ${users} OR group_id IN ${groups}`);
  await run(transaction, sql`DELETE FROM credentials WHERE user_id IN ${users}`);
  await run(transaction, sql`DELETE FROM application_credentials WHERE user_id IN ${users}`);
  await run(transaction, sql`DELETE FROM access_rules WHERE user_id IN ${users}`);
  await run(transaction, sql`DELETE FROM access_tokens WHERE authorizing_user_id IN ${users}`);
  await run(transaction, sql`DELETE FROM request_tokens WHERE authorizing_user_id IN ${users}`);
  await transaction.deleteFrom("identity_providers").where("domain_id", "=", domainId).execute();
  await transaction.deleteFrom("users").where("domain_id", "=", domainId).execute();
  await transaction.deleteFrom("groups").where("domain_id", "=", domainId).execute();
  await run(transaction, sql`DELETE FROM projects WHERE domain_id = ${domainId}`);
  await transaction.deleteFrom("projects").where("id", "=", domainId).execute();
  // Of its users, of its projects, and of itself.
  change.revoke({ kind: "revoke", domainId });
  change.notify({ action: "delete", resource: "domain", id: domainId });
};
