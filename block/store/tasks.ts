import type { Selectable } from "kysely";
import { withTransaction } from "../../common/sql/transaction.ts";
import type { VolumeTask } from "../core/volume-task.ts";
import type { BlockDatabase, BlockTransaction, TasksTable } from "./schema.ts";

/** A task that this process works on. */
export type ClaimedTask = {
  readonly id: number;
  readonly volumeId: string;
  readonly task: VolumeTask;
  readonly attempts: number;
  readonly failingSinceMs: number | undefined;
};

const claimed = (row: Selectable<TasksTable>): ClaimedTask => ({
  id: Number(row.id),
  volumeId: row.volume_id,
  // Written by `enqueueTask` and `continueTask` alone.
  task: JSON.parse(row.task_json) as VolumeTask,
  attempts: Number(row.attempts),
  failingSinceMs: row.failing_since_ms ?? undefined,
});

/** Writes down what is to be done, in the transaction that decided it. Resolves with its id; the runner finds it after the commit. */
export const enqueueTask = async (
  transaction: BlockTransaction,
  volumeId: string,
  task: VolumeTask,
  nowMs: number,
): Promise<number> => {
  const { id } = await transaction
    .insertInto("tasks")
    .values({
      volume_id: volumeId,
      task_json: JSON.stringify(task),
      attempts: 0,
      failing_since_ms: null,
      not_before_ms: nowMs,
      owner: null,
      owned_until_ms: 0,
    })
    .returning("id")
    .executeTakeFirstOrThrow();
  return Number(id);
};

/** A task that is due, that nobody works on, and that no earlier one of its volume stands before; from now on `owner`'s. */
export const claimTask = (
  database: BlockDatabase,
  owner: string,
  nowMs: number,
  leaseMs: number,
): Promise<ClaimedTask | undefined> =>
  withTransaction(database, async (transaction) => {
    const row = await transaction
      .selectFrom("tasks")
      .selectAll()
      .where("not_before_ms", "<=", nowMs)
      .where("owned_until_ms", "<=", nowMs)
      .where((where) =>
        where.not(
          where.exists(
            where
              .selectFrom("tasks as earlier")
              .select("earlier.id")
              .whereRef("earlier.volume_id", "=", "tasks.volume_id")
              .whereRef("earlier.id", "<", "tasks.id"),
          ),
        ),
      )
      .orderBy("id")
      .limit(1)
      .executeTakeFirst();
    if (row === undefined) return undefined;
    await transaction
      .updateTable("tasks")
      .set({ owner, owned_until_ms: nowMs + leaseMs })
      .where("id", "=", row.id)
      .execute();
    return claimed(row);
  });

/** Keeps a task for longer. False: it is somebody else's now, or gone. */
export const renewTask = async (
  database: BlockDatabase,
  id: number,
  owner: string,
  untilMs: number,
): Promise<boolean> => {
  const { numUpdatedRows } = await database
    .updateTable("tasks")
    .set({ owned_until_ms: untilMs })
    .where("id", "=", id)
    .where("owner", "=", owner)
    .executeTakeFirst();
  return numUpdatedRows > 0n;
};

/** True while `owner` has it: what came of a step is written by nobody else. */
export const isOwned = async (transaction: BlockTransaction, id: number, owner: string): Promise<boolean> =>
  (await transaction
    .selectFrom("tasks")
    .select("id")
    .where("id", "=", id)
    .where("owner", "=", owner)
    .executeTakeFirst()) !== undefined;

/** The next step, in the transaction with what came of the last one. */
export const continueTask = async (transaction: BlockTransaction, id: number, task: VolumeTask): Promise<void> => {
  await transaction
    .updateTable("tasks")
    .set({ task_json: JSON.stringify(task), attempts: 0, failing_since_ms: null })
    .where("id", "=", id)
    .execute();
};

export const removeTask = async (transaction: BlockTransaction, id: number): Promise<void> => {
  await transaction.deleteFrom("tasks").where("id", "=", id).execute();
};

/** The step had no answer: again at `notBeforeMs`, by whoever comes first. */
export const postponeTask = async (
  database: BlockDatabase,
  id: number,
  owner: string,
  again: { readonly notBeforeMs: number; readonly failingSinceMs: number; readonly attempts: number },
): Promise<void> => {
  await database
    .updateTable("tasks")
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
export const releaseTasks = async (database: BlockDatabase): Promise<void> => {
  await database.updateTable("tasks").set({ owner: null, owned_until_ms: 0 }).execute();
};

export const isTaskThere = async (database: BlockDatabase, id: number): Promise<boolean> =>
  (await database.selectFrom("tasks").select("id").where("id", "=", id).executeTakeFirst()) !== undefined;
