import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import { enqueueTask } from "../store/tasks.ts";
import { changeSnapshot, latestUnmanaged, snapshotsOf } from "../store/snapshots.ts";
import { attachmentsOf, changeVolume, type Volume, volumeForChange, writeMetadata } from "../store/volumes.ts";
import type { BlockTransaction } from "../store/schema.ts";
import type { HttpRequest } from "../../common/http/route.ts";
import {
  type BlockContext,
  type BlockRoute,
  blockRoute,
  type Caller,
  enforce,
  truthOf,
  visibleVolume,
} from "./block-route.ts";
import { nextLinks, pageOf, parameter, queryOf } from "./list-parameters.ts";
import { refuseWhileOpen } from "./operators-volume.ts";
import { assertUnread } from "./snapshots.ts";
import { descriptionSchema, metadataSchema, nameSchema, uuidParams } from "./volume-fields.ts";
import { listVolumes, metadataOfAll, totalOf, VOLUME_SORT_COLUMNS, withParts } from "./volume-lists.ts";
import { volumeDetail, volumeSummary } from "./volume-views.ts";

const COUNT_SINCE = 45;
const SUMMARY_SINCE = 12;
const SUMMARY_METADATA_SINCE = 36;
const FORCE_SINCE = 23;

const list = async (request: HttpRequest, context: BlockContext, caller: Caller, isDetailed: boolean) => {
  const query = queryOf(request.query);
  const page = pageOf(query, VOLUME_SORT_COLUMNS, context.config.listLimit);
  const volumes = await listVolumes(context.database, query, page, caller);
  const asked = { request, context, caller };
  const shown = isDetailed
    ? (await withParts(context.database, volumes)).map((one) => volumeDetail(asked, one))
    : volumes.map((one) => volumeSummary(asked, one));
  const isCounted = caller.version >= COUNT_SINCE && truthOf(parameter(query, "with_count") ?? "false") === true;
  const count = isCounted ? { count: (await totalOf(context.database, query, caller)).count } : {};
  const links = nextLinks(
    "volumes",
    request,
    context,
    caller,
    volumes.length === page.limit ? volumes.at(-1)?.id : undefined,
  );
  return { status: 200, body: { volumes: shown, ...links, ...count } };
};

export const IN_THE_WAY =
  "Invalid volume: Volume status must be available or error or error_restoring or error_extending or error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from snapshots after volume transfer.";

/** Throws `invalid-state` where somebody has it attached, or copies it. */
export const assertUnused = async (transaction: BlockTransaction, volumeId: string): Promise<void> => {
  // What failed to attach, or was opened without an attachment, is closed by the deletion itself.
  const attached = (await attachmentsOf(transaction, volumeId)).filter(
    (one) => one.is_connection === 0 && one.attach_status !== "error_attaching",
  );
  if (attached.length > 0) throw blockError("invalid-state", IN_THE_WAY);
  const copy = await transaction
    .selectFrom("volumes")
    .select("id")
    .where("source_volume_id", "=", volumeId)
    .where("status", "=", "creating")
    .executeTakeFirst();
  if (copy !== undefined)
    throw blockError("invalid-state", `Invalid volume: Volume ${volumeId} is being copied to ${copy.id}.`);
};

/** Its snapshots go with the volume, or are in the way; those of a group snapshot are in any case. Throws `invalid-state`. */
const takeSnapshots = async (
  transaction: BlockTransaction,
  volumeId: string,
  isCascade: boolean,
  nowMs: number,
): Promise<void> => {
  if ((await latestUnmanaged(transaction, volumeId)) !== undefined) throw blockError("invalid-state", IN_THE_WAY);
  for (const snapshot of await snapshotsOf(transaction, volumeId)) {
    if (!isCascade || snapshot.group_snapshot_id !== null) throw blockError("invalid-state", IN_THE_WAY);
    await assertUnread(transaction, snapshot.id);
    if (snapshot.status !== "deleting") await changeSnapshot(transaction, snapshot, { kind: "delete" }, nowMs);
  }
};

/** `isForced`: whatever the status is, and closing what is open. `isCascade`: with its snapshots. */
export type Deletion = { readonly isForced: boolean; readonly isCascade: boolean };

/** Announces the deletion and hands it to a task, in the transaction of the caller. Throws `invalid-state`. */
export const announceDeletion = async (
  transaction: BlockTransaction,
  volume: Volume,
  { isForced, isCascade }: Deletion,
  nowMs: number,
): Promise<void> => {
  // A second call finds it on its way.
  if (volume.status === "deleting") return;
  if (!isForced) await assertUnused(transaction, volume.id);
  await takeSnapshots(transaction, volume.id, isCascade, nowMs);
  await changeVolume(transaction, volume, { kind: isForced ? "force-delete" : "delete" }, nowMs);
  await transaction.deleteFrom("transfers").where("volume_id", "=", volume.id).execute();
  await enqueueTask(transaction, volume.id, { kind: "delete", step: "close" }, nowMs);
};

