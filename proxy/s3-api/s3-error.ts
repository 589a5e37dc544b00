import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { messageOf, RingsteadError } from "../../common/errors.ts";

const XML_ESCAPES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
/** What XML 1.0 has no way to say; Node lets none of it into a URL but for bytes above 0x7f. */
const NOT_XML = /[^\t\n\r\x20-\ud7ff\ue000-\ufffd]/g;

/** Text for an XML element. */
const xmlText = (text: string): string =>
  text.replaceAll(NOT_XML, "\ufffd").replaceAll(/[&<>"]/g, (character) => XML_ESCAPES[character] ?? character);

/** 16 capital hexadecimal digits, as S3's own. */
export const newRequestId = (): string => randomBytes(8).toString("hex").toUpperCase();

/** An error of S3: its status, its code, and a sentence for people. */
export type S3Error = { readonly status: number; readonly code: string; readonly message: string };

/** The errors of this face by their codes, and those of the identity service as S3 says them. */
const S3_ERRORS: Readonly<Record<string, Pick<S3Error, "status" | "code">>> = {
  "access-denied": { status: 403, code: "AccessDenied" },
  "authorization-header-malformed": { status: 400, code: "AuthorizationHeaderMalformed" },
  "authorization-query-malformed": { status: 400, code: "AuthorizationQueryParametersError" },
  "invalid-access-key": { status: 403, code: "InvalidAccessKeyId" },
  "invalid-argument": { status: 400, code: "InvalidArgument" },
  "invalid-request": { status: 400, code: "InvalidRequest" },
  "invalid-token": { status: 400, code: "InvalidToken" },
  "not-implemented": { status: 501, code: "NotImplemented" },
  "request-time-too-skewed": { status: 403, code: "RequestTimeTooSkewed" },
  "signature-mismatch": { status: 403, code: "SignatureDoesNotMatch" },
  "identity-unavailable": { status: 503, code: "ServiceUnavailable" },
  "too-busy": { status: 503, code: "SlowDown" },
};

/** What a client is told of anything thrown: what is unexpected stays in the log. */
export const s3ErrorOf = (thrown: unknown): S3Error => {
  const known = thrown instanceof RingsteadError ? S3_ERRORS[thrown.code] : undefined;
  if (known !== undefined) return { ...known, message: messageOf(thrown) };
  return { status: 500, code: "InternalError", message: "We encountered an internal error. Please try again." };
};

/** The XML of https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html */
export const errorXml = ({ code, message }: S3Error, resource: string, requestId: string): string =>
  '<?xml version="1.0" encoding="UTF-8"?>\n' +
  `<Error><Code>${xmlText(code)}</Code><Message>${xmlText(message)}</Message>` +
  `<Resource>${xmlText(resource)}</Resource><RequestId>${requestId}</RequestId></Error>`;

/** Answers with `error`; HEAD gets the headers alone. A body that is still arriving is thrown away by Node, not kept. */
export const answerS3Error = (
  request: IncomingMessage,
  response: ServerResponse,
  error: S3Error,
  requestId: string,
): void => {
  const body = errorXml(error, request.url?.split("?", 1)[0] ?? "/", requestId);
  response.writeHead(error.status, {
    "Content-Type": "application/xml",
    "Content-Length": Buffer.byteLength(body),
    "x-amz-request-id": requestId,
  });
  response.end(request.method === "HEAD" ? undefined : body);
};
