/**
 * What may be done to a snapshot, and what it is afterwards. Statuses are Cinder's.
 *
 *     creating ──created──▶ available ──revert──▶ restoring ──revert-ended──▶ available
 *        │ create-failed        │ delete
 *        ▼                      ▼
 *      error ──delete──▶ deleting ──▶ (gone)      delete-failed ──▶ error_deleting ──delete──▶ deleting
 *
 *     available ──back-up──▶ backing-up ──backed-up──▶ available
 *
 * An administrator may `reset` any status; `unmanaging` is set by nothing else.
 */
export const SNAPSHOT_STATUSES = [
  "creating",
  "available",
  "deleting",
  "error",
  "error_deleting",
  "restoring",
  "updating",
  "backing-up",
  "unmanaging",
] as const;
export type SnapshotStatus = (typeof SNAPSHOT_STATUSES)[number];

export type SnapshotEvent =
  | { readonly kind: "created" }
  | { readonly kind: "create-failed" }
  | { readonly kind: "delete" }
  | { readonly kind: "force-delete" }
  | { readonly kind: "delete-failed" }
  | { readonly kind: "revert" }
  | { readonly kind: "revert-ended" }
  | { readonly kind: "back-up" }
  | { readonly kind: "backed-up" }
  | { readonly kind: "reset"; readonly status: SnapshotStatus };

export type SnapshotStep =
  | { readonly kind: "next"; readonly status: SnapshotStatus }
  /** Not in this status; `allowed` are those in which it would be. */
  | { readonly kind: "refused"; readonly allowed: readonly SnapshotStatus[] };

/** The snapshot after `event`. Pure; the caller writes the new status in the transaction in which it read the old one. */
export const stepSnapshot = (status: SnapshotStatus, event: SnapshotEvent): SnapshotStep => {
  const from = (allowed: readonly SnapshotStatus[], next: SnapshotStatus): SnapshotStep =>
    allowed.includes(status) ? { kind: "next", status: next } : { kind: "refused", allowed };
  switch (event.kind) {
    case "created":
      return from(["creating"], "available");
    case "create-failed":
      return from(["creating"], "error");
    case "delete":
      return from(["available", "error", "error_deleting"], "deleting");
    case "force-delete":
      return { kind: "next", status: "deleting" };
    case "delete-failed":
      return from(["deleting"], "error_deleting");
    case "revert":
      return from(["available"], "restoring");
    case "revert-ended":
      return from(["restoring"], "available");
    case "back-up":
      return from(["available"], "backing-up");
    case "backed-up":
      return from(["backing-up"], "available");
    case "reset":
      return { kind: "next", status: event.status };
  }
};
