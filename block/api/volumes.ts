import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import { enqueueTask } from "../store/tasks.ts";
import { attachmentsOf, changeVolume, volumeForChange, writeMetadata } from "../store/volumes.ts";
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
  const { volumes, hasMore } = await listVolumes(context.database, query, page, caller);
  const asked = { request, context, caller };
  const shown = isDetailed
    ? (await withParts(context.database, volumes)).map((one) => volumeDetail(asked, one))
    : volumes.map((one) => volumeSummary(asked, one));
  const isCounted = caller.version >= COUNT_SINCE && truthOf(parameter(query, "with_count") ?? "false") === true;
  const count = isCounted ? { count: (await totalOf(context.database, query, caller)).count } : {};
  const links = nextLinks("volumes", request, context, caller, hasMore ? volumes.at(-1)?.id : undefined);
  return { status: 200, body: { volumes: shown, ...links, ...count } };
};

/** Throws `invalid-state` where somebody has it attached, or copies it. */
const assertDeletable = async (transaction: BlockTransaction, volumeId: string): Promise<void> => {
  // What failed to attach, or was opened without an attachment, is closed by the deletion itself.
  const inTheWay = (await attachmentsOf(transaction, volumeId)).filter(
    (one) => one.is_connection === 0 && one.attach_status !== "error_attaching",
  );
  if (inTheWay.length > 0)
    throw blockError(
      "invalid-state",
      "Invalid volume: Volume status must be available or error or error_restoring or error_extending or error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from snapshots after volume transfer.",
    );
  const copy = await transaction
    .selectFrom("volumes")
    .select("id")
    .where("source_volume_id", "=", volumeId)
    .where("status", "=", "creating")
    .executeTakeFirst();
  if (copy !== undefined)
    throw blockError("invalid-state", `Invalid volume: Volume ${volumeId} is being copied to ${copy.id}.`);
};

/** Announces the deletion and hands it to a task. `isForced`: whatever the status is, and closing what is open. */
export const deleteVolume = async (context: BlockContext, id: string, isForced: boolean): Promise<void> => {
  const nowMs = context.clock.nowMs();
  await withTransaction(context.writer, async (transaction) => {
    const volume = await volumeForChange(transaction, id);
    // A second call finds it on its way.
    if (volume.status === "deleting") return;
    if (!isForced) await assertDeletable(transaction, id);
    await changeVolume(transaction, volume, { kind: isForced ? "force-delete" : "delete" }, nowMs);
    await enqueueTask(transaction, id, { kind: "delete", step: "close" }, nowMs);
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
      await deleteVolume(context, volume.id, isForced);
      return { status: 202 };
    },
  }),
];

const firstOf = <Item>(items: readonly Item[]): [Item] => {
  const [first] = items;
  if (first === undefined) throw new Error("a list that was made of one thing is empty");
  return [first];
};
