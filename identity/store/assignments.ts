import { type RawBuilder, sql } from "kysely";
import { effectiveRoleIds } from "../core/roles.ts";
import type { ReadCache } from "./read-cache.ts";
import { findRecords, type IdentityDatabase } from "./records.ts";
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

const implicationsOf = ({ database, cache }: Reader) =>
  cache.get("implications", () =>
    database
      .selectFrom("role_implications")
      .select(["prior_role_id as priorId", "implied_role_id as impliedId"])
      .execute(),
  );

const rolesById = ({ database, cache }: Reader): Promise<ReadonlyMap<string, Role>> =>
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

const targetsOf = async (
  { database }: Reader,
  actor: Actor,
  kind: AssignmentTarget["kind"],
  inherited: 0 | 1,
): Promise<string[]> => {
  const rows = sql<{ target_id: string }>`
    SELECT DISTINCT target_id FROM assignments WHERE ${actorSql(actor)} AND target_kind = ${kind} AND inherited = ${inherited}`;
  return (await rows.execute(database)).rows.map(({ target_id }) => target_id);
};

/** The projects beneath any of `ids` (projects or domains), at any depth. */
export const descendantsOf = async ({ database }: Reader, ids: readonly string[]): Promise<string[]> => {
  if (ids.length === 0) return [];
  const rows = sql<{ id: string }>`
    WITH RECURSIVE below (id) AS (
      SELECT id FROM projects WHERE parent_id IN (${sql.join([...ids])})
      UNION SELECT p.id FROM projects p JOIN below ON p.parent_id = below.id)
    SELECT id FROM below`;
  return (await rows.execute(database)).rows.map(({ id }) => id);
};

/** The enabled projects, in enabled domains, on which the user has a role, by id. */
export const projectsOfUser = async (reader: Reader, actor: Actor): Promise<Project[]> => {
  const direct = await targetsOf(reader, actor, "project", 0);
  const from = [...(await targetsOf(reader, actor, "project", 1)), ...(await targetsOf(reader, actor, "domain", 1))];
  const ids = [...new Set([...direct, ...(await descendantsOf(reader, from))])];
  const projects = (await findRecords(reader.database, "projects", ids)).filter(({ enabled }) => enabled === 1);
  const domainIds = [...new Set(projects.flatMap(({ domain_id }) => domain_id ?? []))];
  const domains = await findRecords(reader.database, "projects", domainIds);
  const open = new Set(domains.filter(({ enabled }) => enabled === 1).map(({ id }) => id));
  return projects
    .filter(({ domain_id, is_domain }) => is_domain === 0 && domain_id !== null && open.has(domain_id))
    .toSorted((left, right) => (left.id < right.id ? -1 : 1));
};

/** The enabled domains on which the user has a role, by id. */
export const domainsOfUser = async (reader: Reader, actor: Actor): Promise<Project[]> => {
  const ids = await targetsOf(reader, actor, "domain", 0);
  const domains = await findRecords(reader.database, "projects", ids);
  return domains.filter(({ enabled }) => enabled === 1).toSorted((left, right) => (left.id < right.id ? -1 : 1));
};
