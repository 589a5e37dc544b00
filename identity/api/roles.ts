import { type TSchema, Type } from "typebox";
import type { HttpMethod, HttpRequest, HttpResponse } from "../../common/http/route.ts";
import { identityError, notFound } from "../core/identity-error.ts";
import { recheckHolders, removeRole } from "../store/grants.ts";
import { findRecord, type IdentityTransaction, listRecords, newId, parsed } from "../store/records.ts";
import type { Role } from "../store/schema.ts";
import {
  baseUrl,
  type Caller,
  callerOf,
  enforce,
  type IdentityContext,
  type IdentityRoute,
  openRoute,
} from "./identity-route.ts";
import { anyQuery, listBody, listQueryOf, parameter, plainQuery, text } from "./list-parameters.ts";
import { extraOf, recordOrNotFound } from "./resource-routes.ts";

/** A role in Keystone's shape. */
export const roleBody = ({ id, name, domain_id, description, options, extra }: Role, base: string) => ({
  ...parsed(extra),
  id,
  name,
  domain_id,
  description,
  options: parsed(options),
  links: { self: `${base}/roles/${id}` },
});

const NAME = Type.String({ minLength: 1, maxLength: 255, pattern: "\\S" });
const OPTIONS = Type.Object(
  { immutable: Type.Optional(Type.Union([Type.Boolean(), Type.Null()])) },
  { additionalProperties: false },
);
const DOMAIN = Type.Union([Type.String({ minLength: 1, maxLength: 64 }), Type.Null()]);

const createSchema = Type.Object({
  name: NAME,
  domain_id: Type.Optional(DOMAIN),
  description: Type.Optional(Type.String()),
  options: Type.Optional(OPTIONS),
});
const updateSchema = Type.Object(
  {
    name: Type.Optional(NAME),
    domain_id: Type.Optional(DOMAIN),
    description: Type.Optional(Type.String()),
    options: Type.Optional(OPTIONS),
  },
  { minProperties: 1 },
);
const oneRole = Type.Object({ role_id: Type.String() });

type Work<Params extends TSchema, Body extends TSchema> = (
  request: HttpRequest<{ params: Params; query: typeof anyQuery; body: Body }>,
  context: IdentityContext,
  caller: Caller,
  role: Role | undefined,
) => Promise<HttpResponse>;

type RoleRoute<Params extends TSchema, Body extends TSchema> = {
  readonly method: HttpMethod;
  readonly path: string;
  readonly params: Params;
  readonly body: Body;
  /** The policies for roles of all domains, and for those of one. */
  readonly operations: readonly [general: string, ofDomain: string];
  /** Whether the request is about roles of a domain, where the path names no role. */
  isOfDomain?(request: HttpRequest<{ query: typeof anyQuery; body: Body }>): boolean;
  readonly handler: Work<Params, Body>;
};

/** Roles of all domains and those of one are guarded by different policies. A role that is not there counts as one of all domains. */
const roleRoute = <Params extends TSchema, Body extends TSchema>(route: RoleRoute<Params, Body>): IdentityRoute => {
  const { method, path, params, body, operations } = route;
  return openRoute({
    method,
    path,
    request: { params, query: anyQuery, body },
    handler: async (request, context) => {
      const caller = await callerOf(request, context);
      const id = (request.params as Readonly<Record<string, string>>)["role_id"];
      const role = id === undefined ? undefined : await findRecord(context.database, "roles", id);
      const isOfDomain = id === undefined ? route.isOfDomain?.(request) === true : (role?.domain_id ?? null) !== null;
      const target =
        role === undefined ? {} : { "target.role.name": role.name, "target.role.domain_id": role.domain_id };
      enforce(context, caller, operations[isOfDomain ? 1 : 0], target);
      if (id !== undefined && role === undefined) throw notFound("role", id);
      return route.handler(request, context, caller, role);
    },
  });
};

const isImmutable = ({ options }: Role): boolean => parsed(options)["immutable"] === true;

const immutableError = (verb: "update" | "delete", { id }: Role): Error =>
  identityError(
    "forbidden",
    `Unable to ${verb} immutable role resource: ${id}. Set resource option "immutable" to false first.`,
  );

const assertNameIsFree = async (
  transaction: IdentityTransaction,
  { id, name, domain_id }: Pick<Role, "id" | "name" | "domain_id">,
): Promise<void> => {
  const named = transaction.selectFrom("roles").select("id").where("name", "=", name).where("id", "<>", id);
  const inDomain = domain_id === null ? named.where("domain_id", "is", null) : named.where("domain_id", "=", domain_id);
  if ((await inDomain.executeTakeFirst()) === undefined) return;
  throw identityError(
    "conflict",
    `Conflict occurred attempting to store role - Duplicate entry found with name ${name}.`,
  );
};

/** Options with those that are given in their place; null takes one away. */
const mergedOptions = (before: string, given: Readonly<Record<string, unknown>> | undefined): string => {
  const options = { ...parsed(before), ...given };
  return JSON.stringify(Object.fromEntries(Object.entries(options).filter(([, value]) => value !== null)));
};

