import { type RawBuilder, sql } from "kysely";
import type { GrantedRole } from "../core/assignment-expansion.ts";
import { type GrantSurroundings, recheckedByGrant } from "../core/grant-events.ts";
import { impliedByRoleIds } from "../core/roles.ts";
import { effectiveRoles, implicationsOf, type Reader } from "./assignments.ts";
import type { ChangeSet } from "./changes.ts";
import { ReadCache } from "./read-cache.ts";
import type { IdentityTransaction } from "./records.ts";
import type { AssignmentTable, Project, Role } from "./schema.ts";

/** Projects beneath a grant, or grants of a role, up to which tokens are looked at by name; beyond it all of the domain, or all. */
const RECHECKED_BY_NAME_MAX = 64;

/** What was read before it began is not what a transaction sees. */
const readerIn = (transaction: IdentityTransaction): Reader => ({ database: transaction, cache: new ReadCache() });

export const grantRow = (grant: GrantedRole): AssignmentTable => ({
  actor_kind: grant.actorKind,
  actor_id: grant.actorId,
  target_kind: grant.targetKind,
  target_id: grant.targetId,
  role_id: grant.roleId,
  inherited: Number(grant.inherited),
});

export const grantOfRow = (row: AssignmentTable): GrantedRole => ({
  actorKind: row.actor_kind,
  actorId: row.actor_id,
  targetKind: row.target_kind,
  targetId: row.target_id,
  roleId: row.role_id,
  inherited: row.inherited === 1,
});

const idsOf = async (transaction: IdentityTransaction, query: RawBuilder<{ id: string }>): Promise<string[]> =>
  (await query.execute(transaction)).rows.map(({ id }) => id);

const beneathSql = (id: string): RawBuilder<unknown> => sql`
  WITH RECURSIVE below (id) AS (
    SELECT id FROM projects WHERE parent_id = ${id}
    UNION SELECT p.id FROM projects p JOIN below ON below.id = p.parent_id)
  SELECT id FROM below`;

/** Trusts of the grant's user for projects on which the grant holds, or may hold. */
const trustsBehind = async (transaction: IdentityTransaction, grant: GrantedRole): Promise<string[]> => {
  const holdsOnProjects = grant.inherited || grant.targetKind === "project";
  if (grant.actorKind === "group" || !holdsOnProjects) return [];
  const trusts = transaction
    .selectFrom("trusts")
    .select("id")
    .where("trustor_user_id", "=", grant.actorId)
    .where("project_id", "is not", null)
    .where("deleted_at_ms", "is", null);
  const rows = await (grant.inherited ? trusts : trusts.where("project_id", "=", grant.targetId)).execute();
  return rows.map(({ id }) => id);
};

const surroundingsOf = async (transaction: IdentityTransaction, grant: GrantedRole): Promise<GrantSurroundings> => {
  const trustIds = await trustsBehind(transaction, grant);
  if (grant.targetKind === "system") return { domainId: undefined, projectIdsBeneath: [], trustIds };
  const project = await transaction
    .selectFrom("projects")
    .select("domain_id")
    .where("id", "=", grant.targetId)
    .executeTakeFirst();
  const domainId = project?.domain_id ?? grant.targetId;
  if (grant.targetKind === "domain" || !grant.inherited) return { domainId, projectIdsBeneath: [], trustIds };
  const limited = sql<{ id: string }>`${beneathSql(grant.targetId)} LIMIT ${RECHECKED_BY_NAME_MAX + 1}`;
  const beneath = await idsOf(transaction, limited);
  return { domainId, projectIdsBeneath: beneath.length > RECHECKED_BY_NAME_MAX ? undefined : beneath, trustIds };
};

const tell = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  grant: GrantedRole,
  action: "create" | "delete",
): Promise<void> => {
  for (const event of recheckedByGrant(grant, await surroundingsOf(transaction, grant))) change.revoke(event);
  const { actorKind, actorId, targetKind, targetId, inherited } = grant;
  const details = { [actorKind]: actorId, [targetKind]: targetId, inherited_to_projects: inherited };
  change.notify({ action, resource: "role_assignment", id: grant.roleId, details });
};

