import { Type } from "typebox";
import { identityError, notFound } from "../../core/identity-error.ts";
import { type IdentityProvider, remoteIdsOf, revokeFederated } from "../../store/federation.ts";
import { findRecord, type IdentityTransaction, listRecords, newId, parsed } from "../../store/records.ts";
import { baseUrl, guardedRoute, type IdentityContext, type IdentityRoute } from "../identity-route.ts";
import { flag, text } from "../list-parameters.ts";
import { resourceRoutes, type Write } from "../resource-routes.ts";

const PATH = "/v3/OS-FEDERATION/identity_providers";

const closed = { additionalProperties: false };
const fields = {
  enabled: Type.Optional(Type.Boolean()),
  description: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  authorization_ttl: Type.Optional(Type.Union([Type.Integer({ minimum: 0, maximum: 1_000_000 }), Type.Null()])),
  remote_ids: Type.Optional(
    Type.Union([Type.Array(Type.String({ maxLength: 255 }), { uniqueItems: true, maxItems: 256 }), Type.Null()]),
  ),
};
const domainId = Type.String({ minLength: 1, maxLength: 64, pattern: "^[a-zA-Z0-9-]+$" });
const createSchema = Type.Object({ ...fields, domain_id: Type.Optional(Type.Union([domainId, Type.Null()])) }, closed);
const updateSchema = Type.Object(fields, { ...closed, minProperties: 1 });

const bodiesOf = async (rows: readonly IdentityProvider[], { database }: Pick<IdentityContext, "database">) => {
  const remoteIds = await remoteIdsOf(
    database,
    rows.map(({ id }) => id),
  );
  return rows.map((row) => ({
    ...parsed(row.extra),
    id: row.id,
    domain_id: row.domain_id,
    enabled: row.enabled === 1,
    description: row.description,
    remote_ids: remoteIds.get(row.id) ?? [],
    authorization_ttl: row.authorization_ttl,
  }));
};

const linksOf = (id: string, base: string) => {
  const self = `${base}/OS-FEDERATION/identity_providers/${id}`;
  return { self, protocols: `${self}/protocols` };
};

const conflict = (what: string) =>
  identityError("conflict", `Conflict occurred attempting to store identity_provider - ${what}`);

/** A remote id is one provider's: by it a provider is known. Throws `conflict`. */
const storeRemoteIds = async (
  transaction: IdentityTransaction,
  idpId: string,
  remoteIds: readonly string[],
): Promise<void> => {
  await transaction.deleteFrom("identity_provider_remote_ids").where("idp_id", "=", idpId).execute();
  for (const remoteId of remoteIds) {
    const added = await transaction
      .insertInto("identity_provider_remote_ids")
      .values({ remote_id: remoteId, idp_id: idpId })
      .onConflict((known) => known.column("remote_id").doNothing())
      .executeTakeFirst();
    if (added.numInsertedOrUpdatedRows === 0n) throw conflict(`Duplicate remote ID: ${remoteId}.`);
  }
};

/** The domain of a provider's users; one of its own where none is named. Throws `not-found`. */
const domainFor = async (
  idpId: string,
  named: string | null | undefined,
  { transaction, change }: Pick<Write, "transaction" | "change">,
): Promise<string> => {
  if (named !== null && named !== undefined) {
    if ((await findRecord(transaction, "projects", named))?.is_domain !== 1) throw notFound("domain", named);
    return named;
  }
  const id = newId();
  await transaction
    .insertInto("projects")
    .values({
      id,
      domain_id: null,
      parent_id: null,
      is_domain: 1,
      name: id,
      description: `Auto generated federated domain for Identity Provider: ${idpId}`,
      enabled: 1,
      options: "{}",
      extra: "{}",
    })
    .execute();
  change.notify({ action: "create", resource: "domain", id });
  return id;
};

const createIdentityProvider = guardedRoute({
  method: "PUT",
  path: `${PATH}/:idp_id`,
  operation: "identity:create_identity_provider",
  request: {
    params: Type.Object({ idp_id: Type.String({ maxLength: 64 }) }),
    body: Type.Object({ identity_provider: createSchema }),
  },
  handler: async (request, context) => {
    const given = request.body.identity_provider;
    const id = request.params.idp_id;
    const row = await context.changes.write(async (transaction, change): Promise<IdentityProvider> => {
      if ((await findRecord(transaction, "identity_providers", id)) !== undefined) {
        throw conflict(`Duplicate entry found with ID ${id}.`);
      }
      const made: IdentityProvider = {
        id,
        enabled: Number(given.enabled ?? false),
        description: given.description ?? null,
        domain_id: await domainFor(id, given.domain_id, { transaction, change }),
        authorization_ttl: given.authorization_ttl ?? null,
        extra: "{}",
      };
      await transaction.insertInto("identity_providers").values(made).execute();
      await storeRemoteIds(transaction, id, given.remote_ids ?? []);
      change.notify({ action: "create", resource: "identity_provider", id });
      return made;
    });
    const [body] = await bodiesOf([row], context);
    const links = linksOf(id, baseUrl(request, context));
    return { status: 201, body: { identity_provider: { ...body, links } } };
  },
});

/** Those who vouch for users that this service does not know itself. How they are spoken to: cluster.toml, `[identity.oidc]`. */
export const IDENTITY_PROVIDER_ROUTES: readonly IdentityRoute[] = [
  createIdentityProvider,
  ...resourceRoutes({
    path: PATH,
    plural: "identity_providers",
    singular: "identity_provider",
    idName: "idp_id",
    beneath: ["protocols"],
    filters: { id: text("id"), enabled: flag("enabled") },
    reading: {
      find: async (id, { database }) => {
        const row = await findRecord(database, "identity_providers", id);
        if (row === undefined) throw notFound("Identity Provider", id);
        return row;
      },
      list: (query, { database }) => listRecords(database, "identity_providers", query),
    },
    present: async (row: IdentityProvider, context) => (await bodiesOf([row], context))[0] ?? {},
    presentAll: bodiesOf,
    list: { operation: "identity:list_identity_providers" },
    show: { operation: "identity:get_identity_provider" },
    update: {
      operation: "identity:update_identity_provider",
      schema: updateSchema,
      run: async (row: IdentityProvider, given, { transaction, change }) => {
        const { id, ...before } = row;
        const values = {
          ...before,
          enabled: given.enabled === undefined ? row.enabled : Number(given.enabled),
          description: given.description === undefined ? row.description : given.description,
          authorization_ttl: given.authorization_ttl === undefined ? row.authorization_ttl : given.authorization_ttl,
        };
        await transaction.updateTable("identity_providers").set(values).where("id", "=", id).execute();
        if (given.remote_ids !== undefined) await storeRemoteIds(transaction, id, given.remote_ids ?? []);
        if (row.enabled === 1 && values.enabled === 0) {
          await revokeFederated(transaction, change, row, undefined);
          change.notify({ action: "disable", resource: "identity_provider", id });
        }
        change.notify({ action: "update", resource: "identity_provider", id });
        return { id, ...values };
      },
    },
    remove: {
      operation: "identity:delete_identity_provider",
      run: async (row, { transaction, change }) => {
        await revokeFederated(transaction, change, row, undefined);
        // Protocols, remote ids and what ties users to the provider go by their references.
        await transaction.deleteFrom("identity_providers").where("id", "=", row.id).execute();
        change.notify({ action: "delete", resource: "identity_provider", id: row.id });
      },
    },
  }),
];
