import type { RingsteadError } from "../../common/errors.ts";
import { identityError, notFound } from "../core/identity-error.ts";
import type { UserOptions } from "../core/user-options.ts";
import type { DirectoryGroup, DirectoryUser } from "../store/directory.ts";
import { findRecord, type IdentityTransaction, type ListQuery, parsed } from "../store/records.ts";
import type { Group, User } from "../store/schema.ts";
import type { Caller, IdentityContext } from "./identity-route.ts";
import type { Write } from "./resource-routes.ts";

const DEFAULT_DOMAIN_ID = "default";

/** The domain that a token is for; undefined for all other tokens. */
const domainOfToken = ({ token: { scope } }: Pick<Caller, "token">): string | undefined =>
  scope.kind === "domain" ? scope.domain.id : undefined;

/** The domain of a new user or group: what is named, else that of the caller's token, else the default one. */
export const domainOfNew = (fields: { readonly domain_id?: string }, caller: Caller): string =>
  fields.domain_id ?? domainOfToken(caller) ?? DEFAULT_DOMAIN_ID;

/** The domain that a list is confined to: a token for a domain sees that one, others may ask for one. */
export const confinement = (query: Readonly<Record<string, string>>, caller: Caller): string | undefined =>
  domainOfToken(caller) ?? query["domain_id"];

/** The query of a list as this caller may have it answered. */
export const confined = (query: ListQuery, caller: Caller): ListQuery => {
  const domainId = domainOfToken(caller);
  if (domainId === undefined) return query;
  // First, so that it is the one that chooses the driver.
  return {
    ...query,
    conditions: [{ column: "domain_id", comparison: "equals", value: domainId }, ...query.conditions],
  };
};

/** Throws `forbidden` where this domain's users and groups are kept elsewhere. */
export const assertWritable = async (context: IdentityContext, domainId: string): Promise<void> => {
  if (await context.directory.isWritable(domainId)) return;
  throw identityError("forbidden", "LDAP does not support write operations.", { domainId });
};

/** Throws `not-found` unless there is such a domain. */
export const assertDomain = async (transaction: IdentityTransaction, domainId: string): Promise<void> => {
  const domain = await findRecord(transaction, "projects", domainId);
  if (domain?.is_domain !== 1) throw notFound("domain", domainId);
};

/** A user's row as it is in this transaction, with its options read. Throws `not-found`, and `forbidden` where it is kept elsewhere. */
export const currentUser = async (
  { id, domainId }: DirectoryUser,
  { context, transaction }: Pick<Write, "context" | "transaction">,
): Promise<Omit<User, "options"> & { readonly options: UserOptions }> => {
  await assertWritable(context, domainId);
  const row = await findRecord(transaction, "users", id);
  if (row === undefined) throw notFound("user", id);
  return { ...row, options: parsed(row.options) };
};

/** A group's row, likewise. */
export const currentGroup = async (
  { id, domainId }: DirectoryGroup,
  { context, transaction }: Pick<Write, "context" | "transaction">,
): Promise<Group> => {
  await assertWritable(context, domainId);
  const row = await findRecord(transaction, "groups", id);
  if (row === undefined) throw notFound("group", id);
  return row;
};

/** Throws `conflict` where another user or group of the domain has this name. */
export const assertNameFree = async (
  transaction: IdentityTransaction,
  kind: "user" | "group",
  { id, domainId, name }: { readonly id: string; readonly domainId: string; readonly name: string },
): Promise<void> => {
  const found = await transaction
    .selectFrom(kind === "user" ? "users" : "groups")
    .select("id")
    .where("domain_id", "=", domainId)
    .where("name", "=", name)
    .where("id", "<>", id)
    .executeTakeFirst();
  if (found === undefined) return;
  throw identityError(
    "conflict",
    `Conflict occurred attempting to store ${kind} - Duplicate entry found with name ${name} at domain ID ${domainId}.`,
  );
};

export const immutableRefusal = (action: "update" | "delete", kind: string, id: string): RingsteadError =>
  identityError(
    "forbidden",
    `Unable to ${action} immutable ${kind} resource: ${id}. Set resource option "immutable" to false first.`,
  );
