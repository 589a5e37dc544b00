import { Type } from "typebox";
import { validator } from "../../common/http/validate.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import { type Backup, backupForChange, changeBackup } from "../store/backups.ts";
import { announceRestoration } from "../store/backup-restorations.ts";
import { RESTORED_NAME } from "../store/backup-volume-notes.ts";
import type { BlockTransaction } from "../store/schema.ts";
import { changeVolume, type Volume, volumeForChange } from "../store/volumes.ts";
import { offeredBackups, visibleBackup } from "./backup-views.ts";
import { deleteBackup } from "./backups.ts";
import { type BlockContext, type BlockRoute, blockRoute, type Caller, enforce, visibleVolume } from "./block-route.ts";
import { insertVolumeRow, newVolumeRow, typeOf } from "./create-volume.ts";
import { refuseWhileConnected, refuseWhileOpen } from "./operators-volume.ts";
import { type NamedAction, namedActionRoutes } from "./named-actions.ts";
import { nameSchema, uuidParams } from "./volume-fields.ts";

const params = uuidParams("backup_id");
const resetBody = validator(Type.Object({ status: Type.Enum(["available", "error"]) }), "body");

const ACTIONS: Readonly<Record<string, NamedAction<Backup>>> = {
  "os-reset_status": {
    policy: "volume_extension:backup_admin_actions:reset_status",
    run: (context, { id }, argument) =>
      withTransaction(context.writer, async (transaction) => {
        // The validator has just shown it.
        const { status } = resetBody(argument) as { readonly status: "available" | "error" };
        const backup = await backupForChange(transaction, id);
        await changeBackup(transaction, backup, { kind: "reset", status }, context.clock.nowMs());
      }),
  },
  "os-force_delete": {
    policy: "volume_extension:backup_admin_actions:force_delete",
    run: (context, { id }) => deleteBackup(context, id, true),
  },
};

/** A volume of the backup's size that is made for it alone. */
const insertForBackup = async (
  context: BlockContext,
  caller: Caller,
  transaction: BlockTransaction,
  backup: Backup,
  name: string,
): Promise<Volume> => {
  const type = await typeOf(transaction, context, caller, undefined, undefined);
  const row = { ...newVolumeRow({ name, description: "" }, caller, context, type), size_gib: Number(backup.size_gib) };
  await insertVolumeRow(context, transaction, row, type, {}, { volume: undefined, snapshot: undefined });
  return row;
};

/** Throws `invalid-state`, `bad-request` where the volume cannot be given this content. */
const takeVolume = async (
  context: BlockContext,
  transaction: BlockTransaction,
  backup: Backup,
  volumeId: string,
): Promise<Volume> => {
  const volume = await volumeForChange(transaction, volumeId);
  if (volume.status !== "available")
    throw blockError("invalid-state", `Invalid volume: Volume to be restored to must be available`);
  if (volume.size_gib < backup.size_gib)
    throw blockError(
      "invalid-state",
      `Invalid volume: volume size ${volume.size_gib} is too small to restore backup of size ${backup.size_gib}.`,
    );
  await refuseWhileConnected(transaction, volume);
  await changeVolume(transaction, volume, { kind: "restore" }, context.clock.nowMs());
  return volume;
};

type Wanted = { readonly volume_id?: string | null | undefined; readonly name?: string | null | undefined };

const restore = async (context: BlockContext, caller: Caller, known: Backup, wanted: Wanted): Promise<Volume> => {
  const { volume_id: volumeId } = wanted;
  const existing = typeof volumeId === "string" ? await visibleVolume(context.database, caller, volumeId) : undefined;
  if (existing !== undefined) {
    enforce(context, caller, "backup:restore", existing.project_id);
    await refuseWhileOpen(context, existing);
  }
  return withTransaction(context.writer, async (transaction) => {
    const backup = await backupForChange(transaction, known.id);
    const name = wanted.name ?? `${RESTORED_NAME}${backup.id}`;
    const volume =
      existing === undefined
        ? await insertForBackup(context, caller, transaction, backup, name)
        : await takeVolume(context, transaction, backup, existing.id);
    const how = { isBlank: existing === undefined, isLazy: context.config.backup.isRestoredLazily };
    await announceRestoration(transaction, backup, volume.id, how, context.clock.nowMs());
    return volume;
  });
};

const id = Type.Optional(Type.Union([Type.String({ maxLength: 255 }), Type.Null()]));

export const BACKUP_ACTION_ROUTES: readonly BlockRoute[] = [
  ...namedActionRoutes({
    collection: "backups",
    idName: "backup_id",
    actions: ACTIONS,
    find: (context, caller, backupId) => visibleBackup(context.database, caller, backupId),
  }),
  ...blockRoute({
    method: "POST",
    path: "/backups/:backup_id/restore",
    request: {
      params,
      body: Type.Object({ restore: Type.Union([Type.Object({ volume_id: id, name: nameSchema }), Type.Null()]) }),
    },
    handler: async (request, context, caller) => {
      const backups = offeredBackups(context);
      const backup = await visibleBackup(context.database, caller, request.params.backup_id);
      enforce(context, caller, "backup:restore", backup.project_id);
      const volume = await restore(context, caller, backup, request.body.restore ?? {});
      context.tasks.wake();
      backups.wake();
      return {
        status: 202,
        body: { restore: { backup_id: backup.id, volume_id: volume.id, volume_name: volume.name } },
      };
    },
  }),
];
