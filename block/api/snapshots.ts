import { randomUUID } from "node:crypto";
import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { addMessage } from "../store/messages.ts";
import { pairsOfAll, writePairs } from "../store/pairs.ts";
import { assertQuota } from "../store/quotas.ts";
import type { BlockTransaction } from "../store/schema.ts";
import { changeSnapshot, nextSnapshotMs, type Snapshot, snapshotForChange } from "../store/snapshots.ts";
import { enqueueTask } from "../store/tasks.ts";
import { typeNameOf } from "../store/volume-types.ts";
import { type Volume, volumeForChange } from "../store/volumes.ts";
import {
  type BlockContext,
  type BlockRoute,
  blockRoute,
  type Caller,
  enforce,
  mayDo,
  projectOf,
  timeText,
  truthIn,
  visibleSnapshot,
  visibleVolume,
} from "./block-route.ts";
import { listRows, type ListSource, metadataConditions } from "./list-rows.ts";
import { checkMetadataCount, descriptionSchema, metadataSchema, nameSchema, uuidParams } from "./volume-fields.ts";
import { codeOf } from "../../common/errors.ts";

const GROUP_SINCE = 14;
const METADATA_FILTER_SINCE = 22;
const USER_SINCE = 41;
const QUOTA_SINCE = 65;
/** From here on a volume that is attached may be snapshot without force. */
const NO_FORCE_SINCE = 66;

const SNAPSHOTS: ListSource = {
  table: "snapshots",
  name: "snapshots",
  sortColumns: {
    id: { column: "id", kind: "text" },
    name: { column: "name", kind: "text" },
    display_name: { column: "name", kind: "text" },
    status: { column: "status", kind: "text" },
    volume_id: { column: "volume_id", kind: "text" },
    size: { column: "size_gib", kind: "number" },
    created_at: { column: "created_at_ms", kind: "number" },
    updated_at: { column: "updated_at_ms", kind: "number" },
  },
  filters: {
    id: "id",
    name: "name",
    display_name: "name",
    status: "status",
    volume_id: "volume_id",
    group_snapshot_id: "group_snapshot_id",
  },
};

type Metadata = Readonly<Record<string, string>>;

const snapshotSummary = (snapshot: Snapshot, metadata: Metadata): object => ({
  id: snapshot.id,
  name: snapshot.name,
  description: snapshot.description,
  volume_id: snapshot.volume_id,
  status: snapshot.status,
  size: Number(snapshot.size_gib),
  created_at: timeText(snapshot.created_at_ms),
  updated_at: timeText(snapshot.updated_at_ms),
  metadata,
});

/** A snapshot as the caller's microversion shows it. */
const snapshotDetail = (context: BlockContext, caller: Caller, snapshot: Snapshot, metadata: Metadata): object => ({
  ...snapshotSummary(snapshot, metadata),
  ...(mayDo(context, caller, "volume_extension:extended_snapshot_attributes", snapshot.project_id)
    ? {
        "os-extended-snapshot-attributes:project_id": snapshot.project_id,
        "os-extended-snapshot-attributes:progress": snapshot.progress,
      }
    : {}),
  ...(caller.version >= GROUP_SINCE ? { group_snapshot_id: snapshot.group_snapshot_id } : {}),
  ...(caller.version >= USER_SINCE ? { user_id: snapshot.user_id } : {}),
  ...(caller.version >= QUOTA_SINCE ? { consumes_quota: true } : {}),
});

const list = async (request: HttpRequest, context: BlockContext, caller: Caller, isDetailed: boolean) => {
  const further = caller.version >= METADATA_FILTER_SINCE ? metadataConditions(request, "snapshots", "snapshot") : [];
  const { rows, more } = await listRows<Snapshot>(request, context, caller, SNAPSHOTS, further);
  const ids = rows.map(({ id }) => id);
  const metadata = await pairsOfAll(context.database, "snapshot_metadata", ids);
  const snapshots = rows.map((one) =>
    isDetailed
      ? snapshotDetail(context, caller, one, metadata.get(one.id) ?? {})
      : snapshotSummary(one, metadata.get(one.id) ?? {}),
  );
  return { status: 200, body: { snapshots, ...more } };
};

export const showSnapshot = async (context: BlockContext, caller: Caller, snapshot: Snapshot, isDetailed: boolean) => {
  const metadata = (await pairsOfAll(context.writer, "snapshot_metadata", [snapshot.id])).get(snapshot.id) ?? {};
  return {
    snapshot: isDetailed ? snapshotDetail(context, caller, snapshot, metadata) : snapshotSummary(snapshot, metadata),
  };
};

