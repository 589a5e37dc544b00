import type { Selectable } from "kysely";
import type { BackupSchedule } from "../core/backup-schedule.ts";
import type { BackupSchedulesTable } from "./backup-schema.ts";
import type { BlockDatabase, BlockTransaction } from "./schema.ts";

export type ScheduleRow = Selectable<BackupSchedulesTable>;

export const findSchedule = (database: BlockDatabase, volumeId: string): Promise<ScheduleRow | undefined> =>
  database.selectFrom("backup_schedules").selectAll().where("volume_id", "=", volumeId).executeTakeFirst();

/** The first backup is due at `nowMs`. One with another beat begins anew; who repeats what there is, or changes how many are kept, changes no time. */
export const putSchedule = async (
  transaction: BlockTransaction,
  volumeId: string,
  of: { readonly projectId: string; readonly userId: string },
  { everyMs, keep }: BackupSchedule,
  nowMs: number,
): Promise<void> => {
  const values = {
    project_id: of.projectId,
    user_id: of.userId,
    every_ms: everyMs,
    keep_count: keep,
    next_due_ms: nowMs,
    failure: null,
  };
  await transaction
    .insertInto("backup_schedules")
    .values({ volume_id: volumeId, ...values })
    .onConflict((conflict) =>
      conflict.column("volume_id").doUpdateSet((column) => ({
        ...values,
        next_due_ms: column
          .case()
          .when(
            column.and([
              column("backup_schedules.every_ms", "=", everyMs),
              column("backup_schedules.project_id", "=", of.projectId),
            ]),
          )
          .then(column.ref("backup_schedules.next_due_ms"))
          .else(nowMs)
          .end(),
      })),
    )
    .execute();
};

/** Its backups stay, and are no later schedule's. Resolves with false where there is none. */
export const removeSchedule = async (database: BlockDatabase, volumeId: string): Promise<boolean> => {
  // First: a schedule that has lost its backups keeps them for ever, which is what its end is to do.
  await database
    .deleteFrom("scheduled_backups")
    .where("backup_id", "in", (select) => select.selectFrom("backups").select("id").where("volume_id", "=", volumeId))
    .execute();
  const removed = await database.deleteFrom("backup_schedules").where("volume_id", "=", volumeId).executeTakeFirst();
  return removed.numDeletedRows > 0n;
};

/** Those whose time has come, in the order of their volumes, behind `afterId`; fewer than `limit`: these are the last. */
export const dueSchedules = (
  database: BlockDatabase,
  nowMs: number,
  afterId: string,
  limit: number,
): Promise<ScheduleRow[]> =>
  database
    .selectFrom("backup_schedules")
    .selectAll()
    .where("next_due_ms", "<=", nowMs)
    .where("volume_id", ">", afterId)
    .orderBy("volume_id")
    .limit(limit)
    .execute();

export const advanceSchedule = async (
  transaction: BlockTransaction,
  volumeId: string,
  nextDueMs: number,
  failure: string | null,
): Promise<void> => {
  await transaction
    .updateTable("backup_schedules")
    .set({ next_due_ms: nextDueMs, failure })
    .where("volume_id", "=", volumeId)
    .execute();
};

/** The schedule keeps the backup as its own: it goes when there are later ones. */
export const addScheduledBackup = async (transaction: BlockTransaction, backupId: string): Promise<void> => {
  await transaction.insertInto("scheduled_backups").values({ backup_id: backupId }).execute();
};

/** Volumes of which a schedule made more backups than it keeps, or some that failed. */
export const volumesToThin = async (database: BlockDatabase): Promise<readonly ScheduleRow[]> =>
  database
    .selectFrom("backup_schedules")
    .selectAll()
    .where((where) =>
      where(
        where
          .selectFrom("scheduled_backups")
          .innerJoin("backups", "backups.id", "scheduled_backups.backup_id")
          .select((select) => select.fn.countAll<number>().as("count"))
          .whereRef("backups.volume_id", "=", "backup_schedules.volume_id")
          .whereRef("backups.project_id", "=", "backup_schedules.project_id")
          .where("backups.status", "in", ["available", "restoring", "error", "error_deleting"]),
        ">",
        where.ref("backup_schedules.keep_count"),
      ),
    )
    .execute();

export const scheduledBackupsOf = async (
  database: BlockDatabase,
  { volume_id: id, project_id: project }: ScheduleRow,
) =>
  (
    await database
      .selectFrom("scheduled_backups")
      .innerJoin("backups", "backups.id", "scheduled_backups.backup_id")
      .select(["backups.id", "backups.status", "backups.data_timestamp_ms"])
      .where("backups.volume_id", "=", id)
      .where("backups.project_id", "=", project)
      .execute()
  ).map((row) => ({ id: row.id, status: row.status, takenAtMs: Number(row.data_timestamp_ms) }));
