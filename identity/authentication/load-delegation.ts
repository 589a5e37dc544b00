import type { Delegation } from "../delegation.ts";
import { parsed } from "../store/records.ts";
import type { TokenContext } from "../token-verifier.ts";
import type { MethodContext } from "./method.ts";

type Store = Pick<MethodContext, "database" | "clock">;

type Named = Partial<Pick<TokenContext, "trustId" | "applicationCredentialId" | "accessTokenId">>;

const isOver = (expiresAtMs: number | null, nowMs: number): boolean => expiresAtMs !== null && expiresAtMs <= nowMs;

const trustOf = async ({ database, clock }: Store, id: string): Promise<Delegation | undefined> => {
  const row = await database.selectFrom("trusts").selectAll().where("id", "=", id).executeTakeFirst();
  if (row === undefined || row.deleted_at_ms !== null || isOver(row.expires_at_ms, clock.nowMs())) return undefined;
  const roles = await database.selectFrom("trust_roles").select("role_id").where("trust_id", "=", id).execute();
  return {
    kind: "trust",
    id,
    trustorUserId: row.trustor_user_id,
    trusteeUserId: row.trustee_user_id,
    impersonation: row.impersonation === 1,
    projectId: row.project_id ?? undefined,
    roleIds: roles.map(({ role_id }) => role_id),
    expiresAtMs: row.expires_at_ms ?? undefined,
    redelegatedTrustId: row.redelegated_trust_id ?? undefined,
    redelegationCount: row.redelegation_count,
  };
};

const applicationCredentialOf = async ({ database, clock }: Store, id: string): Promise<Delegation | undefined> => {
  const row = await database.selectFrom("application_credentials").selectAll().where("id", "=", id).executeTakeFirst();
  const expiresAtUs = row?.expires_at_us ?? null;
  const expiresAtMs = expiresAtUs === null ? null : Math.floor(expiresAtUs / 1000);
  if (row === undefined || isOver(expiresAtMs, clock.nowMs())) return undefined;
  const roles = await database
    .selectFrom("application_credential_roles")
    .select("role_id")
    .where("application_credential_id", "=", id)
    .execute();
  const rules = await database
    .selectFrom("application_credential_rules")
    .innerJoin("access_rules", "access_rules.id", "application_credential_rules.access_rule_id")
    .select(["access_rules.service", "access_rules.method", "access_rules.path"])
    .where("application_credential_id", "=", id)
    .execute();
  return {
    kind: "application-credential",
    id,
    name: row.name,
    projectId: row.project_id,
    restricted: row.unrestricted === 0,
    roleIds: roles.map(({ role_id }) => role_id),
    accessRules: rules.length === 0 ? undefined : rules,
    expiresAtMs: expiresAtMs ?? undefined,
  };
};

const accessTokenOf = async ({ database, clock }: Store, id: string): Promise<Delegation | undefined> => {
  const row = await database.selectFrom("access_tokens").selectAll().where("id", "=", id).executeTakeFirst();
  if (row === undefined || isOver(row.expires_at_ms, clock.nowMs())) return undefined;
  return {
    kind: "access-token",
    id,
    consumerId: row.consumer_id,
    projectId: row.project_id,
    roleIds: Object.values(parsed(row.role_ids)).filter((value) => typeof value === "string"),
    expiresAtMs: row.expires_at_ms ?? undefined,
  };
};

/** What delegated the right of a token, as it stands now; undefined where it is gone or over, or where the right is the user's own. */
export const loadDelegation = (context: Store, named: Named): Promise<Delegation | undefined> => {
  if (named.trustId !== undefined) return trustOf(context, named.trustId);
  if (named.applicationCredentialId !== undefined)
    return applicationCredentialOf(context, named.applicationCredentialId);
  if (named.accessTokenId !== undefined) return accessTokenOf(context, named.accessTokenId);
  return Promise.resolve(undefined);
};
