import type { Catalog } from "../core/catalog.ts";
import type { TokenDetails, TokenScope } from "../token-service.ts";

/** Keystone's time with six digits of fraction. */
const isoMicroseconds = (seconds: number): string => new Date(seconds * 1000).toISOString().replace("Z", "000Z");

const scopeBody = (scope: TokenScope): object => {
  switch (scope.kind) {
    case "unscoped":
      return {};
    case "project": {
      const { project, domain } = scope;
      return {
        project: { id: project.id, name: project.name, domain: { id: domain.id, name: domain.name } },
        is_domain: false,
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
        password_expires_at: null,
      },
      audit_ids: [details.auditId, ...(details.parentAuditId === undefined ? [] : [details.parentAuditId])],
      expires_at: isoMicroseconds(details.expiresAtSeconds),
      issued_at: isoMicroseconds(details.issuedAtSeconds),
      ...scopeBody(scope),
      ...(scope.kind === "unscoped" ? {} : { roles: roles.map(({ id, name }) => ({ id, name })) }),
      ...(catalog === undefined ? {} : { catalog }),
    },
  };
};
