import { type LifecycleEvent, type StatusStep, statusStep, stepLifecycle } from "../../core/lifecycle.ts";

/**
 * What may be done to a backup, and what it is afterwards. Statuses are Cinder's.
 *
 *     what ../../core/lifecycle.ts draws, and
 *     available ──restore──▶ restoring ──restore-ended──▶ available
 *
 * An administrator may `reset` it to `available` or `error`, but not while something is done that cannot be taken back: what is being deleted may
 * have lost its list already, and what is being made has none yet, so that neither is ever `available`.
 */
export const BACKUP_STATUSES = ["creating", "available", "restoring", "deleting", "error", "error_deleting"] as const;
export type BackupStatus = (typeof BACKUP_STATUSES)[number];

export type BackupEvent =
  | LifecycleEvent
  | { readonly kind: "restore" }
  | { readonly kind: "restore-ended" }
  | { readonly kind: "reset"; readonly status: "available" | "error" };

const AT_REST: readonly BackupStatus[] = ["available", "restoring", "error", "error_deleting"];

/** The backup after `event`. Pure; the caller writes the new status in the transaction in which it read the old one. */
export const stepBackup = (status: BackupStatus, event: BackupEvent): StatusStep<BackupStatus> => {
  switch (event.kind) {
    case "restore":
      return statusStep(status, ["available"], "restoring");
    case "restore-ended":
      return statusStep(status, ["restoring"], "available");
    case "reset":
      return statusStep(status, event.status === "available" ? AT_REST : [...AT_REST, "creating"], event.status);
    case "created":
    case "create-failed":
    case "delete":
    case "force-delete":
    case "delete-failed":
      return stepLifecycle(status, event);
  }
};
