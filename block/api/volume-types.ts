import { randomUUID } from "node:crypto";
import { sql, type SqlBool } from "kysely";
import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { isForeignKeyViolation, isUniqueViolation } from "../../common/sql/sql-errors.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import type { BlockDatabase } from "../store/schema.ts";
import { extraSpecsOf, findType, type VolumeType, writeExtraSpecs } from "../store/volume-types.ts";
import { type BlockContext, type BlockRoute, blockRoute, type Caller, mayDo, truthOf } from "./block-route.ts";
import {
  behindMarker,
  markerNotFound,
  nextLinks,
  orderOf,
  pageOf,
  parameter,
  queryOf,
  type SortColumn,
} from "./list-parameters.ts";
import { descriptionSchema, uuidParams } from "./volume-fields.ts";

const SORT_COLUMNS: Readonly<Record<string, SortColumn>> = {
  id: { column: "id", kind: "text" },
  name: { column: "name", kind: "text" },
  created_at: { column: "created_at_ms", kind: "number" },
};

/** Extra specs that users need to see; all others are between administrators and back-ends. */
const USER_VISIBLE = ["RESKEY:availability_zones", "multiattach", "replication_enabled"];

export const extraSpecsSchema = Type.Record(
  Type.String({ pattern: "^[a-zA-Z0-9_:. -]{1,255}$" }),
  Type.String({ maxLength: 255 }),
  { maxProperties: 128, additionalProperties: false },
);

