import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import type { PolicyTarget } from "../../common/policy/policy-engine.ts";
import type { GrantedRole } from "../core/assignment-expansion.ts";
import { identityError, notFound } from "../core/identity-error.ts";
import { SYSTEM_TARGET } from "../store/assignments.ts";
import { addGrant, grantedRoles, grantTarget, hasGrant, isActorKnown, removeGrant } from "../store/grants.ts";
import { findRecord, type IdentityDatabase, WHOLE_LIST } from "../store/records.ts";
import type { Project, Role } from "../store/schema.ts";
import { baseUrl, guardedRoute, type IdentityContext, type IdentityRoute } from "./identity-route.ts";
import { listBody } from "./list-parameters.ts";
import { roleBody } from "./roles.ts";

/** On what roles are granted, and how the paths say it. */
type GrantScope = Pick<GrantedRole, "targetKind" | "inherited"> & { readonly path: string; readonly isListed: boolean };

const SCOPES: readonly GrantScope[] = [
  { targetKind: "project", inherited: false, path: "/v3/projects/:project_id", isListed: true },
  { targetKind: "domain", inherited: false, path: "/v3/domains/:domain_id", isListed: true },
  { targetKind: "system", inherited: false, path: "/v3/system", isListed: true },
  { targetKind: "domain", inherited: true, path: "/v3/OS-INHERIT/domains/:domain_id", isListed: true },
  { targetKind: "project", inherited: true, path: "/v3/OS-INHERIT/projects/:project_id", isListed: false },
];

const ACTORS = [
  { actorKind: "user", path: "/users/:user_id" },
  { actorKind: "group", path: "/groups/:group_id" },
] as const;

type ActorKind = GrantedRole["actorKind"];
type Place = Omit<GrantedRole, "roleId">;
type Verb = "check" | "list" | "create" | "revoke";

const pathParameters = Type.Record(Type.String(), Type.String());
type GrantRequest = HttpRequest<{ params: typeof pathParameters }>;

const operationOf = (verb: Verb, { targetKind }: GrantScope, actorKind: ActorKind): string => {
  const noun = verb === "list" ? "grants" : "grant";
  return targetKind === "system" ? `identity:${verb}_system_${noun}_for_${actorKind}` : `identity:${verb}_${noun}`;
};

const placeOf = ({ params }: GrantRequest, { targetKind, inherited }: GrantScope, actorKind: ActorKind): Place => ({
  actorKind,
  actorId: params[`${actorKind}_id`] ?? "",
  targetKind,
  targetId: targetKind === "system" ? SYSTEM_TARGET.id : (params[`${targetKind}_id`] ?? ""),
  inherited,
});

const grantOf = (request: GrantRequest, scope: GrantScope, actorKind: ActorKind): GrantedRole => ({
  ...placeOf(request, scope, actorKind),
  roleId: request.params["role_id"] ?? "",
});

const findActor = ({ directory }: IdentityContext, kind: ActorKind, id: string) =>
  kind === "user" ? directory.findUser(id) : directory.findGroup(id);

/** The target's row; undefined for the system. Throws `not-found`. */
const targetRow = async (database: IdentityDatabase, { targetKind, targetId }: Place): Promise<Project | undefined> => {
  if (targetKind === "system") return undefined;
  const row = await grantTarget(database, targetKind, targetId);
  if (row === undefined) throw notFound(targetKind, targetId);
  return row;
};

const roleOrNotFound = async (database: IdentityDatabase, id: string): Promise<Role> => {
  const role = await findRecord(database, "roles", id);
  if (role === undefined) throw notFound("role", id);
  return role;
};

const actorOrNotFound = async (context: IdentityContext, { actorKind, actorId }: Place): Promise<void> => {
  if ((await findActor(context, actorKind, actorId)) === undefined) throw notFound(actorKind, actorId);
};

/** What policies see: the ends of the grant as far as they are there. */
const policyTarget = async (
  place: Place,
  roleId: string | undefined,
  context: IdentityContext,
): Promise<PolicyTarget> => {
  const { actorKind, actorId, targetKind, targetId } = place;
  const actor = await findActor(context, actorKind, actorId);
  const role = roleId === undefined ? undefined : await findRecord(context.database, "roles", roleId);
  const row = targetKind === "system" ? undefined : await grantTarget(context.database, targetKind, targetId);
  return {
    ...(actorKind === "user" ? { user_id: actorId } : {}),
    ...(actor && { [`target.${actorKind}.id`]: actor.id, [`target.${actorKind}.domain_id`]: actor.domainId }),
    ...(role && { "target.role.name": role.name, "target.role.domain_id": role.domain_id }),
    ...(row && { [`target.${targetKind}.id`]: row.id, [`target.${targetKind}.domain_id`]: row.domain_id }),
  };
};

