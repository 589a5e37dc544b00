import { Type } from "typebox";
import { domainsOfUser, effectiveRoles, projectsOfUser, SYSTEM_TARGET } from "../store/assignments.ts";
import type { Domain, Endpoint, Project, Region, Role, Service, User } from "../store/schema.ts";
import { collectionRoutes, listBody } from "./collection-routes.ts";
import { baseUrl, guardedRoute, type IdentityRoute } from "./identity-route.ts";

const TEXT = (column: string) => ({ column, kind: "text" }) as const;
const ENABLED = { column: "enabled", kind: "flag" } as const;

const domainBody = ({ id, name, description, enabled }: Domain): object => ({
  id,
  name,
  description,
  enabled: enabled === 1,
  tags: [],
  options: {},
});

const projectBody = (project: Project): object => ({
  id: project.id,
  name: project.name,
  domain_id: project.domain_id,
  description: project.description,
  enabled: project.enabled === 1,
  // On the wire a domain is the parent of its topmost projects.
  parent_id: project.parent_id ?? project.domain_id,
  is_domain: false,
  tags: [],
  options: {},
});

const userBody = (user: User): object => ({
  id: user.id,
  name: user.name,
  domain_id: user.domain_id,
  enabled: user.enabled === 1,
  password_expires_at: null,
  options: {},
  ...(user.default_project_id === null ? {} : { default_project_id: user.default_project_id }),
  ...(user.email === null ? {} : { email: user.email }),
  ...(user.description === null ? {} : { description: user.description }),
});

const roleBody = ({ id, name, description }: Role): object => ({ id, name, domain_id: null, description, options: {} });

const regionBody = ({ id, description, parent_region_id }: Region): object => ({ id, description, parent_region_id });

const serviceBody = ({ id, type, name, description, enabled }: Service): object => ({
  id,
  type,
  name,
  description,
  enabled: enabled === 1,
});

const endpointBody = (endpoint: Endpoint): object => ({
  id: endpoint.id,
  interface: endpoint.interface,
  region: endpoint.region_id,
  region_id: endpoint.region_id,
  service_id: endpoint.service_id,
  url: endpoint.url,
  enabled: endpoint.enabled === 1,
});

const ownProjects = guardedRoute({
  method: "GET",
  path: "/v3/auth/projects",
  policy: "authenticated",
  request: {},
  handler: async (request, context, { user }) => {
    const base = baseUrl(request, context);
    const projects = await projectsOfUser(context.database, user.id);
    const items = projects.map((row) => ({ ...projectBody(row), links: { self: `${base}/projects/${row.id}` } }));
    return { status: 200, body: listBody("projects", items, `${base}/auth/projects`) };
  },
});

const projectsOf = guardedRoute({
  method: "GET",
  path: "/v3/users/:user_id/projects",
  policy: "reader-or-own-user",
  request: { params: Type.Object({ user_id: Type.String() }) },
  target: ({ params }) => ({ userId: params.user_id }),
  handler: async (request, context) => {
    const base = baseUrl(request, context);
    const projects = await projectsOfUser(context.database, request.params.user_id);
    const items = projects.map((row) => ({ ...projectBody(row), links: { self: `${base}/projects/${row.id}` } }));
    return { status: 200, body: listBody("projects", items, `${base}/users/${request.params.user_id}/projects`) };
  },
});

const ownDomains = guardedRoute({
  method: "GET",
  path: "/v3/auth/domains",
  policy: "authenticated",
  request: {},
  handler: async (request, context, { user }) => {
    const base = baseUrl(request, context);
    const domains = await domainsOfUser(context.database, user.id);
    const items = domains.map((row) => ({ ...domainBody(row), links: { self: `${base}/domains/${row.id}` } }));
    return { status: 200, body: listBody("domains", items, `${base}/auth/domains`) };
  },
});

const ownSystem = guardedRoute({
  method: "GET",
  path: "/v3/auth/system",
  policy: "authenticated",
  request: {},
  handler: async (request, context, { user }) => {
    const roles = await effectiveRoles(context.database, user.id, SYSTEM_TARGET);
    const items = roles.length > 0 ? [{ all: true }] : [];
    return { status: 200, body: listBody("system", items, `${baseUrl(request, context)}/auth/system`) };
  },
});

/** What the identity service keeps, read-only so far. */
export const RESOURCE_ROUTES: readonly IdentityRoute[] = [
  ...collectionRoutes({
    plural: "domains",
    singular: "domain",
    filters: { name: TEXT("name"), enabled: ENABLED },
    listPolicy: "reader",
    showPolicy: "reader",
    present: domainBody,
  }),
  ...collectionRoutes({
    plural: "projects",
    singular: "project",
    filters: { name: TEXT("name"), domain_id: TEXT("domain_id"), parent_id: TEXT("parent_id"), enabled: ENABLED },
    listPolicy: "reader",
    showPolicy: "reader-or-own-project",
    showTarget: (projectId) => ({ projectId }),
    present: projectBody,
  }),
  ...collectionRoutes({
    plural: "users",
    singular: "user",
    filters: { name: TEXT("name"), domain_id: TEXT("domain_id"), enabled: ENABLED },
    listPolicy: "reader",
    showPolicy: "reader-or-own-user",
    showTarget: (userId) => ({ userId }),
    present: userBody,
  }),
  ...collectionRoutes({
    plural: "roles",
    singular: "role",
    filters: { name: TEXT("name") },
    listPolicy: "reader",
    showPolicy: "reader",
    present: roleBody,
  }),
  ...collectionRoutes({
    plural: "regions",
    singular: "region",
    filters: { parent_region_id: TEXT("parent_region_id") },
    listPolicy: "authenticated",
    showPolicy: "authenticated",
    present: regionBody,
  }),
  ...collectionRoutes({
    plural: "services",
    singular: "service",
    filters: { name: TEXT("name"), type: TEXT("type") },
    listPolicy: "reader",
    showPolicy: "reader",
    present: serviceBody,
  }),
  ...collectionRoutes({
    plural: "endpoints",
    singular: "endpoint",
    filters: { service_id: TEXT("service_id"), region_id: TEXT("region_id"), interface: TEXT("interface") },
    listPolicy: "reader",
    showPolicy: "reader",
    present: endpointBody,
  }),
  ownProjects,
  projectsOf,
  ownDomains,
  ownSystem,
];
