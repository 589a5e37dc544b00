import { Type } from "typebox";
import { notFound } from "../core/identity-error.ts";
import { domainsOfUser, effectiveRoles, projectsOfUser, SYSTEM_TARGET } from "../store/assignments.ts";
import { WHOLE_LIST } from "../store/records.ts";
import { domainBody } from "./domains.ts";
import { baseUrl, type Caller, guardedRoute, type IdentityContext, type IdentityRoute } from "./identity-route.ts";
import { listBody } from "./list-parameters.ts";
import { projectBodies } from "./projects.ts";

/** The caller with all groups, those that a provider named included. */
const actorOf = async ({ token }: Caller, { directory }: IdentityContext) => ({
  userId: token.user.id,
  groupIds: [...new Set([...(await directory.groupIdsOf(token.user.id)), ...(token.federation?.groupIds ?? [])])],
});

const withLinks = <Body extends { readonly id: string }>(bodies: readonly Body[], path: string) =>
  bodies.map((body) => ({ ...body, links: { self: `${path}/${body.id}` } }));

const ownProjects = (path: string): IdentityRoute =>
  guardedRoute({
    method: "GET",
    path,
    operation: "identity:get_auth_projects",
    request: {},
    handler: async (request, context, caller) => {
      const base = baseUrl(request, context);
      const projects = await projectsOfUser(context, await actorOf(caller, context));
      const items = withLinks(await projectBodies(projects, context), `${base}/projects`);
      return { status: 200, body: listBody(request, "projects", items, WHOLE_LIST, base) };
    },
  });

const ownDomains = (path: string): IdentityRoute =>
  guardedRoute({
    method: "GET",
    path,
    operation: "identity:get_auth_domains",
    request: {},
    handler: async (request, context, caller) => {
      const base = baseUrl(request, context);
      const domains = await domainsOfUser(context, await actorOf(caller, context));
      const items = withLinks(domains.map(domainBody), `${base}/domains`);
      return { status: 200, body: listBody(request, "domains", items, WHOLE_LIST, base) };
    },
  });

const projectsOf = guardedRoute({
  method: "GET",
  path: "/v3/users/:user_id/projects",
  operation: "identity:list_user_projects",
  request: { params: Type.Object({ user_id: Type.String() }) },
  target: async ({ params }, { directory }) => {
    const user = await directory.findUser(params.user_id);
    return { "target.user.id": params.user_id, "target.user.domain_id": user?.domainId };
  },
  handler: async (request, context) => {
    const userId = request.params.user_id;
    if ((await context.directory.findUser(userId)) === undefined) throw notFound("user", userId);
    const base = baseUrl(request, context);
    const projects = await projectsOfUser(context, { userId, groupIds: await context.directory.groupIdsOf(userId) });
    const items = withLinks(await projectBodies(projects, context), `${base}/projects`);
    return { status: 200, body: listBody(request, "projects", items, WHOLE_LIST, base) };
  },
});

const ownSystem = guardedRoute({
  method: "GET",
  path: "/v3/auth/system",
  operation: "identity:get_auth_system",
  request: {},
  handler: async (request, context, caller) => {
    const roles = await effectiveRoles(context, await actorOf(caller, context), SYSTEM_TARGET);
    const items = roles.length > 0 ? [{ all: true }] : [];
    return { status: 200, body: listBody(request, "system", items, WHOLE_LIST, baseUrl(request, context)) };
  },
});

/** What a token's bearer may ask a token for. */
export const OWN_SCOPE_ROUTES: readonly IdentityRoute[] = [
  ownProjects("/v3/auth/projects"),
  ownProjects("/v3/OS-FEDERATION/projects"),
  ownDomains("/v3/auth/domains"),
  ownDomains("/v3/OS-FEDERATION/domains"),
  ownSystem,
  projectsOf,
];
