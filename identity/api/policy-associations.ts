import { Type } from "typebox";
import { identityError, notFound } from "../core/identity-error.ts";
import { concerns, type PolicyAssociation, policyFor } from "../core/policy-association.ts";
import { findRecord, type IdentityDatabase, WHOLE_LIST } from "../store/records.ts";
import { endpointBody } from "./endpoints.ts";
import { baseUrl, guardedRoute, type IdentityRoute } from "./identity-route.ts";
import { listBody } from "./list-parameters.ts";
import { policyBody } from "./policies.ts";
import { recordOrNotFound } from "./resource-routes.ts";

const PREFIX = "/v3/policies/:policy_id/OS-ENDPOINT-POLICY";

const params = Type.Object({
  policy_id: Type.String(),
  endpoint_id: Type.Optional(Type.String()),
  service_id: Type.Optional(Type.String()),
  region_id: Type.Optional(Type.String()),
});
type Path = {
  readonly policy_id: string;
  readonly endpoint_id?: string;
  readonly service_id?: string;
  readonly region_id?: string;
};

/** The association that a path names, if its parts are there. Throws `not-found`. */
const namedBy = async (database: IdentityDatabase, path: Path): Promise<PolicyAssociation> => {
  const { policy_id, endpoint_id, service_id, region_id } = path;
  await recordOrNotFound(database, "policies", "policy", policy_id);
  if (endpoint_id !== undefined) await recordOrNotFound(database, "endpoints", "endpoint", endpoint_id);
  if (service_id !== undefined) await recordOrNotFound(database, "services", "service", service_id);
  if (region_id !== undefined) await recordOrNotFound(database, "regions", "region", region_id);
  return { policy_id, endpoint_id: endpoint_id ?? "", service_id: service_id ?? "", region_id: region_id ?? "" };
};

const placeOf = ({ endpoint_id, service_id, region_id }: PolicyAssociation) => ({ endpoint_id, service_id, region_id });

/** The three operations on associations of one kind. `kind` is how policies call it. */
const associationRoutes = (path: string, kind: string): IdentityRoute[] => [
  guardedRoute({
    method: "GET",
    path,
    operation: `identity:check_policy_association_for_${kind}`,
    request: { params },
    handler: async (request, { database }) => {
      const association = await namedBy(database, request.params);
      const row = await database
        .selectFrom("policy_associations")
        .select("policy_id")
        .where("policy_id", "=", association.policy_id)
        .where("endpoint_id", "=", association.endpoint_id)
        .where("service_id", "=", association.service_id)
        .where("region_id", "=", association.region_id)
        .executeTakeFirst();
      if (row === undefined) throw identityError("not-found", "Could not find policy association.");
      return { status: 204 };
    },
  }),
  guardedRoute({
    method: "PUT",
    path,
    operation: `identity:create_policy_association_for_${kind}`,
    request: { params },
    handler: async (request, { changes }) => {
      await changes.write(async (transaction, change) => {
        const association = await namedBy(transaction, request.params);
        const { policy_id } = association;
        // A place has one policy: the newer one takes it over.
        await transaction
          .insertInto("policy_associations")
          .values(association)
          .onConflict((conflict) =>
            conflict.columns(["endpoint_id", "service_id", "region_id"]).doUpdateSet({ policy_id }),
          )
          .execute();
        const details = placeOf(association);
        change.notify({ action: "create", resource: "policy_association", id: policy_id, details });
      });
      return { status: 204 };
    },
  }),
  guardedRoute({
    method: "DELETE",
    path,
    operation: `identity:delete_policy_association_for_${kind}`,
    request: { params },
    handler: async (request, { changes }) => {
      await changes.write(async (transaction, change) => {
        const association = await namedBy(transaction, request.params);
        const { policy_id, endpoint_id, service_id, region_id } = association;
        await transaction
          .deleteFrom("policy_associations")
          .where("policy_id", "=", policy_id)
          .where("endpoint_id", "=", endpoint_id)
          .where("service_id", "=", service_id)
          .where("region_id", "=", region_id)
          .execute();
        const details = placeOf(association);
        change.notify({ action: "delete", resource: "policy_association", id: policy_id, details });
      });
      return { status: 204 };
    },
  }),
];

const regionsById = async (database: IdentityDatabase) => {
  const regions = await database.selectFrom("regions").select(["id", "parent_region_id"]).execute();
  return new Map(regions.map((region) => [region.id, region]));
};

const listEndpoints = guardedRoute({
  method: "GET",
  path: `${PREFIX}/endpoints`,
  operation: "identity:list_endpoints_for_policy",
  request: { params },
  handler: async (request, context) => {
    const { database } = context;
    const { id } = await recordOrNotFound(database, "policies", "policy", request.params.policy_id);
    const associations = await database
      .selectFrom("policy_associations")
      .selectAll()
      .where("policy_id", "=", id)
      .execute();
    const regions = await regionsById(database);
    const endpoints = await database.selectFrom("endpoints").selectAll().orderBy("id").execute();
    const base = baseUrl(request, context);
    const items = endpoints
      .filter((endpoint) => associations.some((one) => concerns(one, endpoint, regions)))
      .map((endpoint) => ({ ...endpointBody(endpoint), links: { self: `${base}/endpoints/${endpoint.id}` } }));
    return { status: 200, body: listBody(request, "endpoints", items, WHOLE_LIST, base) };
  },
});

const showPolicyOfEndpoint = guardedRoute({
  method: "GET",
  path: "/v3/endpoints/:endpoint_id/OS-ENDPOINT-POLICY/policy",
  operation: "identity:get_policy_for_endpoint",
  request: { params: Type.Object({ endpoint_id: Type.String() }) },
  handler: async (request, context) => {
    const { database } = context;
    const endpoint = await findRecord(database, "endpoints", request.params.endpoint_id);
    if (endpoint === undefined) throw notFound("endpoint", request.params.endpoint_id);
    const associations = await database
      .selectFrom("policy_associations")
      .selectAll()
      .where((where) =>
        where.or([where("endpoint_id", "=", endpoint.id), where("service_id", "=", endpoint.service_id)]),
      )
      .execute();
    const policyId = policyFor(endpoint, associations, await regionsById(database));
    const policy = policyId === undefined ? undefined : await findRecord(database, "policies", policyId);
    if (policy === undefined) {
      throw identityError("not-found", `No policy is associated with endpoint ${endpoint.id}.`);
    }
    const self = `${baseUrl(request, context)}/policies/${policy.id}`;
    return { status: 200, body: { policy: { ...policyBody(policy), links: { self } } } };
  },
});

/** Which stored policy is for which endpoint. */
export const POLICY_ASSOCIATION_ROUTES: readonly IdentityRoute[] = [
  ...associationRoutes(`${PREFIX}/endpoints/:endpoint_id`, "endpoint"),
  ...associationRoutes(`${PREFIX}/services/:service_id`, "service"),
  ...associationRoutes(`${PREFIX}/services/:service_id/regions/:region_id`, "region_and_service"),
  listEndpoints,
  showPolicyOfEndpoint,
];
