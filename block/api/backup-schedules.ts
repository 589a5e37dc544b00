import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { EVERY_SECONDS_MAX, EVERY_SECONDS_MIN, KEEP_MAX } from "../core/backup-schedule.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { findSchedule, putSchedule, removeSchedule, type ScheduleRow } from "../store/backup-schedules.ts";
import { volumeForChange } from "../store/volumes.ts";
import { offeredBackups } from "./backup-views.ts";
import { type BlockRoute, blockRoute, enforce, timeText, visibleVolume } from "./block-route.ts";
import { uuidParams } from "./volume-fields.ts";

const PATH = "/volumes/:volume_id/backup-schedule";
const params = uuidParams("volume_id");

const shown = (row: ScheduleRow) => ({
  backup_schedule: {
    volume_id: row.volume_id,
    every_seconds: Number(row.every_ms) / 1_000,
    keep: Number(row.keep_count),
    next_backup_at: timeText(Number(row.next_due_ms)),
    failure: row.failure,
  },
});

const scheduleBody = Type.Object({
  backup_schedule: Type.Object(
    {
      every_seconds: Type.Integer({ minimum: EVERY_SECONDS_MIN, maximum: EVERY_SECONDS_MAX }),
      keep: Type.Integer({ minimum: 1, maximum: KEEP_MAX }),
    },
    { additionalProperties: false },
  ),
});

/** Backups of a volume by themselves: no operation of Cinder, which leaves that to whoever calls it. */
export const BACKUP_SCHEDULE_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: PATH,
    request: { params },
    handler: async (request, context, caller) => {
      const volume = await visibleVolume(context.database, caller, request.params.volume_id);
      enforce(context, caller, "backup:get", volume.project_id);
      const row = await findSchedule(context.database, volume.id);
      if (row === undefined) throw notFound("Backup schedule of volume", volume.id);
      return { status: 200, body: shown(row) };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: PATH,
    request: { params, body: scheduleBody },
    handler: async (request, context, caller) => {
      offeredBackups(context);
      const known = await visibleVolume(context.database, caller, request.params.volume_id);
      enforce(context, caller, "backup:create", known.project_id);
      const { every_seconds: everySeconds, keep } = request.body.backup_schedule;
      const row = await withTransaction(context.writer, async (transaction) => {
        const volume = await volumeForChange(transaction, known.id);
        if (volume.status === "deleting")
          throw blockError("invalid-state", `Invalid volume: Volume ${volume.id} is being deleted.`);
        const of = { projectId: volume.project_id, userId: caller.token.userId };
        const schedule = { everyMs: everySeconds * 1_000, keep };
        await putSchedule(transaction, volume.id, of, schedule, context.clock.nowMs());
        return findSchedule(transaction, volume.id);
      });
      if (row === undefined) throw notFound("Backup schedule of volume", known.id);
      return { status: 200, body: shown(row) };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: PATH,
    request: { params },
    handler: async (request, context, caller) => {
      const volume = await visibleVolume(context.database, caller, request.params.volume_id);
      enforce(context, caller, "backup:create", volume.project_id);
      if (!(await removeSchedule(context.writer, volume.id))) throw notFound("Backup schedule of volume", volume.id);
      return { status: 204 };
    },
  }),
];
