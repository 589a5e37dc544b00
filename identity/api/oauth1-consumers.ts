import { randomBytes } from "node:crypto";
import { Type } from "typebox";
import { identityError } from "../core/identity-error.ts";
import { type Consumer, removeConsumer, sealedSecret } from "../store/oauth1.ts";
import { newId, parsed } from "../store/records.ts";
import { baseUrl, guardedRoute, type IdentityContext, type IdentityRoute } from "./identity-route.ts";
import { extraOf, recordOrNotFound, resourceRoutes, tableReading } from "./resource-routes.ts";

const PATH = "/v3/OS-OAUTH1/consumers";

const schema = Type.Object({ description: Type.Optional(Type.Union([Type.String(), Type.Null()])) });
/** A body without a consumer makes one too, as in Keystone. */
const createBody = Type.Optional(Type.Object({ consumer: Type.Optional(schema) }));

const shown = ({ id, description, extra }: Consumer) => ({ ...parsed(extra), id, description });

/** The secret is shown here and never again. */
const createConsumer = guardedRoute({
  method: "POST",
  path: PATH,
  operation: "identity:create_consumer",
  request: { body: createBody },
  handler: async (request, context) => {
    const fields = request.body?.consumer ?? {};
    const id = newId();
    const secret = randomBytes(16).toString("hex");
    const row: Consumer = {
      id,
      description: fields.description ?? null,
      secret: sealedSecret(context.cipher, id, secret),
      extra: extraOf(Type.Object({ ...schema.properties, secret: Type.Unknown() }), fields),
    };
    await context.changes.write(async (transaction, change) => {
      await transaction.insertInto("consumers").values(row).execute();
      change.notify({ action: "create", resource: "OS-OAUTH1:consumer", id });
    });
    const links = { self: `${baseUrl(request, context)}/OS-OAUTH1/consumers/${id}` };
    return { status: 201, body: { consumer: { ...shown(row), secret, links } } };
  },
});

/** Programs to whom users of OAuth 1.0a delegate roles. */
export const OAUTH1_CONSUMER_ROUTES: readonly IdentityRoute[] = [
  createConsumer,
  ...resourceRoutes({
    path: PATH,
    plural: "consumers",
    singular: "consumer",
    filters: {},
    reading: tableReading("consumers"),
    present: (row: Consumer, _context: IdentityContext) => shown(row),
    list: { operation: "identity:list_consumers" },
    show: { operation: "identity:get_consumer" },
    update: {
      operation: "identity:update_consumer",
      schema: Type.Object(schema.properties, { minProperties: 1 }),
      run: async ({ id }, fields, { transaction, change }) => {
        if (Object.hasOwn(fields, "secret")) {
          throw identityError("bad-request", "Invalid input for field 'consumer': the secret cannot be changed.");
        }
        // As it is now: another change may have come between.
        const row = await recordOrNotFound(transaction, "consumers", "consumer", id);
        const changed: Consumer = {
          ...row,
          description: fields.description === undefined ? row.description : fields.description,
          extra: extraOf(schema, fields, row.extra),
        };
        const { description, extra } = changed;
        await transaction.updateTable("consumers").set({ description, extra }).where("id", "=", row.id).execute();
        change.notify({ action: "update", resource: "OS-OAUTH1:consumer", id: row.id });
        return changed;
      },
    },
    remove: {
      operation: "identity:delete_consumer",
      run: (row, { transaction, change }) => removeConsumer(transaction, change, row.id),
    },
  }),
];