const notGranted = ({ roleId, actorId, targetKind, targetId }: GrantedRole): Error =>
  identityError(
    "not-found",
    `Could not find role assignment with role: ${roleId}, user or group: ${actorId}, project, domain, or system: ${targetKind === "system" ? "system" : targetId}.`,
  );

/** A role of one domain is good for that domain and its projects. */
const assertRoleFits = (role: Role, { targetKind, targetId }: GrantedRole, target: Project | undefined): void => {
  if (role.domain_id === null) return;
  if (target === undefined) {
    const message = `Role ${role.id} is a domain-specific role. Unable to use a domain-specific role in a system assignment.`;
    throw identityError("bad-request", message);
  }
  if ((target.domain_id ?? target.id) === role.domain_id) return;
  const kind = targetKind === "project" ? "Project" : "Domain";
  const message = `${kind} ${targetId} must be in the same domain as the role ${role.id} being assigned.`;
  throw identityError("forbidden", message);
};

type GuardedGrant = {
  readonly request: { readonly params: typeof pathParameters };
  readonly operation: string;
  target(request: GrantRequest, context: IdentityContext): Promise<PolicyTarget>;
};

const routesOf = (scope: GrantScope, { actorKind, path: actorPath }: (typeof ACTORS)[number]): IdentityRoute[] => {
  const suffix = scope.inherited ? "/inherited_to_projects" : "";
  const listPath = `${scope.path}${actorPath}/roles${suffix}`;
  const path = `${scope.path}${actorPath}/roles/:role_id${suffix}`;
  const guarded = (verb: Verb): GuardedGrant => ({
    request: { params: pathParameters },
    operation: operationOf(verb, scope, actorKind),
    target: (request, context) => policyTarget(placeOf(request, scope, actorKind), request.params["role_id"], context),
  });
  const check = guardedRoute({
    method: "GET",
    path,
    ...guarded("check"),
    handler: async (request, context) => {
      const grant = grantOf(request, scope, actorKind);
      await roleOrNotFound(context.database, grant.roleId);
      await actorOrNotFound(context, grant);
      await targetRow(context.database, grant);
      if (!(await hasGrant(context.database, grant))) throw notGranted(grant);
      return { status: 204 };
    },
  });
  const create = guardedRoute({
    method: "PUT",
    path,
    ...guarded("create"),
    handler: async (request, context) => {
      const grant = grantOf(request, scope, actorKind);
      await actorOrNotFound(context, grant);
      await context.changes.write(async (transaction, change) => {
        const role = await roleOrNotFound(transaction, grant.roleId);
        assertRoleFits(role, grant, await targetRow(transaction, grant));
        if (!(await isActorKnown(transaction, actorKind, grant.actorId))) throw notFound(actorKind, grant.actorId);
        await addGrant(transaction, change, grant);
      });
      return { status: 204 };
    },
  });
  const revoke = guardedRoute({
    method: "DELETE",
    path,
    ...guarded("revoke"),
    handler: async (request, context) => {
      const grant = grantOf(request, scope, actorKind);
      // The user or group may be gone already, from a directory of which nobody tells this service.
      const groupIds = actorKind === "user" ? await context.directory.groupIdsOf(grant.actorId) : [];
      await context.changes.write(async (transaction, change) => {
        await roleOrNotFound(transaction, grant.roleId);
        await targetRow(transaction, grant);
        if (!(await removeGrant(transaction, change, grant, groupIds))) throw notGranted(grant);
      });
      return { status: 204 };
    },
  });
  const list = guardedRoute({
    method: "GET",
    path: listPath,
    ...guarded("list"),
    handler: async (request, context) => {
      const place = placeOf(request, scope, actorKind);
      await actorOrNotFound(context, place);
      await targetRow(context.database, place);
      const base = baseUrl(request, context);
      const items = (await grantedRoles(context.database, place)).map((role) => roleBody(role, base));
      return { status: 200, body: listBody(request, "roles", items, WHOLE_LIST, base) };
    },
  });
  return [check, create, revoke, ...(scope.isListed ? [list] : [])];
};

/** Roles of users and groups on projects, domains and the system, and those that hold on the projects beneath. */
export const GRANT_ROUTES: readonly IdentityRoute[] = SCOPES.flatMap((scope) =>
  ACTORS.flatMap((actor) => routesOf(scope, actor)),
);
