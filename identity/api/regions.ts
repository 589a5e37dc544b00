import { type Static, Type } from "typebox";
import { identityError, notFound } from "../core/identity-error.ts";
import { newId, parsed } from "../store/records.ts";
import type { Region } from "../store/schema.ts";
import { baseUrl, guardedRoute, type IdentityRoute } from "./identity-route.ts";
import { text } from "./list-parameters.ts";
import { extraOf, recordOrNotFound, resourceRoutes, tableReading, type Write } from "./resource-routes.ts";

const nullableId = Type.Union([Type.String({ minLength: 1, maxLength: 255 }), Type.Null()]);

const createSchema = Type.Object({
  id: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
  description: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  parent_region_id: Type.Optional(nullableId),
});
const updateSchema = Type.Object({
  description: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  parent_region_id: Type.Optional(nullableId),
});

/** The regions above must be there and must not lead back to `id`. */
const assertParent = async (id: string, parentId: string | null, { transaction }: Write): Promise<void> => {
  const seen = new Set<string>();
  for (let next = parentId; next !== null && !seen.has(next); ) {
    seen.add(next);
    if (next === id) {
      throw identityError("bad-request", `Region ${id} cannot be beneath itself.`);
    }
    next = (await recordOrNotFound(transaction, "regions", "region", next)).parent_region_id;
  }
};

const createRegion = async (fields: Static<typeof createSchema>, write: Write): Promise<Region> => {
  const { transaction, change } = write;
  const id = fields.id ?? newId();
  const known = await transaction.selectFrom("regions").select("id").where("id", "=", id).executeTakeFirst();
  if (known !== undefined)
    throw identityError("conflict", `Conflict occurred attempting to store region - Duplicate ID, ${id}.`);
  await assertParent(id, fields.parent_region_id ?? null, write);
  const row: Region = {
    id,
    description: fields.description ?? "",
    parent_region_id: fields.parent_region_id ?? null,
    extra: extraOf(createSchema, fields),
  };
  await transaction.insertInto("regions").values(row).execute();
  change.notify({ action: "create", resource: "region", id });
  return row;
};

const regionBody = ({ id, description, parent_region_id, extra }: Region) => ({
  ...parsed(extra),
  id,
  description,
  parent_region_id,
});

/** A region with an id of the client's choice. */
const putRegion = guardedRoute({
  method: "PUT",
  path: "/v3/regions/:region_id",
  operation: "identity:create_region",
  request: {
    params: Type.Object({ region_id: Type.String({ minLength: 1, maxLength: 255 }) }),
    body: Type.Object({ region: createSchema }),
  },
  handler: async (request, context, caller) => {
    const id = request.params.region_id;
    const fields = request.body.region;
    if (fields.id !== undefined && fields.id !== id) {
      throw identityError("bad-request", `Conflicting region IDs specified: "${id}" != "${fields.id}".`);
    }
    const row = await context.changes.write((transaction, change) =>
      createRegion({ ...fields, id }, { context, caller, transaction, change }),
    );
    const links = { self: `${baseUrl(request, context)}/regions/${encodeURIComponent(id)}` };
    return { status: 201, body: { region: { ...regionBody(row), links } } };
  },
});

/** Regions of the catalog. */
export const REGION_ROUTES: readonly IdentityRoute[] = [
  putRegion,
  ...resourceRoutes({
    path: "/v3/regions",
    plural: "regions",
    singular: "region",
    filters: { parent_region_id: text("parent_region_id") },
    reading: tableReading("regions"),
    present: regionBody,
    list: { operation: "identity:list_regions" },
    show: { operation: "identity:get_region" },
    create: {
      operation: "identity:create_region",
      schema: createSchema,
      run: createRegion,
    },
    update: {
      operation: "identity:update_region",
      schema: updateSchema,
      run: async ({ id }, fields, write) => {
        const { transaction, change } = write;
        const row = await recordOrNotFound(transaction, "regions", "region", id);
        const parentId = fields.parent_region_id === undefined ? row.parent_region_id : fields.parent_region_id;
        await assertParent(row.id, parentId, write);
        const changed: Region = {
          ...row,
          description: fields.description === undefined ? row.description : (fields.description ?? ""),
          parent_region_id: parentId,
          extra: extraOf(updateSchema, fields, row.extra),
        };
        await transaction.updateTable("regions").set(changed).where("id", "=", row.id).execute();
        change.notify({ action: "update", resource: "region", id: row.id });
        return changed;
      },
    },
    remove: {
      operation: "identity:delete_region",
      run: async (row, { transaction, change }) => {
        const below = await transaction
          .selectFrom("regions")
          .select("id")
          .where("parent_region_id", "=", row.id)
          .executeTakeFirst();
        const used = await transaction
          .selectFrom("endpoints")
          .select("id")
          .where("region_id", "=", row.id)
          .executeTakeFirst();
        const limited = await transaction
          .selectFrom("registered_limits")
          .select("id")
          .where("region_id", "=", row.id)
          .executeTakeFirst();
        if (below !== undefined || used !== undefined || limited !== undefined) {
          throw identityError(
            "forbidden",
            `Unable to delete region ${row.id} because it or its child regions have associated endpoints or registered limits.`,
          );
        }
        await transaction.deleteFrom("policy_associations").where("region_id", "=", row.id).execute();
        const gone = await transaction.deleteFrom("regions").where("id", "=", row.id).executeTakeFirst();
        if (gone.numDeletedRows === 0n) throw notFound("region", row.id);
        change.notify({ action: "delete", resource: "region", id: row.id });
      },
    },
  }),
];
