import type { Catalog } from "../core/catalog.ts";
import type { Delegation } from "../delegation.ts";
import type { TokenScope } from "../token-rights.ts";
import type { TokenDetails } from "../token-service.ts";
import { isoMicroseconds } from "./times.ts";

const scopeBody = (scope: TokenScope): object => {
  switch (scope.kind) {
    case "unscoped":
      return {};
    case "project": {
      const { project, domain } = scope;
      return {
        project: { id: project.id, name: project.name, domain: { id: domain.id, name: domain.name } },
        is_domain: project.is_domain === 1,
      };
    }
    case "domain":
      return { domain: { id: scope.domain.id, name: scope.domain.name } };
    case "system":
      return { system: { all: true } };
  }
};

const delegationBody = (delegation: Delegation): object => {
  switch (delegation.kind) {
    case "application-credential": {
      const { id, name, restricted, accessRules } = delegation;
      const rules = accessRules === undefined ? {} : { access_rules: accessRules };
      return { application_credential: { id, name, restricted, ...rules } };
    }
    case "trust":
      return {
        "OS-TRUST:trust": {
          id: delegation.id,
          trustor_user: { id: delegation.trustorUserId },
          trustee_user: { id: delegation.trusteeUserId },
          impersonation: delegation.impersonation,
          redelegated_trust_id: delegation.redelegatedTrustId ?? null,
          redelegation_count: delegation.redelegationCount,
        },
      };
    case "access-token":
      return { "OS-OAUTH1": { access_token_id: delegation.id, consumer_id: delegation.consumerId } };
  }
};

/**
 * The body of an issued or validated token. `catalog` is left out where the client asked for that, or there is no scope; with it stand the
 * service providers that are enabled, if there are any.
 */
export const tokenBody = (
  details: TokenDetails,
  catalog: Catalog | undefined,
  serviceProviders: readonly object[] = [],
): object => {
  const { user, userDomain, scope, roles, delegation, federation } = details;
  return {
    token: {
      methods: details.methods,
      user: {
        id: user.id,
        name: user.name,
        domain: { id: userDomain.id, name: userDomain.name },
        ...(federation === undefined
          ? {}
          : {
              "OS-FEDERATION": {
                identity_provider: { id: federation.idpId },
                protocol: { id: federation.protocolId },
                groups: federation.groupIds.map((id) => ({ id })),
              },
            }),
        password_expires_at: user.passwordExpiresAtMs === null ? null : isoMicroseconds(user.passwordExpiresAtMs),
      },
      audit_ids: [details.auditId, ...(details.parentAuditId === undefined ? [] : [details.parentAuditId])],
      expires_at: isoMicroseconds(details.expiresAtMs),
      issued_at: isoMicroseconds(details.issuedAtMs),
      ...scopeBody(scope),
      ...(scope.kind === "unscoped" ? {} : { roles: roles.map(({ id, name }) => ({ id, name })) }),
      ...(delegation === undefined ? {} : delegationBody(delegation)),
      ...(catalog === undefined ? {} : { catalog }),
      ...(serviceProviders.length === 0 ? {} : { service_providers: serviceProviders }),
    },
  };
};

/** As `tokenBody`, as JSON, with a catalog that is JSON already. */
export const tokenText = (
  details: TokenDetails,
  catalogText: string | undefined,
  serviceProviders: readonly object[],
): string => {
  const text = JSON.stringify(tokenBody(details, undefined, serviceProviders));
  // Before the two brackets that end the token and the whole; the token is never empty.
  return catalogText === undefined ? text : `${text.slice(0, -2)},"catalog":${catalogText}}}`;
};
