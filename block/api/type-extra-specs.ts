import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import { specsOf, writeExtraSpecs } from "../store/volume-types.ts";
import { type BlockRoute, blockRoute } from "./block-route.ts";
import { uuidParams } from "./volume-fields.ts";
import { extraSpecsSchema, visibleSpecs, visibleType } from "./volume-types.ts";

const params = uuidParams("type_id");
const itemParams = Type.Object({ type_id: Type.String(), key: Type.String() });
const POLICY = "volume_extension:types_extra_specs";

const keyNotFound = (typeId: string, key: string): Error =>
  blockError("not-found", `Volume Type ${typeId} has no extra specs with key ${key}.`);

export const TYPE_EXTRA_SPEC_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/types/:type_id/extra_specs",
    request: { params },
    operation: `${POLICY}:index`,
    handler: async (request, context, caller) => {
      const type = await visibleType(context.database, caller, request.params.type_id);
      const specs = await specsOf(context.database, type.id);
      return { status: 200, body: { extra_specs: visibleSpecs(context, caller, specs) } };
    },
  }),
  ...blockRoute({
    method: "POST",
    path: "/types/:type_id/extra_specs",
    request: { params, body: Type.Object({ extra_specs: extraSpecsSchema }) },
    operation: `${POLICY}:create`,
    handler: async (request, context, caller) => {
      const type = await visibleType(context.database, caller, request.params.type_id);
      const { extra_specs: specs } = request.body;
      await withTransaction(context.writer, (transaction) => writeExtraSpecs(transaction, type.id, specs));
      return { status: 200, body: { extra_specs: specs } };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/types/:type_id/extra_specs/:key",
    request: { params: itemParams },
    operation: `${POLICY}:show`,
    handler: async (request, context, caller) => {
      const { type_id: id, key } = request.params;
      const type = await visibleType(context.database, caller, id);
      const specs = visibleSpecs(context, caller, await specsOf(context.database, type.id));
      if (!Object.hasOwn(specs, key)) throw keyNotFound(id, key);
      return { status: 200, body: { [key]: specs[key] } };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/types/:type_id/extra_specs/:key",
    request: { params: itemParams, body: extraSpecsSchema },
    operation: `${POLICY}:update`,
    handler: async (request, context, caller) => {
      const { type_id: id, key } = request.params;
      const keys = Object.keys(request.body);
      if (keys.length !== 1 || keys[0] !== key) throw blockError("bad-request", "Request body and URI mismatch.");
      const type = await visibleType(context.database, caller, id);
      await withTransaction(context.writer, (transaction) => writeExtraSpecs(transaction, type.id, request.body));
      return { status: 200, body: request.body };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/types/:type_id/extra_specs/:key",
    request: { params: itemParams },
    operation: `${POLICY}:delete`,
    handler: async (request, context, caller) => {
      const { type_id: id, key } = request.params;
      const type = await visibleType(context.database, caller, id);
      const { numDeletedRows } = await context.writer
        .deleteFrom("type_extra_specs")
        .where("volume_type_id", "=", type.id)
        .where("key", "=", key)
        .executeTakeFirst();
      if (numDeletedRows === 0n) throw keyNotFound(id, key);
      return { status: 202 };
    },
  }),
];
