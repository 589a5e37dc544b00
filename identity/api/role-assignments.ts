import type { HttpRequest } from "../../common/http/route.ts";
import type { EffectiveAssignment, GrantedRole } from "../core/assignment-expansion.ts";
import { identityError } from "../core/identity-error.ts";
import { type AssignmentNames, readAssignmentNames } from "../store/assignment-names.ts";
import { passOverAway } from "../store/away-directories.ts";
import { createMembershipSource } from "../store/memberships.ts";
import { findRecord } from "../store/records.ts";
import { type AssignmentFilter, type EffectivePlace, listEffective, listGrants } from "../store/role-assignments.ts";
import type { Project } from "../store/schema.ts";
import {
  baseUrl,
  type Caller,
  callerOf,
  enforce,
  type IdentityContext,
  type IdentityRoute,
  openRoute,
} from "./identity-route.ts";
import { anyQuery, isSet, listQueryOf, parameter, plainQuery } from "./list-parameters.ts";
import { recordOrNotFound } from "./resource-routes.ts";

/** One line of the answer: a grant, or what it amounts to for a user. */
type Listed = { readonly grant: GrantedRole } & Partial<Omit<EffectiveAssignment, "grant">> & {
    readonly step?: number;
  };

const INHERITED = { "OS-INHERIT:inherited_to": "projects" };

/** Without the names, things are told by their ids. */
const IDS_ONLY = {
  user: (id: string) => ({ id }),
  group: (id: string) => ({ id }),
  project: (id: string) => ({ id }),
  domain: (id: string) => ({ id }),
  role: (id: string) => ({ id }),
} satisfies Record<keyof AssignmentNames, (id: string) => object>;

/**
 * Links as Keystone has them. Where a role is implied, `assignment` names the role that implies it directly, which need not be the granted
 * one, and `prior_role` has the two roles in the opposite order.
 */
const linksOf = ({ grant, userId, roleId, priorRoleId }: Listed, base: string): object => {
  const target = grant.targetKind === "system" ? "/system" : `/${grant.targetKind}s/${grant.targetId}`;
  const path = `${target}/${grant.actorKind}s/${grant.actorId}/roles/${priorRoleId ?? grant.roleId}`;
  const isMember = grant.actorKind === "group" && userId !== undefined;
  return {
    ...(isMember ? { membership: `${base}/groups/${grant.actorId}/users/${userId}` } : {}),
    assignment: grant.inherited ? `${base}/OS-INHERIT${path}/inherited_to_projects` : `${base}${path}`,
    ...(priorRoleId === undefined ? {} : { prior_role: `${base}/prior_role/${roleId}/implies/${priorRoleId}` }),
  };
};

const bodyOf = (item: Listed, names: AssignmentNames | typeof IDS_ONLY, base: string): object => {
  const { grant, userId } = item;
  const targetId = item.targetId ?? grant.targetId;
  const scope = {
    project: () => ({ project: names.project(targetId) }),
    domain: () => ({ domain: names.domain(targetId) }),
    system: () => ({ system: { all: true } }),
  }[item.targetKind ?? grant.targetKind]();
  const actor =
    grant.actorKind === "user" || userId !== undefined
      ? { user: names.user(userId ?? grant.actorId) }
      : { group: names.group(grant.actorId) };
  return {
    links: linksOf(item, base),
    scope: { ...scope, ...(grant.inherited ? INHERITED : {}) },
    ...actor,
    role: names.role(item.roleId ?? grant.roleId),
  };
};

const namesOf = (items: readonly Listed[], context: ListContext): Promise<AssignmentNames> => {
  const users = new Set<string>();
  const groups = new Set<string>();
  const projects = new Set<string>();
  for (const { grant, userId, targetId } of items) {
    if (userId !== undefined) users.add(userId);
    else if (grant.actorKind === "user") users.add(grant.actorId);
    else groups.add(grant.actorId);
    if (grant.targetKind !== "system") projects.add(targetId ?? grant.targetId);
  }
  return readAssignmentNames(context, context.directory, { users, groups, projects });
};

