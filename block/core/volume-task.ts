import type { SnapshotEvent } from "./snapshot-state.ts";
import type { VolumeEvent } from "./volume-state.ts";

/**
 * Long operations as records: what is to be done next stands in the database before it is done, and what came of it together with the next
 * step. Whoever was killed in between does the step again; every call to a host may be made twice. Tasks of one volume are done one after the other.
 *
 *     create      schedule ──pool-chosen──▶ make ──done──▶ (created)
 *                    ▲ no-pool ▶ (create-failed)  │ refused "pool-full": the pool is left out
 *                    └────────────────────────────┘ refused or given up ──▶ unmake ──▶ (create-failed)
 *     delete      close ──done──▶ drop-snapshots ──done──▶ unmake ──done──▶ (row removed)     refused or given up ▶ (delete-failed)
 *     extend      grow ──done──▶ (extended)                               refused or given up ▶ (extend-failed)
 *     connect     open ──exported──▶ (attachment has its connection)      refused or given up ──▶ undo ──▶ (attachment failed)
 *     disconnect  close ──done──▶ (attachment removed)                    refused or given up ▶ (attachment failed)
 *     snapshot    take ──done──▶ (created)                                refused or given up ──▶ undo ──▶ (create-failed)
 *     unsnapshot  drop ──done──▶ (row removed)                            refused or given up ▶ (delete-failed)
 *     revert      revert ──done──▶ (reverted)                             refused or given up ▶ (revert-failed)
 *
 * `given up`: the host did not answer for as long as the caller's limit says; nothing waits for it for ever.
 */
export type VolumeTask =
  | { readonly kind: "create"; readonly step: "schedule"; readonly excluded: readonly string[] }
  | { readonly kind: "create"; readonly step: "make"; readonly backend: string; readonly excluded: readonly string[] }
  | { readonly kind: "create"; readonly step: "unmake"; readonly backend: string; readonly reason: string }
  /** Whatever is open then; only a forced deletion finds something. */
  | { readonly kind: "delete"; readonly step: "close" }
  /** Those that the volume has: none, or all of them go with it. */
  | { readonly kind: "delete"; readonly step: "drop-snapshots" }
  | { readonly kind: "delete"; readonly step: "unmake" }
  | { readonly kind: "snapshot"; readonly step: "take"; readonly snapshotId: string }
  | { readonly kind: "snapshot"; readonly step: "undo"; readonly snapshotId: string; readonly reason: string }
  | { readonly kind: "unsnapshot"; readonly step: "drop"; readonly snapshotId: string }
  | { readonly kind: "revert"; readonly step: "revert"; readonly snapshotId: string }
  | { readonly kind: "extend"; readonly step: "grow"; readonly sizeGib: number }
  | {
      readonly kind: "connect";
      readonly step: "open";
      readonly exportId: string;
      readonly transport: "unix" | "tcp" | "iscsi";
      readonly isReadOnly: boolean;
      /** Over iSCSI: the only one that may log in. */
      readonly initiator?: string;
    }
  | { readonly kind: "connect"; readonly step: "undo"; readonly exportId: string; readonly reason: string }
  | { readonly kind: "disconnect"; readonly step: "close"; readonly exportIds: readonly string[] };

export type TaskEvent =
  | { readonly kind: "pool-chosen"; readonly backend: string }
  | { readonly kind: "no-pool"; readonly reason: string }
  /** The call to the host was answered. */
  | { readonly kind: "done" }
  | { readonly kind: "exported" }
  /** The host's answer is final. */
  | { readonly kind: "refused"; readonly code: string; readonly reason: string }
  | { readonly kind: "given-up"; readonly reason: string };

/** What is written in one transaction when a step has ended. */
export type TaskStep =
  | { readonly kind: "continue"; readonly task: VolumeTask }
  | { readonly kind: "end"; readonly outcome: TaskOutcome };

export type TaskOutcome =
  | { readonly kind: "volume"; readonly event: VolumeEvent; readonly reason?: string }
  | { readonly kind: "volume-gone" }
  | {
      readonly kind: "snapshot";
      readonly snapshotId: string;
      readonly event: SnapshotEvent;
      readonly reason?: string;
    }
  | { readonly kind: "snapshot-gone"; readonly snapshotId: string }
  /** The volume's end, and that the snapshot is at rest again. */
  | {
      readonly kind: "revert-ended";
      readonly snapshotId: string;
      readonly event: VolumeEvent;
      readonly reason?: string;
    }
  | { readonly kind: "connected"; readonly exportId: string }
  | { readonly kind: "connect-failed"; readonly exportId: string; readonly reason: string }
  | { readonly kind: "disconnected"; readonly exportIds: readonly string[] }
  | { readonly kind: "disconnect-failed"; readonly exportIds: readonly string[]; readonly reason: string };

/** Pools that one volume is tried in; Cinder's scheduler_max_attempts. */
export const SCHEDULE_ATTEMPTS = 3;

