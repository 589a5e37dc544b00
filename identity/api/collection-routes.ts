import { type TSchema, Type } from "typebox";
import { notFound } from "../core/identity-error.ts";
import type { Policy, PolicyTarget } from "../core/policy.ts";
import { type IdentifiedRow, type IdentifiedTable, LIST_MAX, type RowFilter, selectRows } from "../store/rows.ts";
import { baseUrl, guardedRoute, type IdentityRoute } from "./identity-route.ts";

/** A kind of thing that is listed and shown by id. */
export type Collection<Name extends IdentifiedTable> = {
  /** The table, and the path and key of a list. */
  readonly plural: Name;
  readonly singular: string;
  /** Query parameters that must equal a column: its name, and for a truth value how it is told. */
  readonly filters: Readonly<Record<string, { readonly column: string; readonly kind: "text" | "flag" }>>;
  readonly listPolicy: Policy;
  readonly showPolicy: Policy;
  /** What the show policy compares with the caller. */
  showTarget?(id: string): PolicyTarget;
  present(row: IdentifiedRow<Name>): object;
};

const presented = <Name extends IdentifiedTable>(
  collection: Collection<Name>,
  row: IdentifiedRow<Name>,
  base: string,
): object => ({ ...collection.present(row), links: { self: `${base}/${collection.plural}/${row.id}` } });

/** A truth value as Keystone's query strings have it: everything but these is true, also the bare name. */
const isFalse = (value: string): boolean => ["false", "0", "no", "off"].includes(value.toLowerCase());

const filterOf = <Name extends IdentifiedTable>(
  { filters }: Collection<Name>,
  query: Readonly<Record<string, unknown>>,
): RowFilter => {
  const filter: Record<string, string | number> = {};
  for (const [parameter, { column, kind }] of Object.entries(filters)) {
    const value = query[parameter];
    if (typeof value === "string") filter[column] = kind === "text" ? value : Number(!isFalse(value));
  }
  return filter;
};

const filterSchema = <Name extends IdentifiedTable>({ filters }: Collection<Name>) => {
  const properties: Record<string, TSchema> = {};
  for (const parameter of Object.keys(filters)) properties[parameter] = Type.Optional(Type.String());
  return Type.Object(properties);
};

/** A list's answer in Keystone's shape. */
export const listBody = (plural: string, items: readonly object[], self: string): object => ({
  [plural]: items.slice(0, LIST_MAX),
  links: { next: null, previous: null, self },
  ...(items.length > LIST_MAX ? { truncated: true } : {}),
});

/** `GET /v3/<plural>` and `GET /v3/<plural>/:id`. */
export const collectionRoutes = <Name extends IdentifiedTable>(collection: Collection<Name>): IdentityRoute[] => {
  const { plural, singular } = collection;
  const idName = `${singular}_id`;
  const path = `/v3/${plural}`;
  return [
    guardedRoute({
      method: "GET",
      path,
      policy: collection.listPolicy,
      request: { query: filterSchema(collection) },
      handler: async (request, context) => {
        const base = baseUrl(request, context);
        const rows = await selectRows(context.database, plural, filterOf(collection, request.query));
        const items = rows.map((row) => presented(collection, row, base));
        return { status: 200, body: listBody(plural, items, `${base}/${plural}`) };
      },
    }),
    guardedRoute({
      method: "GET",
      path: `${path}/:${idName}`,
      policy: collection.showPolicy,
      request: { params: Type.Record(Type.String(), Type.String()) },
      target: (request) => collection.showTarget?.(request.params[idName] ?? "") ?? {},
      handler: async (request, context) => {
        const id = request.params[idName] ?? "";
        const [row] = await selectRows(context.database, plural, { id });
        if (row === undefined) throw notFound(singular, id);
        return { status: 200, body: { [singular]: presented(collection, row, baseUrl(request, context)) } };
      },
    }),
  ];
};
