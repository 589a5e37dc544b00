import { RingsteadError } from "../../common/errors.ts";

/** Everything the block service refuses. Stable: the edge and the logs go by it. */
export type BlockErrorCode =
  | "bad-request"
  | "unauthorized"
  | "forbidden"
  | "not-found"
  | "conflict"
  | "invalid-state"
  | "over-quota"
  | "unsupported-version"
  | "database-unavailable"
  | "identity-unavailable"
  | "host-unavailable";

/** An error of this service; use it rather than RingsteadError so that the compiler knows the code. */
export const blockError = (
  code: BlockErrorCode,
  message: string,
  fields: Record<string, unknown> = {},
): RingsteadError => new RingsteadError(code, message, fields);

/** `kind` as Cinder writes it: `Volume`, `Volume type`. */
export const notFound = (kind: string, id: string): RingsteadError =>
  blockError("not-found", `${kind} ${id} could not be found.`, { kind, id });
