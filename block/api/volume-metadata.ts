import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { metadataOf, volumeForChange, writeMetadata } from "../store/volumes.ts";
import { type BlockContext, type BlockRoute, blockRoute, enforce, visibleVolume } from "./block-route.ts";
import { checkMetadataCount, metadataSchema, uuidParams } from "./volume-fields.ts";

type Metadata = Readonly<Record<string, string>>;

const params = uuidParams("volume_id");
const itemParams = Type.Object({ volume_id: Type.String(), key: Type.String() });

/** Writes pairs beside those that are there, or in their place; resolves with all that there are then. */
const write = (context: BlockContext, id: string, change: Metadata, isWhole: boolean): Promise<Metadata> =>
  withTransaction(context.writer, async (transaction) => {
    await volumeForChange(transaction, id);
    await writeMetadata(transaction, id, change, isWhole);
    const all = await metadataOf(transaction, id);
    checkMetadataCount(all);
    return all;
  });

const keyNotFound = (id: string, key: string): Error => notFound(`Volume ${id} has no metadata with key`, key);

export const VOLUME_METADATA_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/volumes/:volume_id/metadata",
    request: { params },
    handler: async (request, context, caller) => {
      const volume = await visibleVolume(context.database, caller, request.params.volume_id);
      enforce(context, caller, "volume:get_volume_metadata", volume.project_id);
      return { status: 200, body: { metadata: await metadataOf(context.database, volume.id) } };
    },
  }),
  ...(["POST", "PUT"] as const).flatMap((method) =>
    blockRoute({
      method,
      path: "/volumes/:volume_id/metadata",
      request: { params, body: Type.Object({ metadata: metadataSchema }) },
      handler: async (request, context, caller) => {
        const volume = await visibleVolume(context.database, caller, request.params.volume_id);
        enforce(
          context,
          caller,
          `volume:${method === "POST" ? "create" : "update"}_volume_metadata`,
          volume.project_id,
        );
        const metadata = await write(context, volume.id, request.body.metadata, method === "PUT");
        return { status: 200, body: { metadata } };
      },
    }),
  ),
  ...blockRoute({
    method: "GET",
    path: "/volumes/:volume_id/metadata/:key",
    request: { params: itemParams },
    handler: async (request, context, caller) => {
      const { volume_id: id, key } = request.params;
      const volume = await visibleVolume(context.database, caller, id);
      enforce(context, caller, "volume:get_volume_metadata", volume.project_id);
      const metadata = await metadataOf(context.database, id);
      if (!Object.hasOwn(metadata, key)) throw keyNotFound(id, key);
      return { status: 200, body: { meta: { [key]: metadata[key] } } };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/volumes/:volume_id/metadata/:key",
    request: { params: itemParams, body: Type.Object({ meta: metadataSchema }) },
    handler: async (request, context, caller) => {
      const { volume_id: id, key } = request.params;
      const { meta } = request.body;
      const volume = await visibleVolume(context.database, caller, id);
      enforce(context, caller, "volume:update_volume_metadata", volume.project_id);
      const keys = Object.keys(meta);
      if (keys.length !== 1) throw blockError("bad-request", "Request body contains too many items.");
      if (keys[0] !== key) throw blockError("bad-request", "Request body and URI mismatch.");
      await write(context, id, meta, false);
      return { status: 200, body: { meta } };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/volumes/:volume_id/metadata/:key",
    request: { params: itemParams },
    handler: async (request, context, caller) => {
      const { volume_id: id, key } = request.params;
      const volume = await visibleVolume(context.database, caller, id);
      enforce(context, caller, "volume:delete_volume_metadata", volume.project_id);
      await withTransaction(context.writer, async (transaction) => {
        const { numDeletedRows } = await transaction
          .deleteFrom("volume_metadata")
          .where("volume_id", "=", id)
          .where("key", "=", key)
          .executeTakeFirst();
        if (numDeletedRows === 0n) throw keyNotFound(id, key);
      });
      return { status: 200 };
    },
  }),
];
