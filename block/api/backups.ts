import { type Static, Type } from "typebox";
import { randomUUID } from "node:crypto";
import { sql, type SqlBool } from "kysely";
import type { HttpRequest } from "../../common/http/route.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { assertBackupQuota, type Backup, backupForChange, changeBackup, latestBackup } from "../store/backups.ts";
import { enqueueBackupTask } from "../store/backup-tasks.ts";
import { pairsOfAll, writePairs } from "../store/pairs.ts";
import type { BlockTransaction } from "../store/schema.ts";
import { changeSnapshot, snapshotForChange } from "../store/snapshots.ts";
import { changeVolume, type Volume, volumeForChange } from "../store/volumes.ts";
import { backupDetail, backupMetadata, backupSummary, offeredBackups, visibleBackup } from "./backup-views.ts";
import {
  type BlockContext,
  type BlockRoute,
  blockRoute,
  type Caller,
  enforce,
  projectOf,
  truthOf,
  visibleVolume,
} from "./block-route.ts";
import { parameter, queryOf } from "./list-parameters.ts";
import { listRows, type ListSource } from "./list-rows.ts";
import { checkMetadataCount, descriptionSchema, metadataSchema, nameSchema, uuidParams } from "./volume-fields.ts";
import { dictionaryOf } from "./volume-lists.ts";

const UPDATE_SINCE = 9;
const METADATA_SINCE = 43;
const ZONE_SINCE = 51;

const BACKUPS: ListSource = {
  table: "backups",
  name: "backups",
  sortColumns: {
    id: { column: "id", kind: "text" },
    name: { column: "name", kind: "text" },
    display_name: { column: "name", kind: "text" },
    status: { column: "status", kind: "text" },
    volume_id: { column: "volume_id", kind: "text" },
    size: { column: "size_gib", kind: "number" },
    created_at: { column: "created_at_ms", kind: "number" },
    updated_at: { column: "updated_at_ms", kind: "number" },
    data_timestamp: { column: "data_timestamp_ms", kind: "number" },
  },
  filters: {
    id: "id",
    name: "name",
    display_name: "name",
    status: "status",
    volume_id: "volume_id",
    snapshot_id: "snapshot_id",
    container: "container",
    availability_zone: "availability_zone",
    parent_id: "parent_id",
  },
};

const list = async (request: HttpRequest, context: BlockContext, caller: Caller, isDetailed: boolean) => {
  const text = caller.version >= METADATA_SINCE ? parameter(queryOf(request.query), "metadata") : undefined;
  const further = Object.entries(text === undefined ? {} : dictionaryOf(text)).map(
    ([key, value]) =>
      sql<SqlBool>`EXISTS (SELECT 1 FROM backup_metadata AS pair WHERE pair.backup_id = backups.id AND pair.key = ${key} AND pair.value = ${value})`,
  );
  const { rows, more } = await listRows<Backup>(request, context, caller, BACKUPS, further);
  const ids = rows.map(({ id }) => id);
  const metadata = await pairsOfAll(context.database, "backup_metadata", ids);
  const asked = { request, context, caller };
  const backups = rows.map((one) =>
    isDetailed ? backupDetail(asked, one, metadata.get(one.id) ?? {}) : backupSummary(asked, one),
  );
  return { status: 200, body: { backups, ...more } };
};

const text = Type.Optional(Type.Union([Type.String({ maxLength: 255 }), Type.Null()]));

const createBody = Type.Object({
  backup: Type.Object({
    volume_id: Type.String({ maxLength: 255 }),
    container: text,
    name: nameSchema,
    description: descriptionSchema,
    incremental: Type.Optional(Type.Unknown()),
    force: Type.Optional(Type.Unknown()),
    snapshot_id: text,
    metadata: Type.Optional(Type.Union([metadataSchema, Type.Null()])),
    availability_zone: text,
  }),
});
type Wanted = Static<typeof createBody>["backup"];

const truth = (value: unknown, field: string): boolean => {
  const found = value === undefined || value === null ? false : truthOf(value);
  if (found === undefined)
    throw blockError("bad-request", `Invalid input for field/attribute ${field}: neither true nor false.`);
  return found;
};

