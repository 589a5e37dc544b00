import type { MethodContext } from "./authentication/method.ts";
import { findDomain, findProjectNamed } from "./authentication/references.ts";
import { loadDelegation } from "./authentication/load-delegation.ts";
import type { ScopeRequest } from "./core/authentication-request.ts";
import { identityError, unauthorized } from "./core/identity-error.ts";
import type { Delegation } from "./delegation.ts";
import { effectiveRoles, expandedRoles, type NamedRole, SYSTEM_TARGET } from "./store/assignments.ts";
import type { DirectoryUser } from "./store/directory.ts";
import type { Project } from "./store/schema.ts";
import type { TokenContext } from "./token-verifier.ts";

export type NamedDomain = Pick<Project, "id" | "name">;

export type TokenScope =
  | { readonly kind: "unscoped" }
  | { readonly kind: "project"; readonly project: Project; readonly domain: NamedDomain }
  | { readonly kind: "domain"; readonly domain: NamedDomain }
  | { readonly kind: "system" };

const UNSCOPED: TokenScope = { kind: "unscoped" };

/** The scope that is asked for, if it is there and enabled. */
const findScope = async (
  context: MethodContext,
  request: Exclude<ScopeRequest, { kind: "default" | "trust" }>,
): Promise<TokenScope | undefined> => {
  switch (request.kind) {
    case "unscoped":
      return UNSCOPED;
    case "system":
      return { kind: "system" };
    case "project": {
      const project = await findProjectNamed(context, request.project);
      if (project?.enabled !== 1) return undefined;
      const domain = project.domain_id === null ? project : await findDomain(context, { id: project.domain_id });
      return domain?.enabled === 1 ? { kind: "project", project, domain } : undefined;
    }
    case "domain": {
      const domain = await findDomain(context, request.domain);
      return domain?.enabled === 1 ? { kind: "domain", domain } : undefined;
    }
  }
};

const targetOf = (scope: Exclude<TokenScope, { kind: "unscoped" }>) => {
  switch (scope.kind) {
    case "project":
      return { kind: "project", id: scope.project.id } as const;
    case "domain":
      return { kind: "domain", id: scope.domain.id } as const;
    case "system":
      return SYSTEM_TARGET;
  }
};

const groupsOf = async (
  context: MethodContext,
  userId: string,
  federation: TokenContext["federation"],
): Promise<string[]> => [
  ...new Set([...(await context.directory.groupIdsOf(userId)), ...(federation?.groupIds ?? [])]),
];

const rolesOn = async (
  context: MethodContext,
  userId: string,
  scope: TokenScope,
  federation: TokenContext["federation"],
): Promise<NamedRole[]> => {
  if (scope.kind === "unscoped") return [];
  const groupIds = await groupsOf(context, userId, federation);
  const target = targetOf(scope);
  return context.cache.get(`held ${userId} ${target.kind} ${target.id} ${groupIds.join()}`, () =>
    effectiveRoles(context, { userId, groupIds }, target),
  );
};

/** Users, and their domains, who handed a right on; the token ends with any of them. */
export type Parties = { readonly userIds: readonly string[]; readonly domainIds: readonly string[] };

export type Rights = { readonly scope: TokenScope; readonly roles: readonly NamedRole[]; readonly parties?: Parties };

type DelegatedTrust = Extract<Delegation, { kind: "trust" }>;

/** A trust and those that it was made from, the first last. Throws `forbidden` where one of them is gone. */
const chainOf = async (context: MethodContext, trust: DelegatedTrust): Promise<DelegatedTrust[]> => {
  const chain = [trust];
  for (let last = trust; last.redelegatedTrustId !== undefined; ) {
    const parent = await loadDelegation(context, { trustId: last.redelegatedTrustId });
    if (parent?.kind !== "trust") throw identityError("forbidden", "A trust that this one was made from is gone.");
    chain.push(parent);
    last = parent;
  }
  return chain;
};

