import { randomUUID } from "node:crypto";
import { Type } from "typebox";
import { isUniqueViolation } from "../../common/sql/sql-errors.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { type Pairs, pairsOf, pairsOfAll, removePairs, writePairs } from "../store/pairs.ts";
import type { BlockDatabase } from "../store/schema.ts";
import type { QosSpecs } from "../store/type-parts.ts";
import { baseUrl, type BlockContext, type BlockRoute, blockRoute, type Caller, truthOf } from "./block-route.ts";
import { parameter, queryOf } from "./list-parameters.ts";
import { uuidParams } from "./volume-fields.ts";
import type { HttpRequest } from "../../common/http/route.ts";
import { visibleType } from "./volume-types.ts";

const POLICY = "volume_extension:qos_specs_manage";
const TABLE = "qos_spec_pairs";
const params = uuidParams("qos_id");
const CONSUMERS = ["front-end", "back-end", "both"] as const;
const consumer = Type.Optional(Type.Enum([...CONSUMERS]));

/** Numbers are kept as the texts that clients would have sent. */
const specValue = Type.Union([Type.String({ maxLength: 255 }), Type.Number()]);
const bodyOf = (fields: object) =>
  Type.Object({
    qos_specs: Type.Intersect([
      Type.Object({ ...fields, consumer }),
      Type.Record(Type.String({ pattern: "^[\\s\\S]{1,255}$" }), specValue, { maxProperties: 64 }),
    ]),
  });

const find = async (database: BlockDatabase, id: string): Promise<QosSpecs> => {
  const found = await database.selectFrom("qos_specs").selectAll().where("id", "=", id).executeTakeFirst();
  if (found === undefined) throw blockError("not-found", `No such qos spec ${id}.`);
  return found;
};

const shown = ({ id, name, consumer: who }: QosSpecs, specs: Pairs): object => ({ id, name, consumer: who, specs });

const withLinks = (request: HttpRequest, context: BlockContext, caller: Caller, specs: QosSpecs, pairs: Pairs) => {
  const base = baseUrl(request, context, caller);
  return {
    status: 200,
    body: {
      qos_specs: shown(specs, pairs),
      links: [
        { rel: "self", href: `${base}/qos_specs/${specs.id}` },
        { rel: "bookmark", href: `${base.replace("/v3", "")}/qos_specs/${specs.id}` },
      ],
    },
  };
};

const pairsIn = (given: Readonly<Record<string, unknown>>): Pairs =>
  Object.fromEntries(
    Object.entries(given)
      .filter(([key]) => key !== "name" && key !== "consumer")
      .map(([key, value]) => [key, String(value)]),
  );

const associated = (database: BlockDatabase, id: string) =>
  database.selectFrom("volume_types").select(["id", "name"]).where("qos_specs_id", "=", id).orderBy("name").execute();

const create = async (context: BlockContext, specs: QosSpecs, pairs: Pairs): Promise<void> => {
  try {
    await withTransaction(context.writer, async (transaction) => {
      await transaction.insertInto("qos_specs").values(specs).execute();
      await writePairs(transaction, TABLE, specs.id, pairs, true);
    });
  } catch (thrown) {
    if (isUniqueViolation(thrown)) throw blockError("conflict", `QoS Specs ${specs.name} already exists.`);
    throw thrown;
  }
};

const typeParameter = (request: HttpRequest): string => {
  const id = parameter(queryOf(request.query), "vol_type_id");
  if (id === undefined || id === "") throw blockError("bad-request", "Volume Type id must not be None.");
  return id;
};

const associate = (context: BlockContext, id: string, typeId: string): Promise<void> =>
  withTransaction(context.writer, async (transaction) => {
    await find(transaction, id);
    const type = await transaction
      .selectFrom("volume_types")
      .select("qos_specs_id")
      .where("id", "=", typeId)
      .executeTakeFirst();
    if (type === undefined) throw notFound("Volume type", typeId);
    if (type.qos_specs_id !== null && type.qos_specs_id !== id)
      throw blockError(
        "bad-request",
        `Invalid volume type: Type ${typeId} is already associated with another qos specs: ${type.qos_specs_id}`,
      );
    await transaction.updateTable("volume_types").set({ qos_specs_id: id }).where("id", "=", typeId).execute();
  });

/** Takes the specs from one type, or from all that have them. */
const disassociate = (context: BlockContext, id: string, typeId: string | undefined): Promise<void> =>
  withTransaction(context.writer, async (transaction) => {
    await find(transaction, id);
    const change = transaction.updateTable("volume_types").set({ qos_specs_id: null }).where("qos_specs_id", "=", id);
    await (typeId === undefined ? change : change.where("id", "=", typeId)).execute();
  });

