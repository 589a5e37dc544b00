import { Type } from "typebox";
import { type EndpointFilters, FILTERABLE, unknownFilter } from "../core/endpoint-filter.ts";
import { identityError } from "../core/identity-error.ts";
import { newId, parsed, type RecordOf } from "../store/records.ts";
import type { IdentityRoute } from "./identity-route.ts";
import { text } from "./list-parameters.ts";
import { recordOrNotFound, resourceRoutes, tableReading } from "./resource-routes.ts";

type EndpointGroup = RecordOf<"endpoint_groups">;

const name = Type.String({ minLength: 1, maxLength: 255, pattern: "\\S" });
const description = Type.Optional(Type.Union([Type.String(), Type.Null()]));
const filters = Type.Record(Type.String(), Type.Unknown());
const createSchema = Type.Object({ name, description, filters });
const updateSchema = Type.Object(
  { name: Type.Optional(name), description, filters: Type.Optional(filters) },
  { minProperties: 1 },
);

const assertKnown = (given: EndpointFilters): void => {
  if (unknownFilter(given) === undefined) return;
  throw identityError("bad-request", `Expecting to find ${FILTERABLE.join(" or ")} in endpoint_group.`);
};

export const endpointGroupBody = (group: EndpointGroup) => ({
  id: group.id,
  name: group.name,
  description: group.description,
  filters: parsed(group.filters),
});

/** Endpoints that are alike in something, so that projects can be shown them together. */
export const ENDPOINT_GROUP_ROUTES: readonly IdentityRoute[] = resourceRoutes({
  path: "/v3/OS-EP-FILTER/endpoint_groups",
  plural: "endpoint_groups",
  singular: "endpoint_group",
  filters: { name: text("name") },
  reading: tableReading("endpoint_groups"),
  present: endpointGroupBody,
  list: { operation: "identity:list_endpoint_groups" },
  show: { operation: "identity:get_endpoint_group" },
  create: {
    operation: "identity:create_endpoint_group",
    schema: createSchema,
    run: async (given, { transaction, change }) => {
      if (Object.keys(given.filters).length === 0) {
        throw identityError("bad-request", "filters field is required and cannot be empty");
      }
      assertKnown(given.filters);
      const row: EndpointGroup = {
        id: newId(),
        name: given.name,
        description: given.description ?? null,
        filters: JSON.stringify(given.filters),
      };
      await transaction.insertInto("endpoint_groups").values(row).execute();
      change.notify({ action: "create", resource: "endpoint_group", id: row.id });
      return row;
    },
  },
  update: {
    operation: "identity:update_endpoint_group",
    schema: updateSchema,
    run: async ({ id }, given, { transaction, change }) => {
      const before = await recordOrNotFound(transaction, "endpoint_groups", "endpoint_group", id);
      if (given.filters !== undefined) assertKnown(given.filters);
      const after: EndpointGroup = {
        id,
        name: given.name ?? before.name,
        description: given.description === undefined ? before.description : given.description,
        filters: given.filters === undefined ? before.filters : JSON.stringify(given.filters),
      };
      await transaction.updateTable("endpoint_groups").set(after).where("id", "=", id).execute();
      change.notify({ action: "update", resource: "endpoint_group", id });
      return after;
    },
  },
  remove: {
    operation: "identity:delete_endpoint_group",
    run: async ({ id }, { transaction, change }) => {
      await recordOrNotFound(transaction, "endpoint_groups", "endpoint_group", id);
      await transaction.deleteFrom("endpoint_groups").where("id", "=", id).execute();
      change.notify({ action: "delete", resource: "endpoint_group", id });
    },
  },
});
