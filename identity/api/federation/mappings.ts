import { Type } from "typebox";
import { identityError } from "../../core/identity-error.ts";
import { regexProblem } from "../../core/mapping.ts";
import { type MappingRules, mappingRules } from "../../core/mapping-rules.ts";
import type { FederationMapping } from "../../store/federation.ts";
import { baseUrl, guardedRoute, type IdentityRoute } from "../identity-route.ts";
import { resourceRoutes, tableReading } from "../resource-routes.ts";

const PATH = "/v3/OS-FEDERATION/mappings";
const SCHEMA_VERSION = "1.0";
const schema = Type.Object({ rules: mappingRules });

const body = ({ id, rules }: FederationMapping) => ({ id, rules: JSON.parse(rules) as unknown });

const assertMatchable = (rules: MappingRules): void => {
  const problem = regexProblem(rules);
  if (problem !== undefined) throw identityError("bad-request", problem);
};

const createMapping = guardedRoute({
  method: "PUT",
  path: `${PATH}/:mapping_id`,
  operation: "identity:create_mapping",
  request: {
    params: Type.Object({ mapping_id: Type.String({ maxLength: 64 }) }),
    body: Type.Object({ mapping: schema }),
  },
  handler: async (request, context) => {
    const { rules } = request.body.mapping;
    assertMatchable(rules);
    const id = request.params.mapping_id;
    const row: FederationMapping = { id, rules: JSON.stringify(rules), schema_version: SCHEMA_VERSION };
    await context.changes.write(async (transaction, change) => {
      const added = await transaction
        .insertInto("federation_mappings")
        .values(row)
        .onConflict((conflict) => conflict.column("id").doNothing())
        .executeTakeFirst();
      if (added.numInsertedOrUpdatedRows === 0n) {
        throw identityError("conflict", "Conflict occurred attempting to store mapping - Duplicate entry.");
      }
      change.notify({ action: "create", resource: "mapping", id });
    });
    const self = `${baseUrl(request, context)}/OS-FEDERATION/mappings/${id}`;
    return { status: 201, body: { mapping: { ...body(row), links: { self } } } };
  },
});

/** Rules by which what a provider says of users becomes identities here. */
export const MAPPING_ROUTES: readonly IdentityRoute[] = [
  createMapping,
  ...resourceRoutes({
    path: PATH,
    plural: "mappings",
    singular: "mapping",
    filters: {},
    reading: tableReading("federation_mappings"),
    present: body,
    list: { operation: "identity:list_mappings" },
    show: { operation: "identity:get_mapping" },
    update: {
      operation: "identity:update_mapping",
      schema,
      run: async (row: FederationMapping, fields, { transaction, change }) => {
        assertMatchable(fields.rules);
        const changed = { ...row, rules: JSON.stringify(fields.rules) };
        await transaction
          .updateTable("federation_mappings")
          .set({ rules: changed.rules })
          .where("id", "=", row.id)
          .execute();
        change.notify({ action: "update", resource: "mapping", id: row.id });
        return changed;
      },
    },
    remove: {
      operation: "identity:delete_mapping",
      run: async (row, { transaction, change }) => {
        await transaction.deleteFrom("federation_mappings").where("id", "=", row.id).execute();
        change.notify({ action: "delete", resource: "mapping", id: row.id });
      },
    },
  }),
];
