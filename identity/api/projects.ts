import { Type } from "typebox";
import { identityError } from "../core/identity-error.ts";
import { listProjects, type TagFilter } from "../store/project-list.ts";
import { projectsAbove } from "../store/project-tree.ts";
import { type Condition, findRecord, newId, parsed } from "../store/records.ts";
import type { Project } from "../store/schema.ts";
import { baseUrl, type Caller, guardedRoute, type IdentityContext, type IdentityRoute } from "./identity-route.ts";
import { anyQuery, flag, parameter, text } from "./list-parameters.ts";
import {
  changeProject,
  currentProject,
  DEFAULT_DOMAIN_ID,
  deleteProject,
  insertProject,
  optionsAfter,
  switchSubtree,
} from "./project-changes.ts";
import { projectRelations } from "./project-relations.ts";
import { description, nullableId, projectName, projectOptions, projectTags } from "./project-schemas.ts";
import { projectTarget, tagsOf } from "./project-tags.ts";
import { enforceAlso, extraOf, recordOrNotFound, resourceRoutes, type Write } from "./resource-routes.ts";

/** Projects in Keystone's shape, with their tags. */
export const projectBodies = async (projects: readonly Project[], { database }: Pick<IdentityContext, "database">) => {
  const tags = await tagsOf(
    database,
    projects.map(({ id }) => id),
  );
  return projects.map((project) => ({
    ...parsed(project.extra),
    id: project.id,
    name: project.name,
    domain_id: project.domain_id,
    description: project.description,
    enabled: project.enabled === 1,
    parent_id: project.parent_id,
    is_domain: project.is_domain === 1,
    tags: tags.get(project.id) ?? [],
    options: parsed(project.options),
  }));
};

const fields = {
  description: Type.Optional(description),
  domain_id: Type.Optional(nullableId),
  enabled: Type.Optional(Type.Boolean()),
  is_domain: Type.Optional(Type.Boolean()),
  parent_id: Type.Optional(nullableId),
  tags: Type.Optional(projectTags),
  options: Type.Optional(projectOptions),
};
const createSchema = Type.Object({ ...fields, name: projectName });
const updateSchema = Type.Object({ ...fields, name: Type.Optional(projectName) }, { minProperties: 1 });

type Place = { readonly domain_id?: string | null; readonly parent_id?: string | null; readonly is_domain?: boolean };

/** The domain of a new project: what is named, else that of the caller's token, else the default one. Null for a domain. */
const domainOfNew = (place: Place, { credentials }: Caller): string | null => {
  if (place.is_domain === true) return null;
  const { domain_id: ofToken } = credentials;
  return place.domain_id ?? (typeof ofToken === "string" ? ofToken : DEFAULT_DOMAIN_ID);
};

/** The model of limits may allow less than the configuration: two levels are the domain's project and those beneath it. */
const depthMax = ({ config }: IdentityContext): number =>
  config.limitModel === "strict_two_level" ? Math.min(config.maxProjectTreeDepth, 2) : config.maxProjectTreeDepth;

const refuse = (message: string) => identityError("bad-request", message);

/** The parent of a new project; the whole branch above must be enabled and leave room for one more. Throws `bad-request`, `forbidden`. */
const parentOfNew = async (place: Place, domainId: string, { transaction, context }: Write): Promise<string> => {
  const domain = await findRecord(transaction, "projects", domainId);
  if (domain?.is_domain !== 1) throw refuse(`Could not find domain: ${domainId}.`);
  const parentId = place.parent_id ?? domainId;
  const parent = await findRecord(transaction, "projects", parentId);
  if (parent === undefined) throw refuse(`Could not find project: ${parentId}.`);
  const parentDomain = parent.is_domain === 1 ? parent.id : parent.domain_id;
  if (parentDomain !== domainId) {
    throw refuse(
      `Cannot create project, since it specifies its domain_id ${domainId}, but specifies a parent in a different domain (${parentDomain}).`,
    );
  }
  const branch = [parent, ...(await projectsAbove(transaction, parentId))];
  const disabled = branch.find(({ enabled }) => enabled === 0);
  if (disabled !== undefined) {
    throw refuse(`cannot create a project in a branch containing a disabled project: ${disabled.id}`);
  }
  // The domain in the branch stands for the project that is to come.
  if (branch.length > depthMax(context)) {
    throw identityError("forbidden", `Max hierarchy depth reached for ${parentId} branch.`);
  }
  return parentId;
};

const placeOfNew = async (place: Place, write: Write): Promise<Pick<Project, "domain_id" | "parent_id">> => {
  const domainId = domainOfNew(place, write.caller);
  if (domainId !== null) return { domain_id: domainId, parent_id: await parentOfNew(place, domainId, write) };
  enforceAlso(write, "identity:create_domain", {});
  if ((place.parent_id ?? place.domain_id ?? null) !== null) {
    throw refuse("only root projects are allowed to act as domains.");
  }
  return { domain_id: null, parent_id: null };
};

/** A project that is a domain takes what its domain takes. */
const enforceForDomain = (project: Project, write: Write, operation: string): void => {
  if (project.is_domain === 1) enforceAlso(write, operation, { "target.domain.id": project.id });
};

const assertStays = (project: Project, place: Place): void => {
  if (place.domain_id !== undefined && place.domain_id !== project.domain_id) throw refuse("Cannot change Domain ID");
  if (place.parent_id !== undefined && place.parent_id !== project.parent_id) {
    throw identityError("forbidden", "Update of `parent_id` is not allowed.");
  }
  if (place.is_domain !== undefined && Number(place.is_domain) !== project.is_domain) {
    throw refuse("Update of `is_domain` is not allowed.");
  }
};

