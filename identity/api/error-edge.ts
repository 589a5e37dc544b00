import { STATUS_CODES } from "node:http";
import type { ErrorEdge } from "../../common/http/error-edge.ts";
import type { IdentityErrorCode } from "../core/identity-error.ts";
import type { MissingFactors } from "../receipts.ts";
import { receiptAnswer } from "./receipt-answer.ts";

/** Keystone's shape: `{"error":{"code","title","message"}}`, and where to log in beside a 401. */
export const keystoneErrorEdge = (publicEndpoint: string): ErrorEdge<IdentityErrorCode> => ({
  status: {
    "bad-request": 400,
    unauthorized: 401,
    forbidden: 403,
    "not-found": 404,
    "method-not-allowed": 405,
    conflict: 409,
    gone: 410,
    "body-too-large": 413,
    "internal-error": 500,
    "not-implemented": 501,
    "too-busy": 503,
    "too-many-logins": 429,
    "database-unavailable": 503,
    "directory-unavailable": 503,
  },
  answer: ({ status, code, message, fields }, origin) => {
    if (code === "unauthorized" && fields["missing"] !== undefined) {
      return receiptAnswer(fields["missing"] as MissingFactors);
    }
    return {
      headers: {
        ...(status === 401 ? { "www-authenticate": `Keystone uri="${origin ?? publicEndpoint}/v3"` } : {}),
        ...(status === 429 ? { "retry-after": "60" } : {}),
        ...(code === "too-busy" ? { "retry-after": "5" } : {}),
      },
      body: { error: { code: status, title: STATUS_CODES[status] ?? "Error", message } },
    };
  },
});
