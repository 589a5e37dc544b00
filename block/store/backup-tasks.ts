import type { Selectable } from "kysely";
import { withTransaction } from "../../common/sql/transaction.ts";
import type { BackupTask } from "../backup/core/backup-task.ts";
import type { BackupTasksTable } from "./backup-schema.ts";
import type { Backup } from "./backups.ts";
import type { BlockDatabase, BlockTransaction } from "./schema.ts";

/** A task that this process works on. */
export type ClaimedBackupTask = {
  readonly id: number;
  readonly backupId: string;
  readonly task: BackupTask;
  readonly attempts: number;
  readonly failingSinceMs: number | undefined;
};

const claimed = (row: Selectable<BackupTasksTable>): ClaimedBackupTask => ({
  id: Number(row.id),
  backupId: row.backup_id,
  // Written by the functions of this file alone.
  task: JSON.parse(row.task_json) as BackupTask,
  attempts: Number(row.attempts),
  failingSinceMs: row.failing_since_ms ?? undefined,
});

/** Writes down what is to be done, in the transaction that decided it. */
export const enqueueBackupTask = async (
  transaction: BlockTransaction,
  backup: Pick<Backup, "id" | "store_project_id" | "volume_id">,
  task: BackupTask,
  nowMs: number,
): Promise<void> => {
  await transaction
    .insertInto("backup_tasks")
    .values({
      backup_id: backup.id,
      store_project_id: backup.store_project_id,
      volume_id: task.kind === "restore" ? task.volumeId : backup.volume_id,
      step: task.step,
      task_json: JSON.stringify(task),
      attempts: 0,
      failing_since_ms: null,
      not_before_ms: nowMs,
      owner: null,
      owned_until_ms: 0,
    })
    .execute();
};

export const backupTaskOf = async (database: BlockDatabase, id: number): Promise<ClaimedBackupTask | undefined> => {
  const row = await database.selectFrom("backup_tasks").selectAll().where("id", "=", id).executeTakeFirst();
  return row && claimed(row);
};

/** It gets on: what failed before does not count any more. */
export const gettingOn = async (database: BlockDatabase, backupId: string): Promise<void> => {
  await database
    .updateTable("backup_tasks")
    .set({ attempts: 0, failing_since_ms: null })
    .where("backup_id", "=", backupId)
    .where("failing_since_ms", "is not", null)
    .execute();
};

/** A task that is due, that nobody works on, and that no earlier one of its backup stands before; from now on `owner`'s. */
export const claimBackupTask = (
  database: BlockDatabase,
  owner: string,
  nowMs: number,
  leaseMs: number,
): Promise<ClaimedBackupTask | undefined> =>
  withTransaction(database, async (transaction) => {
    const row = await transaction
      .selectFrom("backup_tasks")
      .selectAll()
      .where("not_before_ms", "<=", nowMs)
      .where("owned_until_ms", "<=", nowMs)
      .where((where) =>
        where.not(
          where.exists(
            where
              .selectFrom("backup_tasks as earlier")
              .select("earlier.id")
              .whereRef("earlier.backup_id", "=", "backup_tasks.backup_id")
              .whereRef("earlier.id", "<", "backup_tasks.id"),
          ),
        ),
      )
      .orderBy("not_before_ms")
      .orderBy("id")
      .limit(1)
      .executeTakeFirst();
    if (row === undefined) return undefined;
    await transaction
      .updateTable("backup_tasks")
      .set({ owner, owned_until_ms: nowMs + leaseMs })
      .where("id", "=", row.id)
      .execute();
    return claimed(row);
  });

/** Keeps a task for longer. False: it is somebody else's now, or gone. */
export const renewBackupTask = async (
  database: BlockDatabase,
  id: number,
  owner: string,
  untilMs: number,
): Promise<boolean> => {
  const { numUpdatedRows } = await database
    .updateTable("backup_tasks")
    .set({ owned_until_ms: untilMs })
    .where("id", "=", id)
    .where("owner", "=", owner)
    .executeTakeFirst();
  return numUpdatedRows > 0n;
};

export const isBackupTaskOwned = async (transaction: BlockTransaction, id: number, owner: string): Promise<boolean> =>
  (await transaction
    .selectFrom("backup_tasks")
    .select("id")
    .where("id", "=", id)
    .where("owner", "=", owner)
    .executeTakeFirst()) !== undefined;

/** The next step, in the transaction with what came of the last one. */
export const continueBackupTask = async (
  transaction: BlockTransaction,
  id: number,
  task: BackupTask,
): Promise<void> => {
  await transaction
    .updateTable("backup_tasks")
    .set({ step: task.step, task_json: JSON.stringify(task), attempts: 0, failing_since_ms: null })
    .where("id", "=", id)
    .execute();
};

export const removeBackupTask = async (transaction: BlockTransaction, id: number): Promise<void> => {
  await transaction.deleteFrom("backup_tasks").where("id", "=", id).execute();
};

/** Again at `notBeforeMs`, by whoever comes first. */
export const postponeBackupTask = async (
  database: BlockDatabase,
  id: number,
  owner: string,
  again: { readonly notBeforeMs: number; readonly failingSinceMs: number | null; readonly attempts: number },
): Promise<void> => {
  await database
    .updateTable("backup_tasks")
    .set({
      not_before_ms: again.notBeforeMs,
      failing_since_ms: again.failingSinceMs,
      attempts: again.attempts,
      owner: null,
      owned_until_ms: 0,
    })
    .where("id", "=", id)
    .where("owner", "=", owner)
    .execute();
};

/** Where this is the only process of the database: what a killed one had is free at once. */
export const releaseBackupTasks = async (database: BlockDatabase): Promise<void> => {
  await database.updateTable("backup_tasks").set({ owner: null, owned_until_ms: 0 }).execute();
};

/** The restoration that a volume is being made for. */
export const isRestorationAwaited = async (transaction: BlockTransaction, volumeId: string): Promise<boolean> =>
  (await transaction
    .selectFrom("backup_tasks")
    .select("id")
    .where("volume_id", "=", volumeId)
    .where("step", "=", "await")
    .executeTakeFirst()) !== undefined;