export const deleteVolume = async (context: BlockContext, id: string, deletion: Deletion): Promise<void> => {
  await withTransaction(context.writer, async (transaction) => {
    const volume = await volumeForChange(transaction, id);
    if (volume.group_id !== null && volume.status !== "deleting") throw blockError("invalid-state", IN_THE_WAY);
    await announceDeletion(transaction, volume, deletion, context.clock.nowMs());
  });
  context.tasks.wake();
};

const updateBody = Type.Object({
  name: nameSchema,
  display_name: nameSchema,
  description: descriptionSchema,
  display_description: descriptionSchema,
  metadata: Type.Optional(metadataSchema),
});

export const VOLUME_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/volumes",
    request: {},
    operation: "volume:get_all",
    handler: (request, context, caller) => list(request, context, caller, false),
  }),
  ...blockRoute({
    method: "GET",
    path: "/volumes/detail",
    request: {},
    operation: "volume:get_all",
    handler: (request, context, caller) => list(request, context, caller, true),
  }),
  ...blockRoute({
    method: "GET",
    path: "/volumes/summary",
    since: SUMMARY_SINCE,
    request: {},
    operation: "volume:get_all",
    handler: async (request, context, caller) => {
      const query = queryOf(request.query);
      const { count, gigabytes } = await totalOf(context.database, query, caller);
      const metadata =
        caller.version >= SUMMARY_METADATA_SINCE
          ? { metadata: await metadataOfAll(context.database, query, caller) }
          : {};
      return { status: 200, body: { "volume-summary": { total_count: count, total_size: gigabytes, ...metadata } } };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/volumes/:volume_id",
    request: { params: uuidParams("volume_id") },
    handler: async (request, context, caller) => {
      const volume = await visibleVolume(context.database, caller, request.params.volume_id);
      enforce(context, caller, "volume:get", volume.project_id);
      const shown = await withParts(context.database, [volume]);
      return { status: 200, body: { volume: volumeDetail({ request, context, caller }, ...firstOf(shown)) } };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/volumes/:volume_id",
    request: { params: uuidParams("volume_id"), body: Type.Object({ volume: updateBody }) },
    handler: async (request, context, caller) => {
      const { volume_id: id } = request.params;
      const { volume: change } = request.body;
      const known = await visibleVolume(context.database, caller, id);
      enforce(context, caller, "volume:update", known.project_id);
      const name = change.name === undefined ? change.display_name : change.name;
      const description = change.description === undefined ? change.display_description : change.description;
      if (name === undefined && description === undefined && change.metadata === undefined)
        throw blockError("bad-request", "Invalid input: at least one of name, description and metadata is needed.");
      const volume = await withTransaction(context.writer, async (transaction) => {
        await volumeForChange(transaction, id);
        await transaction
          .updateTable("volumes")
          .set({
            ...(name === undefined ? {} : { name }),
            ...(description === undefined ? {} : { description }),
            updated_at_ms: context.clock.nowMs(),
          })
          .where("id", "=", id)
          .execute();
        if (change.metadata !== undefined) await writeMetadata(transaction, id, change.metadata, true);
        return volumeForChange(transaction, id);
      });
      const [shown] = firstOf(await withParts(context.writer, [volume]));
      return { status: 200, body: { volume: volumeDetail({ request, context, caller }, shown, false) } };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/volumes/:volume_id",
    request: { params: uuidParams("volume_id") },
    handler: async (request, context, caller) => {
      const volume = await visibleVolume(context.database, caller, request.params.volume_id);
      enforce(context, caller, "volume:delete", volume.project_id);
      const query = queryOf(request.query);
      const isForced = caller.version >= FORCE_SINCE && truthOf(parameter(query, "force") ?? "false") === true;
      if (isForced) enforce(context, caller, "volume:force_delete", volume.project_id);
      if (!isForced) await refuseWhileOpen(context, volume);
      const isCascade = truthOf(parameter(query, "cascade") ?? "false") === true;
      await deleteVolume(context, volume.id, { isForced, isCascade });
      return { status: 202 };
    },
  }),
];

const firstOf = <Item>(items: readonly Item[]): [Item] => {
  const [first] = items;
  if (first === undefined) throw new Error("a list that was made of one thing is empty");
  return [first];
};
