import { Type } from "typebox";
import { identityError } from "../core/identity-error.ts";
import { findRecord, type IdentityTransaction, newId, type RecordOf } from "../store/records.ts";
import { baseUrl, guardedRoute, type IdentityRoute } from "./identity-route.ts";
import { text } from "./list-parameters.ts";
import { recordOrNotFound, resourceRoutes, tableReading } from "./resource-routes.ts";

type RegisteredLimit = RecordOf<"registered_limits">;

/** −1 is no limit; the rest is what a signed integer of 32 bits holds. */
export const LIMIT_VALUE = Type.Integer({ minimum: -1, maximum: 0x7fffffff });
export const LIMIT_DESCRIPTION = Type.Union([Type.String(), Type.Null()]);
export const RESOURCE_NAME = Type.String({ minLength: 1, maxLength: 255 });
export const LIMIT_ID = Type.String({ minLength: 1, maxLength: 64, pattern: "^[a-zA-Z0-9-]+$" });
const REGION = Type.Union([Type.String(), Type.Null()]);

const createSchema = Type.Object(
  {
    service_id: LIMIT_ID,
    region_id: Type.Optional(REGION),
    resource_name: RESOURCE_NAME,
    default_limit: LIMIT_VALUE,
    description: Type.Optional(LIMIT_DESCRIPTION),
  },
  { additionalProperties: false },
);
const updateSchema = Type.Object(
  {
    service_id: Type.Optional(LIMIT_ID),
    region_id: Type.Optional(REGION),
    resource_name: Type.Optional(RESOURCE_NAME),
    default_limit: Type.Optional(LIMIT_VALUE),
    description: Type.Optional(LIMIT_DESCRIPTION),
  },
  { additionalProperties: false },
);

/** What a body names and is not there is a mistake of the body. */
export const absentReference = (attribute: string, target: string): Error =>
  identityError(
    "bad-request",
    `Expecting to find ${attribute} in ${target}. The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.`,
  );

/** The service and the region, where one is given, are there. Throws `bad-request`. */
export const assertServiceAndRegion = async (
  transaction: IdentityTransaction,
  { service_id, region_id }: Pick<RegisteredLimit, "service_id" | "region_id">,
  target: string,
): Promise<void> => {
  if ((await findRecord(transaction, "services", service_id)) === undefined) {
    throw absentReference("service_id", target);
  }
  if (region_id !== null && (await findRecord(transaction, "regions", region_id)) === undefined) {
    throw absentReference("region_id", target);
  }
};

type RegisteredName = Pick<RegisteredLimit, "service_id" | "region_id" | "resource_name">;

/** The registered limit of this resource, service and region. */
export const findRegisteredLimit = (
  transaction: IdentityTransaction,
  { service_id, region_id, resource_name }: RegisteredName,
): Promise<RegisteredLimit | undefined> => {
  const named = transaction
    .selectFrom("registered_limits")
    .selectAll()
    .where("service_id", "=", service_id)
    .where("resource_name", "=", resource_name);
  const inRegion = region_id === null ? named.where("region_id", "is", null) : named.where("region_id", "=", region_id);
  return inRegion.executeTakeFirst();
};

const assertFits = async (transaction: IdentityTransaction, row: RegisteredLimit): Promise<void> => {
  await assertServiceAndRegion(transaction, row, "registered_limit");
  const same = await findRegisteredLimit(transaction, row);
  if (same !== undefined && same.id !== row.id) {
    throw identityError("conflict", "Conflict occurred attempting to store registered_limit - Duplicate entry.");
  }
};

const assertUnused = async (transaction: IdentityTransaction, id: string): Promise<void> => {
  const used = await transaction
    .selectFrom("limits")
    .select("id")
    .where("registered_limit_id", "=", id)
    .executeTakeFirst();
  if (used === undefined) return;
  throw identityError(
    "forbidden",
    `Unable to update or delete registered limit ${id} because there are project limits associated with it.`,
  );
};

const presented = ({ id, service_id, region_id, resource_name, default_limit, description }: RegisteredLimit) => ({
  id,
  service_id,
  region_id,
  resource_name,
  default_limit,
  description,
});

const createMany = guardedRoute({
  method: "POST",
  path: "/v3/registered_limits",
  operation: "identity:create_registered_limits",
  request: { body: Type.Object({ registered_limits: Type.Array(createSchema, { minItems: 1 }) }) },
  handler: async (request, context) => {
    const rows = request.body.registered_limits.map(
      (fields): RegisteredLimit => ({
        id: newId(),
        service_id: fields.service_id,
        region_id: fields.region_id ?? null,
        resource_name: fields.resource_name,
        default_limit: fields.default_limit,
        description: fields.description ?? null,
      }),
    );
    await context.changes.write(async (transaction, change) => {
      for (const row of rows) {
        await assertFits(transaction, row);
        await transaction.insertInto("registered_limits").values(row).execute();
        change.notify({ action: "create", resource: "registered_limit", id: row.id });
      }
    });
    const base = baseUrl(request, context);
    const bodies = rows.map((row) => ({ ...presented(row), links: { self: `${base}/registered_limits/${row.id}` } }));
    return { status: 201, body: { registered_limits: bodies } };
  },
});

/** What services can have limits for, and what holds where a project has none of its own. */
export const REGISTERED_LIMIT_ROUTES: readonly IdentityRoute[] = [
  createMany,
  ...resourceRoutes({
    path: "/v3/registered_limits",
    plural: "registered_limits",
    singular: "registered_limit",
    filters: {
      service_id: text("service_id"),
      region_id: text("region_id"),
      resource_name: text("resource_name"),
    },
    reading: tableReading("registered_limits"),
    present: presented,
    list: { operation: "identity:list_registered_limits" },
    show: { operation: "identity:get_registered_limit" },
    update: {
      operation: "identity:update_registered_limit",
      schema: updateSchema,
      run: async ({ id }, fields, { transaction, change }) => {
        const row = await recordOrNotFound(transaction, "registered_limits", "registered_limit", id);
        await assertUnused(transaction, id);
        const changed: RegisteredLimit = {
          id,
          service_id: fields.service_id ?? row.service_id,
          region_id: fields.region_id === undefined ? row.region_id : fields.region_id,
          resource_name: fields.resource_name ?? row.resource_name,
          default_limit: fields.default_limit ?? row.default_limit,
          description: fields.description === undefined ? row.description : fields.description,
        };
        await assertFits(transaction, changed);
        await transaction.updateTable("registered_limits").set(changed).where("id", "=", id).execute();
        change.notify({ action: "update", resource: "registered_limit", id });
        return changed;
      },
    },
    remove: {
      operation: "identity:delete_registered_limit",
      run: async ({ id }, { transaction, change }) => {
        await recordOrNotFound(transaction, "registered_limits", "registered_limit", id);
        await assertUnused(transaction, id);
        await transaction.deleteFrom("registered_limits").where("id", "=", id).execute();
        change.notify({ action: "delete", resource: "registered_limit", id });
      },
    },
  }),
];
