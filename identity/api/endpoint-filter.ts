import { Type } from "typebox";
import { identityError } from "../core/identity-error.ts";
import { passesFilters } from "../core/endpoint-filter.ts";
import { endpointsOfProject } from "../store/endpoint-filter.ts";
import { findRecords, parsed, type RecordOf, WHOLE_LIST } from "../store/records.ts";
import type { Endpoint } from "../store/schema.ts";
import { endpointGroupBody } from "./endpoint-groups.ts";
import { endpointBody } from "./endpoints.ts";
import { baseUrl, guardedRoute, type IdentityContext, type IdentityRoute } from "./identity-route.ts";
import { listBody } from "./list-parameters.ts";
import { projectBodies } from "./projects.ts";
import { recordOrNotFound } from "./resource-routes.ts";

const PREFIX = "/v3/OS-EP-FILTER";
const PROJECT_ENDPOINT = `${PREFIX}/projects/:project_id/endpoints/:endpoint_id`;
const GROUP_PROJECT = `${PREFIX}/endpoint_groups/:endpoint_group_id/projects/:project_id`;

const id = Type.String();
const projectPath = Type.Object({ project_id: id });
const endpointPath = Type.Object({ endpoint_id: id });
const groupPath = Type.Object({ endpoint_group_id: id });
const projectEndpointPath = Type.Object({ project_id: id, endpoint_id: id });
const groupProjectPath = Type.Object({ endpoint_group_id: id, project_id: id });

const findProject = ({ database }: IdentityContext, projectId: string) =>
  recordOrNotFound(database, "projects", "project", projectId);
const findEndpoint = ({ database }: IdentityContext, endpointId: string) =>
  recordOrNotFound(database, "endpoints", "endpoint", endpointId);
const findGroup = ({ database }: IdentityContext, groupId: string) =>
  recordOrNotFound(database, "endpoint_groups", "Endpoint Group", groupId);

const allEndpoints = ({ database }: IdentityContext): Promise<Endpoint[]> =>
  database.selectFrom("endpoints").selectAll().orderBy("id").execute();

type Listing = Parameters<typeof listBody>[0] & Parameters<typeof baseUrl>[0];

const linked = <Body extends { readonly id: string }>(bodies: readonly Body[], path: string) =>
  bodies.map((body) => ({ ...body, links: { self: `${path}/${body.id}` } }));

const endpointsBody = (request: Listing, context: IdentityContext, endpoints: readonly Endpoint[]): object => {
  const base = baseUrl(request, context);
  return listBody(request, "endpoints", linked(endpoints.map(endpointBody), `${base}/endpoints`), WHOLE_LIST, base);
};

const projectsBody = async (request: Listing, context: IdentityContext, ids: readonly string[]): Promise<object> => {
  const base = baseUrl(request, context);
  const projects = await findRecords(context.database, "projects", ids);
  const bodies = await projectBodies(
    projects.toSorted((left, right) => (left.id < right.id ? -1 : 1)),
    context,
  );
  return listBody(request, "projects", linked(bodies, `${base}/projects`), WHOLE_LIST, base);
};

const listProjectsOfEndpoint = guardedRoute({
  method: "GET",
  path: `${PREFIX}/endpoints/:endpoint_id/projects`,
  operation: "identity:list_projects_for_endpoint",
  request: { params: endpointPath },
  handler: async (request, context) => {
    const endpoint = await findEndpoint(context, request.params.endpoint_id);
    const rows = await context.database
      .selectFrom("project_endpoints")
      .select("project_id")
      .where("endpoint_id", "=", endpoint.id)
      .execute();
    const ids = rows.map(({ project_id }) => project_id);
    return { status: 200, body: await projectsBody(request, context, ids) };
  },
});

const listEndpointsOfProject = guardedRoute({
  method: "GET",
  path: `${PREFIX}/projects/:project_id/endpoints`,
  operation: "identity:list_endpoints_for_project",
  request: { params: projectPath },
  handler: async (request, context) => {
    const project = await findProject(context, request.params.project_id);
    const endpoints = await endpointsOfProject(context.database, project.id, await allEndpoints(context));
    return { status: 200, body: endpointsBody(request, context, endpoints) };
  },
});