/** When the volume was as the backup will be, and of what size, with the volume or the snapshot announced as being backed up. */
const takeSource = async (
  transaction: BlockTransaction,
  volume: Volume,
  snapshotId: string | undefined,
  isForced: boolean,
  nowMs: number,
): Promise<{ readonly sizeGib: number; readonly takenAtMs: number }> => {
  if (snapshotId === undefined) {
    if (volume.status === "in-use" && !isForced)
      throw blockError("invalid-state", "Invalid volume: Backing up an in-use volume must use the force flag.");
    if (volume.status !== "available" && volume.status !== "in-use")
      throw blockError(
        "invalid-state",
        `Invalid volume: The volume to be backed up must be available or in-use, but the current status is "${volume.status}".`,
      );
    await changeVolume(transaction, volume, { kind: "back-up", mayBeAttached: isForced }, nowMs);
    return { sizeGib: volume.size_gib, takenAtMs: nowMs };
  }
  const snapshot = await snapshotForChange(transaction, snapshotId);
  if (snapshot.volume_id !== volume.id) throw notFound("Snapshot", snapshotId);
  if (snapshot.status !== "available")
    throw blockError(
      "invalid-state",
      `Invalid snapshot: Snapshot to be backed up must be available, but the current status is "${snapshot.status}".`,
    );
  await changeSnapshot(transaction, snapshot, { kind: "back-up" }, nowMs);
  return { sizeGib: snapshot.size_gib, takenAtMs: Number(snapshot.created_at_ms) };
};

/** The row, its quota and its task in one transaction. Throws `not-found`, `invalid-state`, `over-quota`. */
const insertBackup = (context: BlockContext, caller: Caller, wanted: Wanted, known: Volume): Promise<Backup> =>
  withTransaction(context.writer, async (transaction) => {
    const volume = await volumeForChange(transaction, known.id);
    const projectId = projectOf(caller);
    const nowMs = context.clock.nowMs();
    const snapshotId = wanted.snapshot_id ?? undefined;
    const parent = truth(wanted.incremental, "incremental")
      ? await latestBackup(transaction, projectId, volume.id)
      : null;
    if (parent === undefined)
      throw blockError("invalid-state", "Invalid backup: No backups available to do an incremental backup.");
    const { sizeGib, takenAtMs } = await takeSource(
      transaction,
      volume,
      snapshotId,
      truth(wanted.force, "force"),
      nowMs,
    );
    await assertBackupQuota(transaction, projectId, sizeGib);
    const id = randomUUID();
    const row: Backup = {
      id,
      project_id: projectId,
      user_id: caller.token.userId,
      // An increment shares pages with what it is made upon.
      store_project_id: parent?.store_project_id ?? projectId,
      volume_id: volume.id,
      snapshot_id: snapshotId ?? null,
      base_id: snapshotId ?? id,
      parent_id: parent?.id ?? null,
      name: wanted.name ?? null,
      description: wanted.description ?? null,
      container: wanted.container ?? "volumebackups",
      availability_zone: wanted.availability_zone ?? context.config.availabilityZone,
      size_gib: sizeGib,
      object_count: 0,
      status: "creating",
      fail_reason: null,
      data_timestamp_ms: takenAtMs,
      created_at_ms: nowMs,
      updated_at_ms: null,
    };
    await transaction.insertInto("backups").values(row).execute();
    checkMetadataCount(wanted.metadata ?? {});
    await writePairs(transaction, "backup_metadata", id, wanted.metadata ?? {}, true);
    await enqueueBackupTask(transaction, row, { kind: "create", step: "freeze" }, nowMs);
    return row;
  });

const create = async (request: HttpRequest, context: BlockContext, caller: Caller, wanted: Wanted) => {
  const backups = offeredBackups(context);
  projectOf(caller);
  const volume = await visibleVolume(context.database, caller, wanted.volume_id);
  enforce(context, caller, "backup:create", volume.project_id);
  for (const [field, since] of [
    ["metadata", METADATA_SINCE],
    ["availability_zone", ZONE_SINCE],
  ] as const)
    if (caller.version < since && wanted[field] !== undefined && wanted[field] !== null)
      throw blockError("bad-request", `Additional properties are not allowed ('${field}' was unexpected)`);
  const zone = wanted.availability_zone ?? context.config.availabilityZone;
  if (zone !== context.config.availabilityZone)
    throw blockError("bad-request", `Invalid input received: Availability zone '${zone}' is invalid.`);
  const backup = await insertBackup(context, caller, wanted, volume);
  backups.wake();
  return { status: 202, body: { backup: backupSummary({ request, context, caller }, backup, wanted.metadata ?? {}) } };
};