const deleteApplicationCredentials = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  ids: readonly string[],
): Promise<void> => {
  for (const id of ids) {
    await transaction.deleteFrom("application_credentials").where("id", "=", id).execute();
    change.revoke({ kind: "revoke", applicationCredentialId: id });
    change.notify({ action: "delete", resource: "application_credential", id });
  }
};

/**
 * Removes the application credentials of which a user's lost grant left nothing, so that they do not come back to life with the next grant.
 * Those that lost everything through a group are void as long as it is so: whoever uses one is asked for the role.
 */
const removeEmptyApplicationCredentials = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  grant: GrantedRole,
  groupIds: readonly string[],
): Promise<void> => {
  if (grant.actorKind === "group" || grant.targetKind === "system") return;
  if (grant.targetKind === "domain" && !grant.inherited) return;
  const projects = grant.inherited ? sql`(${beneathSql(grant.targetId)})` : sql`(${grant.targetId})`;
  const rows = sql<{ id: string; project_id: string; role_id: string }>`
    SELECT c.id, c.project_id, r.role_id FROM application_credentials c
    JOIN application_credential_roles r ON r.application_credential_id = c.id
    WHERE c.user_id = ${grant.actorId} AND c.project_id IN ${projects}`;
  const reader = readerIn(transaction);
  const byProject = Map.groupBy((await rows.execute(transaction)).rows, ({ project_id }) => project_id);
  for (const [projectId, roles] of byProject) {
    const actor = { userId: grant.actorId, groupIds };
    const held = new Set((await effectiveRoles(reader, actor, { kind: "project", id: projectId })).map(({ id }) => id));
    const alive = new Set(roles.filter(({ role_id }) => held.has(role_id)).map(({ id }) => id));
    const void_ = new Set(roles.map(({ id }) => id)).difference(alive);
    await deleteApplicationCredentials(transaction, change, [...void_]);
  }
};

/** Grants a role. One that is granted already stays, and nobody is told. */
export const addGrant = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  grant: GrantedRole,
): Promise<void> => {
  const added = await transaction
    .insertInto("assignments")
    .values(grantRow(grant))
    .onConflict((conflict) => conflict.doNothing())
    .executeTakeFirst();
  if (added.numInsertedOrUpdatedRows === 0n) return;
  await tell(transaction, change, grant, "create");
};

const thisGrant = (grant: GrantedRole): RawBuilder<boolean> => {
  const columns = Object.entries(grantRow(grant)).map(([column, value]) => sql`${sql.ref(column)} = ${value}`);
  return sql`${sql.join(columns, sql` AND `)}`;
};

/** Whether the role is granted in exactly this way. */
export const hasGrant = async (database: Reader["database"], grant: GrantedRole): Promise<boolean> => {
  const rows = sql<{ role_id: string }>`SELECT role_id FROM assignments WHERE ${thisGrant(grant)}`;
  return (await rows.execute(database)).rows.length > 0;
};

/** Takes a role back. `groupIds`: the groups of the grant's user. Answers whether it was granted. */
export const removeGrant = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  grant: GrantedRole,
  groupIds: readonly string[],
): Promise<boolean> => {
  const removed = await sql`DELETE FROM assignments WHERE ${thisGrant(grant)}`.execute(transaction);
  if ((removed.numAffectedRows ?? 0n) === 0n) return false;
  await tell(transaction, change, grant, "delete");
  await removeEmptyApplicationCredentials(transaction, change, grant, groupIds);
  return true;
};

