import { randomUUID } from "node:crypto";
import { type Selectable, sql, type SqlBool } from "kysely";
import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { isForeignKeyViolation, isUniqueViolation } from "../../common/sql/sql-errors.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import { CONSISTENCY_TYPE_NAME } from "../core/consistency.ts";
import { consistencyTypeId } from "../store/groups.ts";
import { type Pairs, pairsOf, pairsOfAll, removePairs, writePairs } from "../store/pairs.ts";
import type { BlockDatabase, GroupTypesTable } from "../store/schema.ts";
import { type BlockContext, type BlockRoute, blockRoute, type Caller, mayDo, truthOf } from "./block-route.ts";
import { behindMarker, markerNotFound, nextLinks, orderOf, pageOf, parameter, queryOf } from "./list-parameters.ts";
import { descriptionSchema, uuidParams } from "./volume-fields.ts";

const SINCE = 11;
const params = uuidParams("group_type_id");
const itemParams = Type.Object({ group_type_id: Type.String(), spec_id: Type.String() });
const TABLE = "group_specs";
const SORT_COLUMNS = {
  id: { column: "id", kind: "text" },
  name: { column: "name", kind: "text" },
  created_at: { column: "created_at_ms", kind: "number" },
} as const;

export type GroupType = Selectable<GroupTypesTable>;

const typeNotFound = (id: string): Error => blockError("not-found", `Group type ${id} could not be found.`);

/** By id or name; private ones are administrators' alone. Throws `not-found`. */
export const visibleGroupType = async (
  database: BlockDatabase,
  caller: Caller,
  idOrName: string,
): Promise<GroupType> => {
  const found = await database
    .selectFrom("group_types")
    .selectAll()
    .where((where) => where.or([where("id", "=", idOrName), where("name", "=", idOrName)]))
    .execute();
  // An id that is also somebody's name means the id.
  const type = found.find(({ id }) => id === idOrName) ?? found[0];
  if (type === undefined || (type.is_public === 0 && !caller.isAdmin)) throw typeNotFound(idOrName);
  return type;
};

const shown = (context: BlockContext, caller: Caller, type: GroupType, specs: Pairs | undefined): object => ({
  id: type.id,
  name: type.name,
  description: type.description,
  is_public: type.is_public === 1,
  ...(mayDo(context, caller, "group:access_group_types_specs", caller.token.projectId)
    ? { group_specs: specs ?? {} }
    : {}),
});

const showOne = async (context: BlockContext, caller: Caller, type: GroupType, status = 200) => ({
  status,
  body: { group_type: shown(context, caller, type, await pairsOf(context.writer, TABLE, type.id)) },
});

const publicCondition = (query: Readonly<Record<string, unknown>>, { isAdmin }: Caller) => {
  const text = parameter(query, "is_public");
  if (isAdmin && text?.toLowerCase() === "none") return sql<SqlBool>`1 = 1`;
  const isPublic = text === undefined || !isAdmin ? true : truthOf(text);
  if (isPublic === undefined) throw blockError("bad-request", `Invalid is_public filter [${text}]`);
  return sql<SqlBool>`is_public = ${Number(isPublic)}`;
};

const list = async (request: HttpRequest, context: BlockContext, caller: Caller) => {
  const query = queryOf(request.query);
  const page = pageOf(query, SORT_COLUMNS, context.config.listLimit);
  let select = context.database.selectFrom("group_types").selectAll().where(publicCondition(query, caller));
  const name = parameter(query, "name");
  if (name !== undefined) select = select.where("name", "=", name);
  if (page.marker !== undefined) {
    const known = context.database.selectFrom("group_types").selectAll().where("id", "=", page.marker);
    const marker = await known.executeTakeFirst();
    if (marker === undefined) throw markerNotFound(page.marker);
    select = select.where(behindMarker(page.order, marker));
  }
  for (const { value, direction } of orderOf(page.order)) select = select.orderBy(value, direction);
  const types = await select.limit(page.limit).offset(page.offset).execute();
  const ids = types.map(({ id }) => id);
  const specs = await pairsOfAll(context.database, TABLE, ids);
  const last = ids.length === page.limit ? ids.at(-1) : undefined;
  return {
    status: 200,
    body: {
      group_types: types.map((type) => shown(context, caller, type, specs.get(type.id))),
      ...nextLinks("group_type", request, context, caller, last),
    },
  };
};

