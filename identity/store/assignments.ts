import { effectiveRoleIds } from "../core/roles.ts";
import type { AssignmentTable, Project } from "./schema.ts";
import type { IdentityDatabase } from "./rows.ts";

/** What roles are held on. The system's only id is `all`. */
export type AssignmentTarget = { readonly kind: AssignmentTable["target_kind"]; readonly id: string };

export const SYSTEM_TARGET: AssignmentTarget = { kind: "system", id: "all" };

export type NamedRole = { readonly id: string; readonly name: string };

/** The roles that a user has on `target`, those implied included, by name; empty where it may not be there at all. */
export const effectiveRoles = async (
  database: IdentityDatabase,
  userId: string,
  target: AssignmentTarget,
): Promise<NamedRole[]> => {
  const assigned = await database
    .selectFrom("assignments")
    .select("role_id")
    .where("actor_kind", "=", "user")
    .where("actor_id", "=", userId)
    .where("target_kind", "=", target.kind)
    .where("target_id", "=", target.id)
    .execute();
  if (assigned.length === 0) return [];
  const implications = await database
    .selectFrom("role_implications")
    .select(["prior_role_id as priorId", "implied_role_id as impliedId"])
    .execute();
  const ids = effectiveRoleIds(
    assigned.map(({ role_id }) => role_id),
    implications,
  );
  return database
    .selectFrom("roles")
    .select(["id", "name"])
    .where("id", "in", [...ids])
    .orderBy("name")
    .execute();
};

const targetsOf = async (
  database: IdentityDatabase,
  userId: string,
  kind: AssignmentTarget["kind"],
): Promise<string[]> => {
  const rows = await database
    .selectFrom("assignments")
    .select("target_id")
    .distinct()
    .where("actor_kind", "=", "user")
    .where("actor_id", "=", userId)
    .where("target_kind", "=", kind)
    .execute();
  return rows.map(({ target_id }) => target_id);
};

/** The enabled projects, in enabled domains, on which the user has a role. */
export const projectsOfUser = async (database: IdentityDatabase, userId: string): Promise<Project[]> => {
  const ids = await targetsOf(database, userId, "project");
  if (ids.length === 0) return [];
  return database
    .selectFrom("projects")
    .innerJoin("domains", "domains.id", "projects.domain_id")
    .selectAll("projects")
    .where("projects.id", "in", ids)
    .where("projects.enabled", "=", 1)
    .where("domains.enabled", "=", 1)
    .orderBy("projects.id")
    .execute();
};

/** The enabled domains on which the user has a role. */
export const domainsOfUser = async (database: IdentityDatabase, userId: string) => {
  const ids = await targetsOf(database, userId, "domain");
  if (ids.length === 0) return [];
  return database
    .selectFrom("domains")
    .selectAll()
    .where("id", "in", ids)
    .where("enabled", "=", 1)
    .orderBy("id")
    .execute();
};
