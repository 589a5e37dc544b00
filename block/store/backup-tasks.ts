import type { BackupTask } from "../backup/core/backup-task.ts";
import type { Backup } from "./backups.ts";
import { leasedTasks, newTaskRow } from "./leased-tasks.ts";
import type { BlockTransaction } from "./schema.ts";

/** What is to be done with backups. Their step stands in a column: sweeps, and restorations into new volumes, ask for it. */
export const backupTasks = leasedTasks<BackupTask>("backup_tasks", "backup_id", ({ step }) => ({ step }));

/** Writes down what is to be done, in the transaction that decided it. */
export const enqueueBackupTask = async (
  transaction: BlockTransaction,
  backup: Pick<Backup, "id" | "store_project_id" | "volume_id">,
  task: BackupTask,
  nowMs: number,
): Promise<void> => {
  const about = {
    backup_id: backup.id,
    store_project_id: backup.store_project_id,
    volume_id: task.kind === "restore" ? task.volumeId : backup.volume_id,
    step: task.step,
  };
  await transaction
    .insertInto("backup_tasks")
    .values({ ...about, ...newTaskRow(task, nowMs) })
    .execute();
};

/** What the volume is still filled from does not concern it any more, in the transaction that gives it something else. */
export const supersedeFillings = async (transaction: BlockTransaction, volumeId: string): Promise<void> => {
  const rows = await transaction
    .selectFrom("backup_tasks")
    .select(["id", "task_json"])
    .where("volume_id", "=", volumeId)
    .where("step", "=", "fill")
    .execute();
  for (const { id, task_json: text } of rows) {
    // Written by `keep`, which writes no task that stays in this step.
    const task = { ...(JSON.parse(text) as Extract<BackupTask, { step: "fill" }>), isSuperseded: true };
    await transaction
      .updateTable("backup_tasks")
      .set({ task_json: JSON.stringify(task) })
      .where("id", "=", id)
      .execute();
  }
};

/** The restoration that a volume is being made for. */
export const isRestorationAwaited = async (transaction: BlockTransaction, volumeId: string): Promise<boolean> =>
  (await transaction
    .selectFrom("backup_tasks")
    .select("id")
    .where("volume_id", "=", volumeId)
    .where("step", "=", "await")
    .executeTakeFirst()) !== undefined;
