import { type RawBuilder, sql } from "kysely";
import { effectiveRoleIds } from "../core/roles.ts";
import type { ReadCache } from "./read-cache.ts";
import type { IdentityDatabase } from "./records.ts";
import type { AssignmentTable, Project, Role } from "./schema.ts";

/** What roles are held on. The system's only id is `all`. */
export type AssignmentTarget = { readonly kind: AssignmentTable["target_kind"]; readonly id: string };

export const SYSTEM_TARGET: AssignmentTarget = { kind: "system", id: "all" };

export type NamedRole = { readonly id: string; readonly name: string };

/** A user with the groups that hold roles on the user's behalf. */
export type Actor = { readonly userId: string; readonly groupIds: readonly string[] };

export type Reader = { readonly database: IdentityDatabase; readonly cache: ReadCache };

/** The projects above a project, the nearest first, its domain last. */
export const ancestorsOf = ({ database, cache }: Reader, projectId: string): Promise<readonly string[]> =>
  cache.get(`ancestors ${projectId}`, async () => {
    const rows = sql<{ id: string }>`
      WITH RECURSIVE above (id, parent_id, depth) AS (
        SELECT id, parent_id, 0 FROM projects WHERE id = ${projectId}
        UNION ALL SELECT p.id, p.parent_id, above.depth + 1 FROM projects p JOIN above ON p.id = above.parent_id WHERE above.depth < 100)
      SELECT id FROM above WHERE depth > 0 ORDER BY depth`;
    return (await rows.execute(database)).rows.map(({ id }) => id);
  });

const actorSql = ({ userId, groupIds }: Actor): RawBuilder<boolean> =>
  groupIds.length === 0
    ? sql`(actor_kind = 'user' AND actor_id = ${userId})`
    : sql`((actor_kind = 'user' AND actor_id = ${userId}) OR (actor_kind = 'group' AND actor_id IN (${sql.join([...groupIds])})))`;

/** Which role implies which. */
export const implicationsOf = ({ database, cache }: Reader) =>
  cache.get("implications", () =>
    database
      .selectFrom("role_implications")
      .select(["prior_role_id as priorId", "implied_role_id as impliedId"])
      .execute(),
  );

/** All roles. There are few. */
export const rolesById = ({ database, cache }: Reader): Promise<ReadonlyMap<string, Role>> =>
  cache.get("roles", async () => {
    const rows = await database.selectFrom("roles").selectAll().execute();
    return new Map(rows.map((role) => [role.id, role]));
  });

const byName = (left: NamedRole, right: NamedRole): number =>
  left.name < right.name ? -1 : Number(left.name > right.name);

/** Roles with all that they imply, by name; those of a single domain give what they imply and are not shown themselves. */
export const expandedRoles = async (reader: Reader, roleIds: Iterable<string>): Promise<NamedRole[]> => {
  const ids = effectiveRoleIds(roleIds, await implicationsOf(reader));
  const roles = await rolesById(reader);
  return [...ids]
    .flatMap((id) => roles.get(id) ?? [])
    .filter((role) => role.domain_id === null)
    .map(({ id, name }) => ({ id, name }))
    .toSorted(byName);
};

/** Ids of the roles that are held on `target` by assignment: to the user, to a group, on it or inherited from above. */
export const assignedRoleIds = async (reader: Reader, actor: Actor, target: AssignmentTarget): Promise<string[]> => {
  const above = target.kind === "project" ? await ancestorsOf(reader, target.id) : [];
  const inherited =
    above.length === 0
      ? sql``
      : sql` OR (target_kind <> 'system' AND inherited = 1 AND target_id IN (${sql.join([...above])}))`;
  const rows = sql<{ role_id: string }>`
    SELECT DISTINCT role_id FROM assignments
    WHERE ${actorSql(actor)} AND ((target_kind = ${target.kind} AND target_id = ${target.id} AND inherited = 0)${inherited})`;
  return (await rows.execute(reader.database)).rows.map(({ role_id }) => role_id);
};

/** The roles that a user has on `target`, those implied included, by name; empty where it may not be there at all. */
export const effectiveRoles = async (reader: Reader, actor: Actor, target: AssignmentTarget): Promise<NamedRole[]> => {
  const assigned = await assignedRoleIds(reader, actor, target);
  return assigned.length === 0 ? [] : expandedRoles(reader, assigned);
};

/** Roles that give nothing by themselves: those of a single domain that imply no role of all domains. */
const barrenRoleIds = async (reader: Reader): Promise<string[]> => {
  const roles = await rolesById(reader);
  const implications = await implicationsOf(reader);
  return [...roles.values()]
    .filter(({ domain_id }) => domain_id !== null)
    .map(({ id }) => id)
    .filter((id) => [...effectiveRoleIds([id], implications)].every((other) => roles.get(other)?.domain_id !== null));
};

/** Grants of `actor` that give a right, as a table `held`. */
const heldSql = async (reader: Reader, actor: Actor): Promise<RawBuilder<unknown>> => {
  const barren = await barrenRoleIds(reader);
  const useful = barren.length === 0 ? sql`` : sql` AND role_id NOT IN (${sql.join(barren)})`;
  return sql`held (target_kind, target_id, inherited) AS (
    SELECT DISTINCT target_kind, target_id, inherited FROM assignments WHERE ${actorSql(actor)}${useful})`;
};

/** The enabled projects, in enabled domains, on which the user has a role, by id. */
export const projectsOfUser = async (reader: Reader, actor: Actor): Promise<Project[]> => {
  const rows = sql<Project>`
    WITH RECURSIVE ${await heldSql(reader, actor)},
    below (id) AS (
      SELECT p.id FROM projects p JOIN held ON held.target_id = p.parent_id WHERE held.inherited = 1 AND held.target_kind <> 'system'
      UNION SELECT p.id FROM projects p JOIN below ON below.id = p.parent_id)
    SELECT p.* FROM projects p JOIN projects d ON d.id = p.domain_id
    WHERE p.is_domain = 0 AND p.enabled = 1 AND d.enabled = 1 AND p.id IN (
      SELECT id FROM below UNION SELECT target_id FROM held WHERE target_kind = 'project' AND inherited = 0)
    ORDER BY p.id`;
  return (await rows.execute(reader.database)).rows;
};

/** The enabled domains on which the user has a role, by id. */
export const domainsOfUser = async (reader: Reader, actor: Actor): Promise<Project[]> => {
  const rows = sql<Project>`
    WITH ${await heldSql(reader, actor)}
    SELECT p.* FROM projects p WHERE p.is_domain = 1 AND p.enabled = 1 AND p.id IN (
      SELECT target_id FROM held WHERE target_kind = 'domain' AND inherited = 0)
    ORDER BY p.id`;
  return (await rows.execute(reader.database)).rows;
};