const notInProject = (endpointId: string, projectId: string) =>
  identityError("not-found", `Endpoint ${endpointId} not found in project ${projectId}`);

const checkEndpointInProject = guardedRoute({
  method: "GET",
  path: PROJECT_ENDPOINT,
  operation: "identity:check_endpoint_in_project",
  request: { params: projectEndpointPath },
  handler: async ({ params }, context) => {
    const endpoint = await findEndpoint(context, params.endpoint_id);
    const project = await findProject(context, params.project_id);
    const row = await context.database
      .selectFrom("project_endpoints")
      .select("endpoint_id")
      .where("project_id", "=", project.id)
      .where("endpoint_id", "=", endpoint.id)
      .executeTakeFirst();
    if (row === undefined) throw notInProject(endpoint.id, project.id);
    return { status: 204 };
  },
});

const addEndpointToProject = guardedRoute({
  method: "PUT",
  path: PROJECT_ENDPOINT,
  operation: "identity:add_endpoint_to_project",
  request: { params: projectEndpointPath },
  handler: async ({ params }, context) => {
    await context.changes.write(async (transaction, change) => {
      const endpoint = await recordOrNotFound(transaction, "endpoints", "endpoint", params.endpoint_id);
      const project = await recordOrNotFound(transaction, "projects", "project", params.project_id);
      const added = await transaction
        .insertInto("project_endpoints")
        .values({ project_id: project.id, endpoint_id: endpoint.id })
        .onConflict((conflict) => conflict.doNothing())
        .executeTakeFirst();
      if (added.numInsertedOrUpdatedRows === 0n) {
        throw identityError("conflict", "Conflict occurred attempting to store project_endpoint - Duplicate entry.");
      }
      change.notify({
        action: "create",
        resource: "project_endpoint",
        id: endpoint.id,
        details: { projectId: project.id },
      });
    });
    return { status: 204 };
  },
});

const removeEndpointFromProject = guardedRoute({
  method: "DELETE",
  path: PROJECT_ENDPOINT,
  operation: "identity:remove_endpoint_from_project",
  request: { params: projectEndpointPath },
  handler: async ({ params: { project_id: projectId, endpoint_id: endpointId } }, context) => {
    await context.changes.write(async (transaction, change) => {
      const gone = await transaction
        .deleteFrom("project_endpoints")
        .where("project_id", "=", projectId)
        .where("endpoint_id", "=", endpointId)
        .executeTakeFirst();
      if (gone.numDeletedRows === 0n) throw notInProject(endpointId, projectId);
      change.notify({ action: "delete", resource: "project_endpoint", id: endpointId, details: { projectId } });
    });
    return { status: 204 };
  },
});

const listGroupsOfProject = guardedRoute({
  method: "GET",
  path: `${PREFIX}/projects/:project_id/endpoint_groups`,
  operation: "identity:list_endpoint_groups_for_project",
  request: { params: projectPath },
  handler: async (request, context) => {
    const project = await findProject(context, request.params.project_id);
    const groups: RecordOf<"endpoint_groups">[] = await context.database
      .selectFrom("endpoint_groups")
      .innerJoin("project_endpoint_groups", "endpoint_group_id", "endpoint_groups.id")
      .selectAll("endpoint_groups")
      .where("project_id", "=", project.id)
      .orderBy("endpoint_groups.id")
      .execute();
    const base = baseUrl(request, context);
    const items = linked(groups.map(endpointGroupBody), `${base}/OS-EP-FILTER/endpoint_groups`);
    return { status: 200, body: listBody(request, "endpoint_groups", items, WHOLE_LIST, base) };
  },
});

const listProjectsOfGroup = guardedRoute({
  method: "GET",
  path: `${PREFIX}/endpoint_groups/:endpoint_group_id/projects`,
  operation: "identity:list_projects_associated_with_endpoint_group",
  request: { params: groupPath },
  handler: async (request, context) => {
    const group = await findGroup(context, request.params.endpoint_group_id);
    const rows = await context.database
      .selectFrom("project_endpoint_groups")
      .select("project_id")
      .where("endpoint_group_id", "=", group.id)
      .execute();
    const ids = rows.map(({ project_id }) => project_id);
    return { status: 200, body: await projectsBody(request, context, ids) };
  },
});

