import { httpDateOf } from "./conditions.ts";
import type { OutgoingHttpHeaders } from "node:http";
import { swiftTimestamp } from "../../common/hybrid-clock.ts";
import type { StoragePolicy } from "../../common/storage-policy.ts";
import { needsAcl, requireAcl, requireAccountReader, requireOwner, cleanAcl, isOwner } from "./access.ts";
import { CONSTRAINTS } from "./constraints.ts";
import { type Exchange, header, headerBytes, respond } from "./exchange.ts";
import {
  collectListing,
  listingFormat,
  type ListingFormat,
  type ListingItem,
  type ListingQuery,
  parseListingQuery,
  renderContainersJson,
  renderContainersXml,
  renderObjectsJson,
  renderObjectsXml,
  renderText,
} from "./listing.ts";
import { refuse } from "./swift-error.ts";
import { changedHeaders, readMetadata, titleCase } from "./metadata.ts";
import type { SwiftServices } from "./swift-server.ts";
import { lastModifiedSeconds } from "../object-service/objects.ts";
import { isOwnHeader } from "../object-service/policies.ts";

const ACL_HEADERS = ["x-container-read", "x-container-write"] as const;

/** What PUT and POST of a container may change, read from the request before anything is written. */
const containerChange = (
  exchange: Exchange,
): ((headers: Readonly<Record<string, string>>) => Record<string, string>) => {
  const metadata = readMetadata(exchange, "container");
  const set: Record<string, string> = Object.create(null);
  const removed = new Set(metadata.removed);
  for (const name of ACL_HEADERS) {
    const value = header(exchange, name);
    const isRemoved = header(exchange, `x-remove-${name.slice(2)}`) !== undefined;
    if (value !== undefined && value !== "") set[name] = cleanAcl(name, value);
    else if (value === "" || isRemoved) removed.add(name);
  }
  return (headers) => changedHeaders(headers, { set: { ...metadata.set, ...set }, removed });
};

/** The policy that the request names, if it does. Errors (thrown): "bad-request" for one that is not there. */
const wantedPolicy = ({ policies }: SwiftServices, exchange: Exchange): StoragePolicy | undefined => {
  const name = header(exchange, "x-storage-policy");
  if (name === undefined || name === "") return undefined;
  const policy = policies.named(name);
  if (policy === undefined) throw refuse("bad-request", `Invalid X-Storage-Policy '${name}'`);
  return policy;
};

export const putContainer = async (
  services: SwiftServices,
  exchange: Exchange,
  account: string,
  name: string,
): Promise<void> => {
  requireOwner(exchange, account);
  const policy = wantedPolicy(services, exchange);
  const { isNew } = await services.containers.put(account, name, containerChange(exchange), false, policy);
  respond(exchange, isNew ? 201 : 202, { "Content-Type": "text/html; charset=UTF-8" });
};

export const postContainer = async (
  services: SwiftServices,
  exchange: Exchange,
  account: string,
  name: string,
): Promise<void> => {
  requireOwner(exchange, account);
  await services.containers.put(account, name, containerChange(exchange), true);
  respond(exchange, 204, { "Content-Type": "text/html; charset=UTF-8" });
};

export const deleteContainer = async (
  services: SwiftServices,
  exchange: Exchange,
  account: string,
  name: string,
): Promise<void> => {
  requireOwner(exchange, account);
  await services.containers.delete(account, name);
  respond(exchange, 204, { "Content-Type": "text/html; charset=UTF-8" });
};