const tagFilterOf = (query: unknown): TagFilter => {
  const tags = (name: string): readonly string[] | undefined => parameter(query, name)?.split(",");
  const all = tags("tags");
  const any = tags("tags-any");
  const notAll = tags("not-tags");
  const notAny = tags("not-tags-any");
  return {
    ...(all === undefined ? {} : { all }),
    ...(any === undefined ? {} : { any }),
    ...(notAll === undefined ? {} : { notAll }),
    ...(notAny === undefined ? {} : { notAny }),
  };
};

const PATH = "/v3/projects/:project_id";
const params = Type.Object({ project_id: Type.String() });
type ProjectPath = { readonly params: { readonly project_id: string } };

const projectOf = ({ params: { project_id } }: ProjectPath, { database }: IdentityContext): Promise<Project> =>
  recordOrNotFound(database, "projects", "project", project_id);

const target = async (request: ProjectPath, context: IdentityContext) =>
  projectTarget(await projectOf(request, context));

const bodyOf = async (project: Project, context: IdentityContext, base: string) => ({
  ...(await projectBodies([project], context))[0],
  links: { self: `${base}/projects/${project.id}` },
});

const showProject = guardedRoute({
  method: "GET",
  path: PATH,
  operation: "identity:get_project",
  request: { params, query: anyQuery },
  target,
  handler: async (request, context, caller) => {
    const project = await projectOf(request, context);
    const base = baseUrl(request, context);
    const relations = await projectRelations(project, request.query, {
      context,
      caller,
      base,
      bodiesOf: projectBodies,
    });
    return { status: 200, body: { project: { ...(await bodyOf(project, context, base)), ...relations } } };
  },
});

const enableSubtree = guardedRoute({
  method: "PATCH",
  path: `${PATH}/cascade`,
  operation: "identity:update_project",
  request: {
    params,
    body: Type.Object({ project: Type.Object({ enabled: Type.Boolean() }, { additionalProperties: false }) }),
  },
  target,
  handler: async (request, context, caller) => {
    const found = await projectOf(request, context);
    const { enabled } = request.body.project;
    const project = await context.changes.write(async (transaction, change) => {
      const write = { context, caller, transaction, change };
      enforceForDomain(found, write, "identity:update_domain");
      return switchSubtree(await currentProject(transaction, found), enabled, write);
    });
    return { status: 200, body: { project: await bodyOf(project, context, baseUrl(request, context)) } };
  },
});

const deleteSubtree = guardedRoute({
  method: "DELETE",
  path: `${PATH}/cascade`,
  operation: "identity:delete_project",
  request: { params },
  target,
  handler: async (request, context, caller) => {
    const found = await projectOf(request, context);
    await context.changes.write(async (transaction, change) => {
      const write = { context, caller, transaction, change };
      enforceForDomain(found, write, "identity:delete_domain");
      await deleteProject(await currentProject(transaction, found), { cascade: true }, write);
    });
    return { status: 204 };
  },
});

const equals = (column: string, value: string | number): Condition => ({ column, comparison: "equals", value });

export const PROJECT_ROUTES: readonly IdentityRoute[] = [
  ...resourceRoutes({
    path: "/v3/projects",
    plural: "projects",
    singular: "project",
    filters: {
      name: text("name"),
      domain_id: text("domain_id"),
      parent_id: text("parent_id"),
      enabled: flag("enabled"),
      is_domain: flag("is_domain"),
    },
    reading: {
      find: (id, { database }) => findRecord(database, "projects", id),
      list: (query, { database }, caller, request) => {
        const isAsked = query.conditions.some(({ column }) => column === "is_domain");
        const own = caller.credentials.domain_id;
        const conditions = [
          ...query.conditions,
          ...(isAsked ? [] : [equals("is_domain", 0)]),
          // A token for a domain sees what is in that domain.
          ...(typeof own === "string" ? [equals("domain_id", own)] : []),
        ];
        return listProjects(database, { ...query, conditions }, tagFilterOf(request.query));
      },
    },
    present: async (project, context) => (await projectBodies([project], context))[0] ?? {},
    presentAll: projectBodies,
    target: projectTarget,
    list: {
      operation: "identity:list_projects",
      target: ({ domain_id }, { credentials }) => ({ "target.domain_id": credentials.domain_id ?? domain_id }),
    },
    create: {
      operation: "identity:create_project",
      schema: createSchema,
      target: (given, caller) => ({ "target.project.domain_id": domainOfNew(given, caller) }),
      run: async (given, write) => {
        const project: Project = {
          id: newId(),
          ...(await placeOfNew(given, write)),
          is_domain: Number(given.is_domain ?? false),
          name: given.name,
          description: given.description ?? "",
          enabled: Number(given.enabled ?? true),
          options: optionsAfter(given.options),
          extra: extraOf(createSchema, given),
        };
        return insertProject(project, given.tags ?? [], write);
      },
    },
    update: {
      operation: "identity:update_project",
      schema: updateSchema,
      run: async (row, given, write) => {
        const before = await currentProject(write.transaction, row);
        enforceForDomain(before, write, "identity:update_domain");
        assertStays(before, given);
        return changeProject(before, given, extraOf(updateSchema, given, before.extra), write);
      },
    },
    remove: {
      operation: "identity:delete_project",
      run: async (row, write) => {
        const project = await currentProject(write.transaction, row);
        enforceForDomain(project, write, "identity:delete_domain");
        await deleteProject(project, { cascade: false }, write);
      },
    },
  }),
  showProject,
  enableSubtree,
  deleteSubtree,
];
