/**
 * What may be done to a volume, and what it is afterwards. Statuses are Cinder's.
 *
 *                     create
 *                       │
 *                    creating ──create-failed──▶ error
 *                       │ created
 *                       ▼      revert ──▶ reverting ──reverted──▶ available               revert-failed ──▶ error
 *                       │      back-up ──▶ backing-up ──backed-up──▶ (as before)
 *                       │      restore ──▶ restoring-backup ──restored──▶ available      restore-failed ──▶ error_restoring
 *                       │              what an available volume is still filled from is damaged: restore-failed as well
 *                       │      transfer ──▶ awaiting-transfer ──transfer-ended──▶ available
 *                       │      extend ──▶ extending ──extended──▶ (as before)     extend-failed ──▶ error_extending
 *      ┌─────────▶  available ────────────────────────────────┐
 *      │                │ reserve          legacy-reserve     │ delete (also from the error statuses)
 *      │                ▼                        │            ▼
 *      │             reserved ──connect──┐       │         deleting ──deleted──▶ (gone)
 *      │                                 ▼       ▼            │ delete-failed
 *      │                                attaching             ▼
 *      │                                 │ attached      error_deleting
 *      │                                 ▼
 *      └──detached (none is left)──── in-use ──begin-detaching──▶ detaching ──roll-detaching──▶ in-use
 *
 * After an attachment came or went, the volume's status follows from those that it has: attached > attaching > detaching > reserved; those that
 * failed do not count (Cinder: "error attaching" was never used by anybody). An administrator may `reset` any status.
 */
export const VOLUME_STATUSES = [
  "creating",
  "available",
  "reserved",
  "attaching",
  "in-use",
  "detaching",
  "extending",
  "reverting",
  "awaiting-transfer",
  "backing-up",
  "restoring-backup",
  "maintenance",
  "deleting",
  "error",
  "error_deleting",
  "error_extending",
  "error_restoring",
] as const;
export type VolumeStatus = (typeof VOLUME_STATUSES)[number];

/**
 * Of one attachment:
 *
 *     reserved ──connect──▶ attaching ──complete──▶ attached ──disconnect──▶ detaching ──▶ (gone)
 *                              │ failed                                          │ failed
 *                              ▼                                                 ▼
 *                        error_attaching                                  error_detaching
 */
export const ATTACHMENT_STATUSES = [
  "reserved",
  "attaching",
  "attached",
  "detaching",
  "error_attaching",
  "error_detaching",
] as const;
export type AttachmentStatus = (typeof ATTACHMENT_STATUSES)[number];

export type VolumeState = {
  readonly status: VolumeStatus;
  /** What a volume that is extended or backed up was before, and is again. */
  readonly previousStatus: VolumeStatus | undefined;
  readonly isMultiattach: boolean;
};

export type VolumeEvent =
  | { readonly kind: "created" }
  | { readonly kind: "create-failed" }
  /** The attachments API: somebody will connect. */
  | { readonly kind: "reserve" }
  /** os-reserve. */
  | { readonly kind: "legacy-reserve" }
  | { readonly kind: "connect" }
  /** os-attach: with or without a reservation. */
  | { readonly kind: "legacy-attach" }
  | { readonly kind: "begin-detaching" }
  | { readonly kind: "roll-detaching" }
  /** os-detach: of what is attached, or of what begin-detaching announced. */
  | { readonly kind: "legacy-detach" }
  /** Attachments changed; those that there are now. */
  | { readonly kind: "attachments"; readonly statuses: readonly AttachmentStatus[] }
  /** os-unreserve, with the attachments that there are. */
  | { readonly kind: "unreserve"; readonly statuses: readonly AttachmentStatus[] }
  | { readonly kind: "extend"; readonly mayBeAttached: boolean }
  | { readonly kind: "extended" }
  | { readonly kind: "extend-failed" }
  | { readonly kind: "revert" }
  | { readonly kind: "reverted" }
  | { readonly kind: "revert-failed" }
  /** Offered to another project. */
  | { readonly kind: "transfer" }
  | { readonly kind: "transfer-ended" }
  | { readonly kind: "back-up"; readonly mayBeAttached: boolean }
  | { readonly kind: "backed-up" }
  /** A backup is to be its content. */
  | { readonly kind: "restore" }
  | { readonly kind: "restored" }
  | { readonly kind: "restore-failed" }
  | { readonly kind: "delete" }
  | { readonly kind: "force-delete" }
  | { readonly kind: "delete-failed" }
  | { readonly kind: "reset"; readonly status: VolumeStatus };

