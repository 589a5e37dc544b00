import { Type } from "typebox";
import { identityError } from "../core/identity-error.ts";
import { newId, parsed } from "../store/records.ts";
import type { Service } from "../store/schema.ts";
import type { IdentityRoute } from "./identity-route.ts";
import { text } from "./list-parameters.ts";
import { extraOf, recordOrNotFound, resourceRoutes, tableReading } from "./resource-routes.ts";

const TEXT_MAX = 255;

const fields = {
  enabled: Type.Optional(Type.Boolean()),
  name: Type.Optional(Type.String({ minLength: 1, maxLength: TEXT_MAX, pattern: "\\S" })),
  description: Type.Optional(Type.Union([Type.String(), Type.Null()])),
};
const serviceType = Type.String({ minLength: 1, maxLength: TEXT_MAX });
const createSchema = Type.Object({ ...fields, type: serviceType });
const updateSchema = Type.Object({ ...fields, type: Type.Optional(serviceType) }, { minProperties: 1 });

/** What the catalog is made of. */
export const SERVICE_ROUTES: readonly IdentityRoute[] = resourceRoutes({
  path: "/v3/services",
  plural: "services",
  singular: "service",
  filters: { name: text("name"), type: text("type") },
  reading: tableReading("services"),
  present: ({ id, type, name, description, enabled, extra }) => ({
    ...parsed(extra),
    id,
    type,
    name: name ?? "",
    ...(description === null ? {} : { description }),
    enabled: enabled === 1,
  }),
  list: { operation: "identity:list_services" },
  show: { operation: "identity:get_service" },
  create: {
    operation: "identity:create_service",
    schema: createSchema,
    run: async (given, { transaction, change }) => {
      const row: Service = {
        id: newId(),
        type: given.type,
        name: given.name ?? "",
        description: given.description ?? null,
        enabled: Number(given.enabled ?? true),
        extra: extraOf(createSchema, given),
      };
      await transaction.insertInto("services").values(row).execute();
      change.notify({ action: "create", resource: "service", id: row.id });
      return row;
    },
  },
  update: {
    operation: "identity:update_service",
    schema: updateSchema,
    run: async ({ id }, given, { transaction, change }) => {
      const before = await recordOrNotFound(transaction, "services", "service", id);
      const after: Service = {
        id,
        type: given.type ?? before.type,
        name: given.name ?? before.name,
        description: given.description === undefined ? before.description : given.description,
        enabled: given.enabled === undefined ? before.enabled : Number(given.enabled),
        extra: extraOf(updateSchema, given, before.extra),
      };
      await transaction.updateTable("services").set(after).where("id", "=", id).execute();
      change.notify({ action: "update", resource: "service", id });
      return after;
    },
  },
  remove: {
    operation: "identity:delete_service",
    run: async ({ id }, { transaction, change }) => {
      await recordOrNotFound(transaction, "services", "service", id);
      const limit = transaction.selectFrom("registered_limits").select("id").where("service_id", "=", id);
      if ((await limit.executeTakeFirst()) !== undefined) {
        throw identityError("forbidden", `Unable to delete service ${id} because it has registered limits.`);
      }
      const ofService = transaction.selectFrom("endpoints").select("id").where("service_id", "=", id);
      await transaction
        .deleteFrom("policy_associations")
        .where((where) => where.or([where("service_id", "=", id), where("endpoint_id", "in", ofService)]))
        .execute();
      const endpoints = await ofService.execute();
      // Its endpoints go by their reference.
      await transaction.deleteFrom("services").where("id", "=", id).execute();
      for (const endpoint of endpoints) change.notify({ action: "delete", resource: "endpoint", id: endpoint.id });
      change.notify({ action: "delete", resource: "service", id });
    },
  },
});
