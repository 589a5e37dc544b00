import { STATUS_CODES } from "node:http";
import { RingsteadError } from "../../common/errors.ts";

/** Every error that this face can answer in its own words, with its status. */
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
  "container-of-other-policy": 409,
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

/**
 * Errors of the services behind this face. Where a quorum is possible without the device that gave one, no client sees it; the
 * others mean "not now": what is damaged is healed, what is overloaded recovers, a clock is set right. Their messages are for the operator.
 */
const INNER_STATUS_OF: Readonly<Record<string, number>> = {
  "device-read-only": 507,
  "staging-full": 503,
  "staging-short": 503,
  "staging-unknown": 503,
  "staging-unsealed": 503,
  "device-overloaded": 503,
  "device-failed": 503,
  "device-joining": 503,
  "epoch-ahead": 503,
  "epoch-behind": 503,
  "epoch-sealed": 503,
  "not-a-member": 503,
  "no-such-device": 503,
  "clock-ahead": 503,
  "body-damaged": 503,
  "body-gone": 503,
  "counters-damaged": 503,
  "entry-damaged": 503,
  "register-damaged": 503,
  "row-damaged": 503,
  "rpc-overloaded": 503,
  "rpc-timeout": 503,
  "rpc-unreachable": 503,
  "rpc-unsent": 503,
  "rpc-untrusted": 503,
  // Processes that do not understand each other are a mistake of ours, and are logged as one.
  "bad-message": 500,
  "rpc-malformed": 500,
  "rpc-too-large": 500,
};

export type SwiftErrorCode = keyof typeof STATUS_OF;

const isSwiftErrorCode = (code: string): code is SwiftErrorCode => Object.hasOwn(STATUS_OF, code);

/** A refusal in this face's words. */
export const refuse = (code: SwiftErrorCode, message: string, fields: Record<string, unknown> = {}): RingsteadError =>
  new RingsteadError(code, message, fields);

/** Whether somebody thought about what this face answers to an error. */
export const isForeseen = (code: string): boolean => isSwiftErrorCode(code) || Object.hasOwn(INNER_STATUS_OF, code);

/** Status and what the body says; 500 for what nobody foresaw, without its details. */
export const answerFor = (
  error: unknown,
): { readonly status: number; readonly message: string; readonly isExpected: boolean } => {
  if (error instanceof RingsteadError && isSwiftErrorCode(error.code)) {
    return { status: STATUS_OF[error.code], message: error.message, isExpected: true };
  }
  const inner = error instanceof RingsteadError ? INNER_STATUS_OF[error.code] : undefined;
  if (inner === 503) return { status: inner, message: "The server is currently unavailable.", isExpected: true };
  if (inner === 507) return { status: inner, message: "There is no space left to store this.", isExpected: true };
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