export type WantedSnapshot = {
  readonly volume: Volume;
  readonly name: string | null;
  readonly description: string | null;
  readonly metadata: Metadata;
  readonly groupSnapshotId: string | null;
  /** Also of a volume that is attached. */
  readonly isForced: boolean;
};

/** The row, its quota and its task, in the transaction of the caller. Throws `invalid-state`, `over-quota`. */
export const insertSnapshot = async (
  context: BlockContext,
  caller: Caller,
  transaction: BlockTransaction,
  wanted: WantedSnapshot,
): Promise<Snapshot> => {
  const { volume } = wanted;
  const allowed = wanted.isForced ? ["available", "in-use"] : ["available"];
  if (!allowed.includes(volume.status))
    throw blockError(
      "invalid-state",
      `Invalid volume: Volume ${volume.id} status must be ${allowed.join(" or ")}, but current status is: ${volume.status}.`,
    );
  const projectId = volume.project_id;
  const demand = { volumes: 0, snapshots: 1, gigabytes: volume.size_gib, volumeGigabytes: 0 };
  await assertQuota(transaction, projectId, await typeNameOf(transaction, volume.volume_type_id), demand);
  const nowMs = context.clock.nowMs();
  const row: Snapshot = {
    id: randomUUID(),
    project_id: projectId,
    user_id: caller.token.userId,
    volume_id: volume.id,
    name: wanted.name,
    description: wanted.description,
    size_gib: volume.size_gib,
    status: "creating",
    progress: "0%",
    group_snapshot_id: wanted.groupSnapshotId,
    failure: null,
    created_at_ms: await nextSnapshotMs(transaction, volume.id, nowMs),
    updated_at_ms: null,
  };
  await transaction.insertInto("snapshots").values(row).execute();
  checkMetadataCount(wanted.metadata);
  await writePairs(transaction, "snapshot_metadata", row.id, wanted.metadata, true);
  await enqueueTask(transaction, volume.id, { kind: "snapshot", step: "take", snapshotId: row.id }, nowMs);
  return row;
};

/** Throws `invalid-state` where a volume is just being made of it. */
export const assertUnread = async (transaction: BlockTransaction, snapshotId: string): Promise<void> => {
  const copies = transaction.selectFrom("volumes").select("id").where("snapshot_id", "=", snapshotId);
  const copy = await copies.where("status", "=", "creating").executeTakeFirst();
  if (copy !== undefined)
    throw blockError("invalid-state", `Invalid snapshot: volume ${copy.id} is being created from ${snapshotId}.`);
};

/** Announces the deletion and hands it to a task. `isForced`: whatever the status is. */
export const deleteSnapshot = async (context: BlockContext, id: string, isForced: boolean): Promise<void> => {
  const nowMs = context.clock.nowMs();
  await withTransaction(context.writer, async (transaction) => {
    const snapshot = await snapshotForChange(transaction, id);
    // A second call finds it on its way.
    if (snapshot.status === "deleting" && !isForced) return;
    if (snapshot.group_snapshot_id !== null)
      throw blockError(
        "invalid-state",
        `Invalid snapshot: Snapshot ${id} is part of group snapshot ${snapshot.group_snapshot_id} and goes with it.`,
      );
    await assertUnread(transaction, id);
    await changeSnapshot(transaction, snapshot, { kind: isForced ? "force-delete" : "delete" }, nowMs);
    await enqueueTask(transaction, snapshot.volume_id, { kind: "unsnapshot", step: "drop", snapshotId: id }, nowMs);
  });
  context.tasks.wake();
};

const createBody = Type.Object({
  snapshot: Type.Object({
    // Null names no volume: 404, as where it is not there.
    volume_id: Type.Union([Type.String(), Type.Null()]),
    name: nameSchema,
    display_name: nameSchema,
    description: descriptionSchema,
    display_description: descriptionSchema,
    metadata: Type.Optional(Type.Union([metadataSchema, Type.Null()])),
    force: Type.Optional(Type.Unknown()),
  }),
});

