import { Type } from "typebox";
import { newId, parsed, type RecordOf } from "../store/records.ts";
import type { IdentityRoute } from "./identity-route.ts";
import { text } from "./list-parameters.ts";
import { extraOf, recordOrNotFound, resourceRoutes, tableReading } from "./resource-routes.ts";

type Policy = RecordOf<"policies">;

const blob = Type.String();
const type = Type.String({ maxLength: 255 });
const createSchema = Type.Object({ blob, type });
const updateSchema = Type.Object({ blob: Type.Optional(blob), type: Type.Optional(type) }, { minProperties: 1 });

export const policyBody = ({ id, blob: content, type: mediaType, extra }: Policy) => ({
  ...parsed(extra),
  id,
  blob: content,
  type: mediaType,
});

/** Texts that this service keeps for other services, and gives out to those whom they are associated with. */
export const POLICY_ROUTES: readonly IdentityRoute[] = resourceRoutes({
  path: "/v3/policies",
  plural: "policies",
  singular: "policy",
  filters: { type: text("type") },
  reading: tableReading("policies"),
  present: policyBody,
  list: { operation: "identity:list_policies" },
  show: { operation: "identity:get_policy" },
  create: {
    operation: "identity:create_policy",
    schema: createSchema,
    run: async (given, { transaction, change }) => {
      const row: Policy = {
        id: newId(),
        type: given.type,
        blob: given.blob,
        extra: extraOf(createSchema, given),
      };
      await transaction.insertInto("policies").values(row).execute();
      change.notify({ action: "create", resource: "policy", id: row.id });
      return row;
    },
  },
  update: {
    operation: "identity:update_policy",
    schema: updateSchema,
    run: async ({ id }, given, { transaction, change }) => {
      const before = await recordOrNotFound(transaction, "policies", "policy", id);
      const after: Policy = {
        id,
        type: given.type ?? before.type,
        blob: given.blob ?? before.blob,
        extra: extraOf(updateSchema, given, before.extra),
      };
      await transaction.updateTable("policies").set(after).where("id", "=", id).execute();
      change.notify({ action: "update", resource: "policy", id });
      return after;
    },
  },
  remove: {
    operation: "identity:delete_policy",
    run: async ({ id }, { transaction, change }) => {
      await recordOrNotFound(transaction, "policies", "policy", id);
      // Its associations go by their reference.
      await transaction.deleteFrom("policies").where("id", "=", id).execute();
      change.notify({ action: "delete", resource: "policy", id });
    },
  },
});