export const visibleSpecs = (
  context: BlockContext,
  caller: Caller,
  specs: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> => {
  if (mayDo(context, caller, "volume_extension:types_extra_specs:read_sensitive", caller.token.projectId)) return specs;
  return Object.fromEntries(Object.entries(specs).filter(([key]) => USER_VISIBLE.includes(key)));
};

/** The type, if the caller may use it. Throws `not-found`. */
export const visibleType = async (database: BlockDatabase, caller: Caller, id: string): Promise<VolumeType> => {
  const type = await findType(database, id, caller.isAdmin ? undefined : (caller.token.projectId ?? ""));
  if (type === undefined || type.id !== id) throw notFound("Volume type", id);
  return type;
};

const shownType = (
  context: BlockContext,
  caller: Caller,
  type: VolumeType,
  specs: Readonly<Record<string, string>> | undefined,
): Readonly<Record<string, unknown>> => {
  const projectId = caller.token.projectId;
  return {
    id: type.id,
    name: type.name,
    description: type.description,
    is_public: type.is_public === 1,
    "os-volume-type-access:is_public": type.is_public === 1,
    ...(mayDo(context, caller, "volume_extension:access_types_extra_specs", projectId)
      ? { extra_specs: visibleSpecs(context, caller, specs ?? {}) }
      : {}),
    ...(mayDo(context, caller, "volume_extension:access_types_qos_specs_id", projectId)
      ? { qos_specs_id: type.qos_specs_id }
      : {}),
  };
};

/** What the answers of create and update leave out, as clients' schemas of them say. */
const UNSAID: Readonly<Record<"show" | "create" | "update", readonly string[]>> = {
  show: [],
  create: ["qos_specs_id"],
  update: ["qos_specs_id", "os-volume-type-access:is_public"],
};

const showOne = async (context: BlockContext, caller: Caller, type: VolumeType, as: keyof typeof UNSAID = "show") => {
  const specs = await extraSpecsOf(context.writer, [type.id]);
  const shown = Object.entries(shownType(context, caller, type, specs.get(type.id)));
  const said = Object.fromEntries(shown.filter(([key]) => !UNSAID[as].includes(key)));
  return { status: 200, body: { volume_type: said } };
};

/** Public types, and for others than administrators those that their project was given. `is_public=None`: administrators see all. */
const publicCondition = (query: Readonly<Record<string, unknown>>, { isAdmin, token }: Caller) => {
  if (!isAdmin)
    return sql<SqlBool>`(is_public = 1 OR id IN (SELECT volume_type_id FROM type_access WHERE project_id = ${token.projectId ?? ""}))`;
  const text = parameter(query, "is_public");
  if (text?.toLowerCase() === "none") return sql<SqlBool>`1 = 1`;
  const isPublic = text === undefined ? true : truthOf(text);
  if (isPublic === undefined) throw blockError("bad-request", `Invalid is_public filter [${text}]`);
  return sql<SqlBool>`is_public = ${Number(isPublic)}`;
};

const list = async (request: HttpRequest, context: BlockContext, caller: Caller) => {
  const query = queryOf(request.query);
  const page = pageOf(query, SORT_COLUMNS, context.config.listLimit);
  let select = context.database.selectFrom("volume_types").selectAll().where(publicCondition(query, caller));
  const name = parameter(query, "name");
  if (name !== undefined) select = select.where("name", "=", name);
  if (page.marker !== undefined) {
    const marker = await visibleType(context.database, caller, page.marker).catch(() => undefined);
    if (marker === undefined) throw markerNotFound(page.marker);
    select = select.where(behindMarker(page.order, marker));
  }
  for (const { value, direction } of orderOf(page.order)) select = select.orderBy(value, direction);
  const types = await select.limit(page.limit).offset(page.offset).execute();
  const specs = await extraSpecsOf(
    context.database,
    types.map(({ id }) => id),
  );
  const last = types.length === page.limit ? types.at(-1)?.id : undefined;
  return {
    status: 200,
    body: {
      volume_types: types.map((type) => shownType(context, caller, type, specs.get(type.id))),
      ...nextLinks("volume_type", request, context, caller, last),
    },
  };
};

const nameSchema = Type.String({ minLength: 1, maxLength: 255, pattern: "\\S" });
const fields = {
  description: descriptionSchema,
  is_public: Type.Optional(Type.Unknown()),
  "os-volume-type-access:is_public": Type.Optional(Type.Unknown()),
};

const isPublicOf = (body: Readonly<Record<string, unknown>>): boolean | undefined => {
  const given = body["os-volume-type-access:is_public"] ?? body["is_public"];
  if (given === undefined) return undefined;
  const truth = truthOf(given);
  if (truth === undefined) throw blockError("bad-request", "Invalid input for field/attribute is_public.");
  return truth;
};

const nameTaken = (thrown: unknown, name: string): unknown =>
  isUniqueViolation(thrown) ? blockError("conflict", `Volume Type ${name} already exists.`) : thrown;

const create = async (context: BlockContext, type: VolumeType, specs: Readonly<Record<string, string>>) => {
  try {
    await withTransaction(context.writer, async (transaction) => {
      await transaction.insertInto("volume_types").values(type).execute();
      await writeExtraSpecs(transaction, type.id, specs);
    });
  } catch (thrown) {
    throw nameTaken(thrown, type.name);
  }
};

const remove = async (context: BlockContext, type: VolumeType): Promise<void> => {
  if (type.name === context.config.defaultVolumeType)
    throw blockError(
      "bad-request",
      `The request cannot be fulfilled as the default volume type ${type.name} cannot be deleted.`,
    );
  try {
    await withTransaction(context.writer, async (transaction) => {
      await transaction.deleteFrom("volume_types").where("id", "=", type.id).execute();
    });
  } catch (thrown) {
    if (isForeignKeyViolation(thrown)) throw blockError("bad-request", "Target volume type is still in use.");
    throw thrown;
  }
};

export const VOLUME_TYPE_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/types",
    request: {},
    operation: "volume_extension:type_get_all",
    handler: list,
  }),
  ...blockRoute({
    method: "GET",
    path: "/types/:type_id",
    request: { params: uuidParams("type_id") },
    operation: "volume_extension:type_get",
    handler: async (request, context, caller) => {
      const { type_id: id } = request.params;
      const own = caller.isAdmin ? undefined : (caller.token.projectId ?? "");
      const type =
        id === "default"
          ? await findType(context.database, context.config.defaultVolumeType, own)
          : await visibleType(context.database, caller, id);
      if (type === undefined) throw blockError("not-found", "Default volume type can not be found.");
      return showOne(context, caller, type);
    },
  }),
  ...blockRoute({
    method: "POST",
    path: "/types",
    request: {
      body: Type.Object({
        volume_type: Type.Object({ ...fields, name: nameSchema, extra_specs: Type.Optional(extraSpecsSchema) }),
      }),
    },
    operation: "volume_extension:type_create",
    handler: async (request, context, caller) => {
      const { volume_type: wanted } = request.body;
      const type: VolumeType = {
        id: randomUUID(),
        name: wanted.name.trim(),
        description: wanted.description ?? null,
        is_public: Number(isPublicOf(wanted) ?? true),
        created_at_ms: context.clock.nowMs(),
        qos_specs_id: null,
      };
      await create(context, type, wanted.extra_specs ?? {});
      return showOne(context, caller, type, "create");
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/types/:type_id",
    request: {
      params: uuidParams("type_id"),
      body: Type.Object({ volume_type: Type.Object({ ...fields, name: Type.Optional(nameSchema) }) }),
    },
    operation: "volume_extension:type_update",
    handler: async (request, context, caller) => {
      const type = await visibleType(context.writer, caller, request.params.type_id);
      const { volume_type: change } = request.body;
      const isPublic = isPublicOf(change);
      if (change.name === undefined && change.description === undefined && isPublic === undefined)
        throw blockError("bad-request", "Specify volume type name, description, is_public or a combination thereof.");
      const values = {
        name: change.name?.trim() ?? type.name,
        description: change.description === undefined ? type.description : change.description,
        is_public: isPublic === undefined ? type.is_public : Number(isPublic),
      };
      try {
        await context.writer.updateTable("volume_types").set(values).where("id", "=", type.id).execute();
      } catch (thrown) {
        throw nameTaken(thrown, values.name);
      }
      return showOne(context, caller, { ...type, ...values }, "update");
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/types/:type_id",
    request: { params: uuidParams("type_id") },
    operation: "volume_extension:type_delete",
    handler: async (request, context, caller) => {
      await remove(context, await visibleType(context.writer, caller, request.params.type_id));
      return { status: 202 };
    },
  }),
];