export type VolumeStep =
  | { readonly kind: "next"; readonly state: VolumeState }
  /** Not in this status; `allowed` are those in which it would be. */
  | { readonly kind: "refused"; readonly allowed: readonly VolumeStatus[] };

const AT_REST: readonly VolumeStatus[] = ["available", "in-use"];
const DELETABLE: readonly VolumeStatus[] = [
  "available",
  "error",
  "error_extending",
  "error_restoring",
  "error_deleting",
  "maintenance",
];

/** What a volume with these attachments is. */
export const statusOfAttachments = (statuses: readonly AttachmentStatus[]): VolumeStatus => {
  if (statuses.includes("attached")) return "in-use";
  if (statuses.includes("attaching")) return "attaching";
  if (statuses.includes("detaching")) return "detaching";
  return statuses.includes("reserved") ? "reserved" : "available";
};

/** Whether a volume of this status is about its attachments: a failed or busy one keeps its status when one of them goes. */
const followsAttachments = (status: VolumeStatus): boolean =>
  ["available", "reserved", "attaching", "in-use", "detaching"].includes(status);

/** The volume after `event`. Pure; the caller writes the new state in the transaction in which it read the old one. */
export const stepVolume = (state: VolumeState, event: VolumeEvent): VolumeStep => {
  const next = (status: VolumeStatus, previousStatus?: VolumeStatus): VolumeStep => ({
    kind: "next",
    state: { ...state, status, previousStatus },
  });
  const from = (allowed: readonly VolumeStatus[], status: VolumeStatus, previousStatus?: VolumeStatus): VolumeStep =>
    allowed.includes(state.status) ? next(status, previousStatus) : { kind: "refused", allowed };
  const free: readonly VolumeStatus[] = state.isMultiattach ? AT_REST : ["available"];

  switch (event.kind) {
    case "created":
      return from(["creating"], "available");
    case "create-failed":
      return from(["creating"], "error");
    case "reserve":
      return from(free, "reserved");
    case "legacy-reserve":
      return from(free, "attaching");
    case "connect":
      return from(["reserved", "attaching", ...(state.isMultiattach ? AT_REST : [])], "attaching");
    case "legacy-attach":
      return from(["attaching", ...free], "in-use");
    case "begin-detaching":
      return from(["in-use"], "detaching");
    case "roll-detaching":
      return from(["detaching"], "in-use");
    case "legacy-detach":
      return from(["in-use", "detaching"], "detaching");
    case "attachments":
      // While it grows or is backed up, what it goes back to is what changes.
      if (state.status === "extending" || state.status === "backing-up")
        return next(state.status, statusOfAttachments(event.statuses));
      return next(followsAttachments(state.status) ? statusOfAttachments(event.statuses) : state.status);
    case "unreserve":
      return from(["attaching", "reserved"], statusOfAttachments(event.statuses));
    case "extend":
      return from(event.mayBeAttached ? AT_REST : ["available"], "extending", state.status);
    case "extended":
      return from(["extending"], state.previousStatus ?? "available");
    case "extend-failed":
      return from(["extending"], "error_extending");
    case "revert":
      return from(["available"], "reverting");
    case "reverted":
      return from(["reverting"], "available");
    case "revert-failed":
      return from(["reverting"], "error");
    case "transfer":
      return from(["available"], "awaiting-transfer");
    case "transfer-ended":
      return from(["awaiting-transfer"], "available");
    case "back-up":
      return from(event.mayBeAttached ? AT_REST : ["available"], "backing-up", state.status);
    case "backed-up":
      return from(["backing-up"], state.previousStatus ?? "available");
    case "restore":
      return from(["available"], "restoring-backup");
    case "restored":
      return from(["restoring-backup"], "available");
    case "restore-failed":
      return from(["restoring-backup", "available"], "error_restoring");
    case "delete":
      return from(DELETABLE, "deleting");
    case "force-delete":
      return next("deleting");
    case "delete-failed":
      return from(["deleting"], "error_deleting");
    case "reset":
      return next(event.status);
  }
};
