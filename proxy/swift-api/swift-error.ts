import { STATUS_CODES } from "node:http";
import { RingsteadError } from "../../common/errors.ts";

/** Every error that this face can answer, with its status. The codes of inner services stand beside this face's own. */
const STATUS_OF = {
  "bad-request": 400,
  "bad-path": 412,
  "bad-metadata": 400,
  unauthorized: 401,
  forbidden: 403,
  "no-such-account": 404,
  "no-such-container": 404,
  "no-such-object": 404,
  "unknown-path": 404,
  "method-not-allowed": 405,
  "not-acceptable": 406,
  "request-timeout": 408,
  "container-not-empty": 409,
  "length-required": 411,
  "precondition-failed": 412,
  "entity-too-large": 413,
  "range-not-satisfiable": 416,
  "etag-mismatch": 422,
  "client-disconnected": 499,
  "not-implemented": 501,
  "quorum-unavailable": 503,
  "outcome-unknown": 503,
  "container-moved": 503,
  "body-unavailable": 503,
  "identity-unavailable": 503,
  "too-busy": 503,
  "device-full": 507,
} as const satisfies Record<string, number>;

export type SwiftErrorCode = keyof typeof STATUS_OF;

const isSwiftErrorCode = (code: string): code is SwiftErrorCode => Object.hasOwn(STATUS_OF, code);

/** A refusal in this face's words. */
export const refuse = (code: SwiftErrorCode, message: string, fields: Record<string, unknown> = {}): RingsteadError =>
  new RingsteadError(code, message, fields);

/** Status and what the body says; 500 for what nobody foresaw, without its details. */
export const answerFor = (
  error: unknown,
): { readonly status: number; readonly message: string; readonly isExpected: boolean } => {
  if (error instanceof RingsteadError && isSwiftErrorCode(error.code)) {
    return { status: STATUS_OF[error.code], message: error.message, isExpected: true };
  }
  return {
    status: 500,
    message: "The server has either erred or is incapable of performing the requested operation.",
    isExpected: false,
  };
};

const escapeHtml = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** The body that Swift's clients know. */
export const errorPage = (status: number, message: string): string =>
  `<html><h1>${STATUS_CODES[status] ?? (status === 499 ? "Client Disconnect" : "Error")}</h1><p>${escapeHtml(message)}</p></html>`;