/** With directories that are passed over while they are away. */
type ListContext = Pick<IdentityContext, "database" | "cache" | "clock" | "directory">;

type Key = readonly [string, string, string, string, string, boolean];

const keyOf = (grant: GrantedRole): Key => [
  grant.actorKind,
  grant.actorId,
  grant.targetKind,
  grant.targetId,
  grant.roleId,
  grant.inherited,
];

/** An assignment has no id: where a list goes on is said by all that it is. */
const markerOf = ({ grant, userId, targetId, step }: Listed): string => {
  const within = userId === undefined ? [] : [userId, targetId, step];
  return Buffer.from(JSON.stringify([...keyOf(grant), ...within])).toString("base64url");
};

const invalidMarker = (): Error => identityError("bad-request", "marker is not one that a list gave.");

const markerParts = (marker: string, count: number): unknown[] => {
  try {
    const parts: unknown = JSON.parse(Buffer.from(marker, "base64url").toString("utf8"));
    if (Array.isArray(parts) && parts.length === count) return parts;
  } catch {
    // Whoever wrote it by hand is told below.
  }
  throw invalidMarker();
};

const grantOfMarker = (parts: readonly unknown[]): GrantedRole => {
  const [actorKind, actorId, targetKind, targetId, roleId, inherited] = parts;
  if (actorKind !== "user" && actorKind !== "group") throw invalidMarker();
  if (targetKind !== "project" && targetKind !== "domain" && targetKind !== "system") throw invalidMarker();
  if (typeof actorId !== "string" || typeof targetId !== "string" || typeof roleId !== "string") throw invalidMarker();
  return { actorKind, actorId, targetKind, targetId, roleId, inherited: inherited === true };
};

const placeOfMarker = (marker: string): EffectivePlace => {
  const parts = markerParts(marker, 9);
  const [userId, targetId, step] = parts.slice(6);
  if (typeof userId !== "string" || typeof targetId !== "string" || !Number.isSafeInteger(step)) throw invalidMarker();
  return { grant: grantOfMarker(parts), within: { userId, targetId, step: Number(step) } };
};

/** A parameter's text; one without any counts as absent. */
const given = (query: unknown, name: string): string | undefined => parameter(query, name) || undefined;

const INHERITED_TO = "scope.OS-INHERIT:inherited_to";

/** Filters of the query. Throws `bad-request` for those that contradict each other. */
const filterOf = (query: unknown, isEffective: boolean): AssignmentFilter => {
  const refuse = (message: string): never => {
    throw identityError("bad-request", message);
  };
  const domainId = given(query, "scope.domain.id");
  const projectId = given(query, "scope.project.id");
  const system = given(query, "scope.system");
  const userId = given(query, "user.id");
  const groupId = given(query, "group.id");
  const inheritedTo = parameter(query, INHERITED_TO);
  const inherited = inheritedTo === undefined ? undefined : inheritedTo === "projects";
  if (domainId !== undefined && projectId !== undefined) refuse("Specify a domain or project, not both");
  if (domainId !== undefined && system !== undefined) refuse("Specify system or domain, not both");
  if (projectId !== undefined && system !== undefined) refuse("Specify system or project, not both");
  if (userId !== undefined && groupId !== undefined) refuse("Specify a user or group, not both");
  if (isEffective && groupId !== undefined) {
    refuse("Combining effective and group filter will always result in an empty list.");
  }
  if (isEffective && inherited === true && domainId !== undefined) {
    refuse("Combining effective, domain and inherited filters will always result in an empty list.");
  }
  const withSubtree = isSet(query, "include_subtree");
  if (withSubtree && projectId === undefined) {
    refuse("scope.project.id must be specified if include_subtree is also specified");
  }
  const roleId = given(query, "role.id");
  return { userId, groupId, roleId, projectId, withSubtree, domainId, isSystem: system === "all", inherited };
};

const callersDomain = ({ token }: Caller): string | undefined =>
  token.scope.kind === "domain" ? token.scope.domain.id : undefined;

