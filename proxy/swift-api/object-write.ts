import { RingsteadError } from "../../common/errors.ts";
import { type HybridTimestamp, swiftTimestamp } from "../../common/hybrid-clock.ts";
import type { UploadedBody } from "../object-service/body-upload.ts";
import type { Container } from "../object-service/containers.ts";
import type { ObjectMetadata } from "../object-service/object-metadata.ts";
import { type Condition, lastModifiedSeconds, type Present } from "../object-service/objects.ts";
import { type ConditionHeaders, httpDateOf, requireWriteConditions } from "./conditions.ts";
import { type Exchange, header, respond } from "./exchange.ts";
import { addKeptHeaders, dueTime, newMetadata } from "./given-metadata.ts";
import { readMetadata } from "./metadata.ts";
import { admittedContainer, conditionsOf, validatorsOf } from "./object-access.ts";
import { bodyLength, receive } from "./request-body.ts";
import { refuse } from "./swift-error.ts";
import type { ObjectPath } from "./swift-path.ts";
import type { SwiftServices } from "./swift-server.ts";

const hasConditions = ({ ifMatch, ifNoneMatch, ifUnmodifiedSince }: ConditionHeaders): boolean =>
  ifMatch !== undefined || ifNoneMatch !== undefined || ifUnmodifiedSince !== undefined;

/** PUT of a body. */
export const putObject = async (services: SwiftServices, exchange: Exchange, path: ObjectPath): Promise<void> => {
  const admitted = admittedContainer(services, exchange, path, "write");
  const container = admitted instanceof Promise ? await admitted : admitted;
  const conditions = conditionsOf(exchange);
  requireKnownCondition(conditions);
  const metadata = newMetadata(services, exchange, path.object);
  const length = bodyLength(exchange);
  const etag = expectedEtag(exchange);
  // A condition that already fails spares the client its upload; it is decided again, atomically, with the write. Under `available` what is read may be stale, and a condition
  // is not to be judged by it.
  if (hasConditions(conditions) && container.policy.consistency === "strong")
    await requirePresently(services, path, conditions);
  const uploaded = await receive(services, exchange, container, path.object, length);
  requireEtag(etag, uploaded);
  const condition = hasConditions(conditions)
    ? (present: Present): void => requireWriteConditions(conditions, validatorsOf(present))
    : undefined;
  answerPut(exchange, uploaded, await store(services, container, path.object, uploaded, metadata, condition));
};

/** A PUT may ask for nothing to be there, and not for something else: so Swift's clients have it. Errors: "bad-request". */
const requireKnownCondition = ({ ifNoneMatch }: ConditionHeaders): void => {
  if (ifNoneMatch !== undefined && !ifNoneMatch.includes("*"))
    throw refuse("bad-request", "If-None-Match only supports *");
};

/** The checksum of the body as its client has it, where it gives one. */
const expectedEtag = (exchange: Exchange): string | undefined =>
  header(exchange, "etag")
    ?.replace(/^"(.*)"$/, "$1")
    .toLowerCase();

/** Errors: "etag-mismatch"; the upload is let go of. */
const requireEtag = (expected: string | undefined, uploaded: UploadedBody): void => {
  if (expected === undefined || expected === "" || expected === uploaded.md5) return;
  uploaded.abandon();
  uploaded.release();
  throw refuse("etag-mismatch", "The checksum of the received body differs from the ETag header.");
};

const answerPut = (exchange: Exchange, { md5 }: UploadedBody, written: { readonly changed: HybridTimestamp }): void =>
  respond(exchange, 201, {
    "Content-Type": "text/html; charset=UTF-8",
    Etag: md5,
    "Last-Modified": httpDateOf(lastModifiedSeconds(written.changed)),
  });

/** Stores what was uploaded and lets go of what it held, however that ends. */
export const store = async (
  services: SwiftServices,
  container: Container,
  name: string,
  uploaded: UploadedBody,
  metadata: ObjectMetadata,
  condition: Condition | undefined,
): Promise<{ changed: HybridTimestamp }> => {
  try {
    return await services.objects.put(container, name, uploaded, { ...metadata, etag: uploaded.md5 }, condition);
  } catch (error) {
    // After an unknown outcome the staged file may be what a quorum holds: only a sure refusal removes it.
    if (!(error instanceof RingsteadError) || error.code !== "outcome-unknown") uploaded.abandon();
    throw error;
  } finally {
    uploaded.release();
  }
};

const requirePresently = async (
  services: SwiftServices,
  path: ObjectPath,
  conditions: ConditionHeaders,
): Promise<void> => {
  const present = await services.objects
    .get(path.account, path.container, path.object, false)
    .catch((error: unknown) => {
      if (error instanceof RingsteadError && error.code === "no-such-object") return undefined;
      throw error;
    });
  requireWriteConditions(conditions, validatorsOf(present));
};

/** POST: user metadata is replaced as a whole, kept headers and the type only where given. */
export const postObject = async (services: SwiftServices, exchange: Exchange, path: ObjectPath): Promise<void> => {
  const container = await admittedContainer(services, exchange, path, "write");
  const given = addKeptHeaders(exchange, readMetadata(exchange, "object").set);
  const contentType = header(exchange, "content-type");
  const deleteAt = dueTime(services, exchange);
  const written = await services.objects.post(container, path.object, (present) => ({
    etag: present.etag,
    contentType: contentType === undefined || contentType === "" ? present.contentType : contentType,
    headers: given,
    deleteAt,
  }));
  respond(exchange, 202, {
    "Content-Type": "text/html; charset=UTF-8",
    "X-Timestamp": swiftTimestamp(written.changed),
  });
};

export const deleteObject = async (services: SwiftServices, exchange: Exchange, path: ObjectPath): Promise<void> => {
  const container = await admittedContainer(services, exchange, path, "write");
  const conditions = conditionsOf(exchange);
  const condition: Condition | undefined = hasConditions(conditions)
    ? (present) => requireWriteConditions(conditions, validatorsOf(present))
    : undefined;
  await services.objects.delete(container, path.object, condition);
  respond(exchange, 204, { "Content-Type": "text/html; charset=UTF-8" });
};
