import type { Selectable } from "kysely";
import { withTransaction } from "../../common/sql/transaction.ts";
import type { BackupStoresTable } from "./backup-schema.ts";
import type { BlockDatabase, BlockTransaction } from "./schema.ts";

/** A sweep under way. Whose `untilMs` is not that of the store any more has lost it. */
export type SweepLease = {
  readonly projectId: string;
  /** Of what is left, as the sweep found it. */
  readonly garbageSinceMs: Selectable<BackupStoresTable>["garbage_since_ms"];
  untilMs: number;
};

/** Steps of tasks that count on what is in the store, whether anybody needs it or not. */
const COPYING = ["copy", "seal"];

/** Something was left in the project's store, or may have been. */
export const markGarbage = async (database: BlockDatabase, projectId: string, nowMs: number): Promise<void> => {
  const empty = { sweep_until_ms: 0, swept_at_ms: null, failure: null };
  await database
    .insertInto("backup_stores")
    .values({ project_id: projectId, garbage_since_ms: nowMs, ...empty })
    .onConflict((conflict) => conflict.column("project_id").doUpdateSet({ garbage_since_ms: nowMs }))
    .execute();
};

/** True while what is in the store may be on its way out. Requires: in the transaction that lets a backup copy. */
export const isSwept = async (transaction: BlockTransaction, projectId: string, nowMs: number): Promise<boolean> =>
  (await transaction
    .selectFrom("backup_stores")
    .select("project_id")
    .where("project_id", "=", projectId)
    .where("sweep_until_ms", ">", nowMs)
    .executeTakeFirst()) !== undefined;

/** A store whose garbage is as old as `before`, which nobody sweeps and no backup copies into; from now on this caller's, for `leaseMs`. */
export const beginSweep = (
  database: BlockDatabase,
  beforeMs: number,
  nowMs: number,
  leaseMs: number,
): Promise<SweepLease | undefined> =>
  withTransaction(database, async (transaction) => {
    const store = await transaction
      .selectFrom("backup_stores")
      .selectAll()
      .where("garbage_since_ms", "is not", null)
      .where("garbage_since_ms", "<=", beforeMs)
      .where("sweep_until_ms", "<=", nowMs)
      .where((where) =>
        where.not(
          where.exists(
            where
              .selectFrom("backup_tasks")
              .select("backup_tasks.id")
              .whereRef("backup_tasks.store_project_id", "=", "backup_stores.project_id")
              .where("backup_tasks.step", "in", COPYING),
          ),
        ),
      )
      .orderBy("garbage_since_ms")
      .limit(1)
      .executeTakeFirst();
    if (store === undefined) return undefined;
    const sweep_until_ms = nowMs + leaseMs;
    await transaction
      .updateTable("backup_stores")
      .set({ sweep_until_ms })
      .where("project_id", "=", store.project_id)
      .execute();
    return { projectId: store.project_id, garbageSinceMs: store.garbage_since_ms, untilMs: sweep_until_ms };
  });

/** Keeps the sweep for longer. False: it is over, and a backup may copy. */
export const renewSweep = async (
  database: BlockDatabase,
  projectId: string,
  knownUntilMs: number,
  untilMs: number,
): Promise<boolean> => {
  const { numUpdatedRows } = await database
    .updateTable("backup_stores")
    .set({ sweep_until_ms: untilMs })
    .where("project_id", "=", projectId)
    .where("sweep_until_ms", "=", knownUntilMs)
    .executeTakeFirst();
  return numUpdatedRows > 0n;
};

/**
 * `garbageSinceMs`: of what is left; null: nothing. What was left meanwhile stays said. Resolves with false, nothing changed, where the lease is lost: it is
 * another sweep's now, and backups must not begin to copy under that one.
 */
export const endSweep = (
  database: BlockDatabase,
  { projectId, garbageSinceMs: known, untilMs }: SweepLease,
  ended: { readonly garbageSinceMs: number | null; readonly nowMs: number; readonly failure: string | null },
): Promise<boolean> =>
  withTransaction(database, async (transaction) => {
    const ofStore = transaction.updateTable("backup_stores").where("project_id", "=", projectId);
    const { numUpdatedRows } = await ofStore
      .set({ sweep_until_ms: 0, swept_at_ms: ended.nowMs, failure: ended.failure })
      .where("sweep_until_ms", "=", untilMs)
      .executeTakeFirst();
    if (numUpdatedRows === 0n) return false;
    await ofStore.set({ garbage_since_ms: ended.garbageSinceMs }).where("garbage_since_ms", "=", known).execute();
    return true;
  });
