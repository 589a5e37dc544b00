/*
 * Groups and group snapshots have no task of their own: what they are follows from the volumes and snapshots in them, whose tasks write it.
 */

/**
 *     creating ──(all volumes are made)──▶ available ──delete──▶ deleting ──(no volume is left)──▶ (gone)
 *        │ a volume failed                                          │ a volume failed
 *        ▼                                                          ▼
 *      error                                                  error_deleting
 */
export const GROUP_STATUSES = [
  "creating",
  "available",
  "updating",
  "in-use",
  "deleting",
  "error",
  "error_deleting",
] as const;
export type GroupStatus = (typeof GROUP_STATUSES)[number];

/** The same for group snapshots and the snapshots in them. */
export const GROUP_SNAPSHOT_STATUSES = ["creating", "available", "deleting", "error", "error_deleting"] as const;
export type GroupSnapshotStatus = (typeof GROUP_SNAPSHOT_STATUSES)[number];

/**
 * What a whole is after one of its parts has changed, from what its parts are now; undefined: it is gone. Only a whole that is being made or
 * deleted follows its parts. Pure.
 */
export const statusOfParts = <Status extends string>(
  whole: Status,
  parts: readonly string[],
): Status | "available" | "error" | "error_deleting" | undefined => {
  if (whole === "deleting") {
    if (parts.length === 0) return undefined;
    return parts.includes("deleting") || !parts.includes("error_deleting") ? whole : "error_deleting";
  }
  if (whole !== "creating" || parts.includes("creating")) return whole;
  return parts.includes("error") ? "error" : "available";
};
