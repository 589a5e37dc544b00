import type { VolumeTask } from "../core/volume-task.ts";
import { leasedTasks, newTaskRow } from "./leased-tasks.ts";
import type { BlockDatabase, BlockTransaction } from "./schema.ts";

/** What is to be done with volumes. */
export const volumeTasks = leasedTasks<VolumeTask>("tasks", "volume_id");

/** Writes down what is to be done, in the transaction that decided it. Resolves with its id; the runner finds it after the commit. */
export const enqueueTask = async (
  transaction: BlockTransaction,
  volumeId: string,
  task: VolumeTask,
  nowMs: number,
): Promise<number> => {
  const { id } = await transaction
    .insertInto("tasks")
    .values({ volume_id: volumeId, ...newTaskRow(task, nowMs) })
    .returning("id")
    .executeTakeFirstOrThrow();
  return Number(id);
};

/** Whether something that was asked of the volume is not done yet. */
export const isVolumeBusy = async (database: BlockDatabase, volumeId: string): Promise<boolean> =>
  (await database.selectFrom("tasks").select("id").where("volume_id", "=", volumeId).limit(1).executeTakeFirst()) !==
  undefined;

export const isTaskThere = async (database: BlockDatabase, id: number): Promise<boolean> =>
  (await database.selectFrom("tasks").select("id").where("id", "=", id).executeTakeFirst()) !== undefined;
