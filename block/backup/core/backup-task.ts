/**
 * What is done for a backup, as records: the next step stands in the database before it is done, and what came of it together with the one
 * after. Whoever was killed in between does the step again, and finds what it had done: chunks have the names of their content, pages that were
 * written stand in a table, calls to hosts may be made twice.
 *
 *     create   freeze ──▶ enter ──▶ copy ──▶ seal ──▶ tidy ──▶ (created)
 *                 └────────┴─ refused or given up ─┴──▶ undo ──▶ (create-failed)
 *     delete   unlink ──▶ (row removed)                              refused or given up ▶ (delete-failed)
 *     restore  await ──▶ check ──▶ write ──▶ finish ──▶ (restored)
 *                 │        │ lazy     ▲ no room
 *                 │        ▼          │
 *                 │       open ───────┘
 *                 │        └──▶ fill (the volume may be used) ──▶ (filled)      damaged ▶ (fill-failed)
 *                 └─ from all before: refused or given up ──▶ close ──▶ (restore-failed)
 *
 * freeze: the volume's snapshot at its host. enter: waits until no sweep of the store is under way; from then to the end of seal none begins.
 * copy: chunks and pages. seal: the list of pages, with which the backup is there. tidy: the snapshot of the backup before goes. await: the volume
 * that is being made is there. check: all that is to be read is there, before a byte is written. open: the host reads from the backup what the volume
 * does not have, by itself, and fills the volume. fill: waits until it needs the backup no more, which nobody deletes meanwhile; a host that is silent
 * is waited for as long as it takes, and a failure is the volume's only where nothing else was restored into that since.
 */
export type BackupTask =
  | { readonly kind: "create"; readonly step: "freeze" | "enter" | "copy" | "seal" | "tidy" }
  | { readonly kind: "create"; readonly step: "undo"; readonly reason: string }
  | { readonly kind: "delete"; readonly step: "unlink" }
  | ({ readonly kind: "restore"; readonly step: "await" | "check" | "open" | "write" | "finish" } & Restored)
  /** `isSuperseded`: the volume was given another restoration since, and what becomes of this one does not concern it. */
  | ({
      readonly kind: "restore";
      readonly step: "fill";
      readonly backend: string;
      readonly isSuperseded?: boolean;
    } & Restored)
  | ({ readonly kind: "restore"; readonly step: "close"; readonly reason: string } & Restored);

/** Which volume it is, and whether it was made for this and reads as zeros. */
type Restored = {
  readonly volumeId: string;
  readonly isBlank: boolean;
  /** Pages before this one are in the volume, flushed; without it none need be. */
  readonly firstPage?: number;
  /** It may be used before it has all of it. The id of this restoration at the host, which does one but once. */
  readonly restorationId?: string;
};

export type BackupTaskEvent =
  | { readonly kind: "done" }
  /** What it waits for has not happened, and nothing is wrong. */
  | { readonly kind: "later" }
  /** The volume reads as the backup. */
  | { readonly kind: "opened"; readonly backend: string }
  /** Its pool has no room to be filled beside what the volume had. */
  | { readonly kind: "no-room" }
  | { readonly kind: "refused" | "given-up"; readonly reason: string };

export type BackupTaskStep =
  /** With an outcome that is not the end. */
  | { readonly kind: "continue"; readonly task: BackupTask; readonly outcome?: BackupOutcome }
  | { readonly kind: "wait" }
  | { readonly kind: "end"; readonly outcome: BackupOutcome };

export type BackupOutcome =
  | { readonly kind: "created" }
  | { readonly kind: "create-failed"; readonly reason: string }
  | { readonly kind: "gone" }
  | { readonly kind: "delete-failed"; readonly reason: string }
  | { readonly kind: "restored"; readonly volumeId: string }
  /** It may be used, and the backup is still needed. */
  | { readonly kind: "opened"; readonly volumeId: string }
  | { readonly kind: "filled" }
  /** Without a volume where that has been restored again since. */
  | { readonly kind: "fill-failed"; readonly volumeId: string | undefined; readonly reason: string }
  | { readonly kind: "restore-failed"; readonly volumeId: string; readonly reason: string };

/** Of Cinder's column. */
const REASON_CHARACTERS = 255;

const next = (task: BackupTask): BackupTaskStep => ({ kind: "continue", task });
const end = (outcome: BackupOutcome): BackupTaskStep => ({ kind: "end", outcome });

const AFTER_CREATE = { freeze: "enter", enter: "copy", copy: "seal", seal: "tidy" } as const;
const AFTER_RESTORE = { await: "check", check: "write", open: "write", write: "finish" } as const;

const stepCreate = (task: Extract<BackupTask, { kind: "create" }>, failure: string | undefined): BackupTaskStep => {
  if (task.step === "undo") return end({ kind: "create-failed", reason: task.reason });
  // What is left of the one before is dropped with the next one, or with the volume.
  if (task.step === "tidy") return end({ kind: "created" });
  if (failure !== undefined) return next({ kind: "create", step: "undo", reason: failure });
  return next({ kind: "create", step: AFTER_CREATE[task.step] });
};

const stepRestore = (
  task: Extract<BackupTask, { kind: "restore" }>,
  event: BackupTaskEvent,
  failure: string | undefined,
): BackupTaskStep => {
  const { volumeId, isBlank, restorationId } = task;
  if (task.step === "fill") {
    if (event.kind === "given-up") return { kind: "wait" };
    if (failure === undefined) return end({ kind: "filled" });
    return end({ kind: "fill-failed", volumeId: task.isSuperseded === true ? undefined : volumeId, reason: failure });
  }
  if (task.step === "close") return end({ kind: "restore-failed", volumeId, reason: task.reason });
  if (failure !== undefined) return next({ kind: "restore", step: "close", volumeId, isBlank, reason: failure });
  if (task.step === "finish") return end({ kind: "restored", volumeId });
  const restored = { volumeId, isBlank, ...(restorationId === undefined ? {} : { restorationId }) };
  if (event.kind === "opened") {
    const { backend } = event;
    const filling: BackupTask = { kind: "restore", step: "fill", backend, ...restored };
    return { kind: "continue", task: filling, outcome: { kind: "opened", volumeId } };
  }
  if (task.step === "check" && restorationId !== undefined) return next({ kind: "restore", step: "open", ...restored });
  return next({ kind: "restore", step: AFTER_RESTORE[task.step], ...restored });
};

/** What follows when the step of `task` ended with `event`. Pure. */
export const stepBackupTask = (task: BackupTask, event: BackupTaskEvent): BackupTaskStep => {
  if (event.kind === "later") return { kind: "wait" };
  const failure = "reason" in event ? event.reason.slice(0, REASON_CHARACTERS) : undefined;
  switch (task.kind) {
    case "create":
      return stepCreate(task, failure);
    case "delete":
      return end(failure === undefined ? { kind: "gone" } : { kind: "delete-failed", reason: failure });
    case "restore":
      return stepRestore(task, event, failure);
  }
};