/** Everyone in a chain of trusts, all enabled. Throws `forbidden`. */
const partiesOf = async (context: MethodContext, chain: readonly DelegatedTrust[]): Promise<Parties> => {
  const userIds = [...new Set(chain.flatMap(({ trustorUserId, trusteeUserId }) => [trustorUserId, trusteeUserId]))];
  const domainIds = new Set<string>();
  for (const id of userIds) {
    const user = await context.directory.findUser(id);
    const domain = user && (await findDomain(context, { id: user.domainId }));
    if (user?.enabled !== true || domain?.enabled !== 1) {
      throw identityError("forbidden", "One of the trust agents is disabled or deleted.");
    }
    domainIds.add(domain.id);
  }
  return { userIds, domainIds: [...domainIds] };
};

/** What is delegated, as far as who delegated it still has it. Throws `forbidden` where a part of it is gone. */
export const delegatedRights = async (
  context: MethodContext,
  delegation: Delegation,
  user: DirectoryUser,
): Promise<Rights> => {
  const chain = delegation.kind === "trust" ? await chainOf(context, delegation) : [];
  const parties = await partiesOf(context, chain);
  const ownerId = chain.at(-1)?.trustorUserId ?? user.id;
  if (delegation.projectId === undefined) return { scope: UNSCOPED, roles: [], parties };
  const scope = await findScope(context, { kind: "project", project: { id: delegation.projectId } });
  if (scope === undefined) throw unauthorized(`project ${delegation.projectId} is gone or disabled`);
  const held = new Set((await rolesOn(context, ownerId, scope, undefined)).map(({ id }) => id));
  const roles = await expandedRoles(context, delegation.roleIds);
  const lost = delegation.roleIds.filter((id) => !held.has(id));
  if (lost.length > 0 && delegation.kind !== "application-credential") {
    throw identityError("forbidden", "A role that was delegated is not held any more.", { lost });
  }
  const left = roles.filter(({ id }) => held.has(id));
  if (left.length === 0) throw unauthorized(`nothing is left of ${delegation.kind} ${delegation.id}`);
  return { scope, roles: left, parties };
};

/** The user's own roles on the scope asked for. Throws `unauthorized` where it is absent, disabled, or without a role. */
export const ownRights = async (
  context: MethodContext,
  user: DirectoryUser,
  request: Exclude<ScopeRequest, { kind: "trust" }>,
  federation: TokenContext["federation"],
): Promise<Rights> => {
  if (request.kind === "default") {
    const id = user.defaultProjectId;
    const scope = id === null ? undefined : await findScope(context, { kind: "project", project: { id } });
    const roles = scope === undefined ? [] : await rolesOn(context, user.id, scope, federation);
    return scope !== undefined && roles.length > 0 ? { scope, roles } : { scope: UNSCOPED, roles: [] };
  }
  const scope = await findScope(context, request);
  if (scope === undefined) throw unauthorized(`scope ${request.kind} is absent or disabled`);
  if (scope.kind === "unscoped") return { scope, roles: [] };
  const roles = await rolesOn(context, user.id, scope, federation);
  if (roles.length === 0) throw unauthorized(`user ${user.id} has no role on the ${scope.kind}`);
  return { scope, roles };
};

/** The scope that a token has. */
export const scopeRequestOf = (context: TokenContext): Exclude<ScopeRequest, { kind: "trust" }> => {
  if (context.system) return { kind: "system" };
  if (context.projectId !== undefined) return { kind: "project", project: { id: context.projectId } };
  if (context.domainId !== undefined) return { kind: "domain", domain: { id: context.domainId } };
  return { kind: "unscoped" };
};

/** The user with the domain, both enabled. Throws `unauthorized`. */
export const enabledUser = async (
  context: MethodContext,
  user: DirectoryUser | undefined,
): Promise<{ user: DirectoryUser; userDomain: NamedDomain }> => {
  if (user?.enabled !== true) throw unauthorized("user is gone or disabled");
  const userDomain = await findDomain(context, { id: user.domainId });
  if (userDomain?.enabled !== 1) throw unauthorized(`domain ${user.domainId} is gone or disabled`);
  return { user, userDomain };
};
