import { Type } from "typebox";
import { isRenderable } from "../core/catalog.ts";
import { identityError } from "../core/identity-error.ts";
import { findRecord, newId, parsed } from "../store/records.ts";
import type { Endpoint } from "../store/schema.ts";
import type { IdentityRoute } from "./identity-route.ts";
import { text } from "./list-parameters.ts";
import { extraOf, recordOrNotFound, resourceRoutes, tableReading, type Write } from "./resource-routes.ts";

export const endpointBody = (endpoint: Endpoint) => ({
  ...parsed(endpoint.extra),
  id: endpoint.id,
  interface: endpoint.interface,
  region: endpoint.region_id,
  region_id: endpoint.region_id,
  service_id: endpoint.service_id,
  url: endpoint.url,
  enabled: endpoint.enabled === 1,
});

const URL_MAX = 225;
const ID_MAX = 255;

const interfaces = Type.Enum(["admin", "internal", "public"]);
const url = Type.String({ maxLength: URL_MAX, pattern: "^[a-zA-Z0-9+.-]+:.+" });
const id = Type.String({ maxLength: ID_MAX });
const fields = {
  enabled: Type.Optional(Type.Boolean()),
  region_id: Type.Optional(id),
  /** The name of a region as clients of v2 gave it; it is made where it is not there. */
  region: Type.Optional(id),
};
const createSchema = Type.Object({ ...fields, interface: interfaces, service_id: id, url });
const updateSchema = Type.Object(
  { ...fields, interface: Type.Optional(interfaces), service_id: Type.Optional(id), url: Type.Optional(url) },
  { minProperties: 1 },
);

type Given = {
  readonly region_id?: string;
  readonly region?: string;
  readonly service_id?: string;
  readonly url?: string;
};

const absent = (what: string, where: string) =>
  identityError(
    "bad-request",
    `Expecting to find ${what} in ${where}. The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.`,
  );

/** Makes the region of the old form; the newer form must name one that is there. Answers its id. Throws `bad-request`. */
const regionOf = async ({ region_id, region }: Given, { transaction, change }: Write): Promise<string | undefined> => {
  const regionId = region_id ?? region;
  if (regionId === undefined || (await findRecord(transaction, "regions", regionId)) !== undefined) return regionId;
  if (region_id !== undefined || regionId === "") throw absent("endpoint region_id", "region table");
  const row = { id: regionId, description: "", parent_region_id: null, extra: "{}" };
  await transaction.insertInto("regions").values(row).execute();
  change.notify({ action: "create", resource: "region", id: regionId });
  return regionId;
};

const assertSound = async (given: Given, { transaction }: Write): Promise<void> => {
  if (given.url !== undefined && !isRenderable(given.url)) {
    throw identityError("bad-request", `Cannot create an endpoint with an invalid URL: ${given.url}.`);
  }
  if (given.service_id === undefined) return;
  if ((await findRecord(transaction, "services", given.service_id)) === undefined) {
    throw absent("endpoint service_id", "service table");
  }
};

/** Where services answer. */
export const ENDPOINT_ROUTES: readonly IdentityRoute[] = resourceRoutes({
  path: "/v3/endpoints",
  plural: "endpoints",
  singular: "endpoint",
  filters: { service_id: text("service_id"), region_id: text("region_id"), interface: text("interface") },
  reading: tableReading("endpoints"),
  present: endpointBody,
  list: { operation: "identity:list_endpoints" },
  show: { operation: "identity:get_endpoint" },
  create: {
    operation: "identity:create_endpoint",
    schema: createSchema,
    run: async (given, write) => {
      await assertSound(given, write);
      const row: Endpoint = {
        id: newId(),
        service_id: given.service_id,
        region_id: (await regionOf(given, write)) ?? null,
        interface: given.interface,
        url: given.url,
        enabled: Number(given.enabled ?? true),
        managed: 0,
        extra: extraOf(createSchema, given),
      };
      await write.transaction.insertInto("endpoints").values(row).execute();
      write.change.notify({ action: "create", resource: "endpoint", id: row.id });
      return row;
    },
  },
  update: {
    operation: "identity:update_endpoint",
    schema: updateSchema,
    run: async (row, given, write) => {
      const { transaction, change } = write;
      const before = await recordOrNotFound(transaction, "endpoints", "endpoint", row.id);
      await assertSound(given, write);
      const after: Endpoint = {
        id: before.id,
        service_id: given.service_id ?? before.service_id,
        region_id: (await regionOf(given, write)) ?? before.region_id,
        interface: given.interface ?? before.interface,
        url: given.url ?? before.url,
        enabled: given.enabled === undefined ? before.enabled : Number(given.enabled),
        // From now on it is the operator's: the next start leaves it as it is.
        managed: 0,
        extra: extraOf(updateSchema, given, before.extra),
      };
      await transaction.updateTable("endpoints").set(after).where("id", "=", after.id).execute();
      change.notify({ action: "update", resource: "endpoint", id: after.id });
      return after;
    },
  },
  remove: {
    operation: "identity:delete_endpoint",
    run: async (row, { transaction, change }) => {
      await recordOrNotFound(transaction, "endpoints", "endpoint", row.id);
      await transaction.deleteFrom("policy_associations").where("endpoint_id", "=", row.id).execute();
      await transaction.deleteFrom("endpoints").where("id", "=", row.id).execute();
      change.notify({ action: "delete", resource: "endpoint", id: row.id });
    },
  },
});
