import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { type Pairs, pairsOf, removePairs, writePairs } from "../store/pairs.ts";
import { type Snapshot, snapshotForChange } from "../store/snapshots.ts";
import {
  type BlockContext,
  type BlockRoute,
  blockRoute,
  type Caller,
  enforce,
  visibleSnapshot,
} from "./block-route.ts";
import { checkMetadataCount, metadataSchema, uuidParams } from "./volume-fields.ts";

const params = uuidParams("snapshot_id");
const itemParams = Type.Object({ snapshot_id: Type.String(), key: Type.String() });

/** Writes pairs beside those that are there, or in their place; resolves with all that there are then. */
const write = (context: BlockContext, id: string, change: Pairs, isWhole: boolean): Promise<Pairs> =>
  withTransaction(context.writer, async (transaction) => {
    await snapshotForChange(transaction, id);
    await writePairs(transaction, "snapshot_metadata", id, change, isWhole);
    const all = await pairsOf(transaction, "snapshot_metadata", id);
    checkMetadataCount(all);
    return all;
  });

const allowed = async (context: BlockContext, caller: Caller, id: string, what: string): Promise<Snapshot> => {
  const snapshot = await visibleSnapshot(context.database, caller, id);
  enforce(context, caller, `volume:${what}_snapshot_metadata`, snapshot.project_id);
  return snapshot;
};

const keyNotFound = (id: string, key: string): Error => notFound(`Snapshot ${id} has no metadata with key`, key);

export const SNAPSHOT_METADATA_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/snapshots/:snapshot_id/metadata",
    request: { params },
    handler: async (request, context, caller) => {
      const { id } = await allowed(context, caller, request.params.snapshot_id, "get");
      return { status: 200, body: { metadata: await pairsOf(context.database, "snapshot_metadata", id) } };
    },
  }),
  ...(["POST", "PUT"] as const).flatMap((method) =>
    blockRoute({
      method,
      path: "/snapshots/:snapshot_id/metadata",
      request: { params, body: Type.Object({ metadata: metadataSchema }) },
      handler: async (request, context, caller) => {
        const { id } = await allowed(context, caller, request.params.snapshot_id, "update");
        const metadata = await write(context, id, request.body.metadata, method === "PUT");
        return { status: 200, body: { metadata } };
      },
    }),
  ),
  ...blockRoute({
    method: "GET",
    path: "/snapshots/:snapshot_id/metadata/:key",
    request: { params: itemParams },
    handler: async (request, context, caller) => {
      const { snapshot_id: id, key } = request.params;
      await allowed(context, caller, id, "get");
      const metadata = await pairsOf(context.database, "snapshot_metadata", id);
      if (!Object.hasOwn(metadata, key)) throw keyNotFound(id, key);
      return { status: 200, body: { meta: { [key]: metadata[key] } } };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/snapshots/:snapshot_id/metadata/:key",
    request: { params: itemParams, body: Type.Object({ meta: metadataSchema }) },
    handler: async (request, context, caller) => {
      const { snapshot_id: id, key } = request.params;
      const { meta } = request.body;
      await allowed(context, caller, id, "update");
      const keys = Object.keys(meta);
      if (keys.length !== 1) throw blockError("bad-request", "Request body contains too many items.");
      if (keys[0] !== key) throw blockError("bad-request", "Request body and URI mismatch.");
      await write(context, id, meta, false);
      return { status: 200, body: { meta } };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/snapshots/:snapshot_id/metadata/:key",
    request: { params: itemParams },
    handler: async (request, context, caller) => {
      const { snapshot_id: id, key } = request.params;
      await allowed(context, caller, id, "delete");
      const count = await removePairs(context.writer, "snapshot_metadata", id, [key]);
      if (count === 0) throw keyNotFound(id, key);
      return { status: 200 };
    },
  }),
];
