import { RingsteadError } from "../../common/errors.ts";

/** Everything the identity service refuses. Stable: the edge and the logs go by it. */
export type IdentityErrorCode =
  | "bad-request"
  | "unauthorized"
  | "forbidden"
  | "not-found"
  | "conflict"
  | "gone"
  | "too-busy"
  | "too-many-logins"
  | "database-unavailable"
  | "directory-unavailable";

/** An error of this service; use it rather than RingsteadError so that the compiler knows the code. */
export const identityError = (
  code: IdentityErrorCode,
  message: string,
  fields: Record<string, unknown> = {},
): RingsteadError => new RingsteadError(code, message, fields);

/** What a caller whose credentials do not hold learns; the log has the reason. */
export const unauthorized = (reason: string): RingsteadError =>
  identityError("unauthorized", "The request you have made requires authentication.", { reason });

export const notFound = (kind: string, id: string): RingsteadError =>
  identityError("not-found", `Could not find ${kind}: ${id}.`, { kind, id });
