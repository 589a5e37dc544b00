import { type Selectable, sql } from "kysely";
import { type BackupEvent, stepBackup } from "../backup/core/backup-state.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { exceeds } from "../core/quota.ts";
import type { BackupsTable } from "./backup-schema.ts";
import { limitsOf } from "./quotas.ts";
import { writeStatus } from "./statuses.ts";
import type { BlockDatabase, BlockTransaction } from "./schema.ts";

export type Backup = Selectable<BackupsTable>;

export const findBackup = (database: BlockDatabase, id: string): Promise<Backup | undefined> =>
  database.selectFrom("backups").selectAll().where("id", "=", id).executeTakeFirst();

/** Throws `not-found`. */
export const backupForChange = async (transaction: BlockTransaction, id: string): Promise<Backup> => {
  const backup = await findBackup(transaction, id);
  if (backup === undefined) throw notFound("Backup", id);
  return backup;
};

/** The one that an increment would be made upon. */
export const latestBackup = (
  database: BlockDatabase,
  projectId: string,
  volumeId: string,
): Promise<Backup | undefined> =>
  database
    .selectFrom("backups")
    .selectAll()
    .where("project_id", "=", projectId)
    .where("volume_id", "=", volumeId)
    .where("status", "in", ["available", "restoring"])
    .orderBy("data_timestamp_ms", "desc")
    .limit(1)
    .executeTakeFirst();

const write = (
  transaction: BlockTransaction,
  backup: Backup,
  event: BackupEvent,
  nowMs: number,
): Promise<readonly string[] | undefined> =>
  writeStatus(transaction, "backups", backup.id, stepBackup(backup.status, event), nowMs);

/** Does to the backup what a caller asks for, or throws `invalid-state` in Cinder's words. */
export const changeBackup = async (
  transaction: BlockTransaction,
  backup: Backup,
  event: BackupEvent,
  nowMs: number,
): Promise<void> => {
  const allowed = await write(transaction, backup, event, nowMs);
  if (allowed === undefined) return;
  throw blockError("invalid-state", `Invalid backup: Backup status must be ${allowed.join(" or ")}`, {
    backup: backup.id,
    status: backup.status,
  });
};

/** Writes what became of an operation. Where the backup was meanwhile forced into another status, that one holds. */
export const settleBackup = async (
  transaction: BlockTransaction,
  backup: Backup,
  event: BackupEvent,
  nowMs: number,
): Promise<void> => void (await write(transaction, backup, event, nowMs));

export const backupUsageOf = async (
  database: BlockDatabase,
  projectId: string,
): Promise<{ readonly backups: number; readonly gigabytes: number }> => {
  const { backups, gigabytes } = await database
    .selectFrom("backups")
    .select([sql<number>`COUNT(*)`.as("backups"), sql<number>`COALESCE(SUM(size_gib), 0)`.as("gigabytes")])
    .where("project_id", "=", projectId)
    .executeTakeFirstOrThrow();
  return { backups: Number(backups), gigabytes: Number(gigabytes) };
};

/** Throws `over-quota` where the project may have no further backup of that size. Requires: in the transaction that adds it. */
export const assertBackupQuota = async (
  transaction: BlockTransaction,
  projectId: string,
  sizeGib: number,
): Promise<void> => {
  const limitOf = await limitsOf(transaction, projectId);
  const usage = await backupUsageOf(transaction, projectId);
  const count = exceeds("backups", limitOf("backups"), usage.backups, 1);
  if (count !== undefined)
    throw blockError("over-quota", `BackupLimitExceeded: Maximum number of backups allowed (${count.limit}) exceeded`, {
      ...count,
    });
  const size = exceeds("backup_gigabytes", limitOf("backup_gigabytes"), usage.gigabytes, sizeGib);
  if (size !== undefined)
    throw blockError(
      "over-quota",
      `VolumeBackupSizeExceedsAvailableQuota: Requested backup exceeds allowed Backup gigabytes quota. Requested ${sizeGib}G, quota is ${size.limit}G and ${size.inUse}G has been consumed.`,
      { ...size },
    );
};

/** Snapshots at the host that were taken for backups of the volume. */
export const basesOf = async (database: BlockDatabase, volumeId: string): Promise<readonly string[]> =>
  (await database.selectFrom("backup_bases").select("id").where("volume_id", "=", volumeId).execute()).map(
    ({ id }) => id,
  );

export const forgetBase = async (database: BlockDatabase, id: string): Promise<void> => {
  await database.deleteFrom("backup_bases").where("id", "=", id).execute();
};