const next = (task: VolumeTask): TaskStep => ({ kind: "continue", task });
const end = (outcome: TaskOutcome): TaskStep => ({ kind: "end", outcome });
const createFailed = (reason: string): TaskStep =>
  end({ kind: "volume", event: { kind: "create-failed" }, reason: reason.slice(0, 255) });

const stepCreate = (task: Extract<VolumeTask, { kind: "create" }>, event: TaskEvent): TaskStep => {
  switch (task.step) {
    case "schedule":
      if (event.kind === "pool-chosen") {
        return next({ kind: "create", step: "make", backend: event.backend, excluded: task.excluded });
      }
      return createFailed("reason" in event ? event.reason : "no pool was chosen");
    case "make": {
      if (event.kind === "done") return end({ kind: "volume", event: { kind: "created" } });
      const excluded = [...task.excluded, task.backend];
      if (event.kind === "refused" && event.code === "pool-full" && excluded.length < SCHEDULE_ATTEMPTS) {
        return next({ kind: "create", step: "schedule", excluded });
      }
      const reason = "reason" in event ? event.reason : "it could not be made";
      return next({ kind: "create", step: "unmake", backend: task.backend, reason });
    }
    case "unmake":
      // What could not be removed now is removed with the volume: its row keeps where it is.
      return createFailed(task.reason);
  }
};

const stepDelete = (task: Extract<VolumeTask, { kind: "delete" }>, event: TaskEvent): TaskStep => {
  if (event.kind !== "done") {
    const reason = "reason" in event ? event.reason : "it could not be deleted";
    return end({ kind: "volume", event: { kind: "delete-failed" }, reason });
  }
  switch (task.step) {
    case "close":
      return next({ kind: "delete", step: "drop-snapshots" });
    case "drop-snapshots":
      return next({ kind: "delete", step: "unmake" });
    case "unmake":
      return end({ kind: "volume-gone" });
  }
};

/** In words, as long as columns and messages take. */
const reasonOf = (event: TaskEvent, otherwise: string): string =>
  ("reason" in event ? event.reason : otherwise).slice(0, 255);

const stepSnapshot = (task: Extract<VolumeTask, { kind: "snapshot" }>, event: TaskEvent): TaskStep => {
  const { snapshotId } = task;
  if (task.step === "undo")
    return end({ kind: "snapshot", snapshotId, event: { kind: "create-failed" }, reason: task.reason });
  if (event.kind === "done") return end({ kind: "snapshot", snapshotId, event: { kind: "created" } });
  return next({ kind: "snapshot", step: "undo", snapshotId, reason: reasonOf(event, "it could not be taken") });
};

const stepUnsnapshot = ({ snapshotId }: Extract<VolumeTask, { kind: "unsnapshot" }>, event: TaskEvent): TaskStep =>
  event.kind === "done"
    ? end({ kind: "snapshot-gone", snapshotId })
    : end({
        kind: "snapshot",
        snapshotId,
        event: { kind: "delete-failed" },
        reason: reasonOf(event, "it could not be deleted"),
      });

const stepRevert = ({ snapshotId }: Extract<VolumeTask, { kind: "revert" }>, event: TaskEvent): TaskStep =>
  event.kind === "done"
    ? end({ kind: "revert-ended", snapshotId, event: { kind: "reverted" } })
    : end({
        kind: "revert-ended",
        snapshotId,
        event: { kind: "revert-failed" },
        reason: reasonOf(event, "it could not be reverted"),
      });

const stepConnect = (task: Extract<VolumeTask, { kind: "connect" }>, event: TaskEvent): TaskStep => {
  const { exportId } = task;
  if (task.step === "undo") return end({ kind: "connect-failed", exportId, reason: task.reason });
  if (event.kind === "exported") return end({ kind: "connected", exportId });
  const reason = "reason" in event ? event.reason : "it could not be exported";
  return next({ kind: "connect", step: "undo", exportId, reason });
};

/** What follows when the step of `task` ended with `event`. Pure. */
export const stepTask = (task: VolumeTask, event: TaskEvent): TaskStep => {
  switch (task.kind) {
    case "create":
      return stepCreate(task, event);
    case "delete":
      return stepDelete(task, event);
    case "extend":
      return end({
        kind: "volume",
        event: event.kind === "done" ? { kind: "extended" } : { kind: "extend-failed" },
        ...("reason" in event ? { reason: event.reason } : {}),
      });
    case "snapshot":
      return stepSnapshot(task, event);
    case "unsnapshot":
      return stepUnsnapshot(task, event);
    case "revert":
      return stepRevert(task, event);
    case "connect":
      return stepConnect(task, event);
    case "disconnect":
      return event.kind === "done"
        ? end({ kind: "disconnected", exportIds: task.exportIds })
        : end({
            kind: "disconnect-failed",
            exportIds: task.exportIds,
            reason: "reason" in event ? event.reason : "it could not be closed",
          });
  }
};
