import { type Static, Type } from "typebox";
import { identityError, notFound } from "../core/identity-error.ts";
import { LIMIT_MODELS, misfitOf } from "../core/limit-model.ts";
import { findLimit, type Limit, type LimitScope, limitSurroundings, listLimits, ownedLimit } from "../store/limits.ts";
import { findRecord, type IdentityTransaction, newId } from "../store/records.ts";
import { baseUrl, type Caller, guardedRoute, type IdentityContext, type IdentityRoute } from "./identity-route.ts";
import { text } from "./list-parameters.ts";
import {
  absentReference,
  assertServiceAndRegion,
  findRegisteredLimit,
  LIMIT_DESCRIPTION,
  LIMIT_ID,
  LIMIT_VALUE,
  RESOURCE_NAME,
} from "./registered-limits.ts";
import { resourceRoutes } from "./resource-routes.ts";

const createSchema = Type.Object(
  {
    project_id: Type.Optional(LIMIT_ID),
    domain_id: Type.Optional(LIMIT_ID),
    service_id: LIMIT_ID,
    region_id: Type.Optional(Type.String()),
    resource_name: RESOURCE_NAME,
    resource_limit: LIMIT_VALUE,
    description: Type.Optional(LIMIT_DESCRIPTION),
  },
  { additionalProperties: false },
);
const updateSchema = Type.Object(
  { resource_limit: Type.Optional(LIMIT_VALUE), description: Type.Optional(LIMIT_DESCRIPTION) },
  { additionalProperties: false },
);

const presented = ({ registered_limit_id: _registered, ...limit }: Limit) => limit;

/** The project or domain that a limit is for. A project that is a domain counts as one. Throws `bad-request`. */
const ownerOf = async (
  transaction: IdentityTransaction,
  { project_id, domain_id }: Static<typeof createSchema>,
): Promise<Pick<Limit, "project_id" | "domain_id">> => {
  const id = project_id ?? domain_id ?? "";
  const row = await findRecord(transaction, "projects", id);
  if (row?.is_domain === 1) return { project_id: null, domain_id: id };
  if (row === undefined || project_id === undefined) {
    throw absentReference(project_id === undefined ? "domain_id" : "project_id", "limit");
  }
  return { project_id: id, domain_id: null };
};

/** Refuses what does not fit the model. Requires: the limits stand in the transaction as they are to be. */
const assertModel = async (
  { config }: IdentityContext,
  transaction: IdentityTransaction,
  limits: readonly Limit[],
): Promise<void> => {
  if (config.limitModel === "flat") return;
  const changed = limits.map(ownedLimit);
  const misfit = misfitOf(config.limitModel, changed, await limitSurroundings(transaction, changed));
  const limit = misfit && limits[changed.indexOf(misfit)];
  if (limit === undefined) return;
  const owner = limit.project_id === null ? `domain_id: ${limit.domain_id}` : `project_id: ${limit.project_id}`;
  throw identityError(
    "forbidden",
    `Invalid resource limit: The resource limit (${owner}, resource_name: ${limit.resource_name}, resource_limit: ${limit.resource_limit}, service_id: ${limit.service_id}, region_id: ${limit.region_id}) doesn't satisfy current hierarchy model.`,
  );
};

const assertNew = async (transaction: IdentityTransaction, limit: Limit): Promise<void> => {
  const registered = transaction
    .selectFrom("limits")
    .select("id")
    .where("registered_limit_id", "=", limit.registered_limit_id);
  const owned =
    limit.project_id === null
      ? registered.where("domain_id", "=", limit.domain_id)
      : registered.where("project_id", "=", limit.project_id);
  if ((await owned.executeTakeFirst()) === undefined) return;
  throw identityError("conflict", "Conflict occurred attempting to store limit - Duplicate entry.");
};

const insertLimit = async (transaction: IdentityTransaction, fields: Static<typeof createSchema>): Promise<Limit> => {
  const { service_id, resource_name, resource_limit } = fields;
  const region_id = fields.region_id ?? null;
  const owner = await ownerOf(transaction, fields);
  await assertServiceAndRegion(transaction, { service_id, region_id }, "limit");
  const registered = await findRegisteredLimit(transaction, { service_id, region_id, resource_name });
  if (registered === undefined) {
    throw identityError("forbidden", "Unable to create a limit that has no corresponding registered limit.");
  }
  const row = { id: newId(), registered_limit_id: registered.id, ...owner, resource_limit };
  const described = { ...row, description: fields.description ?? null };
  const limit: Limit = { ...described, service_id, region_id, resource_name };
  await assertNew(transaction, limit);
  await transaction.insertInto("limits").values(described).execute();
  return limit;
};