const list = roleRoute({
  method: "GET",
  path: "/v3/roles",
  params: Type.Object({}),
  body: Type.Unknown(),
  operations: ["identity:list_roles", "identity:list_domain_roles"],
  isOfDomain: ({ query }) => (parameter(query, "domain_id") ?? "") !== "",
  handler: async (request, context) => {
    const domainId = parameter(request.query, "domain_id") ?? "";
    const ofDomain = { column: "domain_id", comparison: "equals", value: domainId === "" ? null : domainId } as const;
    const query = listQueryOf({ name: text("name") }, plainQuery(request.query));
    const rows = await listRecords(context.database, "roles", {
      ...query,
      conditions: [...query.conditions, ofDomain],
    });
    const base = baseUrl(request, context);
    const items = rows.map((row) => roleBody(row, base));
    return { status: 200, body: listBody(request, "roles", items, query, base) };
  },
});

const show = roleRoute({
  method: "GET",
  path: "/v3/roles/:role_id",
  params: oneRole,
  body: Type.Unknown(),
  operations: ["identity:get_role", "identity:get_domain_role"],
  handler: async (request, context, _caller, role) => {
    if (role === undefined) throw notFound("role", request.params.role_id);
    return { status: 200, body: { role: roleBody(role, baseUrl(request, context)) } };
  },
});

const create = roleRoute({
  method: "POST",
  path: "/v3/roles",
  params: Type.Object({}),
  body: Type.Object({ role: createSchema }),
  operations: ["identity:create_role", "identity:create_domain_role"],
  isOfDomain: ({ body }) => (body.role.domain_id ?? null) !== null,
  handler: async (request, context) => {
    const fields = request.body.role;
    const row: Role = {
      id: newId(),
      name: fields.name,
      domain_id: fields.domain_id ?? null,
      description: fields.description ?? null,
      options: mergedOptions("{}", fields.options),
      extra: extraOf(createSchema, fields),
    };
    await context.changes.write(async (transaction, change) => {
      if (row.domain_id !== null) {
        const domain = await recordOrNotFound(transaction, "projects", "domain", row.domain_id);
        if (domain.is_domain === 0) throw notFound("domain", row.domain_id);
      }
      await assertNameIsFree(transaction, row);
      await transaction.insertInto("roles").values(row).execute();
      change.notify({ action: "create", resource: "role", id: row.id });
    });
    return { status: 201, body: { role: roleBody(row, baseUrl(request, context)) } };
  },
});

const update = roleRoute({
  method: "PATCH",
  path: "/v3/roles/:role_id",
  params: oneRole,
  body: Type.Object({ role: updateSchema }),
  operations: ["identity:update_role", "identity:update_domain_role"],
  handler: async (request, context) => {
    const fields = request.body.role;
    const id = request.params.role_id;
    if ("id" in fields && fields["id"] !== id) throw identityError("bad-request", "Cannot change role ID.");
    const changed = await context.changes.write(async (transaction, change) => {
      const row = await recordOrNotFound(transaction, "roles", "role", id);
      const { immutable } = fields.options ?? {};
      const endsImmutability = (immutable === false || immutable === null) && Object.keys(fields).length === 1;
      if (isImmutable(row) && !endsImmutability) throw immutableError("update", row);
      if (fields.domain_id !== undefined && fields.domain_id !== row.domain_id) {
        throw identityError("bad-request", "Update of `domain_id` is not allowed.");
      }
      const next: Role = {
        ...row,
        name: fields.name ?? row.name,
        description: fields.description ?? row.description,
        options: mergedOptions(row.options, fields.options),
        extra: extraOf(updateSchema, fields, row.extra),
      };
      if (next.name !== row.name) {
        await assertNameIsFree(transaction, next);
        // Tokens say roles by their names.
        await recheckHolders(transaction, change, [id]);
      }
      await transaction.updateTable("roles").set(next).where("id", "=", id).execute();
      change.notify({ action: "update", resource: "role", id });
      return next;
    });
    return { status: 200, body: { role: roleBody(changed, baseUrl(request, context)) } };
  },
});

const remove = roleRoute({
  method: "DELETE",
  path: "/v3/roles/:role_id",
  params: oneRole,
  body: Type.Unknown(),
  operations: ["identity:delete_role", "identity:delete_domain_role"],
  handler: async (request, context) => {
    const id = request.params.role_id;
    await context.changes.write(async (transaction, change) => {
      const row = await recordOrNotFound(transaction, "roles", "role", id);
      if (isImmutable(row)) throw immutableError("delete", row);
      await removeRole(transaction, change, id, context.clock.nowMs());
    });
    return { status: 204 };
  },
});

/** Roles, of all domains or of one. */
export const ROLE_ROUTES: readonly IdentityRoute[] = [list, show, create, update, remove];