const remove = (context: BlockContext, id: string, isForced: boolean): Promise<void> =>
  withTransaction(context.writer, async (transaction) => {
    await find(transaction, id);
    const types = await associated(transaction, id);
    if (types.length > 0 && !isForced) throw blockError("bad-request", "Qos specs still in use.");
    await transaction.updateTable("volume_types").set({ qos_specs_id: null }).where("qos_specs_id", "=", id).execute();
    await transaction.deleteFrom("qos_specs").where("id", "=", id).execute();
  });

/** Limits of volumes, and the types whose volumes have them. */
export const QOS_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/qos-specs",
    request: {},
    operation: `${POLICY}:get_all`,
    handler: async (_request, { database }) => {
      const all = await database.selectFrom("qos_specs").selectAll().orderBy("created_at_ms").orderBy("id").execute();
      const ids = all.map(({ id }) => id);
      const pairs = await pairsOfAll(database, TABLE, ids);
      return { status: 200, body: { qos_specs: all.map((one) => shown(one, pairs.get(one.id) ?? {})) } };
    },
  }),
  ...blockRoute({
    method: "POST",
    path: "/qos-specs",
    request: { body: bodyOf({ name: Type.String({ minLength: 1, maxLength: 255, pattern: "\\S" }) }) },
    operation: `${POLICY}:create`,
    handler: async (request, context, caller) => {
      const given: Readonly<Record<string, unknown>> = request.body.qos_specs;
      const specs: QosSpecs = {
        id: randomUUID(),
        name: String(given["name"]).trim(),
        consumer: CONSUMERS.find((one) => one === given["consumer"]) ?? "back-end",
        created_at_ms: context.clock.nowMs(),
      };
      const pairs = pairsIn(given);
      await create(context, specs, pairs);
      return withLinks(request, context, caller, specs, pairs);
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/qos-specs/:qos_id",
    request: { params },
    operation: `${POLICY}:get`,
    handler: async (request, context, caller) => {
      const specs = await find(context.database, request.params.qos_id);
      return withLinks(request, context, caller, specs, await pairsOf(context.database, TABLE, specs.id));
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/qos-specs/:qos_id",
    request: { params, body: bodyOf({}) },
    operation: `${POLICY}:update`,
    handler: async (request, context) => {
      const { qos_id: id } = request.params;
      const given: Readonly<Record<string, unknown>> = request.body.qos_specs;
      const found = CONSUMERS.find((one) => one === given["consumer"]);
      await withTransaction(context.writer, async (transaction) => {
        await find(transaction, id);
        if (found !== undefined)
          await transaction.updateTable("qos_specs").set({ consumer: found }).where("id", "=", id).execute();
        await writePairs(transaction, TABLE, id, pairsIn(given), false);
      });
      return { status: 200, body: request.body };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/qos-specs/:qos_id/delete_keys",
    request: { params, body: Type.Object({ keys: Type.Array(Type.String(), { maxItems: 64 }) }) },
    operation: `${POLICY}:delete`,
    handler: async (request, context) => {
      const { qos_id: id } = request.params;
      await withTransaction(context.writer, async (transaction) => {
        await find(transaction, id);
        for (const key of request.body.keys)
          if ((await removePairs(transaction, TABLE, id, [key])) === 0)
            throw blockError("bad-request", `QoS Specs ${id} has no spec with key ${key.slice(0, 255)}.`);
      });
      return { status: 202 };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/qos-specs/:qos_id",
    request: { params },
    operation: `${POLICY}:delete`,
    handler: async (request, context) => {
      const isForced = truthOf(parameter(queryOf(request.query), "force") ?? "false") === true;
      await remove(context, request.params.qos_id, isForced);
      return { status: 202 };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/qos-specs/:qos_id/associations",
    request: { params },
    operation: `${POLICY}:get_all`,
    handler: async (request, { database }) => {
      const { id } = await find(database, request.params.qos_id);
      const types = await associated(database, id);
      const associations = types.map((type) => ({ association_type: "volume_type", ...type }));
      return { status: 200, body: { qos_associations: associations } };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/qos-specs/:qos_id/associate",
    request: { params },
    operation: `${POLICY}:update`,
    handler: async (request, context) => {
      await associate(context, request.params.qos_id, typeParameter(request));
      return { status: 202 };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/qos-specs/:qos_id/disassociate",
    request: { params },
    operation: `${POLICY}:update`,
    handler: async (request, context, caller) => {
      const { id } = await visibleType(context.database, caller, typeParameter(request));
      await disassociate(context, request.params.qos_id, id);
      return { status: 202 };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/qos-specs/:qos_id/disassociate_all",
    request: { params },
    operation: `${POLICY}:update`,
    handler: async (request, context) => {
      await disassociate(context, request.params.qos_id, undefined);
      return { status: 202 };
    },
  }),
];