const createMany = guardedRoute({
  method: "POST",
  path: "/v3/limits",
  operation: "identity:create_limits",
  request: { body: Type.Object({ limits: Type.Array(createSchema, { minItems: 1 }) }) },
  handler: async (request, context) => {
    for (const { project_id, domain_id } of request.body.limits) {
      if ((project_id === undefined) === (domain_id === undefined)) {
        throw identityError("bad-request", "A limit needs either project_id or domain_id.");
      }
    }
    const limits = await context.changes.write(async (transaction, change) => {
      const made: Limit[] = [];
      for (const fields of request.body.limits) {
        const limit = await insertLimit(transaction, fields);
        made.push(limit);
        change.notify({ action: "create", resource: "limit", id: limit.id });
      }
      await assertModel(context, transaction, made);
      return made;
    });
    const base = baseUrl(request, context);
    const bodies = limits.map((limit) => ({ ...presented(limit), links: { self: `${base}/limits/${limit.id}` } }));
    return { status: 201, body: { limits: bodies } };
  },
});

const model = guardedRoute({
  method: "GET",
  path: "/v3/limits/model",
  operation: "identity:get_limit_model",
  request: {},
  handler: (_request, { config: { limitModel } }) => ({
    status: 200,
    body: { model: { name: limitModel, description: LIMIT_MODELS[limitModel] } },
  }),
});

/** Whose limits a caller sees in lists: as in Keystone that is a matter of the token's scope alone. */
const scopeOf = ({ token: { scope } }: Caller): LimitScope => {
  switch (scope.kind) {
    case "system":
      return { kind: "all" };
    case "domain":
      return { kind: "domain", id: scope.domain.id };
    case "project":
      return { kind: "project", id: scope.project.id };
    case "unscoped":
      return { kind: "none" };
  }
};

const limitOrNotFound = async (transaction: IdentityTransaction, id: string): Promise<Limit> => {
  const limit = await findLimit(transaction, id);
  if (limit === undefined) throw notFound("limit", id);
  return limit;
};

/** What projects and domains may use of services. Services ask for them; nothing is enforced here. */
export const LIMIT_ROUTES: readonly IdentityRoute[] = [
  model,
  createMany,
  ...resourceRoutes({
    path: "/v3/limits",
    plural: "limits",
    singular: "limit",
    filters: {
      service_id: text("service_id"),
      region_id: text("region_id"),
      resource_name: text("resource_name"),
      project_id: text("project_id"),
      domain_id: text("domain_id"),
    },
    reading: {
      find: (id, { database }) => findLimit(database, id),
      list: (query, { database }, caller) => listLimits(database, query, scopeOf(caller)),
    },
    present: presented,
    target: async ({ project_id, domain_id }, { database }) => {
      const project = project_id === null ? undefined : await findRecord(database, "projects", project_id);
      return {
        "target.limit.project_id": project_id,
        "target.limit.project.domain_id": project?.domain_id ?? null,
        "target.limit.domain.id": domain_id,
      };
    },
    list: { operation: "identity:list_limits" },
    show: { operation: "identity:get_limit" },
    update: {
      operation: "identity:update_limit",
      schema: updateSchema,
      run: async ({ id }, fields, { context, transaction, change }) => {
        const limit = await limitOrNotFound(transaction, id);
        const resource_limit = fields.resource_limit ?? limit.resource_limit;
        const description = fields.description === undefined ? limit.description : fields.description;
        await transaction.updateTable("limits").set({ resource_limit, description }).where("id", "=", id).execute();
        const changed: Limit = { ...limit, resource_limit, description };
        await assertModel(context, transaction, [changed]);
        change.notify({ action: "update", resource: "limit", id });
        return changed;
      },
    },
    remove: {
      operation: "identity:delete_limit",
      run: async ({ id }, { transaction, change }) => {
        await limitOrNotFound(transaction, id);
        await transaction.deleteFrom("limits").where("id", "=", id).execute();
        change.notify({ action: "delete", resource: "limit", id });
      },
    },
  }),
];