/** Whether an attached volume may be snapshot. Throws `bad-request`. */
const isForcedBy = (force: unknown, { version }: Caller): boolean => {
  const isForced = force === undefined || force === null ? undefined : truthIn(force, "force");
  if (version < NO_FORCE_SINCE) return isForced ?? false;
  if (isForced === false)
    throw blockError(
      "bad-request",
      "Invalid input received: force flag is not allowed to be false since microversion 3.66; snapshots of attached volumes need none.",
    );
  return true;
};

const updateBody = Type.Object({
  snapshot: Type.Object({
    name: nameSchema,
    display_name: nameSchema,
    description: descriptionSchema,
    display_description: descriptionSchema,
  }),
});

/** Tells the project that its quota was in the way; the transaction that found it out is undone. */
const tellOfQuota = (context: BlockContext, request: HttpRequest, volume: Volume, thrown: unknown): Promise<void> =>
  codeOf(thrown) === "over-quota"
    ? withTransaction(context.writer, (transaction) =>
        addMessage(
          transaction,
          {
            projectId: volume.project_id,
            resourceType: "VOLUME",
            resourceId: volume.id,
            action: "snapshot-create",
            detail: "quota",
            requestId: request.requestId,
          },
          context.clock.nowMs(),
        ),
      )
    : Promise.resolve();

export const SNAPSHOT_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/snapshots",
    request: {},
    operation: "volume:get_all_snapshots",
    handler: (request, context, caller) => list(request, context, caller, false),
  }),
  ...blockRoute({
    method: "GET",
    path: "/snapshots/detail",
    request: {},
    operation: "volume:get_all_snapshots",
    handler: (request, context, caller) => list(request, context, caller, true),
  }),
  ...blockRoute({
    method: "POST",
    path: "/snapshots",
    request: { body: createBody },
    handler: async (request, context, caller) => {
      const { snapshot: wanted } = request.body;
      projectOf(caller);
      const known = await visibleVolume(context.database, caller, wanted.volume_id ?? "");
      enforce(context, caller, "volume:create_snapshot", known.project_id);
      const isForced = isForcedBy(wanted.force, caller);
      try {
        const snapshot = await withTransaction(context.writer, async (transaction) =>
          insertSnapshot(context, caller, transaction, {
            volume: await volumeForChange(transaction, known.id),
            name: wanted.name ?? wanted.display_name ?? null,
            description: wanted.description ?? wanted.display_description ?? null,
            metadata: wanted.metadata ?? {},
            groupSnapshotId: null,
            isForced,
          }),
        );
        context.tasks.wake();
        return { status: 202, body: await showSnapshot(context, caller, snapshot, false) };
      } catch (thrown) {
        await tellOfQuota(context, request, known, thrown);
        throw thrown;
      }
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/snapshots/:snapshot_id",
    request: { params: uuidParams("snapshot_id") },
    handler: async (request, context, caller) => {
      const snapshot = await visibleSnapshot(context.database, caller, request.params.snapshot_id);
      enforce(context, caller, "volume:get_snapshot", snapshot.project_id);
      return { status: 200, body: await showSnapshot(context, caller, snapshot, true) };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/snapshots/:snapshot_id",
    request: { params: uuidParams("snapshot_id"), body: updateBody },
    handler: async (request, context, caller) => {
      const { snapshot: change } = request.body;
      const known = await visibleSnapshot(context.database, caller, request.params.snapshot_id);
      enforce(context, caller, "volume:update_snapshot", known.project_id);
      const name = change.name === undefined ? change.display_name : change.name;
      const description = change.description === undefined ? change.display_description : change.description;
      if (name === undefined && description === undefined)
        throw blockError("bad-request", "Invalid input: at least one of name and description is needed.");
      const { numUpdatedRows } = await context.writer
        .updateTable("snapshots")
        .set({
          ...(name === undefined ? {} : { name }),
          ...(description === undefined ? {} : { description }),
          updated_at_ms: context.clock.nowMs(),
        })
        .where("id", "=", known.id)
        .executeTakeFirst();
      if (numUpdatedRows === 0n) throw notFound("Snapshot", known.id);
      const changed = await visibleSnapshot(context.writer, caller, known.id);
      return { status: 200, body: await showSnapshot(context, caller, changed, false) };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/snapshots/:snapshot_id",
    request: { params: uuidParams("snapshot_id") },
    handler: async (request, context, caller) => {
      const snapshot = await visibleSnapshot(context.database, caller, request.params.snapshot_id);
      enforce(context, caller, "volume:delete_snapshot", snapshot.project_id);
      await deleteSnapshot(context, snapshot.id, false);
      return { status: 202 };
    },
  }),
];
