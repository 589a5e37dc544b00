import { Type } from "typebox";
import { identityError, notFound } from "../core/identity-error.ts";
import { newId, parsed } from "../store/records.ts";
import type { Region } from "../store/schema.ts";
import type { IdentityRoute } from "./identity-route.ts";
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

/** Regions of the catalog. */
export const REGION_ROUTES: readonly IdentityRoute[] = resourceRoutes({
  path: "/v3/regions",
  plural: "regions",
  singular: "region",
  filters: { parent_region_id: text("parent_region_id") },
  reading: tableReading("regions"),
  present: ({ id, description, parent_region_id, extra }: Region) => ({
    ...parsed(extra),
    id,
    description,
    parent_region_id,
  }),
  list: { operation: "identity:list_regions" },
  show: { operation: "identity:get_region" },
  create: {
    operation: "identity:create_region",
    schema: createSchema,
    run: async (fields, write) => {
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
    },
  },
  update: {
    operation: "identity:update_region",
    schema: updateSchema,
    run: async (row, fields, write) => {
      const { transaction, change } = write;
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
      if (below !== undefined || used !== undefined) {
        throw identityError(
          "forbidden",
          `Unable to delete region ${row.id} because it or its child regions have associated endpoints.`,
        );
      }
      const gone = await transaction.deleteFrom("regions").where("id", "=", row.id).executeTakeFirst();
      if (gone.numDeletedRows === 0n) throw notFound("region", row.id);
      change.notify({ action: "delete", resource: "region", id: row.id });
    },
  },
});
