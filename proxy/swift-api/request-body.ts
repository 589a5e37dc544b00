import { createHash } from "node:crypto";
import { RingsteadError } from "../../common/errors.ts";
import { releaseMemory } from "../../common/release-memory.ts";
import { INLINE_BODY_LIMIT_BYTES } from "../../storage-node/wire.ts";
import { givenUploadOf, isOwn, receiveBody, type UploadedBody, uploadOf } from "../object-service/body-upload.ts";
import type { Container } from "../object-service/containers.ts";
import { uploadBudget } from "../object-service/transfer-budget.ts";
import { CONSTRAINTS } from "./constraints.ts";
import { type Exchange, header } from "./exchange.ts";
import { refuse } from "./swift-error.ts";
import type { SwiftServices } from "./swift-server.ts";

/** The declared length, undefined for a chunked body. Errors: "length-required", "bad-request", "entity-too-large". */
export const bodyLength = (exchange: Exchange): number | undefined => {
  const encoding = header(exchange, "transfer-encoding");
  const text = header(exchange, "content-length");
  if (encoding !== undefined) {
    if (encoding.toLowerCase() !== "chunked")
      throw refuse(
        "not-implemented",
        "Unsupported Transfer-Encoding header value specified in Transfer-Encoding header",
      );
    return undefined;
  }
  if (text === undefined) throw refuse("length-required", "Missing Content-Length header.");
  if (!/^\d+$/.test(text)) throw refuse("bad-request", "Invalid Content-Length header value");
  const length = Number(text);
  if (length > CONSTRAINTS.max_file_size) throw refuse("entity-too-large", "Your request is too large.");
  return length;
};

/** Receives the body of a PUT at the pace of the replicas. Errors: those of `receiveBody`, "client-disconnected", "entity-too-large". */
export const receive = (
  services: SwiftServices,
  exchange: Exchange,
  container: Container,
  name: string,
  length: number | undefined,
): Promise<UploadedBody> => {
  if (length === undefined || length > INLINE_BODY_LIMIT_BYTES) {
    return receiveBody(services.objects.replicasOf(container, name), limited(exchange, length));
  }
  const granted = uploadBudget.take(length);
  return granted === undefined ? collect(exchange, length) : granted.then(() => collect(exchange, length));
};

/** From this size on a body is hashed as it arrives: at once it would hold up everybody else. */
const HASH_AT_ONCE_BYTES = 64 * 1024;

/** A body that goes into the log, by events: an async iterator costs more than the rest of a small request. Requires: `length` was granted. */
const collect = (exchange: Exchange, length: number): Promise<UploadedBody> =>
  new Promise((resolve, reject) => {
    const { request } = exchange;
    const isLarge = length > HASH_AT_ONCE_BYTES;
    const hash = isLarge ? createHash("md5") : undefined;
    const whole = isLarge ? Buffer.allocUnsafeSlow(length) : undefined;
    const chunks: Buffer[] = [];
    let received = 0;
    let isOver = false;
    const fail = (message: string): void => {
      if (isOver) return;
      isOver = true;
      uploadBudget.give(length);
      reject(refuse("client-disconnected", message));
    };
    const release = (): void => uploadBudget.give(length);
    // The client may have gone while the body waited for its turn.
    if (request.destroyed && !request.complete) return fail("The client went away.");
    request.on("data", (chunk: Buffer) => {
      if (whole === undefined) chunks.push(chunk);
      else whole.set(chunk, received);
      hash?.update(chunk);
      received += chunk.length;
      if (whole !== undefined && isOwn(chunk)) releaseMemory(chunk);
    });
    request.on("end", () => {
      if (received !== length) return fail("The body was shorter than Content-Length.");
      isOver = true;
      const [only] = chunks;
      if (whole !== undefined && hash !== undefined) resolve(givenUploadOf(whole, hash.digest("hex"), release));
      else {
        const bytes = chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks);
        resolve(uploadOf(bytes, undefined, release));
      }
    });
    request.on("error", () => fail("The client went away."));
    request.on("close", () => {
      if (!request.complete) fail("The client went away.");
    });
  });

async function* limited(exchange: Exchange, length: number | undefined): AsyncGenerator<Buffer> {
  let received = 0;
  try {
    // A request that is given up half-way is still to be answered: its stream must not take the connection along.
    for await (const chunk of exchange.request.iterator({ destroyOnReturn: false })) {
      if (!Buffer.isBuffer(chunk)) continue;
      received += chunk.length;
      if (received > CONSTRAINTS.max_file_size) throw refuse("entity-too-large", "Your request is too large.");
      yield chunk;
    }
  } catch (error) {
    if (error instanceof RingsteadError) throw error;
    throw refuse("client-disconnected", "The client went away.");
  }
  if (length !== undefined && received !== length)
    throw refuse("client-disconnected", "The body was shorter than Content-Length.");
}
