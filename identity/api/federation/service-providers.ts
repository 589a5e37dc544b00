import { Type } from "typebox";
import { identityError, notFound } from "../../core/identity-error.ts";
import type { ServiceProvider } from "../../store/federation.ts";
import { findRecord } from "../../store/records.ts";
import { baseUrl, guardedRoute, type IdentityRoute } from "../identity-route.ts";
import { flag, text } from "../list-parameters.ts";
import { resourceRoutes, tableReading } from "../resource-routes.ts";

const PATH = "/v3/OS-FEDERATION/service_providers";

const url = Type.String({ maxLength: 225, pattern: "^[a-zA-Z0-9+.-]+:.+" });
const optionalText = Type.Optional(Type.Union([Type.String(), Type.Null()]));
const closed = { additionalProperties: false };
const members = {
  enabled: Type.Optional(Type.Boolean()),
  description: optionalText,
  relay_state_prefix: optionalText,
};
const createSchema = Type.Object({ ...members, auth_url: url, sp_url: url }, closed);
const updateSchema = Type.Object(
  { ...members, auth_url: Type.Optional(url), sp_url: Type.Optional(url) },
  { ...closed, minProperties: 1 },
);

const body = (row: ServiceProvider) => ({ ...row, enabled: row.enabled === 1 });

const createServiceProvider = guardedRoute({
  method: "PUT",
  path: `${PATH}/:sp_id`,
  operation: "identity:create_service_provider",
  request: {
    params: Type.Object({ sp_id: Type.String({ maxLength: 64 }) }),
    body: Type.Object({ service_provider: createSchema }),
  },
  handler: async (request, context) => {
    const fields = request.body.service_provider;
    const id = request.params.sp_id;
    const row: ServiceProvider = {
      id,
      auth_url: fields.auth_url,
      sp_url: fields.sp_url,
      enabled: Number(fields.enabled ?? false),
      description: fields.description ?? null,
      relay_state_prefix: fields.relay_state_prefix ?? context.config.saml.relayStatePrefix,
    };
    await context.changes.write(async (transaction, change) => {
      const added = await transaction
        .insertInto("service_providers")
        .values(row)
        .onConflict((conflict) => conflict.column("id").doNothing())
        .executeTakeFirst();
      if (added.numInsertedOrUpdatedRows === 0n) {
        const message = `Conflict occurred attempting to store service_provider - Duplicate entry found with ID ${id}.`;
        throw identityError("conflict", message);
      }
      change.notify({ action: "create", resource: "service_provider", id });
    });
    const self = `${baseUrl(request, context)}/OS-FEDERATION/service_providers/${id}`;
    return { status: 201, body: { service_provider: { ...body(row), links: { self } } } };
  },
});

/** Other clouds that take this one's word for its users. */
export const SERVICE_PROVIDER_ROUTES: readonly IdentityRoute[] = [
  createServiceProvider,
  ...resourceRoutes({
    path: PATH,
    plural: "service_providers",
    singular: "service_provider",
    idName: "sp_id",
    filters: { id: text("id"), enabled: flag("enabled") },
    reading: {
      ...tableReading("service_providers"),
      find: async (id, { database }) => {
        const row = await findRecord(database, "service_providers", id);
        if (row === undefined) throw notFound("Service Provider", id);
        return row;
      },
    },
    present: body,
    list: { operation: "identity:list_service_providers" },
    show: { operation: "identity:get_service_provider" },
    update: {
      operation: "identity:update_service_provider",
      schema: updateSchema,
      run: async (row: ServiceProvider, fields, { context, transaction, change }) => {
        const { id, ...before } = row;
        const values = {
          ...before,
          auth_url: fields.auth_url ?? row.auth_url,
          sp_url: fields.sp_url ?? row.sp_url,
          enabled: fields.enabled === undefined ? row.enabled : Number(fields.enabled),
          description: fields.description === undefined ? row.description : fields.description,
          relay_state_prefix:
            fields.relay_state_prefix === undefined
              ? row.relay_state_prefix
              : (fields.relay_state_prefix ?? context.config.saml.relayStatePrefix),
        };
        await transaction.updateTable("service_providers").set(values).where("id", "=", id).execute();
        change.notify({ action: "update", resource: "service_provider", id });
        return { id, ...values };
      },
    },
    remove: {
      operation: "identity:delete_service_provider",
      run: async (row, { transaction, change }) => {
        await transaction.deleteFrom("service_providers").where("id", "=", row.id).execute();
        change.notify({ action: "delete", resource: "service_provider", id: row.id });
      },
    },
  }),
];
