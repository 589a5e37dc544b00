import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";

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
