import { Type } from "typebox";
import type { RevocationEvent } from "../core/revocation.ts";
import { baseUrl, guardedRoute, type IdentityRoute } from "./identity-route.ts";
import { isoMicroseconds, timeOf } from "./times.ts";

const eventBody = (event: RevocationEvent) => ({
  ...(event.userId === undefined ? {} : { user_id: event.userId }),
  ...(event.projectId === undefined ? {} : { project_id: event.projectId }),
  ...(event.domainId === undefined ? {} : { domain_id: event.domainId }),
  ...(event.auditId === undefined ? {} : { audit_id: event.auditId }),
  ...(event.auditChainId === undefined ? {} : { audit_chain_id: event.auditChainId }),
  ...(event.trustId === undefined ? {} : { "OS-TRUST:trust_id": event.trustId }),
  ...(event.accessTokenId === undefined ? {} : { "OS-OAUTH1:access_token_id": event.accessTokenId }),
  issued_before: isoMicroseconds(event.issuedBeforeMs),
  revoked_at: isoMicroseconds(event.issuedBeforeMs),
});

/** What voids tokens, for services that check them themselves. */
export const REVOCATION_ROUTES: readonly IdentityRoute[] = [
  guardedRoute({
    method: "GET",
    path: "/v3/OS-REVOKE/events",
    operation: "identity:list_revoke_events",
    request: { query: Type.Object({ since: Type.Optional(Type.String({ maxLength: 64 })) }) },
    handler: (request, context) => {
      const since = request.query.since;
      const sinceMs = since === undefined ? 0 : timeOf(since, "since");
      const events = context.revocations
        .events()
        .filter(({ kind, issuedBeforeMs }) => kind === "revoke" && issuedBeforeMs >= sinceMs)
        .map(eventBody);
      const self = `${baseUrl(request, context)}/OS-REVOKE/events`;
      return { status: 200, body: { events, links: { next: null, self, previous: null } } };
    },
  }),
];
