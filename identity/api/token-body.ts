import type { Catalog } from "../core/catalog.ts";
import type { TokenDetails, TokenScope } from "../token-service.ts";

/** Keystone's time with six digits of fraction. */
export const isoMicroseconds = (ms: number): string => new Date(ms).toISOString().replace("Z", "000Z");

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

/** The body of an issued or validated token. `catalog` is left out where the client asked for that, or there is no scope. */
export const tokenBody = (details: TokenDetails, catalog: Catalog | undefined): object => {
  const { user, userDomain, scope, roles } = details;
  return {
    token: {
      methods: details.methods,
      user: {
        id: user.id,
        name: user.name,
        domain: { id: userDomain.id, name: userDomain.name },
        password_expires_at: user.passwordExpiresAtMs === null ? null : isoMicroseconds(user.passwordExpiresAtMs),
      },
      audit_ids: [details.auditId, ...(details.parentAuditId === undefined ? [] : [details.parentAuditId])],
      expires_at: isoMicroseconds(details.expiresAtMs),
      issued_at: isoMicroseconds(details.issuedAtMs),
      ...scopeBody(scope),
      ...(scope.kind === "unscoped" ? {} : { roles: roles.map(({ id, name }) => ({ id, name })) }),
      ...(catalog === undefined ? {} : { catalog }),
    },
  };
};
