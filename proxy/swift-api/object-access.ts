import { RingsteadError } from "../../common/errors.ts";
import type { Container } from "../object-service/containers.ts";
import { lastModifiedSeconds, type Present } from "../object-service/objects.ts";
import { needsAcl, requireAcl, type Wanted } from "./access.ts";
import type { ConditionHeaders, Validators } from "./conditions.ts";
import { type Exchange, header } from "./exchange.ts";
import type { ObjectPath } from "./swift-path.ts";
import type { SwiftServices } from "./swift-server.ts";

/** The conditional headers of a request. */
export const conditionsOf = (exchange: Exchange): ConditionHeaders => ({
  ifMatch: header(exchange, "if-match"),
  ifNoneMatch: header(exchange, "if-none-match"),
  ifModifiedSince: header(exchange, "if-modified-since"),
  ifUnmodifiedSince: header(exchange, "if-unmodified-since"),
});

/** What conditions look at; undefined where there is no object. */
export const validatorsOf = (present: Present): Validators | undefined =>
  present === undefined
    ? undefined
    : { etag: present.metadata.etag, modifiedSeconds: lastModifiedSeconds(present.changed) };

/** The container of a write; its ACL is asked when the account's own rights do not suffice. At once where it is known. */
export const admittedContainer = (
  services: SwiftServices,
  exchange: Exchange,
  path: ObjectPath,
  wanted: Wanted,
): Container | Promise<Container> =>
  needsAcl(exchange, path.account, wanted)
    ? containerByAcl(services, exchange, path, wanted)
    : services.containers.known(path.account, path.container);

const containerByAcl = async (
  services: SwiftServices,
  exchange: Exchange,
  path: ObjectPath,
  wanted: Wanted,
): Promise<Container> => {
  if (exchange.token === undefined && wanted === "write") requireAcl(exchange, {}, wanted);
  let container: Container;
  try {
    container = await services.containers.known(path.account, path.container);
  } catch (error) {
    // Who may not even list the account is not told which containers exist.
    if (error instanceof RingsteadError && error.code === "no-such-container") requireAcl(exchange, {}, wanted);
    throw error;
  }
  requireAcl(exchange, container.headers, wanted);
  return container;
};
