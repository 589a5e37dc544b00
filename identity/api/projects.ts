import { findRecord, listRecords, parsed } from "../store/records.ts";
import type { Project } from "../store/schema.ts";
import type { IdentityContext, IdentityRoute } from "./identity-route.ts";
import { flag, text } from "./list-parameters.ts";
import { resourceRoutes } from "./resource-routes.ts";

const IDS_PER_QUERY = 500;

/** Projects in Keystone's shape, with their tags. */
export const projectBodies = async (projects: readonly Project[], { database }: IdentityContext) => {
  const tags = new Map<string, string[]>();
  for (let start = 0; start < projects.length; start += IDS_PER_QUERY) {
    const ids = projects.slice(start, start + IDS_PER_QUERY).map(({ id }) => id);
    const rows = await database.selectFrom("project_tags").selectAll().where("project_id", "in", ids).execute();
    for (const { project_id, name } of rows) tags.set(project_id, [...(tags.get(project_id) ?? []), name]);
  }
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

export const PROJECT_ROUTES: readonly IdentityRoute[] = resourceRoutes({
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
    list: (query, { database }) => {
      const isAsked = query.conditions.some(({ column }) => column === "is_domain");
      const projectsOnly = { column: "is_domain", comparison: "equals", value: 0 } as const;
      const conditions = isAsked ? query.conditions : [...query.conditions, projectsOnly];
      return listRecords(database, "projects", { ...query, conditions });
    },
  },
  present: async (project, context) => (await projectBodies([project], context))[0] ?? {},
  presentAll: projectBodies,
  target: ({ id, domain_id }) => ({ "target.project.id": id, "target.project.domain_id": domain_id ?? id }),
  list: {
    operation: "identity:list_projects",
    target: ({ domain_id }) => (domain_id === undefined ? {} : { "target.domain_id": domain_id }),
  },
  show: { operation: "identity:get_project" },
});
