import { randomUUID } from "node:crypto";
import { blockError, notFound } from "../core/block-error.ts";
import { enqueueBackupTask } from "./backup-tasks.ts";
import { assertBackupQuota, type Backup, backupForChange, changeBackup, latestBackup } from "./backups.ts";
import { notesOf } from "./backup-volume-notes.ts";
import { writePairs } from "./pairs.ts";
import type { BlockTransaction } from "./schema.ts";
import { changeSnapshot, snapshotForChange } from "./snapshots.ts";
import { changeVolume, type Volume } from "./volumes.ts";

/** A backup that is to be made; whoever announces it has checked its texts. */
export type WantedBackup = {
  readonly projectId: string;
  readonly userId: string;
  readonly snapshotId: string | undefined;
  /** Upon the project's latest of the volume: in any case, where there is one, or not. */
  readonly increment: "always" | "if-possible" | "never";
  /** Also of a volume that is attached. */
  readonly isForced: boolean;
  readonly name: string | null;
  readonly description: string | null;
  readonly container: string;
  readonly zone: string;
  readonly metadata: Readonly<Record<string, string>>;
};

/** When the volume was as the backup will be, and of what size, with the volume or the snapshot announced as being backed up. */
const takeSource = async (
  transaction: BlockTransaction,
  volume: Volume,
  { snapshotId, isForced }: WantedBackup,
  nowMs: number,
): Promise<{ readonly sizeGib: number; readonly takenAtMs: number }> => {
  if (snapshotId === undefined) {
    if (volume.status === "in-use" && !isForced)
      throw blockError("invalid-state", "Invalid volume: Backing up an in-use volume must use the force flag.");
    if (volume.status !== "available" && volume.status !== "in-use")
      throw blockError(
        "invalid-state",
        `Invalid volume: The volume to be backed up must be available or in-use, but the current status is "${volume.status}".`,
      );
    await changeVolume(transaction, volume, { kind: "back-up", mayBeAttached: isForced }, nowMs);
    return { sizeGib: volume.size_gib, takenAtMs: nowMs };
  }
  const snapshot = await snapshotForChange(transaction, snapshotId);
  if (snapshot.volume_id !== volume.id) throw notFound("Snapshot", snapshotId);
  if (snapshot.status !== "available")
    throw blockError(
      "invalid-state",
      `Invalid snapshot: Snapshot to be backed up must be available, but the current status is "${snapshot.status}".`,
    );
  await changeSnapshot(transaction, snapshot, { kind: "back-up" }, nowMs);
  return { sizeGib: snapshot.size_gib, takenAtMs: Number(snapshot.created_at_ms) };
};

/** The row, its quota and its task, in the transaction of the caller. Throws `not-found`, `invalid-state`, `over-quota`. */
export const announceBackup = async (
  transaction: BlockTransaction,
  volume: Volume,
  wanted: WantedBackup,
  nowMs: number,
): Promise<Backup> => {
  const { projectId, snapshotId, increment } = wanted;
  const parent = increment === "never" ? undefined : await latestBackup(transaction, projectId, volume.id);
  if (parent === undefined && increment === "always")
    throw blockError("invalid-state", "Invalid backup: No backups available to do an incremental backup.");
  const { sizeGib, takenAtMs } = await takeSource(transaction, volume, wanted, nowMs);
  await assertBackupQuota(transaction, projectId, sizeGib);
  const id = randomUUID();
  const row: Backup = {
    id,
    project_id: projectId,
    user_id: wanted.userId,
    // An increment shares pages with what it is made upon.
    store_project_id: parent?.store_project_id ?? projectId,
    volume_id: volume.id,
    snapshot_id: snapshotId ?? null,
    base_id: snapshotId ?? id,
    parent_id: parent?.id ?? null,
    name: wanted.name,
    description: wanted.description,
    container: wanted.container,
    availability_zone: wanted.zone,
    volume_notes: await notesOf(transaction, volume),
    size_gib: sizeGib,
    object_count: 0,
    status: "creating",
    fail_reason: null,
    data_timestamp_ms: takenAtMs,
    created_at_ms: nowMs,
    updated_at_ms: null,
  };
  await transaction.insertInto("backups").values(row).execute();
  await writePairs(transaction, "backup_metadata", id, wanted.metadata, true);
  await enqueueBackupTask(transaction, row, { kind: "create", step: "freeze" }, nowMs);
  return row;
};

/** Hands the deletion to a task, in the transaction of the caller. `isForced`: whatever the status is. Throws `not-found`, `invalid-state`. */
export const announceBackupDeletion = async (
  transaction: BlockTransaction,
  id: string,
  isForced: boolean,
  nowMs: number,
): Promise<void> => {
  const backup = await backupForChange(transaction, id);
  const increment = await transaction
    .selectFrom("backups")
    .select("id")
    .where("parent_id", "=", id)
    .where("status", "=", "creating")
    .executeTakeFirst();
  if (increment !== undefined)
    throw blockError("invalid-state", `Invalid backup: The incremental backup ${increment.id} is being made upon it.`);
  await changeBackup(transaction, backup, { kind: isForced ? "force-delete" : "delete" }, nowMs);
  await enqueueBackupTask(transaction, backup, { kind: "delete", step: "unlink" }, nowMs);
};
