import type { TaskOutcome } from "../core/volume-task.ts";
import type { AttachmentStatus } from "../core/volume-state.ts";
import type { BlockTransaction } from "./schema.ts";
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
    case "volume": {
      const { event, reason } = outcome;
      if (event.kind === "extended" || event.kind === "extend-failed")
        await settleGrowth(transaction, volume, event.kind === "extended");
      await settleVolume(transaction, volume, event, nowMs);
      // Attachments that came and went while it grew.
      if (event.kind === "extended") {
        const grown = await findVolume(transaction, volumeId);
        if (grown !== undefined) await followAttachments(transaction, grown, nowMs);
      }
      const failure = reason ?? null;
      await transaction.updateTable("volumes").set({ failure }).where("id", "=", volumeId).execute();
      return;
    }
    case "volume-gone":
      await transaction.deleteFrom("volumes").where("id", "=", volumeId).execute();
      return;
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