/** A list for a tree is about the domain of its project, any other about the one that it is confined to. */
const enforceList = async (request: Pick<HttpRequest, "query">, context: IdentityContext, caller: Caller) => {
  if (!isSet(request.query, "include_subtree")) {
    const domainId = given(request.query, "scope.domain.id") ?? callersDomain(caller);
    const target = domainId === undefined ? {} : { "target.domain_id": domainId };
    return enforce(context, caller, "identity:list_role_assignments", target);
  }
  const projectId = given(request.query, "scope.project.id");
  const project = projectId === undefined ? undefined : await findRecord(context.database, "projects", projectId);
  const domainOf = ({ id, domain_id }: Project): string => domain_id ?? id;
  const target = project === undefined ? {} : { "target.domain_id": domainOf(project) };
  enforce(context, caller, "identity:list_role_assignments_for_tree", target);
};

type PageQuery = {
  readonly filter: AssignmentFilter;
  readonly isEffective: boolean;
  readonly limit: number;
  readonly marker: string | undefined;
};

const readPage = async (context: ListContext, query: PageQuery): Promise<readonly Listed[]> => {
  const { filter, isEffective, limit, marker } = query;
  if (isEffective) {
    const after = marker === undefined ? undefined : placeOfMarker(marker);
    return listEffective(context, createMembershipSource(context), filter, { limit, after });
  }
  const after = marker === undefined ? undefined : grantOfMarker(markerParts(marker, 6));
  return (await listGrants(context.database, filter, { limit, after })).map((grant) => ({ grant }));
};

const list = openRoute({
  method: "GET",
  path: "/v3/role_assignments",
  request: { query: anyQuery },
  handler: async (request, context) => {
    const caller = await callerOf(request, context);
    await enforceList(request, context, caller);
    const parameters = plainQuery(request.query);
    const isEffective = isSet(request.query, "effective");
    const filter = { ...filterOf(request.query, isEffective), confinedTo: callersDomain(caller) };
    const isAboutProjects = isEffective || filter.withSubtree === true;
    if (filter.projectId !== undefined && isAboutProjects) {
      await recordOrNotFound(context.database, "projects", "project", filter.projectId);
    }
    let isWhole = true;
    const onAway = (): void => {
      isWhole = false;
    };
    const directory = { ...context.directory, ...passOverAway(context.directory, onAway) };
    const lenient: ListContext = { ...context, directory };
    const { limit } = listQueryOf({}, parameters["limit"] === undefined ? {} : { limit: parameters["limit"] });
    const rows = await readPage(lenient, { filter, isEffective, limit, marker: given(request.query, "marker") });
    const shown = rows.slice(0, limit - 1);
    const base = baseUrl(request, context);
    const names = isSet(request.query, "include_names") ? await namesOf(shown, lenient) : IDS_ONLY;
    const items = shown.map((item) => bodyOf(item, names, base));
    const links = pageLinks(parameters, rows, shown, base);
    return { status: 200, body: { role_assignments: items, ...links, ...(isWhole ? {} : { truncated: true }) } };
  },
});

/** As with other lists: a client's own limit brings a link to what follows, the service's says `truncated`; so does a directory that is away. */
const pageLinks = (
  parameters: Readonly<Record<string, string>>,
  rows: readonly Listed[],
  shown: readonly Listed[],
  base: string,
): object => {
  const urlOf = (query: Readonly<Record<string, string>>): string => {
    const text = new URLSearchParams(query).toString();
    return `${base}/role_assignments${text === "" ? "" : `?${text}`}`;
  };
  const last = rows.length > shown.length ? shown.at(-1) : undefined;
  const asked = parameters["limit"] !== undefined;
  return {
    links: {
      next: last !== undefined && asked ? urlOf({ ...parameters, marker: markerOf(last) }) : null,
      self: urlOf(parameters),
      previous: null,
    },
    ...(last !== undefined && !asked ? { truncated: true } : {}),
  };
};

/** Who has which role where: as granted, or with `effective` as it comes out. */
export const ROLE_ASSIGNMENT_ROUTES: readonly IdentityRoute[] = [list];
