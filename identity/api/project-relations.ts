import { identityError } from "../core/identity-error.ts";
import { projectsOfUser } from "../store/assignments.ts";
import { parentIds, projectsAbove, projectsBelow, subtreeIds } from "../store/project-tree.ts";
import type { IdentityDatabase } from "../store/records.ts";
import type { Project } from "../store/schema.ts";
import type { Caller, IdentityContext } from "./identity-route.ts";
import { isSet } from "./list-parameters.ts";

type Asking = {
  readonly context: IdentityContext;
  readonly caller: Caller;
  readonly base: string;
  /** Projects as answers show them. */
  readonly bodiesOf: (
    projects: readonly Project[],
    context: IdentityContext,
  ) => Promise<readonly { readonly id: string }[]>;
};

const IDS_PER_QUERY = 500;

type LimitBody = { readonly id: string; readonly project_id: string | null } & Readonly<Record<string, unknown>>;

/** The limits of projects, in the shape of `GET /v3/limits`. */
const limitsOf = async (database: IdentityDatabase, projectIds: readonly string[]): Promise<LimitBody[]> => {
  const limits: LimitBody[] = [];
  for (let start = 0; start < projectIds.length; start += IDS_PER_QUERY) {
    const rows = await database
      .selectFrom("limits")
      .innerJoin("registered_limits", "registered_limits.id", "limits.registered_limit_id")
      .select([
        "limits.id",
        "limits.project_id",
        "limits.domain_id",
        "limits.resource_limit",
        "limits.description",
        "registered_limits.resource_name",
        "registered_limits.service_id",
        "registered_limits.region_id",
      ])
      .where("limits.project_id", "in", projectIds.slice(start, start + IDS_PER_QUERY))
      .execute();
    limits.push(...rows);
  }
  return limits;
};

/** Projects, each under its name, of those in which the caller has a role. */
const visibleOf = async (
  projects: readonly Project[],
  withLimits: boolean,
  { context, caller, base, bodiesOf }: Asking,
) => {
  const { user, federation } = caller.token;
  const groupIds = [...new Set([...(await context.directory.groupIdsOf(user.id)), ...(federation?.groupIds ?? [])])];
  const own = new Set((await projectsOfUser(context, { userId: user.id, groupIds })).map(({ id }) => id));
  const bodies = await bodiesOf(
    projects.filter(({ id }) => own.has(id)),
    context,
  );
  const ids = bodies.map(({ id }) => id);
  const limits = withLimits
    ? Map.groupBy(await limitsOf(context.database, ids), ({ project_id }) => project_id)
    : undefined;
  return bodies.map((body) => ({
    project: {
      ...body,
      links: { self: `${base}/projects/${body.id}` },
      ...(limits === undefined ? {} : { limits: limits.get(body.id) ?? [] }),
    },
  }));
};

const assertOneForm = (query: unknown, relation: string): void => {
  if (!isSet(query, `${relation}_as_list`) || !isSet(query, `${relation}_as_ids`)) return;
  throw identityError(
    "bad-request",
    `Cannot use ${relation}_as_list and ${relation}_as_ids query params at the same time.`,
  );
};

/** What the query asks to be told of the projects above and below. Throws `bad-request`. */
export const projectRelations = async (project: Project, query: unknown, asking: Asking): Promise<object> => {
  assertOneForm(query, "parents");
  assertOneForm(query, "subtree");
  const { database } = asking.context;
  const withLimits = isSet(query, "include_limits");
  const relations: { parents?: unknown; subtree?: unknown } = {};
  if (isSet(query, "parents_as_list")) {
    relations.parents = await visibleOf(await projectsAbove(database, project.id), withLimits, asking);
  } else if (isSet(query, "parents_as_ids")) {
    relations.parents = parentIds(await projectsAbove(database, project.id));
  }
  if (isSet(query, "subtree_as_list")) {
    relations.subtree = await visibleOf(await projectsBelow(database, project.id), withLimits, asking);
  } else if (isSet(query, "subtree_as_ids")) {
    relations.subtree = subtreeIds(project.id, await projectsBelow(database, project.id));
  }
  return relations;
};
