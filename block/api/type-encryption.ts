import { randomUUID } from "node:crypto";
import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import type { BlockTransaction } from "../store/schema.ts";
import { encryptionOf, type TypeEncryption } from "../store/type-parts.ts";
import { type BlockRoute, blockRoute, enforce, visibleVolume } from "./block-route.ts";
import { uuidParams } from "./volume-fields.ts";
import { visibleType } from "./volume-types.ts";

const POLICY = "volume_extension:volume_type_encryption";
const KEY_BITS_MAX = 2_147_483_647;
const params = uuidParams("type_id");
const itemParams = Type.Object({ type_id: Type.String(), encryption_id: Type.String() });

const provider = Type.String({ minLength: 1, maxLength: 255 });
const controlLocation = Type.Union([Type.Literal("front-end"), Type.Literal("back-end")]);
const choices = {
  cipher: Type.Optional(Type.Union([Type.String({ maxLength: 255 }), Type.Null()])),
  key_size: Type.Optional(Type.Union([Type.Integer({ minimum: 0, maximum: KEY_BITS_MAX }), Type.Null()])),
};

const shown = (row: TypeEncryption) => ({
  volume_type_id: row.volume_type_id,
  encryption_id: row.encryption_id,
  provider: row.provider,
  cipher: row.cipher,
  key_size: row.key_size,
  control_location: row.control_location,
});

/** What volumes have been promised cannot be changed under them. Throws `bad-request`. */
const assertUnused = async (transaction: BlockTransaction, typeId: string, what: string): Promise<void> => {
  const used = await transaction
    .selectFrom("volumes")
    .select("id")
    .where("volume_type_id", "=", typeId)
    .limit(1)
    .executeTakeFirst();
  if (used !== undefined) throw blockError("bad-request", `Cannot ${what} encryption specs. Volume type in use.`);
};

const noEncryption = (typeId: string): Error =>
  blockError("not-found", `Volume type encryption for type ${typeId} does not exist.`);

/** How volumes of a type are to be encrypted: a record, since volumes of such a type cannot be made here yet. */
export const TYPE_ENCRYPTION_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/types/:type_id/encryption",
    request: { params },
    operation: `${POLICY}:get`,
    handler: async (request, { database }, caller) => {
      const { id } = await visibleType(database, caller, request.params.type_id);
      const row = await encryptionOf(database, id);
      return { status: 200, body: row === undefined ? {} : shown(row) };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/types/:type_id/encryption/:encryption_id",
    request: { params: itemParams },
    operation: `${POLICY}:get`,
    handler: async (request, { database }, caller) => {
      const { type_id: typeId, encryption_id: key } = request.params;
      const { id } = await visibleType(database, caller, typeId);
      const row = await encryptionOf(database, id);
      const fields: Readonly<Record<string, unknown>> = row === undefined ? {} : shown(row);
      if (!Object.hasOwn(fields, key)) throw noEncryption(id);
      return { status: 200, body: { [key]: fields[key] } };
    },
  }),
  ...blockRoute({
    method: "POST",
    path: "/types/:type_id/encryption",
    request: {
      params,
      body: Type.Object({ encryption: Type.Object({ provider, control_location: controlLocation, ...choices }) }),
    },
    operation: `${POLICY}:create`,
    handler: async (request, context, caller) => {
      const { encryption: wanted } = request.body;
      const { id } = await visibleType(context.database, caller, request.params.type_id);
      const row: TypeEncryption = {
        volume_type_id: id,
        encryption_id: randomUUID(),
        provider: wanted.provider,
        cipher: wanted.cipher ?? null,
        key_size: wanted.key_size ?? null,
        control_location: wanted.control_location,
        created_at_ms: context.clock.nowMs(),
      };
      await withTransaction(context.writer, async (transaction) => {
        if ((await encryptionOf(transaction, id)) !== undefined)
          throw blockError("bad-request", `Volume type encryption for type ${id} already exists.`);
        await assertUnused(transaction, id, "create");
        await transaction.insertInto("type_encryption").values(row).execute();
      });
      return { status: 200, body: { encryption: shown(row) } };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/types/:type_id/encryption/:encryption_id",
    request: {
      params: itemParams,
      body: Type.Object({
        encryption: Type.Object({
          provider: Type.Optional(provider),
          control_location: Type.Optional(controlLocation),
          ...choices,
        }),
      }),
    },
    operation: `${POLICY}:update`,
    handler: async (request, context, caller) => {
      const { encryption: change } = request.body;
      const { id } = await visibleType(context.database, caller, request.params.type_id);
      await withTransaction(context.writer, async (transaction) => {
        const row = await encryptionOf(transaction, id);
        // A type has one: as in Cinder it is not looked at what the path calls it.
        if (row === undefined) throw noEncryption(id);
        await assertUnused(transaction, id, "update");
        const values = {
          provider: change.provider ?? row.provider,
          control_location: change.control_location ?? row.control_location,
          cipher: change.cipher === undefined ? row.cipher : change.cipher,
          key_size: change.key_size === undefined ? row.key_size : change.key_size,
        };
        await transaction.updateTable("type_encryption").set(values).where("volume_type_id", "=", id).execute();
      });
      return { status: 200, body: request.body };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/types/:type_id/encryption/:encryption_id",
    request: { params: itemParams },
    operation: `${POLICY}:delete`,
    handler: async (request, context, caller) => {
      const { id } = await visibleType(context.database, caller, request.params.type_id);
      await withTransaction(context.writer, async (transaction) => {
        if ((await encryptionOf(transaction, id)) === undefined) throw noEncryption(id);
        await assertUnused(transaction, id, "delete");
        await transaction.deleteFrom("type_encryption").where("volume_type_id", "=", id).execute();
      });
      return { status: 202 };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/volumes/:volume_id/encryption",
    request: { params: uuidParams("volume_id") },
    handler: async (request, context, caller) => {
      const volume = await visibleVolume(context.database, caller, request.params.volume_id);
      enforce(context, caller, "volume_extension:volume_encryption_metadata", volume.project_id);
      return { status: 200, body: { encryption_key_id: null } };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/volumes/:volume_id/encryption/:key",
    request: { params: Type.Object({ volume_id: Type.String(), key: Type.String() }) },
    handler: async (request, context, caller) => {
      const { volume_id: id, key } = request.params;
      const volume = await visibleVolume(context.database, caller, id);
      enforce(context, caller, "volume_extension:volume_encryption_metadata", volume.project_id);
      if (key !== "encryption_key_id") throw notFound(`Volume ${id} has no encryption metadata with key`, key);
      return { status: 200, body: { encryption_key_id: null } };
    },
  }),
];
