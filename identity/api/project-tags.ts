import { Type } from "typebox";
import { identityError, notFound } from "../core/identity-error.ts";
import type { IdentityDatabase } from "../store/records.ts";
import type { Project } from "../store/schema.ts";
import { baseUrl, guardedRoute, type IdentityContext, type IdentityRoute } from "./identity-route.ts";
import { assertTagsMayChange, currentProject, replaceTags } from "./project-changes.ts";
import { projectTag, projectTags, TAGS_MAX } from "./project-schemas.ts";
import { recordOrNotFound } from "./resource-routes.ts";

const IDS_PER_QUERY = 500;

/** The tags of projects in the order of the alphabet; a project without any has no entry. */
export const tagsOf = async (
  database: IdentityDatabase,
  projectIds: readonly string[],
): Promise<ReadonlyMap<string, readonly string[]>> => {
  const tags = new Map<string, string[]>();
  for (let start = 0; start < projectIds.length; start += IDS_PER_QUERY) {
    const slice = projectIds.slice(start, start + IDS_PER_QUERY);
    const rows = await database
      .selectFrom("project_tags")
      .selectAll()
      .where("project_id", "in", slice)
      .orderBy("name")
      .execute();
    for (const { project_id, name } of rows) {
      const known = tags.get(project_id);
      if (known === undefined) tags.set(project_id, [name]);
      else known.push(name);
    }
  }
  return tags;
};

/** What policies see of a project. */
export const projectTarget = ({ id, domain_id }: Project) => ({
  "target.project.id": id,
  "target.project.domain_id": domain_id,
});

const PATH = "/v3/projects/:project_id/tags";
const ONE_PATH = `${PATH}/:value`;
const params = Type.Object({ project_id: Type.String() });
const oneParams = Type.Object({ project_id: Type.String(), value: Type.String() });
const newParams = Type.Object({ project_id: Type.String(), value: projectTag });

type ProjectPath = { readonly params: { readonly project_id: string } };

const projectOf = ({ params: { project_id } }: ProjectPath, { database }: IdentityContext): Promise<Project> =>
  recordOrNotFound(database, "projects", "project", project_id);

const target = async (request: ProjectPath, context: IdentityContext) =>
  projectTarget(await projectOf(request, context));

const ownTags = async (database: IdentityDatabase, id: string): Promise<readonly string[]> =>
  (await tagsOf(database, [id])).get(id) ?? [];

const tagsBody = async (id: string, context: IdentityContext, base: string) => ({
  links: { self: `${base}/projects/${id}/tags` },
  tags: await ownTags(context.database, id),
});

const noSuchTag = (tag: string) => notFound("project tag", tag);

/** Replaces what is there by what `choose` makes of it. */
const changeTags = async (
  row: Project,
  context: IdentityContext,
  verb: "create" | "update" | "delete",
  choose: (tags: readonly string[]) => readonly string[],
): Promise<void> => {
  await context.changes.write(async (transaction, change) => {
    const project = await currentProject(transaction, row);
    assertTagsMayChange(project, verb);
    await replaceTags(transaction, project.id, choose(await ownTags(transaction, project.id)));
    change.notify({ action: "update", resource: "project", id: project.id });
  });
};

const withTag = (tags: readonly string[], given: string): readonly string[] => {
  const tag = given.trim();
  if (tags.includes(tag)) {
    throw identityError(
      "bad-request",
      `Invalid input for field 'tags': ${tag} is there already, and must not be twice.`,
    );
  }
  if (tags.length >= TAGS_MAX) {
    throw identityError("bad-request", `Invalid input for field 'tags': a project has ${TAGS_MAX} tags at most.`);
  }
  return [...tags, tag];
};

/** Short texts by which projects are grouped and found. */
export const PROJECT_TAG_ROUTES: readonly IdentityRoute[] = [
  guardedRoute({
    method: "GET",
    path: PATH,
    operation: "identity:list_project_tags",
    request: { params },
    target,
    handler: async (request, context) => {
      const { id } = await projectOf(request, context);
      return { status: 200, body: await tagsBody(id, context, baseUrl(request, context)) };
    },
  }),
  guardedRoute({
    method: "PUT",
    path: PATH,
    operation: "identity:update_project_tags",
    request: { params, body: Type.Object({ tags: projectTags }) },
    target,
    handler: async (request, context) => {
      const project = await projectOf(request, context);
      await changeTags(project, context, "update", () => request.body.tags);
      return { status: 200, body: await tagsBody(project.id, context, baseUrl(request, context)) };
    },
  }),
  guardedRoute({
    method: "DELETE",
    path: PATH,
    operation: "identity:delete_project_tags",
    request: { params },
    target,
    handler: async (request, context) => {
      await changeTags(await projectOf(request, context), context, "update", () => []);
      return { status: 204 };
    },
  }),
  guardedRoute({
    method: "GET",
    path: ONE_PATH,
    operation: "identity:get_project_tag",
    request: { params: oneParams },
    target,
    handler: async (request, context) => {
      const { id } = await projectOf(request, context);
      const { value } = request.params;
      if (!(await ownTags(context.database, id)).includes(value)) throw noSuchTag(value);
      return { status: 204 };
    },
  }),
  guardedRoute({
    method: "PUT",
    path: ONE_PATH,
    operation: "identity:create_project_tag",
    request: { params: newParams },
    target,
    handler: async (request, context) => {
      const { value } = request.params;
      const project = await projectOf(request, context);
      await changeTags(project, context, "create", (tags) => withTag(tags, value));
      const location = `${baseUrl(request, context)}/projects/${project.id}/tags/${encodeURIComponent(value.trim())}`;
      return { status: 201, headers: { location } };
    },
  }),
  guardedRoute({
    method: "DELETE",
    path: ONE_PATH,
    operation: "identity:delete_project_tag",
    request: { params: oneParams },
    target,
    handler: async (request, context) => {
      const { value } = request.params;
      await changeTags(await projectOf(request, context), context, "delete", (tags) => {
        if (!tags.includes(value)) throw noSuchTag(value);
        return tags.filter((tag) => tag !== value);
      });
      return { status: 204 };
    },
  }),
];
