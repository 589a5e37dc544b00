import { Type } from "typebox";
import { identityError, notFound } from "../../core/identity-error.ts";
import {
  type FederationProtocol,
  findProtocol,
  type IdentityProvider,
  revokeFederated,
} from "../../store/federation.ts";
import { findRecord, type IdentityDatabase } from "../../store/records.ts";
import { baseUrl, guardedRoute, type IdentityRoute } from "../identity-route.ts";
import { anyQuery, listBody, listQueryOf, plainQuery } from "../list-parameters.ts";

const COLLECTION = "/v3/OS-FEDERATION/identity_providers/:idp_id/protocols";
const ONE = `${COLLECTION}/:protocol_id`;

const idpParameters = Type.Object({ idp_id: Type.String() });
const parameters = Type.Object({ idp_id: Type.String(), protocol_id: Type.String({ maxLength: 64 }) });
type Parameters = { readonly idp_id: string; readonly protocol_id: string };

const mappingId = Type.String({ minLength: 1, maxLength: 64, pattern: "^[a-zA-Z0-9_-]+$" });
const remoteIdAttribute = Type.Optional(Type.String({ maxLength: 64 }));
const closed = { additionalProperties: false };
const createSchema = Type.Object({ mapping_id: mappingId, remote_id_attribute: remoteIdAttribute }, closed);
const updateSchema = Type.Object(
  { mapping_id: Type.Optional(mappingId), remote_id_attribute: remoteIdAttribute },
  { ...closed, minProperties: 1 },
);

const bodyOf = (row: FederationProtocol, base: string) => {
  const provider = `${base}/OS-FEDERATION/identity_providers/${row.idp_id}`;
  return {
    id: row.id,
    mapping_id: row.mapping_id,
    ...(row.remote_id_attribute === null ? {} : { remote_id_attribute: row.remote_id_attribute }),
    links: { self: `${provider}/protocols/${row.id}`, identity_provider: provider },
  };
};

const providerOf = async (database: IdentityDatabase, id: string): Promise<IdentityProvider> => {
  const row = await findRecord(database, "identity_providers", id);
  if (row === undefined) throw notFound("Identity Provider", id);
  return row;
};

const protocolOf = async (
  database: IdentityDatabase,
  { idp_id, protocol_id }: Parameters,
): Promise<FederationProtocol> => {
  const row = await findProtocol(database, idp_id, protocol_id);
  if (row !== undefined) return row;
  throw identityError(
    "not-found",
    `Could not find federated protocol ${protocol_id} for Identity Provider: ${idp_id}.`,
  );
};

const assertMapping = async (database: IdentityDatabase, id: string): Promise<void> => {
  if ((await findRecord(database, "federation_mappings", id)) !== undefined) return;
  throw identityError("bad-request", `Invalid mapping id: ${id}`);
};

/** The ways in which a provider's users come in, each with the mapping that says who they are here. */
export const PROTOCOL_ROUTES: readonly IdentityRoute[] = [
  guardedRoute({
    method: "GET",
    path: COLLECTION,
    operation: "identity:list_protocols",
    request: { params: idpParameters, query: anyQuery },
    handler: async (request, context) => {
      const idp = await providerOf(context.database, request.params.idp_id);
      const query = listQueryOf({}, plainQuery(request.query));
      let rows = context.database
        .selectFrom("federation_protocols")
        .selectAll()
        .where("idp_id", "=", idp.id)
        .orderBy("id")
        .limit(query.limit);
      if (query.marker !== undefined) rows = rows.where("id", ">", query.marker);
      const base = baseUrl(request, context);
      const items = (await rows.execute()).map((row) => bodyOf(row, base));
      return { status: 200, body: listBody(request, "protocols", items, query, base) };
    },
  }),
  guardedRoute({
    method: "GET",
    path: ONE,
    operation: "identity:get_protocol",
    request: { params: parameters },
    handler: async (request, context) => {
      const row = await protocolOf(context.database, request.params);
      return { status: 200, body: { protocol: bodyOf(row, baseUrl(request, context)) } };
    },
  }),
  guardedRoute({
    method: "PUT",
    path: ONE,
    operation: "identity:create_protocol",
    request: { params: parameters, body: Type.Object({ protocol: createSchema }) },
    handler: async (request, context) => {
      const { idp_id, protocol_id: id } = request.params;
      const { mapping_id, remote_id_attribute } = request.body.protocol;
      const row: FederationProtocol = { id, idp_id, mapping_id, remote_id_attribute: remote_id_attribute ?? null };
      await context.changes.write(async (transaction, change) => {
        await assertMapping(transaction, mapping_id);
        await providerOf(transaction, idp_id);
        if ((await findProtocol(transaction, idp_id, id)) !== undefined) {
          const message = `Conflict occurred attempting to store federation_protocol - Duplicate entry found with ID ${id}.`;
          throw identityError("conflict", message);
        }
        await transaction.insertInto("federation_protocols").values(row).execute();
        change.notify({ action: "create", resource: "federation_protocol", id, details: { idp_id } });
      });
      return { status: 201, body: { protocol: bodyOf(row, baseUrl(request, context)) } };
    },
  }),
  guardedRoute({
    method: "PATCH",
    path: ONE,
    operation: "identity:update_protocol",
    request: { params: parameters, body: Type.Object({ protocol: updateSchema }) },
    handler: async (request, context) => {
      const given = request.body.protocol;
      const row = await context.changes.write(async (transaction, change) => {
        const before = await protocolOf(transaction, request.params);
        const values = {
          mapping_id: given.mapping_id ?? before.mapping_id,
          remote_id_attribute: given.remote_id_attribute ?? before.remote_id_attribute,
        };
        await assertMapping(transaction, values.mapping_id);
        await transaction
          .updateTable("federation_protocols")
          .set(values)
          .where("idp_id", "=", before.idp_id)
          .where("id", "=", before.id)
          .execute();
        const details = { idp_id: before.idp_id };
        change.notify({ action: "update", resource: "federation_protocol", id: before.id, details });
        return { ...before, ...values };
      });
      return { status: 200, body: { protocol: bodyOf(row, baseUrl(request, context)) } };
    },
  }),
  guardedRoute({
    method: "DELETE",
    path: ONE,
    operation: "identity:delete_protocol",
    request: { params: parameters },
    handler: async ({ params }, context) => {
      await context.changes.write(async (transaction, change) => {
        const { id, idp_id } = await protocolOf(transaction, params);
        await revokeFederated(transaction, change, await providerOf(transaction, idp_id), id);
        await transaction
          .deleteFrom("federated_users")
          .where("idp_id", "=", idp_id)
          .where("protocol_id", "=", id)
          .execute();
        await transaction
          .deleteFrom("federation_protocols")
          .where("idp_id", "=", idp_id)
          .where("id", "=", id)
          .execute();
        change.notify({ action: "delete", resource: "federation_protocol", id, details: { idp_id } });
      });
      return { status: 204 };
    },
  }),
];
