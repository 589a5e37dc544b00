import type { Selectable } from "kysely";
import type { Reader } from "./assignments.ts";
import type { ChangeSet } from "./changes.ts";
import type { IdentityDatabase, IdentityTransaction } from "./records.ts";
import type { IdentitySchema } from "./schema.ts";

export type IdentityProvider = Selectable<IdentitySchema["identity_providers"]>;
export type FederationProtocol = Selectable<IdentitySchema["federation_protocols"]>;
export type FederationMapping = Selectable<IdentitySchema["federation_mappings"]>;
export type ServiceProvider = Selectable<IdentitySchema["service_providers"]>;

/** Users whose tokens end by name when their provider does; beyond it, those of the whole domain do. */
const REVOKED_BY_NAME_MAX = 1_000;
const IDS_PER_QUERY = 500;

export const findProtocol = (
  database: IdentityDatabase,
  idpId: string,
  protocolId: string,
): Promise<FederationProtocol | undefined> =>
  database
    .selectFrom("federation_protocols")
    .selectAll()
    .where("idp_id", "=", idpId)
    .where("id", "=", protocolId)
    .executeTakeFirst();

/** The remote ids of each provider, sorted. */
export const remoteIdsOf = async (
  database: IdentityDatabase,
  idpIds: readonly string[],
): Promise<ReadonlyMap<string, readonly string[]>> => {
  const found = new Map<string, string[]>();
  for (let start = 0; start < idpIds.length; start += IDS_PER_QUERY) {
    const rows = await database
      .selectFrom("identity_provider_remote_ids")
      .selectAll()
      .where("idp_id", "in", idpIds.slice(start, start + IDS_PER_QUERY))
      .orderBy("remote_id")
      .execute();
    for (const { idp_id, remote_id } of rows) found.set(idp_id, [...(found.get(idp_id) ?? []), remote_id]);
  }
  return found;
};

/** The clouds to which a token's bearer may go on. */
export const enabledServiceProviders = ({
  database,
  cache,
}: Reader): Promise<readonly Pick<ServiceProvider, "id" | "auth_url" | "sp_url">[]> =>
  cache.get("service providers", () =>
    database
      .selectFrom("service_providers")
      .select(["auth_url", "id", "sp_url"])
      .where("enabled", "=", 1)
      .orderBy("id")
      .execute(),
  );

/** Voids what a provider, or one protocol of it, has vouched for. */
export const revokeFederated = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  { id, domain_id: domainId }: Pick<IdentityProvider, "id" | "domain_id">,
  protocolId: string | undefined,
): Promise<void> => {
  const users = transaction
    .selectFrom("federated_users")
    .select("user_id")
    .distinct()
    .where("idp_id", "=", id)
    .limit(REVOKED_BY_NAME_MAX + 1);
  const rows = await (protocolId === undefined ? users : users.where("protocol_id", "=", protocolId)).execute();
  if (rows.length > REVOKED_BY_NAME_MAX) change.revoke({ kind: "revoke", domainId });
  else for (const { user_id } of rows) change.revoke({ kind: "revoke", userId: user_id });
};
