/** Of a volume's own backups: how often one is made, and how many are kept. */
export type BackupSchedule = { readonly everyMs: number; readonly keep: number };

/** A minute: less than a backup takes. A year: more is none. */
export const EVERY_SECONDS_MIN = 60;
export const EVERY_SECONDS_MAX = 366 * 86_400;
export const KEEP_MAX = 1_000;

/** A backup that a schedule made. */
export type ScheduledBackup = { readonly id: string; readonly status: string; readonly takenAtMs: number };

/**
 * When the next one is due after one that was due at `dueMs` and made at `nowMs`. What was missed meanwhile is not made up for: it would be the same
 * content several times. The beat stays as it was.
 */
export const nextDueMs = (dueMs: number, everyMs: number, nowMs: number): number =>
  dueMs + Math.max(1, Math.ceil((nowMs + 1 - dueMs) / everyMs)) * everyMs;

const AT_REST = new Set(["available", "error", "error_deleting"]);

/**
 * Those that go: everything older than the latest `keep` that can be restored from, and whatever failed before the latest one of these. As long as there is
 * no later one, nothing that can be restored from goes. Pure.
 */
export const expiredBackups = (backups: readonly ScheduledBackup[], keep: number): readonly string[] => {
  const newestFirst = backups.toSorted((one, other) => other.takenAtMs - one.takenAtMs);
  let usable = 0;
  const expired: string[] = [];
  for (const { id, status } of newestFirst) {
    const isOver = status === "error" || status === "error_deleting" ? usable > 0 : usable >= keep;
    if (isOver && AT_REST.has(status)) expired.push(id);
    if (status === "available" || status === "restoring") usable += 1;
  }
  return expired;
};
