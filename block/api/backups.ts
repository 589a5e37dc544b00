import { type Static, Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import { announceBackup, announceBackupDeletion, type WantedBackup } from "../store/backup-announcements.ts";
import { type Backup, backupForChange } from "../store/backups.ts";
import { pairsOfAll, writePairs } from "../store/pairs.ts";
import { type Volume, volumeForChange } from "../store/volumes.ts";
import { backupDetail, backupMetadata, backupSummary, offeredBackups, visibleBackup } from "./backup-views.ts";
import {
  type BlockContext,
  type BlockRoute,
  blockRoute,
  type Caller,
  enforce,
  projectOf,
  truthIn,
  visibleVolume,
} from "./block-route.ts";
import { listRows, type ListSource, metadataConditions } from "./list-rows.ts";
import { checkMetadataCount, descriptionSchema, metadataSchema, nameSchema, uuidParams } from "./volume-fields.ts";

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
  const further = caller.version >= METADATA_SINCE ? metadataConditions(request, "backups", "backup") : [];
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

/** The row, its quota and its task in one transaction. Throws `not-found`, `invalid-state`, `over-quota`. */
const insertBackup = (context: BlockContext, caller: Caller, wanted: Wanted, known: Volume): Promise<Backup> =>
  withTransaction(context.writer, async (transaction) => {
    checkMetadataCount(wanted.metadata ?? {});
    const volume = await volumeForChange(transaction, known.id);
    const asked: WantedBackup = {
      projectId: projectOf(caller),
      userId: caller.token.userId,
      snapshotId: wanted.snapshot_id ?? undefined,
      increment: truthIn(wanted.incremental ?? false, "incremental") ? "always" : "never",
      isForced: truthIn(wanted.force ?? false, "force"),
      name: wanted.name ?? null,
      description: wanted.description ?? null,
      container: wanted.container ?? "volumebackups",
      zone: wanted.availability_zone ?? context.config.availabilityZone,
      metadata: wanted.metadata ?? {},
    };
    return announceBackup(transaction, volume, asked, context.clock.nowMs());
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
  await withTransaction(context.writer, (transaction) =>
    announceBackupDeletion(transaction, id, isForced, context.clock.nowMs()),
  );
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
