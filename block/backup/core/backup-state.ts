/**
 * What may be done to a backup, and what it is afterwards. Statuses are Cinder's.
 *
 *     creating ──created──▶ available ──restore──▶ restoring ──restore-ended──▶ available
 *        │ create-failed        │ delete
 *        ▼                      ▼
 *      error ──delete──▶ deleting ──▶ (gone)      delete-failed ──▶ error_deleting ──delete──▶ deleting
 *
 * An administrator may `reset` it to `available` or `error`.
 */
export const BACKUP_STATUSES = ["creating", "available", "restoring", "deleting", "error", "error_deleting"] as const;
export type BackupStatus = (typeof BACKUP_STATUSES)[number];

export type BackupEvent =
  | { readonly kind: "created" }
  | { readonly kind: "create-failed" }
  | { readonly kind: "restore" }
  | { readonly kind: "restore-ended" }
  | { readonly kind: "delete" }
  | { readonly kind: "force-delete" }
  | { readonly kind: "delete-failed" }
  | { readonly kind: "reset"; readonly status: "available" | "error" };

export type BackupStep =
  | { readonly kind: "next"; readonly status: BackupStatus }
  /** Not in this status; `allowed` are those in which it would be. */
  | { readonly kind: "refused"; readonly allowed: readonly BackupStatus[] };

/** The backup after `event`. Pure; the caller writes the new status in the transaction in which it read the old one. */
export const stepBackup = (status: BackupStatus, event: BackupEvent): BackupStep => {
  const from = (allowed: readonly BackupStatus[], next: BackupStatus): BackupStep =>
    allowed.includes(status) ? { kind: "next", status: next } : { kind: "refused", allowed };
  switch (event.kind) {
    case "created":
      return from(["creating"], "available");
    case "create-failed":
      return from(["creating"], "error");
    case "restore":
      return from(["available"], "restoring");
    case "restore-ended":
      return from(["restoring"], "available");
    case "delete":
      return from(["available", "error", "error_deleting"], "deleting");
    case "force-delete":
      return { kind: "next", status: "deleting" };
    case "delete-failed":
      return from(["deleting"], "error_deleting");
    case "reset":
      return { kind: "next", status: event.status };
  }
};
