import { type LifecycleEvent, type StatusStep, statusStep, stepLifecycle } from "./lifecycle.ts";

/**
 * What may be done to a snapshot, and what it is afterwards. Statuses are Cinder's.
 *
 *     what lifecycle.ts draws, and
 *     available ──revert──▶ restoring ──revert-ended──▶ available
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
  | LifecycleEvent
  | { readonly kind: "revert" }
  | { readonly kind: "revert-ended" }
  | { readonly kind: "back-up" }
  | { readonly kind: "backed-up" }
  | { readonly kind: "reset"; readonly status: SnapshotStatus };

/** The snapshot after `event`. Pure; the caller writes the new status in the transaction in which it read the old one. */
export const stepSnapshot = (status: SnapshotStatus, event: SnapshotEvent): StatusStep<SnapshotStatus> => {
  switch (event.kind) {
    case "revert":
      return statusStep(status, ["available"], "restoring");
    case "revert-ended":
      return statusStep(status, ["restoring"], "available");
    case "back-up":
      return statusStep(status, ["available"], "backing-up");
    case "backed-up":
      return statusStep(status, ["backing-up"], "available");
    case "reset":
      return { kind: "next", status: event.status };
    case "created":
    case "create-failed":
    case "delete":
    case "force-delete":
    case "delete-failed":
      return stepLifecycle(status, event);
  }
};
