import type { Clock } from "../../common/clock.ts";
import { codeOf, messageOf } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import { expiredBackups, nextDueMs } from "../core/backup-schedule.ts";
import { blockError } from "../core/block-error.ts";
import { announceBackup, announceBackupDeletion } from "../store/backup-announcements.ts";
import {
  addScheduledBackup,
  advanceSchedule,
  dueSchedules,
  findSchedule,
  removeSchedule,
  type ScheduleRow,
  scheduledBackupsOf,
  volumesToThin,
} from "../store/backup-schedules.ts";
import { addMessage } from "../store/messages.ts";
import type { BlockDatabase } from "../store/schema.ts";
import { findVolume } from "../store/volumes.ts";

/** How late a backup is begun. */
const LOOK_MS = 2_000;
/** Read at once. */
const DUE_LIMIT = 100;
/** Of what hinders a backup, as the schedule shows it. */
const REASON_CHARACTERS = 255;

export type SchedulerOptions = {
  readonly database: BlockDatabase;
  readonly zone: string;
  readonly clock: Clock;
  readonly log: Log;
  /** There are tasks to do. */
  wake(this: void): void;
};

type Begun = "begun" | "busy" | "gone";

/**
 * Makes the backups of schedules, and removes those that later ones take the place of. Whoever is killed in between has done all of a step or nothing: the
 * backup, its task and the schedule's next time are written together.
 */
export const createBackupScheduler = ({ database, zone, clock, log, wake }: SchedulerOptions): Worker => {
  const total = { begun: 0, removed: 0, failures: 0 };

  /** As it stands now: another process may have seen to it. */
  const begin = (volumeId: string): Promise<Begun> =>
    withTransaction(database, async (transaction): Promise<Begun> => {
      const nowMs = clock.nowMs();
      const schedule = await findSchedule(transaction, volumeId);
      const volume = await findVolume(transaction, volumeId);
      if (schedule === undefined || volume === undefined || Number(schedule.next_due_ms) > nowMs) return "gone";
      // Given to another project, which did not ask for this and would pay for it.
      if (volume.project_id !== schedule.project_id) {
        await removeSchedule(transaction, volumeId);
        return "gone";
      }
      if ((volume.status !== "available" && volume.status !== "in-use") || volume.backend === null) {
        if (nowMs - Number(schedule.next_due_ms) < Number(schedule.every_ms)) return "busy";
        throw blockError("invalid-state", `The volume has been ${volume.status} when a backup was due.`);
      }
      const backup = await announceBackup(
        transaction,
        volume,
        {
          projectId: schedule.project_id,
          userId: schedule.user_id,
          snapshotId: undefined,
          increment: "if-possible",
          isForced: true,
          name: `scheduled-${new Date(nowMs).toISOString().slice(0, 19)}Z`,
          description: null,
          container: "volumebackups",
          zone,
          metadata: {},
        },
        nowMs,
      );
      await addScheduledBackup(transaction, backup.id);
      const next = nextDueMs(Number(schedule.next_due_ms), Number(schedule.every_ms), nowMs);
      await advanceSchedule(transaction, volumeId, next, null);
      return "begun";
    });

  /** What does not work now is tried when the next one is due, and said. */
  const giveUp = (schedule: ScheduleRow, thrown: unknown): Promise<void> =>
    withTransaction(database, async (transaction) => {
      const nowMs = clock.nowMs();
      const { volume_id: volumeId, project_id: projectId } = schedule;
      const next = nextDueMs(Number(schedule.next_due_ms), Number(schedule.every_ms), nowMs);
      await advanceSchedule(transaction, volumeId, next, messageOf(thrown).slice(0, REASON_CHARACTERS));
      const detail = codeOf(thrown) === "over-quota" ? "quota" : "unknown";
      const about = { projectId, resourceType: "VOLUME", resourceId: volumeId } as const;
      await addMessage(transaction, { ...about, action: "backup-create", detail }, nowMs);
    });

  const beginOne = async (schedule: ScheduleRow): Promise<void> => {
    try {
      if ((await begin(schedule.volume_id)) === "begun") total.begun += 1;
    } catch (thrown) {
      if (codeOf(thrown) === "database-unavailable") throw thrown;
      total.failures += 1;
      log.warn("a scheduled backup is not made", { volume: schedule.volume_id, reason: messageOf(thrown) });
      await giveUp(schedule, thrown);
    }
  };

  const beginDue = async (): Promise<void> => {
    for (let afterId = ""; ; ) {
      const due = await dueSchedules(database, clock.nowMs(), afterId, DUE_LIMIT);
      for (const schedule of due) await beginOne(schedule);
      if (due.length < DUE_LIMIT) return;
      afterId = due.at(-1)?.volume_id ?? "";
    }
  };

  const thin = async (): Promise<void> => {
    for (const schedule of await volumesToThin(database)) {
      for (const id of expiredBackups(await scheduledBackupsOf(database, schedule), Number(schedule.keep_count))) {
        try {
          await withTransaction(database, (transaction) =>
            announceBackupDeletion(transaction, id, false, clock.nowMs()),
          );
          total.removed += 1;
        } catch (thrown) {
          // An increment is being made upon it, or somebody restores it: it goes with a later look.
          if (codeOf(thrown) !== "invalid-state" && codeOf(thrown) !== "not-found") throw thrown;
        }
      }
    }
  };

  return {
    name: "backup-schedules",
    status: () => ({ ...total }),
    work: async () => {
      const before = total.begun + total.removed;
      await beginDue();
      await thin();
      if (total.begun + total.removed > before) wake();
      return "idle";
    },
    waitForWork: (signal) => sleep(LOOK_MS, signal),
  };
};