/** GET and HEAD. */
export const readContainer = async (
  services: SwiftServices,
  exchange: Exchange,
  account: string,
  name: string,
): Promise<void> => {
  const isAclNeeded = needsAcl(exchange, account, "list");
  if (isAclNeeded && exchange.token === undefined && exchange.request.headers["x-auth-token"] !== undefined)
    requireAcl(exchange, {}, "list");
  const container = await services.containers.get(account, name).catch((error: unknown) => {
    if (isAclNeeded) requireAcl(exchange, {}, "list");
    throw error;
  });
  if (isAclNeeded) requireAcl(exchange, container.headers, "list");
  const format = listingFormat(exchange);
  const query = parseListingQuery(exchange, CONSTRAINTS.container_listing_limit);
  const summary = await services.containers.summary(container);
  const headers: OutgoingHttpHeaders = {
    "X-Container-Object-Count": summary.rows,
    "X-Container-Bytes-Used": summary.bytes,
    "X-Timestamp": swiftTimestamp(container.created),
    "Last-Modified": httpDateOf(lastModifiedSeconds(container.changed)),
    "X-Storage-Policy": container.policy.name,
    "Accept-Ranges": "bytes",
  };
  const showsAcl = isOwner(exchange.token, account);
  for (const [key, value] of Object.entries(container.headers)) {
    if (isOwnHeader(key)) continue;
    if (showsAcl || !ACL_HEADERS.some((acl) => acl === key)) headers[titleCase(key)] = headerBytes(value);
  }
  await sendListing(exchange, headers, format, query, (page) => services.containers.page(container, page), {
    json: renderObjectsJson,
    xml: (items) => renderObjectsXml(name, items),
  });
};

/** GET and HEAD of an account. */
export const readAccount = async (services: SwiftServices, exchange: Exchange, account: string): Promise<void> => {
  requireAccountReader(exchange, account);
  const format = listingFormat(exchange);
  const query = parseListingQuery(exchange, CONSTRAINTS.account_listing_limit);
  const [record, summary] = await Promise.all([services.accounts.get(account), services.accounts.summary(account)]);
  const headers: OutgoingHttpHeaders = {
    "X-Account-Container-Count": summary.rows,
    "X-Account-Object-Count": summary.objects,
    "X-Account-Bytes-Used": summary.bytes,
    "Accept-Ranges": "bytes",
  };
  // Nobody counts them by policy: of the only one there is they are those of the account.
  if (services.policies.all.length === 1) {
    const prefix = `X-Account-Storage-Policy-${services.policies.standard.name}`;
    headers[`${prefix}-Container-Count`] = summary.rows;
    headers[`${prefix}-Object-Count`] = summary.objects;
    headers[`${prefix}-Bytes-Used`] = summary.bytes;
  }
  // Of an account that has no record the time is now, as Swift says of one that it would make.
  headers["X-Timestamp"] =
    record.changed === undefined ? (services.clock.nowMs() / 1000).toFixed(5) : swiftTimestamp(record.changed);
  for (const [key, value] of Object.entries(record.headers)) headers[titleCase(key)] = headerBytes(value);
  await sendListing(exchange, headers, format, query, (page) => services.accounts.page(account, page), {
    json: renderContainersJson,
    xml: (items) => renderContainersXml(account, items),
  });
};

/** HEAD answers with the headers alone, as does a plain listing without names. */
const sendListing = async (
  exchange: Exchange,
  headers: OutgoingHttpHeaders,
  format: ListingFormat,
  query: ListingQuery,
  page: Parameters<typeof collectListing>[1],
  render: {
    readonly json: (items: readonly ListingItem[]) => string | Buffer;
    readonly xml: (items: readonly ListingItem[]) => string;
  },
): Promise<void> => {
  headers["Content-Type"] = `${format}; charset=utf-8`;
  if (!exchange.query.has("format")) headers["Vary"] = "Accept";
  if (exchange.method === "HEAD") {
    respond(exchange, 204, headers);
    return;
  }
  const items = await collectListing(query, page);
  switch (format) {
    case "application/json":
      return respond(exchange, 200, headers, render.json(items));
    case "text/xml":
    case "application/xml":
      return respond(exchange, 200, headers, render.xml(items));
    case "text/plain":
      return respond(exchange, items.length === 0 ? 204 : 200, headers, renderText(items));
  }
};

export const postAccount = async (services: SwiftServices, exchange: Exchange, account: string): Promise<void> => {
  requireOwner(exchange, account);
  const change = readMetadata(exchange, "account");
  await services.accounts.post(account, (headers) => changedHeaders(headers, change));
  respond(exchange, 204, { "Content-Type": "text/html; charset=UTF-8" });
};
