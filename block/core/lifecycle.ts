/**
 * What snapshots and backups have in common: both are copies that are made, kept and deleted.
 *
 *     creating ──created──▶ available
 *        │ create-failed        │ delete
 *        ▼                      ▼
 *      error ──delete──▶ deleting ──▶ (gone)      delete-failed ──▶ error_deleting ──delete──▶ deleting
 */
export type LifecycleStatus = "creating" | "available" | "deleting" | "error" | "error_deleting";

export type LifecycleEvent = {
  readonly kind: "created" | "create-failed" | "delete" | "force-delete" | "delete-failed";
};

export type StatusStep<Status> =
  | { readonly kind: "next"; readonly status: Status }
  /** Not in this status; `allowed` are those in which it would be. */
  | { readonly kind: "refused"; readonly allowed: readonly Status[] };

/** To `next`, where the status is one of `allowed`. */
export const statusStep = <Status>(status: Status, allowed: readonly Status[], next: Status): StatusStep<Status> =>
  allowed.includes(status) ? { kind: "next", status: next } : { kind: "refused", allowed };

/** The copy after `event`. Pure. */
export const stepLifecycle = <Status>(
  status: Status | LifecycleStatus,
  { kind }: LifecycleEvent,
): StatusStep<Status | LifecycleStatus> => {
  switch (kind) {
    case "created":
      return statusStep(status, ["creating"], "available");
    case "create-failed":
      return statusStep(status, ["creating"], "error");
    case "delete":
      return statusStep(status, ["available", "error", "error_deleting"], "deleting");
    case "force-delete":
      return { kind: "next", status: "deleting" };
    case "delete-failed":
      return statusStep(status, ["deleting"], "error_deleting");
  }
};