const nameSchema = Type.String({ minLength: 1, maxLength: 255, pattern: "\\S" });
const isPublic = Type.Optional(Type.Unknown());
const specsSchema = Type.Record(
  Type.String({ pattern: "^[a-zA-Z0-9_:. -]{1,255}$" }),
  Type.Union([Type.String({ maxLength: 255 }), Type.Null()]),
  { maxProperties: 128, additionalProperties: false },
);

const pairsIn = (specs: Readonly<Record<string, string | null>>): Pairs =>
  Object.fromEntries(Object.entries(specs).map(([key, value]) => [key, value ?? ""]));

const publicOf = (given: unknown): boolean | undefined => {
  if (given === undefined) return undefined;
  const truth = truthOf(given);
  if (truth === undefined) throw blockError("bad-request", "Invalid input for field/attribute is_public.");
  return truth;
};

const nameTaken = (thrown: unknown, name: string): unknown =>
  isUniqueViolation(thrown) ? blockError("conflict", `Group Type ${name} already exists.`) : thrown;

const reserved = (): Error =>
  blockError(
    "bad-request",
    `Group type ${CONSISTENCY_TYPE_NAME} is reserved for consistency groups: it is neither renamed nor deleted.`,
  );

/** Throws `not-found`, `bad-request`. */
const remove = async (context: BlockContext, id: string): Promise<void> => {
  if (id === (await consistencyTypeId(context.database))) throw reserved();
  try {
    const { numDeletedRows } = await withTransaction(context.writer, (transaction) =>
      transaction.deleteFrom("group_types").where("id", "=", id).executeTakeFirst(),
    );
    if (numDeletedRows === 0n) throw typeNotFound(id);
  } catch (thrown) {
    if (isForeignKeyViolation(thrown)) throw blockError("bad-request", "Target group type is still in use.");
    throw thrown;
  }
};

const update = async (context: BlockContext, type: GroupType): Promise<void> => {
  const { name, description, is_public: visible } = type;
  try {
    const change = context.writer.updateTable("group_types").set({ name, description, is_public: visible });
    await change.where("id", "=", type.id).execute();
  } catch (thrown) {
    throw nameTaken(thrown, name);
  }
};

const specNotFound = (typeId: string, key: string): Error =>
  blockError("not-found", `Group Type ${typeId} has no specs with key ${key}.`);