/** The roles that are granted to one on one target, by id. */
export const grantedRoles = async (
  database: Reader["database"],
  grant: Omit<GrantedRole, "roleId">,
): Promise<Role[]> => {
  const { role_id: _role, ...place } = grantRow({ ...grant, roleId: "" });
  const columns = Object.entries(place).map(([column, value]) => sql`a.${sql.ref(column)} = ${value}`);
  const rows = sql<Role>`
    SELECT r.* FROM roles r JOIN assignments a ON a.role_id = r.id WHERE ${sql.join(columns, sql` AND `)} ORDER BY r.id`;
  return (await rows.execute(database)).rows;
};

/** Has the tokens of all looked at again who hold one of `roleIds`, or a role that implies one: what it means, or is called, changes. */
export const recheckHolders = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  roleIds: readonly string[],
): Promise<void> => {
  const ids = impliedByRoleIds(roleIds, await implicationsOf(readerIn(transaction)));
  const rows = await transaction
    .selectFrom("assignments")
    .selectAll()
    .where("role_id", "in", [...ids])
    .limit(RECHECKED_BY_NAME_MAX + 1)
    .execute();
  if (rows.length > RECHECKED_BY_NAME_MAX) return change.revoke({ kind: "recheck" });
  for (const row of rows) {
    const grant = grantOfRow(row);
    for (const event of recheckedByGrant(grant, await surroundingsOf(transaction, grant))) change.revoke(event);
  }
};

/** Trusts and application credentials that delegate the role end with it: of a trust nothing may be missing, of a credential not everything. */
const removeDelegationsOf = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  roleId: string,
  nowMs: number,
): Promise<void> => {
  const trusts = sql<{ id: string }>`
    WITH RECURSIVE gone (id) AS (
      SELECT trust_id FROM trust_roles WHERE role_id = ${roleId}
      UNION SELECT t.id FROM trusts t JOIN gone ON t.redelegated_trust_id = gone.id)
    SELECT t.id FROM trusts t JOIN gone ON gone.id = t.id WHERE t.deleted_at_ms IS NULL`;
  for (const id of await idsOf(transaction, trusts)) {
    await transaction.updateTable("trusts").set({ deleted_at_ms: nowMs }).where("id", "=", id).execute();
    change.revoke({ kind: "revoke", trustId: id });
    change.notify({ action: "delete", resource: "OS-TRUST:trust", id });
  }
  const credentials = sql<{ id: string }>`
    SELECT application_credential_id AS id FROM application_credential_roles
    WHERE application_credential_id IN (SELECT application_credential_id FROM application_credential_roles WHERE role_id = ${roleId})
    GROUP BY application_credential_id HAVING COUNT(*) = 1`;
  await deleteApplicationCredentials(transaction, change, await idsOf(transaction, credentials));
};

/** Removes a role from wherever it is granted, implied and delegated. */
export const removeRole = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  roleId: string,
  nowMs: number,
): Promise<void> => {
  await recheckHolders(transaction, change, [roleId]);
  await removeDelegationsOf(transaction, change, roleId, nowMs);
  // Grants, implications and places in application credentials go by their references.
  await transaction.deleteFrom("roles").where("id", "=", roleId).execute();
  change.notify({ action: "delete", resource: "role", id: roleId });
};

/** The target of a grant, as it stands in the transaction. */
export const grantTarget = (
  database: Reader["database"],
  kind: "project" | "domain",
  id: string,
): Promise<Project | undefined> => {
  const rows = database.selectFrom("projects").selectAll().where("id", "=", id);
  return (kind === "domain" ? rows.where("is_domain", "=", 1) : rows).executeTakeFirst();
};

/** Whether the user or group is there: in the tables, or in a directory whose ids are kept. */
export const isActorKnown = async (
  transaction: IdentityTransaction,
  kind: GrantedRole["actorKind"],
  id: string,
): Promise<boolean> => {
  const table = sql.table(kind === "user" ? "users" : "groups");
  const known = sql<{ id: string }>`
    SELECT id FROM ${table} WHERE id = ${id} UNION SELECT public_id FROM id_mappings WHERE public_id = ${id}`;
  return (await idsOf(transaction, known)).length > 0;
};
