import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import { writePairs } from "../store/pairs.ts";
import { assertQuota } from "../store/quotas.ts";
import type { BlockDatabase } from "../store/schema.ts";
import { type Snapshot, snapshotForChange } from "../store/snapshots.ts";
import { typeNameOf } from "../store/volume-types.ts";
import { volumeForChange } from "../store/volumes.ts";
import { type BlockContext, type BlockRoute, blockRoute, type Caller, visibleVolume } from "./block-route.ts";
import { parameter, queryOf } from "./list-parameters.ts";
import { manageablePage, type Manageable, noSuchReference, poolNamed, referredId } from "./manageable-lists.ts";
import { assertUnread, showSnapshot } from "./snapshots.ts";
import { descriptionSchema, metadataSchema, nameSchema } from "./volume-fields.ts";

const LIST_SINCE = 8;

const manageableOf = async (database: BlockDatabase, backend: string): Promise<readonly Manageable[]> => {
  const managed = await database
    .selectFrom("snapshots")
    .innerJoin("volumes", "volumes.id", "snapshots.volume_id")
    .select(["snapshots.id", "snapshots.size_gib", "snapshots.volume_id"])
    .where("volumes.backend", "=", backend)
    .where("snapshots.status", "<>", "creating")
    .execute();
  const unmanaged = await database
    .selectFrom("unmanaged")
    .select(["id", "size_gib", "volume_id"])
    .where("kind", "=", "snapshot")
    .where("backend", "=", backend)
    .execute();
  const shown = (isManaged: boolean) => (one: { id: string; size_gib: number; volume_id: string | null }) => ({
    id: one.id,
    name: `snapshot-${one.id}`,
    sizeGib: one.size_gib,
    isManaged,
    source: `volume-${one.volume_id ?? ""}`,
  });
  return [...managed.map(shown(true)), ...unmanaged.map(shown(false))];
};

/** The row goes, the snapshot stays with the host, and its volume stays with it. Throws `invalid-state`. */
export const unmanageSnapshot = (context: BlockContext, id: string): Promise<void> =>
  withTransaction(context.writer, async (transaction) => {
    const snapshot = await snapshotForChange(transaction, id);
    const { backend } = await volumeForChange(transaction, snapshot.volume_id);
    if (snapshot.status !== "available" || snapshot.group_snapshot_id !== null || backend === null)
      throw blockError(
        "invalid-state",
        `Invalid snapshot: Snapshot ${id} status must be available, and it must not be part of a group snapshot, to be unmanaged.`,
      );
    await assertUnread(transaction, id);
    await transaction.deleteFrom("snapshots").where("id", "=", id).execute();
    const { volume_id: volumeId, size_gib: size, created_at_ms: createdAtMs } = snapshot;
    await transaction
      .insertInto("unmanaged")
      .values({ id, kind: "snapshot", volume_id: volumeId, backend, size_gib: size, created_at_ms: createdAtMs })
      .execute();
  });

const manageBody = Type.Object({
  snapshot: Type.Object({
    volume_id: Type.String(),
    ref: Type.Record(Type.String(), Type.Unknown(), { maxProperties: 16 }),
    name: nameSchema,
    description: descriptionSchema,
    metadata: Type.Optional(Type.Union([metadataSchema, Type.Null()])),
  }),
});

const list = async (request: HttpRequest, context: BlockContext, caller: Caller, isDetailed: boolean) => {
  const backend = await poolNamed(context, parameter(queryOf(request.query), "host"));
  const all = await manageableOf(context.database, backend);
  return { status: 200, body: manageablePage("manageable-snapshots", request, context, caller, all, isDetailed) };
};

/** Snapshots that a host has and the API was told to forget come back under their ids; the second path is the older one. */
export const MANAGEABLE_SNAPSHOT_ROUTES: readonly BlockRoute[] = [
  { path: "/manageable_snapshots", since: LIST_SINCE },
  { path: "/os-snapshot-manage", since: 0 },
].flatMap(({ path, since }) => [
  ...["", "/detail"].flatMap((end) =>
    blockRoute({
      method: "GET",
      path: `${path}${end}`,
      since: LIST_SINCE,
      request: {},
      operation: "snapshot_extension:list_manageable",
      handler: (request, context, caller) => list(request, context, caller, end !== ""),
    }),
  ),
  ...blockRoute({
    method: "POST",
    path,
    since,
    request: { body: manageBody },
    operation: "snapshot_extension:snapshot_manage",
    handler: async (request, context, caller) => {
      const { snapshot: wanted } = request.body;
      const { id: volumeId } = await visibleVolume(context.database, caller, wanted.volume_id);
      const id = referredId(wanted.ref, "snapshot");
      const snapshot = await withTransaction(context.writer, async (transaction) => {
        const volume = await volumeForChange(transaction, volumeId);
        const kept = await transaction
          .deleteFrom("unmanaged")
          .where("id", "=", id)
          .where("volume_id", "=", volumeId)
          .returning(["size_gib", "created_at_ms"])
          .executeTakeFirst();
        if (kept === undefined) throw noSuchReference(`volume ${volumeId} has no unmanaged snapshot ${id}.`);
        const demand = { volumes: 0, snapshots: 1, gigabytes: kept.size_gib, volumeGigabytes: 0 };
        const typeName = await typeNameOf(transaction, volume.volume_type_id);
        await assertQuota(transaction, volume.project_id, typeName, demand);
        const row: Snapshot = {
          id,
          project_id: volume.project_id,
          user_id: caller.token.userId,
          volume_id: volumeId,
          name: wanted.name ?? null,
          description: wanted.description ?? null,
          size_gib: kept.size_gib,
          status: "available",
          progress: "100%",
          group_snapshot_id: null,
          failure: null,
          created_at_ms: kept.created_at_ms,
          updated_at_ms: context.clock.nowMs(),
        };
        await transaction.insertInto("snapshots").values(row).execute();
        await writePairs(transaction, "snapshot_metadata", id, wanted.metadata ?? {}, true);
        return row;
      });
      return { status: 202, body: await showSnapshot(context, caller, snapshot, false) };
    },
  }),
]);