const TYPES: readonly BlockRoute[] = [
  ...blockRoute({ method: "GET", path: "/group_types", since: SINCE, request: {}, handler: list }),
  ...blockRoute({
    method: "GET",
    path: "/group_types/:group_type_id",
    since: SINCE,
    request: { params },
    handler: async (request, context, caller) =>
      showOne(context, caller, await visibleGroupType(context.database, caller, request.params.group_type_id)),
  }),
  ...blockRoute({
    method: "POST",
    path: "/group_types",
    since: SINCE,
    request: {
      body: Type.Object({
        group_type: Type.Object({
          name: nameSchema,
          description: descriptionSchema,
          is_public: isPublic,
          group_specs: Type.Optional(specsSchema),
        }),
      }),
    },
    operation: "group:group_types:create",
    handler: async (request, context, caller) => {
      const { group_type: wanted } = request.body;
      const type: GroupType = {
        id: randomUUID(),
        name: wanted.name.trim(),
        description: wanted.description ?? null,
        is_public: Number(publicOf(wanted.is_public) ?? true),
        created_at_ms: context.clock.nowMs(),
      };
      try {
        await withTransaction(context.writer, async (transaction) => {
          await transaction.insertInto("group_types").values(type).execute();
          await writePairs(transaction, TABLE, type.id, pairsIn(wanted.group_specs ?? {}), true);
        });
      } catch (thrown) {
        throw nameTaken(thrown, type.name);
      }
      return showOne(context, caller, type, 202);
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/group_types/:group_type_id",
    since: SINCE,
    request: {
      params,
      body: Type.Object({
        group_type: Type.Object({
          name: Type.Optional(nameSchema),
          description: descriptionSchema,
          is_public: isPublic,
        }),
      }),
    },
    operation: "group:group_types:update",
    handler: async (request, context, caller) => {
      const { group_type: change } = request.body;
      const type = await visibleGroupType(context.writer, caller, request.params.group_type_id);
      const visible = publicOf(change.is_public);
      if (change.name === undefined && change.description === undefined && visible === undefined)
        throw blockError("bad-request", "Specify group type name, description, is_public or a combination thereof.");
      const changed: GroupType = {
        ...type,
        name: change.name?.trim() ?? type.name,
        description: change.description === undefined ? type.description : change.description,
        is_public: visible === undefined ? type.is_public : Number(visible),
      };
      if (type.name === CONSISTENCY_TYPE_NAME && changed.name !== type.name) throw reserved();
      await update(context, changed);
      return showOne(context, caller, changed);
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/group_types/:group_type_id",
    since: SINCE,
    request: { params },
    operation: "group:group_types:delete",
    handler: async (request, context) => {
      await remove(context, request.params.group_type_id);
      return { status: 202 };
    },
  }),
  // Cinder has none: whatever is named is not there.
  ...blockRoute({
    method: "POST",
    path: "/group_types/:group_type_id/action",
    since: SINCE,
    request: { params, body: Type.Record(Type.String(), Type.Unknown()) },
    handler: async (request, context, caller) => {
      const { id } = await visibleGroupType(context.database, caller, request.params.group_type_id);
      const [name = ""] = Object.keys(request.body);
      throw blockError("bad-request", `There is no such action of group type ${id}: ${name.slice(0, 100)}`);
    },
  }),
];

const SPECS: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/group_types/:group_type_id/group_specs",
    since: SINCE,
    request: { params },
    operation: "group:group_types_specs:get_all",
    handler: async (request, context, caller) => {
      const { id } = await visibleGroupType(context.database, caller, request.params.group_type_id);
      return { status: 200, body: { group_specs: await pairsOf(context.database, TABLE, id) } };
    },
  }),
  ...blockRoute({
    method: "POST",
    path: "/group_types/:group_type_id/group_specs",
    since: SINCE,
    request: { params, body: Type.Object({ group_specs: specsSchema }) },
    operation: "group:group_types_specs:create",
    handler: async (request, context, caller) => {
      const { id } = await visibleGroupType(context.database, caller, request.params.group_type_id);
      const specs = pairsIn(request.body.group_specs);
      await withTransaction(context.writer, (transaction) => writePairs(transaction, TABLE, id, specs, false));
      return { status: 202, body: request.body };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/group_types/:group_type_id/group_specs/:spec_id",
    since: SINCE,
    request: { params: itemParams },
    operation: "group:group_types_specs:get",
    handler: async (request, context, caller) => {
      const { group_type_id: typeId, spec_id: key } = request.params;
      const { id } = await visibleGroupType(context.database, caller, typeId);
      const specs = await pairsOf(context.database, TABLE, id);
      if (!Object.hasOwn(specs, key)) throw specNotFound(id, key);
      return { status: 200, body: { [key]: specs[key] } };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/group_types/:group_type_id/group_specs/:spec_id",
    since: SINCE,
    request: { params: itemParams, body: specsSchema },
    operation: "group:group_types_specs:update",
    handler: async (request, context, caller) => {
      const { group_type_id: typeId, spec_id: key } = request.params;
      const keys = Object.keys(request.body);
      if (keys.length !== 1 || keys[0] !== key) throw blockError("bad-request", "Request body and URI mismatch.");
      const { id } = await visibleGroupType(context.database, caller, typeId);
      const specs = pairsIn(request.body);
      await withTransaction(context.writer, (transaction) => writePairs(transaction, TABLE, id, specs, false));
      return { status: 200, body: request.body };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/group_types/:group_type_id/group_specs/:spec_id",
    since: SINCE,
    request: { params: itemParams },
    operation: "group:group_types_specs:delete",
    handler: async (request, context, caller) => {
      const { group_type_id: typeId, spec_id: key } = request.params;
      const { id } = await visibleGroupType(context.database, caller, typeId);
      if ((await removePairs(context.writer, TABLE, id, [key])) === 0) throw specNotFound(id, key);
      return { status: 202 };
    },
  }),
];

/** Kinds of groups, with what they ask of back-ends. */
export const GROUP_TYPE_ROUTES: readonly BlockRoute[] = [...TYPES, ...SPECS];
