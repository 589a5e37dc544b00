import { type Static, type TObject, Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import type { PolicyTarget } from "../../common/policy/policy-engine.ts";
import { identityError, notFound } from "../core/identity-error.ts";
import type { ChangeSet } from "../store/changes.ts";
import {
  findRecord,
  type IdentityDatabase,
  type IdentityTransaction,
  type ListQuery,
  listRecords,
  type RecordOf,
  type RecordTable,
} from "../store/records.ts";
import {
  baseUrl,
  type Caller,
  enforce,
  guardedRoute,
  type IdentityContext,
  type IdentityRoute,
} from "./identity-route.ts";
import { anyQuery, type Filters, listBody, listQueryOf, plainQuery } from "./list-parameters.ts";

/** What a write works with. */
export type Write = {
  readonly context: IdentityContext;
  readonly caller: Caller;
  readonly transaction: IdentityTransaction;
  readonly change: ChangeSet;
};

/** Where a resource's rows come from when it is not one table. */
type Reading<Row> = {
  find(id: string, context: IdentityContext): Promise<Row | undefined>;
  list(query: ListQuery, context: IdentityContext, caller: Caller, request: HttpRequest): Promise<readonly Row[]>;
};

/** Something that Identity v3 keeps: listed, shown, made, changed and removed in the same way. An operation without its part is not offered. */
export type Resource<Row extends { readonly id: string }, Create extends TObject, Update extends TObject> = {
  /** `/v3/users`. */
  readonly path: string;
  /** Keys of a list's and of one thing's body. */
  readonly plural: string;
  readonly singular: string;
  /** In place of `${singular}_id` in the path. */
  readonly idName?: string;
  /** Collections beneath one thing, which its links name: `protocols`. */
  readonly beneath?: readonly string[];
  readonly filters: Filters;
  readonly reading: Reading<Row>;
  present(row: Row, context: IdentityContext): Promise<object> | object;
  /** Instead of `present`, where one query for all rows is cheaper. */
  presentAll?(rows: readonly Row[], context: IdentityContext): Promise<readonly object[]>;
  /** What policies see of a thing: `{ "target.user.domain_id": … }`. */
  target?(row: Row, context: IdentityContext): Promise<PolicyTarget> | PolicyTarget;
  readonly list?: {
    readonly operation: string;
    /** What policies see of a list: what the query asks for. */
    target?(query: Readonly<Record<string, string>>, caller: Caller): PolicyTarget;
  };
  readonly show?: { readonly operation: string };
  readonly create?: {
    readonly operation: string;
    readonly schema: Create;
    /** What policies see of a thing that is to be made. */
    target?(fields: Static<Create>, caller: Caller, context: IdentityContext): Promise<PolicyTarget> | PolicyTarget;
    run(fields: Static<Create>, write: Write): Promise<Row>;
  };
  readonly update?: {
    readonly operation: string;
    readonly schema: Update;
    run(row: Row, fields: Static<Update>, write: Write): Promise<Row>;
  };
  readonly remove?: {
    readonly operation: string;
    run(row: Row, write: Write): Promise<void>;
  };
};

/** Rows of one table, without conditions beyond the query's. */
export const tableReading = <Name extends RecordTable>(table: Name): Reading<RecordOf<Name>> => ({
  find: (id, { database }) => findRecord(database, table, id),
  list: (query, { database }) => listRecords(database, table, query),
});

/** The row with this id, or `not-found` in Keystone's words. */
export const recordOrNotFound = async <Name extends RecordTable>(
  database: IdentityDatabase,
  table: Name,
  kind: string,
  id: string,
): Promise<RecordOf<Name>> => {
  const row = await findRecord(database, table, id);
  if (row === undefined) throw notFound(kind, id);
  return row;
};

const withSelf = (
  body: object,
  id: string,
  path: string,
  beneath: readonly string[] = [],
): Record<string, unknown> & { id: string } => ({
  ...body,
  id,
  links: {
    ...("links" in body && typeof body.links === "object" ? body.links : {}),
    ...Object.fromEntries(beneath.map((name) => [name, `${path}/${id}/${name}`])),
    self: `${path}/${id}`,
  },
});

/** A body that is one thing under its name. */
const wrapped = <Schema extends TObject>(singular: string, schema: Schema) => Type.Object({ [singular]: schema });

const pathParameters = Type.Record(Type.String(), Type.String());

/** The routes of a resource. */
export const resourceRoutes = <Row extends { readonly id: string }, Create extends TObject, Update extends TObject>(
  resource: Resource<Row, Create, Update>,
): IdentityRoute[] => {
  const { path, plural, singular, filters, reading, list, show, create, update, remove } = resource;
  const idName = resource.idName ?? `${singular}_id`;
  const onePath = `${path}/:${idName}`;
  const shortPath = path.replace(/^\/v3/, "");
  const routes: IdentityRoute[] = [];

  const idOf = (request: HttpRequest<{ params: typeof pathParameters }>): string => request.params[idName] ?? "";
  const found = async (id: string, context: IdentityContext): Promise<Row> => {
    const row = await reading.find(id, context);
    if (row === undefined) throw notFound(singular, id);
    return row;
  };
  const targetOfRow = async (id: string, context: IdentityContext): Promise<PolicyTarget> =>
    resource.target === undefined ? {} : await resource.target(await found(id, context), context);
  const bodyOf = async (row: Row, request: HttpRequest, context: IdentityContext): Promise<object> => ({
    [singular]: withSelf(
      await resource.present(row, context),
      row.id,
      baseUrl(request, context) + shortPath,
      resource.beneath,
    ),
  });

  if (list !== undefined) {
    routes.push(
      guardedRoute({
        method: "GET",
        path,
        operation: list.operation,
        request: { query: anyQuery },
        target: (request, _context, caller) => list.target?.(plainQuery(request.query), caller) ?? {},
        handler: async (request, context, caller) => {
          const query = listQueryOf(filters, plainQuery(request.query));
          const rows = await reading.list(query, context, caller, request);
          const base = baseUrl(request, context);
          const bodies =
            resource.presentAll === undefined
              ? await Promise.all(rows.map(async (row) => resource.present(row, context)))
              : await resource.presentAll(rows, context);
          const items = rows.map((row, index) =>
            withSelf(bodies[index] ?? {}, row.id, base + shortPath, resource.beneath),
          );
          return { status: 200, body: listBody(request, plural, items, query, base) };
        },
      }),
    );
  }
  if (show !== undefined) {
    routes.push(
      guardedRoute({
        method: "GET",
        path: onePath,
        operation: show.operation,
        request: { params: pathParameters },
        target: (request, context) => targetOfRow(idOf(request), context),
        handler: async (request, context) => ({
          status: 200,
          body: await bodyOf(await found(idOf(request), context), request, context),
        }),
      }),
    );
  }
  if (create !== undefined) {
    routes.push(
      guardedRoute({
        method: "POST",
        path,
        operation: create.operation,
        request: { body: wrapped(singular, create.schema) },
        target: (request, context, caller) =>
          create.target?.(memberOf(request.body, singular) as Static<Create>, caller, context) ?? {},
        handler: async (request, context, caller) => {
          const fields = memberOf(request.body, singular) as Static<Create>;
          const row = await context.changes.write((transaction, change) =>
            create.run(fields, { context, caller, transaction, change }),
          );
          return { status: 201, body: await bodyOf(row, request, context) };
        },
      }),
    );
  }
  if (update !== undefined) {
    routes.push(
      guardedRoute({
        method: "PATCH",
        path: onePath,
        operation: update.operation,
        request: { params: pathParameters, body: wrapped(singular, update.schema) },
        target: (request, context) => targetOfRow(idOf(request), context),
        handler: async (request, context, caller) => {
          const id = idOf(request);
          const fields = memberOf(request.body, singular) as Static<Update>;
          if (typeof fields === "object" && "id" in fields && fields["id"] !== id) {
            throw identityError("bad-request", `Cannot change ${singular} ID.`);
          }
          const row = await found(id, context);
          const changed = await context.changes.write((transaction, change) =>
            update.run(row, fields, { context, caller, transaction, change }),
          );
          return { status: 200, body: await bodyOf(changed, request, context) };
        },
      }),
    );
  }
  if (remove !== undefined) {
    routes.push(
      guardedRoute({
        method: "DELETE",
        path: onePath,
        operation: remove.operation,
        request: { params: pathParameters },
        target: (request, context) => targetOfRow(idOf(request), context),
        handler: async (request, context, caller) => {
          const row = await found(idOf(request), context);
          await context.changes.write((transaction, change) =>
            remove.run(row, { context, caller, transaction, change }),
          );
          return { status: 204 };
        },
      }),
    );
  }
  return routes;
};

/** Asks the policy once more, for a part of a request that is only known in its handler. */
export const enforceAlso = (write: Pick<Write, "context" | "caller">, operation: string, target: PolicyTarget): void =>
  enforce(write.context, write.caller, operation, target);

const memberOf = (body: unknown, name: string): unknown => (body as Readonly<Record<string, unknown>>)[name];

/** The members of `fields` that the schema does not name: Keystone keeps and answers them. As JSON. */
export const extraOf = (schema: TObject, fields: object, before = "{}"): string => {
  const extra: Record<string, unknown> = { ...(JSON.parse(before) as object) };
  for (const [name, value] of Object.entries(fields)) {
    if (!Object.hasOwn(schema.properties, name) && !RESERVED.has(name)) extra[name] = value;
  }
  return JSON.stringify(extra);
};

/** Members of answers that a client may send back and that are nobody's to keep. */
const RESERVED = new Set(["id", "links"]);
