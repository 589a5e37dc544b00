import { type Backup, changeBackup } from "./backups.ts";
import { enqueueBackupTask } from "./backup-tasks.ts";
import type { BlockTransaction } from "./schema.ts";

/**
 * Writes down that the volume gets the backup's content, in the transaction that decided it. `isBlank`: the volume is made for this, in the same
 * transaction. Throws `invalid-state`.
 */
export const announceRestoration = async (
  transaction: BlockTransaction,
  backup: Backup,
  volumeId: string,
  isBlank: boolean,
  nowMs: number,
): Promise<void> => {
  await changeBackup(transaction, backup, { kind: "restore" }, nowMs);
  await enqueueBackupTask(transaction, backup, { kind: "restore", step: "await", volumeId, isBlank }, nowMs);
};
