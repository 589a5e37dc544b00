import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { Log } from "../../common/log.ts";
import { answerS3Error, newRequestId, type S3Error } from "./s3-error.ts";
import { isS3Request } from "./s3-request.ts";

const NOT_BUILT: S3Error = {
  status: 501,
  code: "NotImplemented",
  message: "This version of Ringstead does not have the S3 API. The same objects are served by its Swift API.",
};

const IDLE_TIMEOUT_MS = 60_000;
const HEADERS_TIMEOUT_MS = 60_000;
const HEADER_BLOCK_LIMIT_BYTES = 128 * 1024;

type Listener = (request: IncomingMessage, response: ServerResponse) => void;

/** Every operation of S3: until the face is built, 501 in the shape that its clients parse, with an id that the log has too. */
const s3Listener =
  (log: Log): Listener =>
  (request, response) => {
    const requestId = newRequestId();
    response.on("close", () =>
      log.info("access", {
        transactionId: requestId,
        method: request.method,
        path: request.url?.split("?", 1)[0],
        status: response.statusCode,
        remote: request.socket.remoteAddress,
      }),
    );
    answerS3Error(request, response, NOT_BUILT, requestId);
  };

/** The port that speaks S3 alone. Not listening yet. */
export const createS3Server = (log: Log, tls: { readonly cert: Buffer; readonly key: Buffer } | undefined): Server => {
  const settings = {
    requestTimeout: 0,
    headersTimeout: HEADERS_TIMEOUT_MS,
    keepAliveTimeout: IDLE_TIMEOUT_MS,
    maxHeaderSize: HEADER_BLOCK_LIMIT_BYTES,
    noDelay: true,
  };
  const answer = s3Listener(log);
  const server: Server =
    tls === undefined ? createServer(settings, answer) : createTlsServer({ ...settings, ...tls }, answer);
  // A client that waits for "100 Continue" is refused before it sends its body.
  server.on("checkContinue", answer);
  server.setTimeout(IDLE_TIMEOUT_MS);
  return server;
};

/**
 * Takes signed S3 requests out of `server`, the port that both faces share, before its listeners for other requests see them.
 * Requires: those listeners are attached already.
 */
export const takeS3Requests = (server: Server, log: Log): void => {
  const answer = s3Listener(log);
  const inner = server.listeners("request") as Listener[];
  server.removeAllListeners("request");
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    if (isS3Request(request)) answer(request, response);
    else for (const listener of inner) listener(request, response);
  });
};