/** Announces the deletion and hands it to a task. `isForced`: whatever the status is. */
export const deleteBackup = async (context: BlockContext, id: string, isForced: boolean): Promise<void> => {
  const backups = offeredBackups(context);
  await withTransaction(context.writer, async (transaction) => {
    const backup = await backupForChange(transaction, id);
    const increment = await transaction
      .selectFrom("backups")
      .select("id")
      .where("parent_id", "=", id)
      .where("status", "=", "creating")
      .executeTakeFirst();
    if (increment !== undefined)
      throw blockError(
        "invalid-state",
        `Invalid backup: The incremental backup ${increment.id} is being made upon it.`,
      );
    const nowMs = context.clock.nowMs();
    await changeBackup(transaction, backup, { kind: isForced ? "force-delete" : "delete" }, nowMs);
    await enqueueBackupTask(transaction, backup, { kind: "delete", step: "unlink" }, nowMs);
  });
  backups.wake();
};

const updateBody = Type.Object({
  backup: Type.Object({
    name: nameSchema,
    description: descriptionSchema,
    metadata: Type.Optional(metadataSchema),
  }),
});

const update = async (
  request: HttpRequest,
  context: BlockContext,
  caller: Caller,
  id: string,
  change: Static<typeof updateBody>["backup"],
) => {
  const known = await visibleBackup(context.database, caller, id);
  enforce(context, caller, "backup:update", known.project_id);
  const { name, description } = change;
  const metadata = caller.version >= METADATA_SINCE ? change.metadata : undefined;
  if (name === undefined && description === undefined && metadata === undefined)
    throw blockError("bad-request", "Missing updated parameters in request body.");
  const changed = await withTransaction(context.writer, async (transaction) => {
    await backupForChange(transaction, known.id);
    await transaction
      .updateTable("backups")
      .set({
        ...(name === undefined ? {} : { name }),
        ...(description === undefined ? {} : { description }),
        updated_at_ms: context.clock.nowMs(),
      })
      .where("id", "=", known.id)
      .execute();
    if (metadata !== undefined) {
      checkMetadataCount(metadata);
      await writePairs(transaction, "backup_metadata", known.id, metadata, true);
    }
    return backupForChange(transaction, known.id);
  });
  const pairs = await backupMetadata(context.writer, known.id);
  return { status: 200, body: { backup: backupSummary({ request, context, caller }, changed, pairs) } };
};

const params = uuidParams("backup_id");

export const BACKUP_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/backups",
    request: {},
    operation: "backup:get_all",
    handler: (request, context, caller) => list(request, context, caller, false),
  }),
  ...blockRoute({
    method: "GET",
    path: "/backups/detail",
    request: {},
    operation: "backup:get_all",
    handler: (request, context, caller) => list(request, context, caller, true),
  }),
  ...blockRoute({
    method: "POST",
    path: "/backups",
    request: { body: createBody },
    handler: (request, context, caller) => create(request, context, caller, request.body.backup),
  }),
  ...blockRoute({
    method: "GET",
    path: "/backups/:backup_id",
    request: { params },
    handler: async (request, context, caller) => {
      const backup = await visibleBackup(context.database, caller, request.params.backup_id);
      enforce(context, caller, "backup:get", backup.project_id);
      const metadata = await backupMetadata(context.database, backup.id);
      return { status: 200, body: { backup: backupDetail({ request, context, caller }, backup, metadata) } };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/backups/:backup_id",
    since: UPDATE_SINCE,
    request: { params, body: updateBody },
    handler: (request, context, caller) =>
      update(request, context, caller, request.params.backup_id, request.body.backup),
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/backups/:backup_id",
    request: { params },
    handler: async (request, context, caller) => {
      const backup = await visibleBackup(context.database, caller, request.params.backup_id);
      enforce(context, caller, "backup:delete", backup.project_id);
      await deleteBackup(context, backup.id, false);
      return { status: 202 };
    },
  }),
];
