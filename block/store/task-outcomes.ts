import type { TaskOutcome } from "../core/volume-task.ts";
import type { AttachmentStatus, VolumeEvent } from "../core/volume-state.ts";
import type { SnapshotEvent } from "../core/snapshot-state.ts";
import { isRestorationAwaited } from "./backup-tasks.ts";
import { followGroup, followGroupSnapshot } from "./groups.ts";
import { addMessage } from "./messages.ts";
import type { BlockTransaction } from "./schema.ts";
import { findSnapshot, settleSnapshot, snapshotsOf } from "./snapshots.ts";
import { findVolume, followAttachments, settleVolume, type Volume } from "./volumes.ts";

const setAttachments = async (
  transaction: BlockTransaction,
  ids: readonly string[],
  status: AttachmentStatus,
): Promise<void> => {
  if (ids.length === 0) return;
  await transaction.updateTable("attachments").set({ attach_status: status }).where("id", "in", ids).execute();
};

const settleGrowth = async (transaction: BlockTransaction, volume: Volume, hasGrown: boolean): Promise<void> => {
  const size = hasGrown && volume.wanted_size_gib !== null ? { size_gib: volume.wanted_size_gib } : {};
  await transaction
    .updateTable("volumes")
    .set({ ...size, wanted_size_gib: null })
    .where("id", "=", volume.id)
    .execute();
};

/** Snapshots that were to go with their volume, and did not. */
const keepSnapshots = async (transaction: BlockTransaction, volumeId: string, nowMs: number): Promise<void> => {
  for (const snapshot of await snapshotsOf(transaction, volumeId))
    await settleSnapshot(transaction, snapshot, { kind: "delete-failed" }, nowMs);
};

/** What its project's members are told of a volume that failed. */
const tellOfVolume = async (
  transaction: BlockTransaction,
  volume: Volume,
  kind: VolumeEvent["kind"],
  nowMs: number,
): Promise<void> => {
  const about = { projectId: volume.project_id, resourceType: "VOLUME", resourceId: volume.id } as const;
  if (kind === "create-failed") {
    const failed =
      volume.backend === null
        ? ({ action: "schedule", detail: "no-backend" } as const)
        : ({ action: "create", detail: "create-failed" } as const);
    await addMessage(transaction, { ...about, ...failed }, nowMs);
  }
  if (kind === "extend-failed")
    await addMessage(transaction, { ...about, action: "extend", detail: "extend-failed" }, nowMs);
};

const settleVolumeEnd = async (
  transaction: BlockTransaction,
  volume: Volume,
  event: VolumeEvent,
  reason: string | undefined,
  nowMs: number,
): Promise<void> => {
  if (event.kind === "extended" || event.kind === "extend-failed")
    await settleGrowth(transaction, volume, event.kind === "extended");
  if (event.kind === "delete-failed") await keepSnapshots(transaction, volume.id, nowMs);
  await settleVolume(transaction, volume, event, nowMs);
  // Nobody has it before it has its content.
  if (event.kind === "created" && (await isRestorationAwaited(transaction, volume.id))) {
    const made = await findVolume(transaction, volume.id);
    if (made !== undefined) await settleVolume(transaction, made, { kind: "restore" }, nowMs);
  }
  // Attachments that came and went while it grew.
  if (event.kind === "extended") {
    const grown = await findVolume(transaction, volume.id);
    if (grown !== undefined) await followAttachments(transaction, grown, nowMs);
  }
  await transaction
    .updateTable("volumes")
    .set({ failure: reason ?? null })
    .where("id", "=", volume.id)
    .execute();
  await tellOfVolume(transaction, volume, event.kind, nowMs);
  await followGroup(transaction, volume.group_id);
};

const settleSnapshotEnd = async (
  transaction: BlockTransaction,
  snapshotId: string,
  event: SnapshotEvent,
  reason: string | undefined,
  nowMs: number,
): Promise<void> => {
  const snapshot = await findSnapshot(transaction, snapshotId);
  if (snapshot === undefined) return;
  await settleSnapshot(transaction, snapshot, event, nowMs);
  await transaction
    .updateTable("snapshots")
    .set({ failure: reason ?? null, ...(event.kind === "created" ? { progress: "100%" } : {}) })
    .where("id", "=", snapshotId)
    .execute();
  const about = { projectId: snapshot.project_id, resourceType: "VOLUME_SNAPSHOT", resourceId: snapshotId } as const;
  if (event.kind === "create-failed")
    await addMessage(transaction, { ...about, action: "snapshot-create", detail: "snapshot-create-failed" }, nowMs);
  if (event.kind === "delete-failed")
    await addMessage(transaction, { ...about, action: "snapshot-delete", detail: "snapshot-delete-failed" }, nowMs);
  await followGroupSnapshot(transaction, snapshot.group_snapshot_id);
};

/** Writes what became of a task, in the transaction that removes it. A volume that is gone has nothing to be written. */
export const settleOutcome = async (
  transaction: BlockTransaction,
  volumeId: string,
  outcome: TaskOutcome,
  nowMs: number,
): Promise<void> => {
  const volume = await findVolume(transaction, volumeId);
  if (volume === undefined) return;
  switch (outcome.kind) {
    case "volume":
      return settleVolumeEnd(transaction, volume, outcome.event, outcome.reason, nowMs);
    case "volume-gone":
      await transaction.deleteFrom("volumes").where("id", "=", volumeId).execute();
      return followGroup(transaction, volume.group_id);
    case "snapshot":
      return settleSnapshotEnd(transaction, outcome.snapshotId, outcome.event, outcome.reason, nowMs);
    case "snapshot-gone": {
      const gone = await findSnapshot(transaction, outcome.snapshotId);
      await transaction.deleteFrom("snapshots").where("id", "=", outcome.snapshotId).execute();
      return followGroupSnapshot(transaction, gone?.group_snapshot_id ?? null);
    }
    case "revert-ended":
      await settleVolumeEnd(transaction, volume, outcome.event, outcome.reason, nowMs);
      return settleSnapshotEnd(transaction, outcome.snapshotId, { kind: "revert-ended" }, undefined, nowMs);
    case "connected":
      return;
    case "connect-failed":
      await transaction
        .updateTable("attachments")
        .set({ attach_status: "error_attaching", connection_json: null })
        .where("id", "=", outcome.exportId)
        .execute();
      await transaction
        .deleteFrom("attachments")
        .where("id", "=", outcome.exportId)
        .where("is_connection", "=", 1)
        .execute();
      return followAttachments(transaction, volume, nowMs);
    case "disconnected":
      if (outcome.exportIds.length > 0)
        await transaction.deleteFrom("attachments").where("id", "in", outcome.exportIds).execute();
      return followAttachments(transaction, volume, nowMs);
    case "disconnect-failed":
      await setAttachments(transaction, outcome.exportIds, "error_detaching");
      return followAttachments(transaction, volume, nowMs);
  }
};
