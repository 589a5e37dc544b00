import type { ErrorEdge } from "../../common/http/error-edge.ts";
import type { BlockErrorCode } from "../core/block-error.ts";

/** Names of Cinder's faults; any other status is a `computeFault`. */
const FAULTS: Readonly<Record<number, string>> = {
  400: "badRequest",
  401: "unauthorized",
  403: "forbidden",
  404: "itemNotFound",
  405: "badMethod",
  409: "conflictingRequest",
  413: "overLimit",
  415: "badMediaType",
  501: "notImplemented",
  503: "serviceUnavailable",
};

/** Cinder's shape: `{"badRequest": {"code": 400, "message": …}}`; a refused token has Keystone's, as from its middleware. */
export const cinderErrorEdge = (identityEndpoint: string): ErrorEdge<BlockErrorCode> => ({
  status: {
    "bad-request": 400,
    unauthorized: 401,
    forbidden: 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "unsupported-version": 406,
    conflict: 409,
    "body-too-large": 413,
    "invalid-state": 400,
    "over-quota": 413,
    "internal-error": 500,
    "not-implemented": 501,
    "database-unavailable": 503,
    "identity-unavailable": 503,
    "host-unavailable": 503,
  },
  answer: ({ status, message, fields }) => {
    const version = fields["apiVersion"];
    const versionHeader = typeof version === "string" ? { "openstack-api-version": `volume ${version}` } : {};
    if (status === 401) {
      return {
        headers: { ...versionHeader, "www-authenticate": `Keystone uri="${identityEndpoint}"` },
        body: { error: { code: 401, title: "Unauthorized", message } },
      };
    }
    const details = { code: status, message, ...(status === 413 ? { retryAfter: "0" } : {}) };
    return {
      headers: { ...versionHeader, ...(status === 413 ? { "retry-after": "0" } : {}) },
      body: { [FAULTS[status] ?? "computeFault"]: details },
    };
  },
});
