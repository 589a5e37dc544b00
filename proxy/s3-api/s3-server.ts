import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { Clock } from "../../common/clock.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import type { AccessKeys, TokenContext } from "../../identity/client.ts";
import { answerS3Error, newRequestId, s3ErrorOf } from "./s3-error.ts";
import { isS3Request } from "./s3-request.ts";
import { isSignedBy, readSignature } from "./signature.ts";

const IDLE_TIMEOUT_MS = 60_000;
const HEADERS_TIMEOUT_MS = 60_000;
const HEADER_BLOCK_LIMIT_BYTES = 128 * 1024;

type Listener = (request: IncomingMessage, response: ServerResponse) => void;

/** What the S3 face is built on. */
export type S3Services = {
  /** The keys that requests are signed with. */
  readonly keys: Pick<AccessKeys, "find">;
  readonly clock: Clock;
  readonly log: Log;
};

/** On whose behalf a request acts; undefined for an anonymous one. Rejects with RingsteadError, a code of `s3-error.ts`. */
const authenticate = async (
  { clock, keys }: S3Services,
  { headersDistinct: headers, method = "GET", url = "/" }: IncomingMessage,
): Promise<TokenContext | undefined> => {
  const signature = readSignature({ method, url, headers }, clock.nowMs());
  if (signature === undefined) return undefined;
  const key = await keys.find(signature.access);
  if (key === undefined) {
    throw new RingsteadError("invalid-access-key", "The AWS Access Key Id you provided does not exist in our records.");
  }
  if (isSignedBy(signature, key.secret)) return key.context;
  throw new RingsteadError(
    "signature-mismatch",
    "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
  );
};

const serve = async (services: S3Services, request: IncomingMessage): Promise<never> => {
  await authenticate(services, request);
  throw new RingsteadError(
    "not-implemented",
    "This version of Ringstead does not have the S3 API. The same objects are served by its Swift API.",
  );
};

/**
 * Every operation of S3: whoever signs is known or refused as S3 does it, and then, until the face is built, 501 in the shape that its
 * clients parse, with an id that the log has too.
 */
const s3Listener =
  (services: S3Services): Listener =>
  (request, response) => {
    const requestId = newRequestId();
    response.on("close", () =>
      services.log.info("access", {
        transactionId: requestId,
        method: request.method,
        path: request.url?.split("?", 1)[0],
        status: response.statusCode,
        remote: request.socket.remoteAddress,
      }),
    );
    serve(services, request).catch((thrown: unknown) => {
      const error = s3ErrorOf(thrown);
      if (error.status === 500) services.log.error("an S3 request failed", { transactionId: requestId, error: thrown });
      answerS3Error(request, response, error, requestId);
    });
  };

/** The port that speaks S3 alone. Not listening yet. */
export const createS3Server = (
  services: S3Services,
  tls: { readonly cert: Buffer; readonly key: Buffer } | undefined,
): Server => {
  const settings = {
    requestTimeout: 0,
    headersTimeout: HEADERS_TIMEOUT_MS,
    keepAliveTimeout: IDLE_TIMEOUT_MS,
    maxHeaderSize: HEADER_BLOCK_LIMIT_BYTES,
    noDelay: true,
  };
  const answer = s3Listener(services);
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
export const takeS3Requests = (server: Server, services: S3Services): void => {
  const answer = s3Listener(services);
  const inner = server.listeners("request") as Listener[];
  server.removeAllListeners("request");
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    if (isS3Request(request)) answer(request, response);
    else for (const listener of inner) listener(request, response);
  });
};