const listEndpointsOfGroup = guardedRoute({
  method: "GET",
  path: `${PREFIX}/endpoint_groups/:endpoint_group_id/endpoints`,
  operation: "identity:list_endpoints_associated_with_endpoint_group",
  request: { params: groupPath },
  handler: async (request, context) => {
    const group = await findGroup(context, request.params.endpoint_group_id);
    const filters = parsed(group.filters);
    const endpoints = (await allEndpoints(context)).filter((endpoint) => passesFilters(filters, endpoint));
    return { status: 200, body: endpointsBody(request, context, endpoints) };
  },
});

const noAssociation = () => identityError("not-found", "Endpoint Group Project Association not found");

const showGroupInProject = guardedRoute({
  method: "GET",
  path: GROUP_PROJECT,
  operation: "identity:get_endpoint_group_in_project",
  request: { params: groupProjectPath },
  handler: async (request, context) => {
    const project = await findProject(context, request.params.project_id);
    const group = await findGroup(context, request.params.endpoint_group_id);
    const row = await context.database
      .selectFrom("project_endpoint_groups")
      .selectAll()
      .where("project_id", "=", project.id)
      .where("endpoint_group_id", "=", group.id)
      .executeTakeFirst();
    if (row === undefined) throw noAssociation();
    const self = `${baseUrl(request, context)}/OS-EP-FILTER/endpoint_groups/${group.id}/projects/${project.id}`;
    return { status: 200, body: { project_endpoint_group: { ...row, links: { self } } } };
  },
});

const addGroupToProject = guardedRoute({
  method: "PUT",
  path: GROUP_PROJECT,
  operation: "identity:add_endpoint_group_to_project",
  request: { params: groupProjectPath },
  handler: async ({ params }, context) => {
    await context.changes.write(async (transaction, change) => {
      const project = await recordOrNotFound(transaction, "projects", "project", params.project_id);
      const groupId = params.endpoint_group_id;
      const group = await recordOrNotFound(transaction, "endpoint_groups", "Endpoint Group", groupId);
      const added = await transaction
        .insertInto("project_endpoint_groups")
        .values({ project_id: project.id, endpoint_group_id: group.id })
        .onConflict((conflict) => conflict.doNothing())
        .executeTakeFirst();
      if (added.numInsertedOrUpdatedRows === 0n) {
        throw identityError(
          "conflict",
          "Conflict occurred attempting to store project_endpoint_group - Duplicate entry.",
        );
      }
      const details = { projectId: project.id };
      change.notify({ action: "create", resource: "project_endpoint_group", id: group.id, details });
    });
    return { status: 204 };
  },
});

const removeGroupFromProject = guardedRoute({
  method: "DELETE",
  path: GROUP_PROJECT,
  operation: "identity:remove_endpoint_group_from_project",
  request: { params: groupProjectPath },
  handler: async ({ params }, context) => {
    await context.changes.write(async (transaction, change) => {
      const project = await recordOrNotFound(transaction, "projects", "project", params.project_id);
      const groupId = params.endpoint_group_id;
      const group = await recordOrNotFound(transaction, "endpoint_groups", "Endpoint Group", groupId);
      const gone = await transaction
        .deleteFrom("project_endpoint_groups")
        .where("project_id", "=", project.id)
        .where("endpoint_group_id", "=", group.id)
        .executeTakeFirst();
      if (gone.numDeletedRows === 0n) throw noAssociation();
      const details = { projectId: project.id };
      change.notify({ action: "delete", resource: "project_endpoint_group", id: group.id, details });
    });
    return { status: 204 };
  },
});

/** Which endpoints the catalog of a project's tokens shows; without any association it shows all. */
export const ENDPOINT_FILTER_ROUTES: readonly IdentityRoute[] = [
  listProjectsOfEndpoint,
  listEndpointsOfProject,
  checkEndpointInProject,
  addEndpointToProject,
  removeEndpointFromProject,
  listGroupsOfProject,
  listProjectsOfGroup,
  listEndpointsOfGroup,
  showGroupInProject,
  addGroupToProject,
  removeGroupFromProject,
];
