import { randomUUID } from "node:crypto";
import { type Backup, changeBackup } from "./backups.ts";
import { enqueueBackupTask, supersedeFillings } from "./backup-tasks.ts";
import type { BlockTransaction } from "./schema.ts";

/**
 * Writes down that the volume gets the backup's content, in the transaction that decided it. `isBlank`: the volume is made for this, in the same
 * transaction. `isLazy`: it may be used before it has all of it. Throws `invalid-state`.
 */
export const announceRestoration = async (
  transaction: BlockTransaction,
  backup: Backup,
  volumeId: string,
  { isBlank, isLazy }: { readonly isBlank: boolean; readonly isLazy: boolean },
  nowMs: number,
): Promise<void> => {
  await changeBackup(transaction, backup, { kind: "restore" }, nowMs);
  await supersedeFillings(transaction, volumeId);
  const how = isLazy ? { restorationId: randomUUID() } : {};
  await enqueueBackupTask(transaction, backup, { kind: "restore", step: "await", volumeId, isBlank, ...how }, nowMs);
};
