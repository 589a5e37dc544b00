import type { BackupOutcome } from "../backup/core/backup-task.ts";
import { type Backup, settleBackup } from "./backups.ts";
import { applyNotes } from "./backup-volume-notes.ts";
import { markGarbage } from "./backup-stores.ts";
import { addMessage } from "./messages.ts";
import type { BlockTransaction } from "./schema.ts";
import { findSnapshot, settleSnapshot } from "./snapshots.ts";
import { findVolume, followAttachments, settleVolume } from "./volumes.ts";

/** The volume, or the snapshot, that a backup was made of is at rest again. */
const settleSource = async (transaction: BlockTransaction, backup: Backup, nowMs: number): Promise<void> => {
  if (backup.snapshot_id !== null) {
    const snapshot = await findSnapshot(transaction, backup.snapshot_id);
    if (snapshot !== undefined) await settleSnapshot(transaction, snapshot, { kind: "backed-up" }, nowMs);
    return;
  }
  const volume = await findVolume(transaction, backup.volume_id);
  if (volume?.status !== "backing-up") return;
  await settleVolume(transaction, volume, { kind: "backed-up" }, nowMs);
  // Attachments that came and went meanwhile.
  const rested = await findVolume(transaction, volume.id);
  if (rested !== undefined) await followAttachments(transaction, rested, nowMs);
};

const settleRestored = async (
  transaction: BlockTransaction,
  volumeId: string,
  reason: string | null,
  nowMs: number,
): Promise<void> => {
  const volume = await findVolume(transaction, volumeId);
  if (volume === undefined) return;
  await settleVolume(transaction, volume, { kind: reason === null ? "restored" : "restore-failed" }, nowMs);
  await transaction.updateTable("volumes").set({ failure: reason }).where("id", "=", volumeId).execute();
};

/** Writes what became of a task, in the transaction that removes it. */
export const settleBackupOutcome = async (
  transaction: BlockTransaction,
  backup: Backup,
  outcome: BackupOutcome,
  nowMs: number,
): Promise<void> => {
  const fail = async (reason: string | null): Promise<void> => {
    await transaction.updateTable("backups").set({ fail_reason: reason }).where("id", "=", backup.id).execute();
  };
  const about = { projectId: backup.project_id, resourceType: "VOLUME_BACKUP", resourceId: backup.id } as const;
  switch (outcome.kind) {
    case "created":
      await settleBackup(transaction, backup, { kind: "created" }, nowMs);
      await transaction.deleteFrom("backup_pages").where("backup_id", "=", backup.id).execute();
      return settleSource(transaction, backup, nowMs);
    case "create-failed":
      await settleBackup(transaction, backup, { kind: "create-failed" }, nowMs);
      await fail(outcome.reason);
      await transaction.deleteFrom("backup_pages").where("backup_id", "=", backup.id).execute();
      await markGarbage(transaction, backup.store_project_id, nowMs);
      await addMessage(transaction, { ...about, action: "backup-create", detail: "backup-create-failed" }, nowMs);
      return settleSource(transaction, backup, nowMs);
    case "gone":
      await transaction.deleteFrom("backups").where("id", "=", backup.id).execute();
      return markGarbage(transaction, backup.store_project_id, nowMs);
    case "delete-failed":
      await settleBackup(transaction, backup, { kind: "delete-failed" }, nowMs);
      await fail(outcome.reason);
      return addMessage(transaction, { ...about, action: "backup-delete", detail: "backup-delete-failed" }, nowMs);
    case "restored":
      await settleBackup(transaction, backup, { kind: "restore-ended" }, nowMs);
      await fail(null);
      await applyNotes(transaction, backup, outcome.volumeId);
      return settleRestored(transaction, outcome.volumeId, null, nowMs);
    case "opened":
      await applyNotes(transaction, backup, outcome.volumeId);
      return settleRestored(transaction, outcome.volumeId, null, nowMs);
    case "filled":
      await settleBackup(transaction, backup, { kind: "restore-ended" }, nowMs);
      return fail(null);
    case "fill-failed":
    case "restore-failed":
      await settleBackup(transaction, backup, { kind: "restore-ended" }, nowMs);
      await fail(outcome.reason);
      await addMessage(transaction, { ...about, action: "backup-restore", detail: "backup-restore-failed" }, nowMs);
      if (outcome.volumeId === undefined) return;
      return settleRestored(transaction, outcome.volumeId, outcome.reason, nowMs);
  }
};
